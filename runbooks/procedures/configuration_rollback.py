"""What a runbook may say to ConfigurationRollback."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from recovery.models import Authored, Name
from runbooks.schema import Configuration, Estate

SYSTEMS = ("configurations",)
ESTATE = ("hosts", "clusters", "configurations")
ROLL_BACK, KEEP = "roll back", "keep what is not well"
GATES = (ROLL_BACK, KEEP)
BY = ("revision", "tag", "before", "deployment", "healthy")
"""The ways to find the good revision; a run has exactly one."""

Share = Annotated[str, Field(pattern=r"^([1-9][0-9]?|100)%$")]
Size = Annotated[int, Field(ge=1, le=10_000)] | Share


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to, or may come to."""
    return GATES


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a run with ``parameters`` passes a point of no return: all that it does can be taken back."""
    return False


class Parameters(Authored):
    """To which revision a configuration goes back, and in which steps.

    The good revision is found in one way: ``revision`` names it (a commit, or a tag); ``tag`` is a pattern of the
    newest one that is tagged so; ``before`` is a time at which it was there; ``healthy`` takes the newest that a
    deployment was recorded as healthy with; ``deployment`` is the id of one that failed: the same before that.

    ``canary`` are the targets that get it first (a name of the configuration's files, manifests or commands; one host
    is ``name@host``); without it the first one is. ``waves`` are how many come then, each a number or a share of all
    that are left to come; the last one repeats. A target has to be well within ``settle``, and for ``watch`` from then
    on, before the next wave.

    ``without`` are targets that are left as they are: a host that is gone, say. ``prune`` removes objects of a cluster
    that the good revision does not have. ``overrule`` are field managers of a cluster whose fields may be taken from
    them, since they are known: somebody's by hand, say.
    """

    revision: Name | None = None
    tag: Name | None = None
    before: AwareDatetime | None = None
    deployment: Name | None = None
    healthy: bool | None = None
    canary: tuple[Name, ...] = Field(default=(), max_length=100)
    without: tuple[Name, ...] = Field(default=(), max_length=1000)
    waves: tuple[Size, ...] = Field(default=("100%",), min_length=1, max_length=100)
    settle: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(0), le=timedelta(minutes=30))
    watch: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(0), le=timedelta(hours=1))
    prune: bool = False
    overrule: tuple[Name, ...] = Field(default=(), max_length=20)


def targets(configuration: Configuration) -> list[str]:
    """Return every target of a configuration by name, in the order of the estate: files, manifests, commands."""
    hosts = [f"{name}@{host}" for name, group in configuration.files.items() for host in group.hosts]
    return [*hosts, *configuration.manifests, *configuration.commands]


def meant(configuration: Configuration, name: str) -> list[str]:
    """Return the targets that ``name`` means: one of them, or each host of a group of files; none if it is unknown."""
    return [one for one in targets(configuration) if one == name or one.partition("@")[0] == name]


def faults(systems: tuple[str, ...], parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with the systems that a runbook names, for a run with ``parameters``."""
    if len(systems) != 1:
        return ["systems: name one configuration, and nothing else"]
    configuration = estate.configurations[systems[0]]
    found = [
        f"parameters.{field}: {name} is no target of {systems[0]}; there are: {', '.join(targets(configuration)[:20])}"
        for field in ("canary", "without")
        for name in parameters.get(field) or ()
        if not meant(configuration, name)
    ]
    left = {one for name in parameters.get("without") or () for one in meant(configuration, name)}
    if not set(targets(configuration)) - left:
        found.append("parameters.without: leaves no target; name fewer")
    found += [
        f"parameters.canary: {one} is left out by without; name another one"
        for name in parameters.get("canary") or ()
        for one in meant(configuration, name)
        if one in left
    ]
    given = [field for field in BY if parameters.get(field) not in (None, False)]
    if set(BY) <= set(parameters) and not given:  # a run; what a runbook leaves to who starts it is not there yet
        found.append(f"parameters: name the good revision by one of {', '.join(BY)}")
    if len(given) > 1:
        found.append(f"parameters.{given[1]}: {given[0]} is given, too; name the good revision in one way")
    return found
