"""What a runbook may say to DataCenterActivation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from recovery.models import Authored, Name, Text
from runbooks.references import driven_out
from runbooks.schema import Estate

SYSTEMS = ("databases", "stores", "services", "directors", "machines", "workloads", "alerting")
ESTATE = ("sites", "hosts", "clusters", *SYSTEMS, "safety")
PLANNED, LOSS, FENCE = "switch over", "accept the loss", "answer for the fence"
SHORTAGE, ATTEST = "accept the shortage", "attest the site"
GATES = (PLANNED, LOSS, FENCE, SHORTAGE, ATTEST)
INSTEAD = {SHORTAGE: LOSS}
"""Whose policy counts at a gate of which a runbook says nothing."""
AUTHORED = ("checks",)
"""Whoever starts a run does not say what is run on hosts."""

Check = Literal[
    "power and cooling", "network", "security configuration", "database", "application services", "load balancer",
    "monitoring", "security monitoring", "performance baseline", "full validation",
]  # fmt: skip
CHECKS: tuple[Check, ...] = get_args(Check)
"""What a data center that was recovered is checked for, in this order."""
OWN: tuple[Check, ...] = ("database", "application services", "load balancer", "full validation")
"""What a recovery proves by its own steps; a runbook may have more asked."""


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to, or may come to."""
    checks = parameters.get("checks") or {}
    attest = (ATTEST,) if any(isinstance(one, Mapping) and one.get("attest") for one in checks.values()) else ()
    if parameters.get("how", "planned") == "unplanned":
        return (LOSS, FENCE, SHORTAGE, *attest)
    return (PLANNED, LOSS, FENCE, SHORTAGE, *attest) if parameters.get("fence_by") else (PLANNED, *attest)


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a run with ``parameters`` passes a point of no return: then a hold has to say who is asked."""
    return True


class SiteCheck(Authored):
    """How one of the ten checks is made, in one of three ways.

    On a ``host`` a ``command`` for sh ends with 0; a ``url`` answers 200 within ``slowest``, several times; or people
    ``attest`` it, who are shown this sentence at a gate.
    """

    host: Name | None = None
    command: Text | None = None
    url: Text | None = Field(default=None, pattern=r"^https?://")
    slowest: timedelta = Field(default=timedelta(seconds=5), gt=timedelta(0), le=timedelta(minutes=1))
    attest: Text | None = None

    @model_validator(mode="after")
    def _one_way(self) -> SiteCheck:
        ways = [name for name in ("command", "url", "attest") if getattr(self, name)]
        if len(ways) != 1:
            raise ValueError(f"say one of command, url and attest, not {' and '.join(ways) or 'none'}")
        if bool(self.command) != bool(self.host):
            raise ValueError("a command needs a host, and a host a command")
        return self


class Parameters(Authored):
    """Which site to activate, and how it is proven.

    ``planned`` moves from a living site; ``unplanned`` takes over from one that is lost, or as good as lost.
    Then ``fence_by`` is the runbook (FenceWatch) that fences the lost site the moment it is back. Where a planned one
    names it, people may turn to taking over when the old site dies on the way.
    ``replication`` is what the runbook promises: with ``synchronous`` no commit was acknowledged that the standby
    lacks, which a check sees on the living primary.

    ``max_lag`` is how much log, in bytes, a replica may lack before anything is touched. ``drain`` is how long requests
    under way may take to end, ``catch_up`` how long replicas may take to have everything. ``requests`` are sent through
    each director once it points there, to ``path``. ``watch`` is how long everything is looked at after that.
    ``checks`` are those of the ten that are not made by the recovery's own steps; one that is not there is told to be
    nobody's.
    """

    site: Name
    how: Literal["planned", "unplanned"] = "planned"
    fence_by: Name | None = None
    replication: Literal["asynchronous", "synchronous"] = "asynchronous"
    max_lag: int = Field(default=16 * 2**20, ge=0)
    drain: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(0), le=timedelta(minutes=5))
    catch_up: timedelta = Field(default=timedelta(minutes=1), gt=timedelta(0), le=timedelta(minutes=10))
    path: str = Field(default="/", pattern="^/", max_length=500)
    requests: int = Field(default=20, ge=1, le=500)
    watch: timedelta = Field(default=timedelta(seconds=10), ge=timedelta(0), le=timedelta(days=1))
    checks: dict[Check, SiteCheck] = {}


def faults(systems: tuple[str, ...], parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with the systems that a runbook names, for a run with ``parameters``."""
    found = [
        f"systems: {name} is named without its peer {peer}; both change"
        for kind in (estate.databases, estate.stores)
        for name, system in kind.items()
        if name in systems and (peer := system.peer) not in systems
    ]
    if parameters.get("how") == "unplanned" and not parameters.get("fence_by"):
        found.append("parameters.fence_by: is missing; name the runbook that fences the lost site when it comes back")
    site = parameters.get("site")
    if site is not None and site not in estate.sites:
        found.append(f"parameters.site: the estate has no such site; there are: {', '.join(sorted(estate.sites))}")
    elif site is not None and not any(
        estate.hosts[estate.databases[name].host].site == site for name in systems if name in estate.databases
    ):
        found.append(f"systems: none of the databases is at {site}")
    if not any(name in estate.directors for name in systems):
        found.append("systems: no director is named; without one no traffic moves")
    checks = parameters.get("checks")
    for name, check in checks.items() if isinstance(checks, Mapping) else ():
        host = check.get("host") if isinstance(check, Mapping) else None
        if host is not None and host not in estate.hosts:
            found.append(f"parameters.checks.{name}.host: the estate has no such host: {host}")
    return found + driven_out(systems, estate, estate.sites.keys() - {site})
