"""Which of two databases is the primary: one is retired, the other promoted, and the first made its standby."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import ClassVar, Literal, TypeVar

from activities import ssh
from activities.databases import DatabaseAt, DatabaseSeen, DatabaseSpec, known, look
from recovery.actions import Action
from recovery.errors import Refused, Transient
from recovery.models import Wire
from recovery.safety import Change, Known, Rules, refusals


class PairSpec(DatabaseSpec):
    """A database that is acted on, the one at the other site, and what the estate never lets happen to both.

    ``lost`` says that the other one may be out of reach, and that somebody answers for it, or the rules trust that no
    client reaches it; where it does answer it must be fenced all the same.
    """

    other: DatabaseAt
    rules: Rules = Rules()
    lost: bool = False


T = TypeVar("T", bound=Wire)
GONE = 6.0
"""Seconds after which a host that does not answer is out of reach."""
LOGIN = 3.0
"""The same of one that does not even let us in."""


class SwitchAction(Action[PairSpec, T]):
    """An action whose apply and undo are one named job each on the database's host."""

    name = ""
    limit = timedelta(hours=4)  # a base backup of a large database, where nothing else leads to a standby
    undo_patience = timedelta(hours=4)
    does: ClassVar[str]
    undoes: ClassVar[str] = ""

    async def observe(self, spec: PairSpec) -> T:
        """Look at the database."""
        return self.state(spec, await look(spec.database, spec.owner))

    def state(self, spec: PairSpec, now: DatabaseSeen) -> T:
        """Return what this action changes of what was seen; pure."""
        raise NotImplementedError

    async def apply(self, spec: PairSpec, before: T) -> None:
        """Run the script that does it."""
        await self._run(spec, self.does)

    async def undo(self, spec: PairSpec, before: T) -> None:
        """Run the script that takes it back."""
        await self._back(spec)

    async def halt(self, spec: PairSpec) -> None:
        """End the job, and remove its traces; a server that it started stays."""
        await ssh.end_job(spec.database.host, self.job(spec))

    async def _run(self, spec: PairSpec, script: str, **more: object) -> None:
        values = spec.database.values(spec.owner)
        upstream = {"upstream": spec.other.upstream, "from": spec.other.reached}
        await ssh.job(spec.database.host, self.job(spec), script, values | upstream | more)

    async def _back(self, spec: PairSpec, script: str = "", **more: object) -> None:
        async with self.ending(spec):
            await self._run(spec, script or self.undoes, **more)

    def job(self, spec: PairSpec) -> str:
        """Return the name of its job on the host."""
        return f"{spec.system}-{spec.owner}.{self.name.removeprefix('postgres.')}"


async def _may(spec: PairSpec, what: Literal["shut", "open"], writable: bool | None = None) -> DatabaseSeen:
    """Look at the other database, and refuse what the estate's safety rules do not allow to be done to this one."""
    other = await look(spec.other, spec.owner)
    sites = (Known(spec.system, writable), known(spec.other.name, other))
    if reasons := refusals(sites, Change(what, spec.system), spec.rules):
        raise Refused("; ".join(reasons))
    return other


async def _may_without(spec: PairSpec, what: Literal["shut", "open"]) -> None:
    """Refuse what the safety rules do not allow beside the other database, if that answers."""
    try:
        await ssh.reach(spec.other.host, LOGIN)
        async with asyncio.timeout(GONE):
            await _may(spec, what, writable=True if what == "shut" else None)
    except (TimeoutError, Transient):
        return  # out of reach: who answers for that has said so


async def _leader(spec: PairSpec) -> None:
    """Refuse to make this database a standby where the other one is no primary: nobody would take writes."""
    other = await look(spec.other, spec.owner)
    if other.role != "primary":
        how = "down" if other.role == "down" else f"a {other.role}"
        raise Refused(f"{spec.other.name} is {how}, and {spec.system} has nobody to replicate; see to that one first")


def _writable(seen: DatabaseSeen) -> bool:
    """Tell whether a database takes writes, or may, because it does not say."""
    return seen.role == "primary" or (seen.serving and seen.role == "down" and not seen.signal)


class Kept(Wire):
    """Whether the settings of a standby are kept, and whom it replicates.

    None: nobody at this moment, or one that is lost.
    """

    kept: Literal["no", "half", "yes"] = "no"
    role: Literal["primary", "standby", "down"] = "down"
    of: str | None = None


class KeepRole(SwitchAction[Kept]):
    """Keep what a standby is. Its undo is the last of a switch that goes back: it makes it that standby again."""

    name = "postgres.keep_role"
    does, undoes = "keep_role", "restore_role"
    guards = False  # without a standby clients can be let in again all the same

    def title(self, spec: PairSpec) -> str:
        """Say what is kept."""
        return f"keep what {spec.system} is, a standby of {spec.other.name}"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Kept:
        """Return whom it replicates; the link to one that is lost may end at any moment, and nobody has done that."""
        return Kept(kept=now.kept, role=now.role, of=now.of if now.streaming and not spec.lost else None)

    def desired(self, spec: PairSpec, before: Kept) -> Kept:
        """Want its settings kept."""
        return before.model_copy(update={"kept": "yes"})

    def partial(self, spec: PairSpec, before: Kept, now: Kept) -> bool:
        """Know one that was promoted and stopped since, by its settings that are kept."""
        return now.kept != "no" and now.role != "primary"

    async def undo(self, spec: PairSpec, before: Kept) -> None:
        """Have it replicate the other one, if that is the primary again.

        One that was never promoted beside a lost one is what it was, whether that has come back or not.
        """
        if spec.lost and (now := await look(spec.database, spec.owner)).role == "standby" and not now.promoted:
            return await self._back(spec, "forget_role")
        await _leader(spec)
        return await self._back(spec)


keep_role = KeepRole()


class Retired(Wire):
    """Whether anything serves the database or listens at its address, and whether it would come up as a standby."""

    system: str = ""
    serving: bool = False
    listening: bool = False
    signal: bool = False
    kept: Literal["no", "half", "yes"] = "no"


class Retire(SwitchAction[Retired]):
    """Stop a primary in order: its standby gets all that it has. Whoever starts it after that starts a standby."""

    name = "postgres.retire"
    does, undoes = "retire", "unretire"

    def title(self, spec: PairSpec) -> str:
        """Say what is fenced."""
        return f"fence {spec.system}"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Retired:
        """Return whether it takes writes, or could."""
        return Retired(
            system=now.system, serving=now.serving, listening=now.listening, signal=now.signal, kept=now.kept
        )

    def desired(self, spec: PairSpec, before: Retired) -> Retired:
        """Want it stopped, and never a primary again by itself."""
        return Retired(system=before.system, signal=True, kept="yes")

    def partial(self, spec: PairSpec, before: Retired, now: Retired) -> bool:
        """Know the same database on its way down, or up again, by what is kept of it."""
        return now.kept != "no" and now.system == before.system

    async def apply(self, spec: PairSpec, before: Retired) -> None:
        """Stop it, if the other one can take its place; one that is cut off from here is judged where that is."""
        await (_may_without(spec, "shut") if spec.lost else _may(spec, "shut", writable=True))
        await self._run(spec, self.does)

    async def undo(self, spec: PairSpec, before: Retired) -> None:
        """Let it be the primary that it was, unless the other one is, or could be."""
        await _may(spec, "open")
        await self._back(spec, served="yes" if before.serving else "no")


retire = Retire()


class Promoted(Wire):
    """Whether a database takes writes, and whether it is this recovery that began to promote it, and wrote into it."""

    system: str = ""
    writable: bool = False
    promoted: bool = False
    written: bool = False


class PromoteStandby(SwitchAction[Promoted]):
    """Make a standby the primary, if the one before it is fenced and nothing of that one is missing.

    Its undo stops it for good: what it was, a standby that follows, it can be only once the other one is open again.
    """

    name = "postgres.promote_standby"
    limit = timedelta(minutes=10)
    does, undoes = "promote_standby", "demote"

    def title(self, spec: PairSpec) -> str:
        """Say what is promoted."""
        return f"promote {spec.system}"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Promoted:
        """Return whether it takes writes."""
        return Promoted(system=now.system, writable=_writable(now), promoted=now.promoted, written=now.written)

    def desired(self, spec: PairSpec, before: Promoted) -> Promoted:
        """Want it to, as a row of the engine's own has shown."""
        return Promoted(system=before.system, writable=True, promoted=True, written=True)

    def partial(self, spec: PairSpec, before: Promoted, now: Promoted) -> bool:
        """Know the same database on its way, or stopped since."""
        return now.promoted and now.system == before.system

    async def apply(self, spec: PairSpec, before: Promoted) -> None:
        """Promote it, once the other one is seen to be fenced, stopped in order, and replicated to its end.

        Of one that is lost nobody knows its end: what has arrived is all there will be.
        """
        if spec.lost:
            await _may_without(spec, "open")
            return await self._run(spec, self.does, last="0/0")
        other = await _may(spec, "open")
        if other.serving or not other.control.startswith("shut down"):
            raise Refused(f"{spec.other.name} was not shut down in order: what it had last may be missing")
        return await self._run(spec, self.does, last=other.checkpoint)


promote_standby = PromoteStandby()


class Follows(Wire):
    """Whom a database replicates ("": nobody), and whether it takes writes.

    ``kept`` tells whether its settings are kept apart, ``joining`` that this recovery began to have it follow.
    """

    of: str = ""
    writable: bool = False
    kept: Literal["no", "half", "yes"] = "no"
    joining: bool = False


class Follow(SwitchAction[Follows]):
    """Make a retired primary the standby of the one that took its place: rewound, else by a base backup."""

    name = "postgres.follow"
    does = "follow"
    kept = "clients write at the other site; what only this database has is in its way"

    def title(self, spec: PairSpec) -> str:
        """Say who follows whom."""
        return f"have {spec.system} replicate {spec.other.name}"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Follows:
        """Return whom it replicates."""
        of = now.of if now.streaming else ""
        return Follows(of=of, writable=_writable(now), kept=now.kept, joining=now.joining)

    def desired(self, spec: PairSpec, before: Follows) -> Follows:
        """Want it to replicate the other one, and nothing left beside it."""
        return Follows(of=spec.other.reached)

    def partial(self, spec: PairSpec, before: Follows, now: Follows) -> bool:
        """Know one that is not there yet, or is there with what was kept still beside it."""
        return not now.writable and now.of in ("", spec.other.reached)

    def begun(self, spec: PairSpec, before: Follows, now: Follows) -> bool:
        """Know it by what it wrote down."""
        return now.joining and self.partial(spec, before, now)

    async def apply(self, spec: PairSpec, before: Follows) -> None:
        """Have it follow, if the other one is the primary."""
        await _leader(spec)
        await self._run(spec, self.does)


follow = Follow()


class Held(Wire):
    """Whether anything is kept beside a database, and whether that is a standby, to whom it may still be of use."""

    kept: Literal["no", "half", "yes"] = "no"
    standby: bool = False


class ForgetRole(SwitchAction[Held]):
    """Remove what was kept of a standby that has become the primary for good."""

    name = "postgres.forget_role"
    does = "forget_role"
    kept = "clients write there; what it was before is nothing to go back to"

    def title(self, spec: PairSpec) -> str:
        """Say what is removed."""
        return f"forget what {spec.system} was"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Held:
        """Return whether anything is kept, and of what."""
        return Held(kept=now.kept, standby=now.role == "standby")

    def desired(self, spec: PairSpec, before: Held) -> Held:
        """Want nothing of it there."""
        return before.model_copy(update={"kept": "no"})

    def partial(self, spec: PairSpec, before: Held, now: Held) -> bool:
        """Know what is half removed."""
        return now == before.model_copy(update={"kept": "half"})


forget_role = ForgetRole()
