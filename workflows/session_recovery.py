"""SessionRecovery: a store becomes a replica again, takes over from its peer, or gets lost sessions back."""

from __future__ import annotations

from temporalio import workflow

from activities.kill_switch import Halted, look_for_kill_switch
from activities.session_keeping import Snapshot, keep_sessions
from activities.session_plan import Restore
from activities.session_recovery import Seen, Stores, otherwise
from activities.session_restoring import (
    Plan,
    SnapshotSeen,
    check_put,
    forget_before,
    put_sessions,
    read_snapshot,
    see_snapshot,
)
from activities.sessions import compare_sessions, see_store
from activities.sightings import StoreSighting
from activities.store_roles import CLOSED, fence_store, follow_store, promote_store, unfence_store
from activities.stores import caught_up
from recovery.actions import Spec
from recovery.errors import Fatal
from recovery.models import Start, digest
from recovery.procedure import Procedure
from recovery.report import Report
from runbooks.procedures.session_recovery import OVERWRITE, PROMOTE, RESTORE, Parameters
from workflows.sessions import prove_alike, prove_sessions

SPLIT = "two stores took sessions, or might have: going back would lead to that again"
UNSEEN = StoreSighting(why="a check could not see it")


@workflow.defn
class SessionRecovery(Procedure[Parameters]):
    """See both stores, ask on what would be lost, and make one of them what it is to be, or to hold."""

    parameters = Parameters

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Look, refuse what would leave nobody or two who take sessions, ask, act, and prove that sessions arrive."""
        async with self.conducting(start) as wanted:
            stores = Stores(self.frozen.estate, wanted, digest(self.run_name)[:8])
            seen = await self._seen(stores)
            if wanted.how == "restore":
                await self._restore(Restore(stores), seen)
            else:
                self.require(stores.blockers(seen))
                await (self._reattach(stores, seen) if wanted.how == "reattach" else self._promote(stores, seen))
        return self.report()

    async def _seen(self, stores: Stores) -> Seen:
        halt = await self.glance(look_for_kill_switch, Spec(system=stores.store.name), instead=Halted())
        one = await self.glance(see_store, stores.spec(stores.store), instead=UNSEEN)
        other = await self.glance(see_store, stores.spec(stores.peer), instead=UNSEEN)
        compared = None
        if one.answered and other.answered and stores.wanted.how != "restore":
            compared = await self.look(compare_sessions, stores.compared(whole=True), "compare both, as they are")
        return Seen(store=one, peer=other, compared=compared, halted=halt.why)

    async def _reattach(self, stores: Stores, seen: Seen) -> None:
        own, name = seen.store.seen.role == "primary", stores.store.name
        if own and seen.store.seen.least != CLOSED:
            await self.do(fence_store, stores.spec(stores.store), kept=SPLIT)
        kept: Snapshot | None = None
        if own and stores.store.copies:
            kept = await self.do(keep_sessions, stores.keeps())
            self.delivered(f"what {name} held", f"{stores.keeps().out} on host {stores.store.host.name}")
        if own and seen.compared is not None and not seen.compared.failed:
            self.measured(f"sessions that only {name} has", seen.compared.differences.get("missing", 0))
            self.measured(f"sessions that both have otherwise, {name} and its peer", otherwise(seen.compared))
        if own:
            await self.gate(OVERWRITE, stores.overwrites(seen, kept), then=f"{name} is overwritten")
        await self.do(follow_store, stores.follows(), kept=SPLIT if own else "")
        if own:
            await self.do(unfence_store, stores.opens(stores.store, seen.store, seen.peer), kept=SPLIT)
        await prove_sessions(self, stores.compared(whole=False))
        self.delivered(f"replica of {stores.peer.name}", name)

    async def _promote(self, stores: Stores, seen: Seen) -> None:
        name, peer = stores.store.name, stores.peer.name
        down, idle = seen.store.seen.down, seen.store.seen.idle
        away = down if down is not None else idle
        if not seen.peer.answered and away is not None:
            rpo = self.frozen.objectives.rpo.total_seconds()
            self.measured(f"sessions that {name} may lack: written in the last", away, "s", away <= rpo)
        await self.gate(PROMOTE, stores.promoted(seen), then=f"{name} takes sessions, {peer} none")
        if seen.peer.answered and seen.peer.seen.role == "primary":
            await self.do(fence_store, stores.spec(stores.peer), dark=True)
            left = await self.prove(caught_up, stores.catches_up())
            if left is not None and left.left != 0:
                raise Fatal(f"{name} lacks {left.left} bytes of what {peer} has; it goes back")
            if left is not None:
                self.measured(f"log of {peer} that {name} lacks", left.left or 0, "bytes", True)
        await self.do(promote_store, stores.promotes(), commits=f"sessions are taken at {name}")
        if not seen.peer.answered:
            self.delivered(f"replica of {name}", f"none: {peer} has to be reattached when it is back")
            return
        await self.do(follow_store, stores.followed())
        await self.do(unfence_store, stores.opens(stores.peer, seen.peer, seen.store))
        self.delivered(f"replica of {name}", peer)

    async def _restore(self, restore: Restore, seen: Seen) -> None:
        found = await self.glance(see_snapshot, restore.sees(), instead=SnapshotSeen())
        self.require([*restore.stores.blockers(seen), *found.faults])
        plan = await self.do(read_snapshot, restore.reads(found))
        self.require(restore.crowded(plan, seen.store.seen))
        for what, count in restore.figures(plan) if plan.plan else ():
            self.measured(what, count or 0)
        kept: Snapshot | None = None
        if plan.replace != 0:
            kept = await self.do(keep_sessions, restore.stores.keeps())
        self.delivered("what was done with each session", f"{restore.out}/plan.tsv on host {restore.store.host.name}")
        self.delivered("the snapshot", f"{restore.out}/sessions.rdb on host {restore.store.host.name}")
        if plan.puts != 0:
            await self.gate(RESTORE, restore.decided(plan, kept), then=f"sessions are put into {restore.store.name}")
            await self._put(restore, plan, seen)

    async def _put(self, restore: Restore, plan: Plan, seen: Seen) -> None:
        """Put back what was decided on, see each of them, and let go of what was there before."""
        stores, name, spec = restore.stores, restore.store.name, restore.puts(plan)
        done = await self.do(put_sessions, spec)
        fates = await self.prove(check_put, spec)
        if fates is not None:
            for what, count in restore.fates(done, fates):
                self.measured(what, count)
            if fates.undecided:
                raise Fatal(f"{fates.undecided} sessions did not arrive at {name}, and nobody knows why; it goes back")
        replicated = seen.peer.seen.of == stores.store.upstream and seen.peer.seen.linked
        if replicated:
            await self._copied(stores)
        self.delivered(f"replica of {name}", stores.peer.name if replicated else "none: reattach its peer")
        await self.do(forget_before, spec, commits=f"the sessions of the snapshot are taken as {name}'s own")

    async def _copied(self, stores: Stores) -> None:
        """Prove that the replica has what was put into its primary."""
        left = await self.prove(caught_up, stores.copied())
        if left is not None and left.left != 0:
            raise Fatal(f"{stores.peer.name} lacks {left.left} bytes of what {stores.store.name} has; it goes back")
        await prove_alike(self, stores.replicated())
