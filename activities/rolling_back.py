"""A configuration goes back in its repository: a new commit on top, by compare-and-swap; its outcome is a note."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from activities import git
from activities.git import Moved, Repository
from recovery.actions import Action, Spec
from recovery.errors import Drifted, Stale, Transient
from recovery.fencing import hand
from recovery.models import Wire

TRIES = 20
"""How often is written while others push."""
PAUSE = 0.1
HAND, RUN = "Recovery-Hand", "Recovery-Run"
"""Trailers by which a commit tells whose it is: folder, epoch, order and attempt of the hand; and of which recovery."""
SEEN = 200
"""Commits among which the last hand is looked for; more than people push beside one recovery."""


class RollBack(Spec):
    """Have the configuration ``wanted`` (a tree) at the top of its branch, instead of ``seen``.

    On that people decided. ``at`` is the time of the commit, in seconds since 1970; ``message`` says who, why, and
    from what to what.
    """

    repository: Repository
    seen: str
    wanted: str
    good: str
    at: int
    message: str
    run: str


class Branch(Wire):
    """What the branch has as the configuration: a tree. Other commits may come; what they leave alone is no drift."""

    tree: str


class RollsBack(Action[RollBack, Branch]):
    """Commit the tree of an earlier revision; the history is never rewritten, and undone by another commit."""

    name = "git.roll_back"
    limit = timedelta(minutes=3)
    look_limit: ClassVar[timedelta] = timedelta(minutes=2)
    look_patience: ClassVar[timedelta] = timedelta(minutes=5)

    def title(self, spec: RollBack) -> str:
        """Say what is rolled back to what."""
        return f"roll {spec.system} back to {spec.good[:12]} in its repository"

    async def observe(self, spec: RollBack) -> Branch:
        """Fetch, and look at the newest commit."""
        return Branch(tree=await git.tree(spec.repository, await git.refresh(spec.repository)))

    def desired(self, spec: RollBack, before: Branch) -> Branch:
        """Want the tree of the good revision."""
        return Branch(tree=spec.wanted)

    async def apply(self, spec: RollBack, before: Branch) -> None:
        """Push a commit with that, unless another configuration was pushed since people decided."""
        if before.tree not in (spec.seen, spec.wanted):
            raise Drifted(
                f"{spec.system}: somebody else has pushed another configuration since; nothing was overwritten"
            )
        await _moved(spec, before.tree, spec.wanted, spec.message)

    async def undo(self, spec: RollBack, before: Branch) -> None:
        """Push a commit with what was there."""
        subject, _, rest = spec.message.partition("\n")
        await _moved(spec, spec.wanted, before.tree, f"Take back: {subject}\n{rest}")


roll_back = RollsBack()


async def _moved(spec: RollBack, here: str, there: str, message: str) -> None:
    repository, ref = spec.repository, f"refs/heads/{spec.repository.branch}"

    async def write() -> None:
        head = await git.refresh(repository)
        await _heed_hand(spec, head)
        now = await git.tree(repository, head)
        if now == there:
            return
        if now != here:
            raise Drifted(
                f"{spec.system}: somebody else has just pushed another configuration; nothing was overwritten"
            )
        mine = hand()
        text = (
            f"{message.rstrip()}\n\n{RUN}: {spec.run}\n"
            f"{HAND}: {_of(repository)} {mine.epoch} {mine.order} {mine.attempt}\n"
        )
        await git.push(repository, ref, head, await git.planted(repository, head, there, text, spec.at))

    await swapped(spec.system, write)


async def _heed_hand(spec: RollBack, head: str) -> None:
    """Refuse to write where a later hand has written already."""
    form = f"--format=%(trailers:key={HAND},valueonly)"
    lines = (await git.text(spec.repository, "log", f"-n{SEEN}", form, head)).splitlines()
    _refuse_late(spec, spec.repository, (line.split() for line in lines))


def _of(repository: Repository) -> str:
    """Return what a hand is laid on: the folder, a word. Other configurations may lie in the same repository."""
    return repository.path or "."


def _refuse_late(spec: Spec, repository: Repository, hands: Iterable[Sequence[str]]) -> None:
    """Raise Stale where one of ``hands`` (folder, epoch, order, attempt) is later than the hand of this action."""
    mine, folder = hand(), _of(repository)
    own = (mine.epoch, mine.order, mine.attempt)
    known = [tuple(map(int, words[1:])) for words in hands if len(words) == 4 and words[0] == folder]
    if mine.epoch and known and max(known) > own:
        raise Stale(f"{spec.system}: a later hand (epoch {max(known)[0]}) has pushed since; nothing was written")


async def swapped(system: str, write: Callable[[], Awaitable[None]]) -> None:
    """Write, and look again where somebody has pushed meanwhile."""
    for _ in range(TRIES):
        try:
            return await write()
        except Moved:
            await asyncio.sleep(PAUSE)
    raise Transient(f"{system}: others keep pushing to its repository")


class Record(Spec):
    """Write into the notes of deployments how a rollback went, so that it is one of the known revisions.

    ``told`` is what is known of it: who, why, from what to what, health before and after.
    """

    repository: Repository
    run: str
    healthy: bool
    told: dict[str, Any] = {}


class Written(Wire):
    """The line of this recovery: none, its own, or another one in its name."""

    line: Literal["none", "own", "other"] = "none"


class WritesDown(Action[Record, Written]):
    """Add a line to the note on the commit that this recovery made, beside those that deployments wrote."""

    name = "git.record"
    limit = timedelta(minutes=3)
    kept: ClassVar[str] = "how it went stays written"
    skip: ClassVar[str] = "deployments will not know that this revision is a good one"

    def title(self, spec: Record) -> str:
        """Say what is written down."""
        return f"write down in the repository how {spec.system} was rolled back"

    async def observe(self, spec: Record) -> Written:
        """Look for the line."""
        await git.refresh(spec.repository)
        lines = await _lines(spec.repository, await _commit(spec))
        found = [line for line in lines if line.get("id") == _id(spec)]
        own = [line for line in found if _told(spec).items() <= line.items()]
        return Written(line="own" if own else "other" if found else "none")

    def desired(self, spec: Record, before: Written) -> Written:
        """Want one line of this recovery."""
        return Written(line="own")

    async def apply(self, spec: Record, before: Written) -> None:
        """Push the note with one line more."""
        repository, ref = spec.repository, spec.repository.deployments

        async def write() -> None:
            await git.refresh(repository)
            commit = await _commit(spec)
            lines = await _lines(repository, commit)
            _refuse_late(spec, repository, (str(line.get("hand", "")).split() for line in lines))
            if any(line.get("id") == _id(spec) for line in lines):
                return
            mine = hand()
            line = {
                **_told(spec), "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
                "hand": f"{_of(repository)} {mine.epoch} {mine.order} {mine.attempt}",
            }  # fmt: skip
            expected, new = await git.noted(repository, commit, json.dumps(line, ensure_ascii=False))
            await git.push(repository, ref, expected, new)

        await swapped(spec.system, write)

    async def undo(self, spec: Record, before: Written) -> None:
        """Do nothing: see ``kept``."""


record = WritesDown()


def _id(spec: Record) -> str:
    return f"recovery-{spec.run}"


def _told(spec: Record) -> dict[str, Any]:
    return {"id": _id(spec), "health": "healthy" if spec.healthy else "unhealthy", **spec.told}


async def _commit(spec: Record) -> str:
    """Return the commit that this recovery made; the branch's newest where it made none."""
    words = ("log", "-n1", "--format=%H", f"--grep=^{RUN}: {spec.run}$", f"refs/heads/{spec.repository.branch}")
    return (await git.text(spec.repository, *words)).strip() or await git.head(spec.repository)


async def _lines(repository: Repository, commit: str) -> list[dict[str, Any]]:
    """Return what the note on a commit tells, line by line; what is no object of JSON is left out."""
    found = []
    for line in (await git.note(repository, commit)).splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]
