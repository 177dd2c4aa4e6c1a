"""Which revision of a configuration is the last known good one: by its name, a tag, its health, a time; pure."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import AwareDatetime, ValidationError

from recovery.models import Wire

Health = Literal["healthy", "unhealthy", "unknown"]
SHORTEST = 7
"""Digits of an abbreviated revision: with fewer, one more commit makes it another one."""


class Deployment(Wire):
    """A deployment as it was written down: a line of JSON in a note on the commit that was deployed."""

    id: str
    health: Health = "unknown"
    at: AwareDatetime | None = None


class Commit(NamedTuple):
    """A commit of the branch: the tree of the configuration in it ("": none), its time, and who made it why."""

    id: str
    tree: str
    at: datetime
    author: str = ""
    subject: str = ""
    tags: tuple[str, ...] = ()


class Wanted(Wire):
    """How the good revision is found; exactly one is set. ``healthy`` is the newest that was recorded as that."""

    revision: str | None = None
    tag: str | None = None
    before: AwareDatetime | None = None
    deployment: str | None = None
    healthy: bool = False


class History(NamedTuple):
    """What a repository tells: its branch along first parents, newest first, and everything that led to it.

    ``reached`` are all commits that the branch contains, with the tree of each that was asked for.
    """

    line: Sequence[Commit]
    deployments: Mapping[str, Sequence[Deployment]] = {}
    reached: Sequence[str] = ()


class Choice(NamedTuple):
    """The chosen revision and why, or what is wrong."""

    revision: str = ""
    why: str = ""
    faults: tuple[str, ...] = ()


def choose(wanted: Wanted, history: History) -> Choice:
    """Return the good revision, or what stands in the way of finding it, with the field named."""
    if not history.line:
        return Choice(faults=("branch: it has no commit",))
    if not history.line[0].tree:
        return Choice(faults=("path: the branch has no such folder; name the one that is there in the estate",))
    if wanted.revision is not None:
        return _named(wanted.revision, history)
    if wanted.deployment is not None:
        return _before_deployment(wanted.deployment, history)
    if wanted.tag is not None:
        pattern = wanted.tag
        return _newest(history, lambda one: _tagged(one, pattern), f"is tagged {pattern}", "tag")
    if wanted.before is not None:
        at = wanted.before
        said = f"was there at {at:%Y-%m-%d %H:%M:%S %Z}"
        return _newest(history, lambda one: f"{said}, of {one.at:%H:%M:%S}" if one.at <= at else "", said, "before")
    return _newest(history, lambda one: _well(one, history), "was recorded as healthy", "healthy")


def deployments(note: str) -> tuple[list[Deployment], int]:
    """Return what a note tells, oldest first, and how many of its lines could not be read."""
    found, unread = [], 0
    for line in filter(str.strip, note.splitlines()):
        try:
            found.append(Deployment.model_validate(json.loads(line)))
        except (ValidationError, ValueError, RecursionError):
            unread += 1
    return found, unread


def newer(history: History, revision: str) -> list[Commit]:
    """Return the commits of the branch that a rollback to ``revision`` takes back, newest first."""
    taken = []
    for one in history.line:
        if one.id == revision:
            break
        taken.append(one)
    return taken


def _newest(history: History, why: Callable[[Commit], str], said: str, field: str) -> Choice:
    """Choose the newest before the head that ``why`` has a reason for, and that is not what the head is anyway."""
    now = history.line[0]
    for one in history.line[1:]:
        if one.tree and one.tree != now.tree and (reason := why(one)):
            return Choice(one.id, reason)
    return Choice(faults=(f"{field}: no revision before the newest one, and unlike it, {said}; name a revision",))


def _tagged(one: Commit, pattern: str) -> str:
    found = [tag for tag in one.tags if fnmatch.fnmatchcase(tag, pattern)]
    return f"is tagged {found[0]}" if found else ""


def _well(one: Commit, history: History) -> str:
    """Say that the last deployment of a revision was healthy; one that was not makes it no good one any more."""
    known = history.deployments.get(one.id, ())
    if not known or known[-1].health != "healthy":
        return ""
    at = f" at {known[-1].at:%Y-%m-%d %H:%M:%SZ}" if known[-1].at else ""
    return f"was recorded as healthy by deployment {known[-1].id}{at}"


def _named(asked: str, history: History) -> Choice:
    tagged = [one.id for one in history.line if asked in one.tags]
    found = tagged or [one for one in history.reached if one.startswith(asked.lower())]
    if not tagged and not re.fullmatch(rf"[0-9a-fA-F]{{{SHORTEST},64}}", asked):
        return Choice(faults=(f"revision: is no tag of this branch, and no {SHORTEST} or more digits of a commit",))
    if not found:
        return Choice(faults=("revision: the branch does not contain it; name a commit, or a tag, of this branch",))
    if len(found) > 1:
        meant = ", ".join(one[:12] for one in found[:5])
        return Choice(faults=(f"revision: is ambiguous: {meant}; name more digits",))
    if found[0] == history.line[0].id:
        return Choice(faults=("revision: is the newest commit of the branch; there is nothing to roll back",))
    return Choice(found[0], "was named")


def _before_deployment(name: str, history: History) -> Choice:
    of = [commit for commit, known in history.deployments.items() if any(one.id == name for one in known)]
    if not of:
        return Choice(faults=("deployment: no note of the repository tells of one with this id; name a revision",))
    if len(of) > 1:
        return Choice(faults=("deployment: several commits have one with this id; name a revision",))
    if faults := tuple(_not_that(name, of[0], history)):
        return Choice(faults=faults)
    line = history.line[[one.id for one in history.line].index(of[0]) :]
    before = _newest(
        history._replace(line=line), lambda one: _well(one, history), "was recorded as healthy", "deployment"
    )
    return before._replace(why=f"{before.why}; it came before {name}") if before.revision else before


def _not_that(name: str, commit: str, history: History) -> Iterator[str]:
    """Say why what a deployment brought is not what a rollback would take back."""
    place = next((i for i, one in enumerate(history.line) if one.id == commit), None)
    if place is None:
        yield f"deployment: {name} deployed {commit[:12]}, which is not of this branch; name a revision"
        return
    if _last(name, history.deployments[commit]) == "healthy":
        yield f"deployment: {name} was recorded as healthy; to take it back all the same name a revision"
    since = [one for one in history.line[:place] if one.tree != history.line[place].tree]
    if since:
        told = ", ".join(f"{one.id[:12]} ({one.subject[:60]}, {one.author})" for one in since[:5])
        yield f"deployment: the branch has gone on since {name}: {told} would be taken back, too; name a revision"


def _last(name: str, known: Iterable[Deployment]) -> Health:
    return [one.health for one in known if one.id == name][-1]
