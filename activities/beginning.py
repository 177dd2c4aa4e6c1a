"""One recovery that begins another one, which outlives it."""

from __future__ import annotations

from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from recovery.errors import Transient
from recovery.models import Begin


@activity.defn(name="recovery.begin")
async def begin(order: Begin) -> str:
    """Start it unless one of this id is under way, and return its run; done again, nothing more happens."""
    try:
        handle = await activity.client().start_workflow(
            order.procedure,
            order.start,
            id=order.id,
            task_queue=activity.info().task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
    except RPCError as error:
        raise Transient(f"{order.id}: cannot be started ({error.message})") from None
    return handle.result_run_id or ""
