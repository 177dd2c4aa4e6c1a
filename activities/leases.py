"""Leases of systems, asked of the workflows that keep them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from temporalio import activity
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionStatus,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from recovery.errors import Transient
from recovery.leases import Asking, Holder, Lease, Leaving, Standing
from recovery.names import LEASE

LOOK_SECONDS = 1.0
BEAT_SECONDS = 3.0
"""Between two heartbeats of what waits for an end: each system that is in hand has one, and each beat is a write."""


@activity.defn(name="lease.ask")
async def ask(asking: Asking) -> Standing:
    """Ask for a system, whose lease begins to exist with the first who asks; asked again, nothing more happens.

    Epochs begin with the milliseconds of the clock: where Temporal's own data was lost, and the lease with it, those of
    the next one are higher all the same than what targets have seen.
    """
    client = activity.client()
    start: WithStartWorkflowOperation[object, object] = WithStartWorkflowOperation(
        LEASE,
        Lease(epoch=time.time_ns() // 1_000_000),
        id=asking.lease,
        task_queue=activity.info().task_queue,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary=f"who may act on {asking.lease.partition('/')[2]}",
    )
    with _reachable(asking.lease):
        stands: Standing = await client.execute_update_with_start_workflow(
            "ask", asking.asked, start_workflow_operation=start, result_type=Standing
        )
    return stands


@activity.defn(name="lease.leave")
async def leave(leaving: Leaving) -> None:
    """Release a system, or give up waiting for it; said again, nothing more happens."""
    with _reachable(leaving.lease):
        await activity.client().get_workflow_handle(leaving.lease).execute_update("leave", leaving.holder)


@dataclass(eq=False)
class _Watch:
    """Who waits for the end of one holder, which is looked for once for all of its systems."""

    looking: asyncio.Task[str]
    waiting: int = 0


_watches: dict[tuple[asyncio.AbstractEventLoop, Holder], _Watch] = {}


@activity.defn(name="lease.ended")
async def ended(holder: Holder) -> str:
    """Wait until every run of ``holder`` has ended, one that a reset made included; return how the last one did."""
    key = (asyncio.get_running_loop(), holder)
    watch = _watches.get(key)
    if watch is None or watch.looking.done():
        watch = _watches[key] = _Watch(asyncio.create_task(_end_of(activity.client(), holder)))
    watch.waiting += 1
    try:
        while not watch.looking.done():
            activity.heartbeat()
            await asyncio.wait([watch.looking], timeout=BEAT_SECONDS)
        return watch.looking.result()
    finally:
        watch.waiting -= 1
        if not watch.waiting:
            watch.looking.cancel()
            if _watches.get(key) is watch:
                del _watches[key]


async def _end_of(client: Client, holder: Holder) -> str:
    while True:
        try:
            found = await client.get_workflow_handle(holder.workflow).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return "gone from Temporal"
        if found.status != WorkflowExecutionStatus.RUNNING:
            return found.status.name.lower() if found.status else "ended"
        if found.run_id != holder.run and await _chain(client, holder.workflow, found.run_id) != holder.chain:
            return "ended"  # what runs under its id now is another recovery
        await asyncio.sleep(LOOK_SECONDS)


async def _chain(client: Client, workflow: str, run: str) -> str:
    handle = client.get_workflow_handle(workflow, run_id=run)
    async for event in handle.fetch_history_events(page_size=1):
        return event.workflow_execution_started_event_attributes.first_execution_run_id
    return ""


@contextmanager
def _reachable(lease: str) -> Iterator[None]:
    try:
        yield
    except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        raise Transient(f"{lease}: does not answer ({error})") from None


ALL = (ask, leave, ended)
