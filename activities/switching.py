"""Which of two databases is the primary: one is retired, the other promoted, and the first made its standby."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal, TypeVar

from activities import ssh
from activities.databases import DatabaseAt, DatabaseSeen, DatabaseSpec, look
from recovery.actions import Action
from recovery.errors import RecoveryError, Refused, Transient
from recovery.models import Wire


class PairSpec(DatabaseSpec):
    """A database that is acted on, and the one at the other site."""

    other: DatabaseAt


T = TypeVar("T", bound=Wire)


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

    async def _back(self, spec: PairSpec, **more: object) -> None:
        try:
            await self._run(spec, self.undoes, **more)
        except Transient:
            raise  # what runs on the host is found again by the next attempt
        except RecoveryError:
            await self.halt(spec)
            raise
        await self.halt(spec)

    def job(self, spec: PairSpec) -> str:
        """Return the name of its job on the host."""
        return f"{spec.system}-{spec.owner}.{self.name.removeprefix('postgres.')}"


async def _alone(spec: PairSpec) -> DatabaseSeen:
    """Look at the other database, and refuse to open this one while that one can take a write: never two do."""
    other = await look(spec.other, spec.owner)
    if other.serving and other.role != "standby":
        raise Refused(
            f"{spec.other.name} takes writes, or may: two databases would. Fence it, then go on with {spec.system}"
        )
    if not other.signal:
        raise Refused(f"{spec.other.name} is stopped, but would come up as a primary; fence it first")
    return other


class Kept(Wire):
    """Whether the settings of a standby are kept, and whom it replicates."""

    kept: bool = False
    role: Literal["primary", "standby", "down"] = "down"
    of: str = ""
    streaming: bool = False


class KeepRole(SwitchAction[Kept]):
    """Keep what a standby is. Its undo is the last of a switch that goes back: it makes it that standby again."""

    name = "postgres.keep_role"
    does, undoes = "keep_role", "restore_role"
    guards = False  # without a standby clients can be let in again all the same

    def title(self, spec: PairSpec) -> str:
        """Say what is kept."""
        return f"keep what {spec.system} is, a standby of {spec.other.name}"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Kept:
        """Return whom it replicates."""
        return Kept(kept=now.kept, role=now.role, of=now.of, streaming=now.streaming)

    def desired(self, spec: PairSpec, before: Kept) -> Kept:
        """Want its settings kept."""
        return before.model_copy(update={"kept": True})

    def partial(self, spec: PairSpec, before: Kept, now: Kept) -> bool:
        """Know one that was promoted and stopped since, by its settings that are kept."""
        return now.kept


keep_role = KeepRole()


class Retired(Wire):
    """Whether anything serves the database or listens at its address, and whether it would come up as a standby."""

    serving: bool = False
    listening: bool = False
    signal: bool = False


class Retire(SwitchAction[Retired]):
    """Stop a primary in order: its standby gets all that it has. Whoever starts it after that starts a standby."""

    name = "postgres.retire"
    does, undoes = "retire", "unretire"

    def title(self, spec: PairSpec) -> str:
        """Say what is fenced."""
        return f"fence {spec.system}"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Retired:
        """Return whether it takes writes, or could."""
        return Retired(serving=now.serving, listening=now.listening, signal=now.signal)

    def desired(self, spec: PairSpec, before: Retired) -> Retired:
        """Want it stopped, and never a primary again by itself."""
        return Retired(signal=True)

    def partial(self, spec: PairSpec, before: Retired, now: Retired) -> bool:
        """Know one that is on its way down, or up again."""
        return now.signal or not now.serving

    async def undo(self, spec: PairSpec, before: Retired) -> None:
        """Let it be the primary that it was, unless the other one is."""
        other = await look(spec.other, spec.owner)
        if other.role == "primary" or (other.serving and other.role == "down"):
            raise Refused(f"{spec.other.name} takes writes, or may: two databases would. Fence it first")
        await self._back(spec, served="yes" if before.serving else "no")


retire = Retire()


class Writable(Wire):
    """Whether a database takes writes."""

    writable: bool = False


class PromoteStandby(SwitchAction[Writable]):
    """Make a standby the primary, if the one before it is fenced and nothing of that one is missing."""

    name = "postgres.promote_standby"
    limit = timedelta(minutes=10)
    does, undoes = "promote_standby", "demote"

    def title(self, spec: PairSpec) -> str:
        """Say what is promoted."""
        return f"promote {spec.system}"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Writable:
        """Return whether it takes writes."""
        return Writable(writable=now.role == "primary" or (now.serving and now.role == "down" and not now.signal))

    def desired(self, spec: PairSpec, before: Writable) -> Writable:
        """Want it to."""
        return Writable(writable=True)

    async def apply(self, spec: PairSpec, before: Writable) -> None:
        """Promote it, once the other one is seen to be fenced, stopped in order, and replicated to its end."""
        other = await _alone(spec)
        if not other.control.startswith("shut down"):
            raise Refused(f"{spec.other.name} was not shut down in order: what it had last may be missing")
        await self._run(spec, self.does, last=other.checkpoint)


promote_standby = PromoteStandby()


class Follows(Wire):
    """Whom a database replicates; "" where it is none's standby."""

    of: str = ""
    streaming: bool = False


class Follow(SwitchAction[Follows]):
    """Make a database the standby of the one that clients write into: rewound, else by a base backup."""

    name = "postgres.follow"
    does = "follow"
    kept = "clients write into the other one; what only this database has is in its way"
    skip = "the other one runs without a standby"

    def title(self, spec: PairSpec) -> str:
        """Say who follows whom."""
        return f"have {spec.system} replicate {spec.other.name}"

    def state(self, spec: PairSpec, now: DatabaseSeen) -> Follows:
        """Return whom it replicates."""
        return Follows(of=now.of if now.streaming else "", streaming=now.streaming)

    def desired(self, spec: PairSpec, before: Follows) -> Follows:
        """Want it to replicate the other one."""
        return Follows(of=spec.other.reached, streaming=True)

    def partial(self, spec: PairSpec, before: Follows, now: Follows) -> bool:
        """Know one that is not there yet."""
        return not now.streaming


follow = Follow()
