"""The lease of one system as a workflow that never ends: ask for it, leave it, and hear when a turn has come."""

from __future__ import annotations

import contextlib
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ActivityCancellationType

from recovery.errors import Refused
from recovery.leases import Asked, Granted, Holder, Lease, Said, Standing, Step, ask, free, leave, orphan, standing
from recovery.models import Freed
from recovery.names import LEASE
from recovery.stepping import RETRIES

LONG = 4000
"""Events after which it goes on in a new run, far below what Temporal warns of."""
ENDED = "lease.ended"


@workflow.defn(name=LEASE)
class SystemLease:
    """Grant one system to one recovery at a time, in the order in which they asked.

    A holder that has ended without a release is found out. The system is not free then: who waits is told, and people
    or the undo of that recovery have to act.
    """

    @workflow.init
    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._outbox: list[Said] = []
        self._show()

    @workflow.run
    async def run(self, lease: Lease) -> None:
        """Tell those whose turn it is, watch over the holder; go on in a new run now and then."""
        while True:
            await self._tell()
            if self._long():
                workflow.continue_as_new(self._lease)
            if self._held():
                await self._watch()
            else:
                await workflow.wait_condition(lambda: bool(self._outbox) or self._held() or self._long())

    # Handlers await nothing: when the run goes on in a new one, none of them is cut off.

    @workflow.update(name="ask")
    def ask(self, asked: Asked) -> Standing:
        """Ask for the system: it is given, or there is a place in the queue, or nobody can have it just now."""
        self._take(Step(ask(self._lease, asked)))
        return standing(self._lease, asked.holder)

    @workflow.update(name="leave")
    def leave(self, holder: Holder) -> None:
        """Release the system, or give up waiting for it."""
        self._take(leave(self._lease, holder))

    @workflow.update(
        name="free",
        description='Free a system whose recovery is gone. Example: {"by": "bob", "reason": "looked at all of it"}',
    )
    def free(self, freed: Freed) -> Lease:
        """Free an orphaned system, on the word of a person."""
        self._take(Step(free(self._lease)))
        return self._lease

    @free.validator
    def _orphaned(self, freed: Freed) -> None:
        if not self._lease.orphaned:
            holder = self._lease.holder
            raise Refused(f"it is held by {holder.workflow}: cancel that" if holder else "it is free already")

    @workflow.query(description="Who holds the system, who waits, and under which epoch.")
    def lease(self) -> Lease:
        """Return the lease."""
        return self._lease

    def _take(self, step: Step) -> None:
        self._lease = step.lease
        self._outbox += step.told
        self._show()

    def _granted(self, said: Said) -> Granted:
        return Granted(lease=workflow.info().workflow_id, run=said.to.run, standing=said.standing)

    async def _tell(self) -> None:
        while self._outbox:
            said = self._outbox.pop(0)
            waiting = workflow.get_external_workflow_handle(said.to.workflow, run_id=said.to.run)
            try:
                await waiting.signal("granted", self._granted(said))
            except FailureError:  # it has ended while it waited: the next one
                self._take(leave(self._lease, said.to))

    async def _watch(self) -> None:
        """Wait until the holder has ended, or until there is something else to do."""
        holder = self._lease.holder
        assert holder is not None
        watching = workflow.start_activity(
            ENDED,
            holder,
            result_type=str,
            start_to_close_timeout=timedelta(hours=1),
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=RETRIES,
            cancellation_type=ActivityCancellationType.TRY_CANCEL,
            summary=f"wait for the end of {holder.workflow}",
        )
        await workflow.wait_condition(
            lambda: watching.done() or bool(self._outbox) or self._lease.holder != holder or self._long()
        )
        if not watching.done():
            watching.cancel()
            with contextlib.suppress(FailureError):
                await watching
        elif how := watching.result():
            self._take(orphan(self._lease, holder.chain, how))

    def _held(self) -> bool:
        return self._lease.holder is not None and not self._lease.orphaned

    def _long(self) -> bool:
        return workflow.info().get_current_history_length() > LONG

    def _show(self) -> None:
        holder, queue = self._lease.holder, self._lease.queue
        rows = [f"**{workflow.info().workflow_id}**, epoch {self._lease.epoch}", ""]
        if holder is None:
            rows.append("Free.")
        elif self._lease.orphaned:
            rows.append(
                f"**Orphaned**: `{holder.workflow}` (run {holder.run}) has {self._lease.orphaned} without a release."
                f" Undo it (`starter.py undo {holder.workflow}`), or send the update `free`."
            )
        else:
            rows.append(f"Held by `{holder.workflow}`, run {holder.run}.")
        rows += [f"- waits: `{one.workflow}`, run {one.run}" for one in queue]
        workflow.set_current_details("\n".join(rows))
