"""Sessions out of a snapshot (RDB), put back into a store: what it holds is read beside the store, and goes over whole.

A server of its own holds a copy of the snapshot, for as long as a job on the host lasts; nobody else reaches it. What
is done is written into the store in the same moment, so that it is known there, whatever else was killed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal, TypeVar

from activities import scripts, ssh
from activities.comparing import masked
from activities.store_roles import StoreAction
from activities.stores import StoreSpec
from recovery.actions import Probe
from recovery.errors import Invalid
from recovery.models import Wire

T = TypeVar("T", bound=Wire)


class SnapshotSpec(StoreSpec):
    """A snapshot on the store's host: a file, or a folder with ``sessions.rdb`` and what its manifest says."""

    snapshot: str

    def values(self) -> dict[str, object]:
        """Return the shell variables of its scripts."""
        more = {"server": self.store.server, "snapshot": self.snapshot, "copies": self.store.copies}
        return self.store.values() | more


class SnapshotSeen(Wire):
    """What a snapshot is: ``bytes``, SHA-256, and how many keys it says that it holds; or what is wrong with it."""

    bytes: int = 0
    digest: str = ""
    keys: int = 0
    faults: tuple[str, ...] = ()


class SeeSnapshot(Probe[SnapshotSpec, SnapshotSeen]):
    """Have the server's own program check a snapshot from its first byte to its last; it is not served for that."""

    name = "sessions.see_snapshot"
    limit = timedelta(minutes=30)  # all of it is read
    patience = timedelta(hours=1)

    def title(self, spec: SnapshotSpec) -> str:
        """Say what is checked."""
        return f"check {spec.snapshot}"

    async def observe(self, spec: SnapshotSpec) -> SnapshotSeen:
        """Look; what is wrong with it is what was found out."""
        told = await ssh.look(spec.store.host, "see_snapshot", spec.values(), ssh.within(self.limit))
        return _told(SnapshotSeen, told, faults="fault")


see_snapshot = SeeSnapshot()


class ReadSpec(SnapshotSpec):
    """Which of two versions is the newer: by ``version``, a field of hashes; of keys that fit ``match``.

    The copy and the plan go into the folder ``out``. ``digest`` and ``keys`` were seen of the snapshot.
    """

    out: str
    digest: str
    keys: int
    match: str = "*"
    version: str = ""

    def values(self) -> dict[str, object]:
        """Return the shell variables of its scripts."""
        field = self.version.encode().hex() or "-"
        more = {"text": scripts.lua("restore"), "match": self.match, "field": field, "out": self.out}
        return super().values() | more | {"owner": self.run, "digest": self.digest, "keys": self.keys}


class Plan(Wire):
    """What would be put back: numbers of sessions, None where that is known after apply.

    Of those that the snapshot holds (``fits``) the store has the ``same``, or lacks them (``add``), or has an older
    version (``replace``), a newer one (``keep``), or one too large to be compared (``unsure``). Of its ``keys`` these
    are no sessions: ``others`` by their name, and what is ``elsewhere``, in another of its databases. ``each`` is how
    many bytes one takes. ``plan`` is the digest of the list. ``named`` are some of those of which both have a version.
    """

    stage: Literal["absent", "partial", "read", "damaged"] = "absent"
    owner: str = ""
    bytes: int | None = 0
    digest: str | None = ""
    plan: str | None = ""
    keys: int | None = 0
    others: int | None = 0
    elsewhere: int | None = 0
    fits: int | None = 0
    same: int | None = 0
    add: int | None = 0
    replace: int | None = 0
    keep: int | None = 0
    unsure: int | None = 0
    each: int | None = 0
    named: tuple[str, ...] | None = ()

    @property
    def expired(self) -> int:
        """How many had expired when it was read."""
        return (self.keys or 0) - (self.others or 0) - (self.elsewhere or 0) - (self.fits or 0)

    @property
    def puts(self) -> int | None:
        """How many are to be put into the store; None where that is not known yet."""
        return None if self.add is None or self.replace is None else self.add + self.replace


UNKNOWN = dict.fromkeys(name for name in Plan.model_fields if name not in ("stage", "owner"))


class ReadSnapshot(StoreAction[ReadSpec, Plan]):
    """Copy a snapshot, and plan what of it goes into the store, in a folder that only its owner can read."""

    name = "sessions.read_snapshot"
    limit = timedelta(hours=2)
    script = "read_snapshot"

    def title(self, spec: ReadSpec) -> str:
        """Say what is read."""
        return f"compare the snapshot with {spec.system}"

    async def observe(self, spec: ReadSpec) -> Plan:
        """Look at the plan."""
        return plan(await ssh.look(spec.store.host, "snapshot_read", {"out": spec.out}))

    def desired(self, spec: ReadSpec, before: Plan) -> Plan:
        """Want it whole, of this recovery; what is in it is known after."""
        return Plan(stage="read", owner=spec.run).model_copy(update=UNKNOWN)

    def partial(self, spec: ReadSpec, before: Plan, now: Plan) -> bool:
        """Know an unfinished one of this recovery, or one whose owner was not written yet."""
        return now.stage == "partial" and now.owner in ("", spec.run)

    async def apply(self, spec: ReadSpec, before: Plan) -> None:
        """Read it beside the store; the server for that ends with the job."""
        await ssh.job(spec.store.host, self.job(spec), self.script, spec.values())

    async def undo(self, spec: ReadSpec, before: Plan) -> None:
        """Remove the copy and the plan."""
        await self._back(spec, spec.values(), "drop_plan")


read_snapshot = ReadSnapshot()


class PutSpec(StoreSpec):
    """Put back what the plan in the folder ``out`` says; ``plan`` is its digest."""

    out: str
    plan: str

    @property
    def mark(self) -> str:
        """What everything of this recovery is named with in the store."""
        return f"recovery:{self.run}"

    def values(self) -> dict[str, object]:
        """Return the shell variables of its scripts."""
        more = {"server": self.store.server, "text": scripts.lua("restore"), "out": self.out, "plan": self.plan}
        return self.store.values() | more | {"mark": self.mark}


class Put(Wire):
    """How many sessions were put into a store, as it says itself; None is known after apply.

    ``left`` are those that clients had written meanwhile, or ended; ``expired`` had meanwhile. A store that does not
    know what was begun there has "lost" it. ``stayed`` counts what clients wrote over, which an undo left to them.
    """

    stage: Literal["none", "partial", "put", "lost"] = "none"
    plan: str = ""
    added: int | None = 0
    replaced: int | None = 0
    left: int | None = 0
    expired: int | None = 0
    stayed: int | None = None


class PutSessions(StoreAction[PutSpec, Put]):
    """Put sessions into a store, each only where it is as it was seen, beside clients who write."""

    name = "sessions.put"
    limit = timedelta(hours=2)
    script = "put_sessions"

    def title(self, spec: PutSpec) -> str:
        """Say what is put where."""
        return f"put sessions back into {spec.system}"

    async def observe(self, spec: PutSpec) -> Put:
        """Ask the store what was done."""
        return put(await ssh.look(spec.store.host, "sessions_put", spec.values()))

    def desired(self, spec: PutSpec, before: Put) -> Put:
        """Want all that was planned done, or left for a reason."""
        return Put(stage="put", plan=spec.plan or before.plan, added=None, replaced=None, left=None, expired=None)

    def partial(self, spec: PutSpec, before: Put, now: Put) -> bool:
        """Know that some of the plan is done."""
        return now.stage == "partial" and now.plan == before.plan

    async def apply(self, spec: PutSpec, before: Put) -> None:
        """Put them there; one that was killed goes on with what the store does not know as done."""
        await ssh.job(spec.store.host, self.job(spec), self.script, spec.values())

    async def undo(self, spec: PutSpec, before: Put) -> None:
        """Have the store be as it was, but for what clients have written since."""
        await self._back(spec, spec.values() | {"how": "back"}, "settle_sessions")


put_sessions = PutSessions()


class Memory(Wire):
    """Whether a store still knows how its sessions were before a recovery put others there, by which ``plan``.

    ``sessions`` is of how many it knows that.
    """

    there: bool = False
    plan: str = ""
    sessions: int = 0


class ForgetBefore(StoreAction[PutSpec, Memory]):
    """Have a store forget how its sessions were before others were put there."""

    name = "sessions.forget"
    limit = timedelta(hours=1)
    script = "settle_sessions"
    kept: ClassVar[str] = "how sessions were before is in the snapshot that was kept of the store"

    def title(self, spec: PutSpec) -> str:
        """Say what is forgotten."""
        return f"forget how the sessions of {spec.system} were before"

    async def observe(self, spec: PutSpec) -> Memory:
        """Ask the store."""
        found = put(await ssh.look(spec.store.host, "sessions_put", spec.values()))
        known = sum(count or 0 for count in (found.added, found.replaced, found.left, found.expired))
        return Memory(there=found.stage != "none", plan=found.plan, sessions=known)

    def desired(self, spec: PutSpec, before: Memory) -> Memory:
        """Want nothing of it left."""
        return Memory(plan=before.plan)

    def partial(self, spec: PutSpec, before: Memory, now: Memory) -> bool:
        """Know that some of it may be gone; the more that is."""
        return now.there and now.plan == before.plan

    def begun(self, spec: PutSpec, before: Memory, now: Memory) -> bool:
        """Know it by sessions of which the store has forgotten that already."""
        return self.partial(spec, before, now) and now.sessions < before.sessions

    async def apply(self, spec: PutSpec, before: Memory) -> None:
        """Have it forget."""
        await ssh.job(spec.store.host, self.job(spec), self.script, spec.values() | {"how": "forget"})

    async def undo(self, spec: PutSpec, before: Memory) -> None:
        """Do nothing: see ``kept``."""


forget_before = ForgetBefore()


class Fates(Wire):
    """What became of the sessions that were to be put back, in numbers; together they are all of them.

    They are ``there`` as they were put; ``written`` or ``ended`` by clients since; ``expired``; ``left`` to what
    clients had written meanwhile. One that is ``undecided`` was lost.
    """

    there: int = 0
    written: int = 0
    ended: int = 0
    expired: int = 0
    left: int = 0
    undecided: int = 0


class CheckPut(Probe[PutSpec, Fates]):
    """Look at every session that was to be put back."""

    name = "sessions.check_put"
    limit = timedelta(minutes=30)
    patience = timedelta(hours=1)

    def title(self, spec: PutSpec) -> str:
        """Say what is checked."""
        return f"see every session that was put back into {spec.system}"

    async def observe(self, spec: PutSpec) -> Fates:
        """Look at each, in the store itself."""
        told = await ssh.look(spec.store.host, "check_put", spec.values(), ssh.within(self.limit))
        return _told(Fates, told)


check_put = CheckPut()


def plan(text: str) -> Plan:
    """Return what the script ``snapshot_read`` printed. Raises Invalid if that is none of it."""
    found = _told(Plan, text, named="named")
    return found.model_copy(update={"named": tuple(_readable(line) for line in found.named or ())})


def _readable(line: str) -> str:
    key, _, how = line.partition(" ")
    stays = {"replace": "the snapshot's is newer", "keep": "the store's is newer", "unsure": "too large to compare"}
    return f"{masked(bytes.fromhex(key))}: {stays[how]}"


def put(text: str) -> Put:
    """Return what the script ``sessions_put`` printed. Raises Invalid if that is none of it."""
    told = dict(line.partition("\t")[::2] for line in text.splitlines())
    found = _told(Put, text)
    done = sum((found.added or 0, found.replaced or 0, found.left or 0, found.expired or 0))
    if "begun" not in told:
        stage = "lost" if "traces" in told else "none"
    else:
        stage = "put" if done == int(told.get("planned", -1)) else "partial"
    return found.model_copy(update={"stage": stage})


def _told(model: type[T], text: str, **lists: str) -> T:
    """Return a model of lines of names and values; what ``lists`` names may come more than once."""
    pairs = [(name, value) for name, tab, value in (line.partition("\t") for line in text.splitlines()) if tab]
    more = {field: [value for name, value in pairs if name == said] for field, said in lists.items()}
    try:
        return model.model_validate(dict(pairs) | more)
    except ValueError:
        raise Invalid("server: what was said of the snapshot, or of the store, is not known here") from None
