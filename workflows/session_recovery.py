"""SessionRecovery: a store is made a replica again, or takes sessions instead of its peer; none is lost unseen."""

from __future__ import annotations

from temporalio import workflow

from activities.kill_switch import Halted, look_for_kill_switch
from activities.session_keeping import Snapshot, keep_sessions
from activities.session_recovery import Seen, Stores, otherwise
from activities.sessions import compare_sessions, see_store
from activities.sightings import StoreSighting
from activities.store_roles import CLOSED, fence_store, follow_store, promote_store, unfence_store
from activities.stores import caught_up
from recovery.actions import Spec
from recovery.errors import Fatal
from recovery.models import Start, digest
from recovery.procedure import Procedure
from recovery.report import Report
from runbooks.procedures.session_recovery import OVERWRITE, PROMOTE, Parameters
from workflows.sessions import prove_sessions

SPLIT = "two stores took sessions, or might have: going back would lead to that again"
UNSEEN = StoreSighting(why="a check could not see it")


@workflow.defn
class SessionRecovery(Procedure[Parameters]):
    """See both stores, ask on what would be lost, and make one of them what it is to be."""

    parameters = Parameters

    @workflow.run
    async def run(self, start: Start) -> Report:
        """Look, refuse what would leave nobody or two who take sessions, ask, act, and prove that sessions arrive."""
        async with self.conducting(start) as wanted:
            stores = Stores(self.frozen.estate, wanted, digest(self.run_name)[:8])
            seen = await self._seen(stores)
            self.require(stores.blockers(seen))
            await (self._reattach(stores, seen) if wanted.how == "reattach" else self._promote(stores, seen))
        return self.report()

    async def _seen(self, stores: Stores) -> Seen:
        halt = await self.glance(look_for_kill_switch, Spec(system=stores.store.name), instead=Halted())
        one = await self.glance(see_store, stores.spec(stores.store), instead=UNSEEN)
        other = await self.glance(see_store, stores.spec(stores.peer), instead=UNSEEN)
        compared = None
        if one.answered and other.answered:
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
