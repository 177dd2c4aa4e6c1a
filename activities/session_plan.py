"""Restoring sessions from a snapshot: the specs of its steps, and what people are told of the plan; pure."""

from __future__ import annotations

from collections.abc import Iterator

from activities.session_keeping import Snapshot
from activities.session_recovery import Decided, Stores
from activities.session_restoring import Fates, Plan, Put, PutSpec, ReadSpec, SnapshotSeen, SnapshotSpec
from activities.stores import Replication


class Restore:
    """What is restored into the store of ``stores``, from the snapshot that is wanted there."""

    def __init__(self, stores: Stores) -> None:
        self.stores, self.store = stores, stores.store
        self.snapshot = stores.wanted.snapshot or ""
        self.out = f"{self.store.copies}/{self.store.name}.restored-{stores.owner}"

    def sees(self) -> SnapshotSpec:
        """Return which snapshot is checked."""
        return SnapshotSpec.model_validate(self._common() | {"snapshot": self.snapshot})

    def reads(self, found: SnapshotSeen) -> ReadSpec:
        """Return how it is compared, as it was seen."""
        wanted = self.stores.wanted
        more = {"snapshot": self.snapshot, "digest": found.digest, "keys": found.keys}
        more |= {"out": self.out, "match": wanted.match, "version": wanted.version or ""}
        return ReadSpec.model_validate(self._common() | more)

    def puts(self, plan: Plan) -> PutSpec:
        """Return what is put back: what people decided on."""
        return PutSpec.model_validate(self._common() | {"out": self.out, "plan": plan.plan or ""})

    def _common(self) -> dict[str, object]:
        return self.stores.spec(self.store).model_dump()

    def crowded(self, plan: Plan, now: Replication) -> list[str]:
        """Return what stands in the way of so many more: a store without room would refuse them, or drop others."""
        needed = (plan.puts or 0) * (plan.each or 0)
        if not now.room or now.used + needed <= now.room:
            return []
        return [
            f"{self.store.name}: has room for {max(now.room - now.used, 0)} bytes more, and about {needed} are needed;"
            f" raise its maxmemory"
        ]

    def figures(self, plan: Plan) -> Iterator[tuple[str, int | None]]:
        """Yield what the snapshot holds, in numbers that add up to all its keys."""
        name = self.store.name
        yield "keys in the snapshot", plan.keys
        yield "of these had expired", plan.expired
        yield "of these are no sessions, by their name", plan.others
        yield "of these lie in another database (SELECT), and stay there", plan.elsewhere
        yield f"of these {name} has the same", plan.same
        yield f"of these {name} lacks", plan.add
        yield f"of these {name} has an older version", plan.replace
        yield f"of these {name} has a newer version, which stays", plan.keep
        yield f"of these {name} has one too large to compare, which stays", plan.unsure

    def fates(self, done: Put, fates: Fates) -> Iterator[tuple[str, int]]:
        """Yield what was done, and what became of it."""
        yield "sessions added", done.added or 0
        yield "sessions replaced by newer ones", done.replaced or 0
        yield "sessions left, which clients had written or ended meanwhile", done.left or 0
        yield "sessions that expired meanwhile", done.expired or 0
        yield "sessions seen as they were put back", fates.there
        yield "sessions that clients have written since", fates.written
        yield "sessions that clients have ended since", fates.ended
        yield "sessions that have expired since", fates.expired
        yield "sessions lost", fates.undecided

    def decided(self, plan: Plan, kept: Snapshot | None) -> Decided:
        """Return what people decide on."""
        stake = f"{plan.add} sessions are added to {self.store.name}, and {plan.replace} of its own replaced by newer."
        return Decided(at_stake=stake, in_words=tuple(self._words(plan, kept)))

    def _words(self, plan: Plan, kept: Snapshot | None) -> Iterator[str]:
        host, version = self.store.host.name, self.stores.wanted.version
        yield "; ".join(f"{what}: {count}" for what, count in self.figures(plan))
        by = f"has more in its field {version}, or else expires later" if version else "expires later"
        yield f"of two versions the newer one is that which {by}; where that does not tell, the store's stays"
        yield f"what a client writes meanwhile stays; {self.store.name} serves on all the time"
        if plan.add:
            yield "who has logged out since the snapshot is logged in again: nobody can tell them from who was lost"
        if plan.named:
            yield f"both have a version of these: {'; '.join(plan.named[:5])}"
        yield f"each session, and what is done with it, stands in {self.out}/plan.tsv on host {host}"
        if plan.keep or plan.unsure:
            yield f"the versions of the snapshot that are not taken stay in {self.out}/sessions.rdb"
        if kept is not None:
            yield f"all {kept.keys} keys of {self.store.name} are kept, as a snapshot, in {self.stores.keeps().out}"
