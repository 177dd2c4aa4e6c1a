"""Tell people, beside the recovery: a workflow of its own delivers each notice, and outlives who announced it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import FailureError
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from recovery.errors import Fatal, sentence
from recovery.names import NOTIFICATION, notice_id
from recovery.notices import Notice, Sending, Sent, Target, Targets, Told

RETRIES = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))
PATIENCE = timedelta(hours=6)
"""After this, who was to be told has heard of it in another way, or the notice is no longer true."""

SENDING_LIMIT = timedelta(minutes=2)
BEAT = timedelta(seconds=3)


async def announce(notice: Notice, salt: str = "") -> None:
    """Begin to deliver ``notice``; return once Temporal has recorded that, whatever becomes of it.

    For workflow code. No failure comes back from here; only a cancel of the caller does, and the notice goes out then
    too. Await it before the workflow ends: Temporal starts no child of a closed workflow. ``salt`` tells the notices
    of a run that was reset from those that the run before it had begun.
    """
    if notice.channels:
        beginning = asyncio.create_task(_begin(notice, salt))
        await workflow.wait_condition(beginning.done)


async def _begin(notice: Notice, salt: str) -> None:
    # A reset keeps its events but gets another run id: the id of a child must not change when they are replayed.
    run = "-".join(filter(None, (workflow.info().first_execution_run_id, salt)))
    try:
        delivery = await workflow.start_child_workflow(
            NOTIFICATION,
            notice,
            id=notice_id(run, notice.number),
            parent_close_policy=ParentClosePolicy.ABANDON,
            cancellation_type=ChildWorkflowCancellationType.ABANDON,
            static_summary=notice.title,
        )
    except FailureError as failure:  # it is already on its way, or Temporal refuses
        workflow.logger.warning("notice %s: not begun: %s", notice.id, sentence(failure))
        return
    delivery.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen; it is not ours to act on


@workflow.defn(name=NOTIFICATION)
class Notification:
    """Deliver one notice to every target behind its channels; none waits for another."""

    @workflow.run
    async def run(self, notice: Notice) -> Told:
        """Return what was accepted; fails in the end, naming each target that was not reached and why."""
        targets = await workflow.execute_activity(
            "notify.targets",
            notice,
            result_type=Targets,
            start_to_close_timeout=timedelta(seconds=10),
            schedule_to_close_timeout=PATIENCE,
            retry_policy=RETRIES,
            summary=f"who is behind {', '.join(notice.channels)}",
        )
        ends = await asyncio.gather(*(self._send(notice, target) for target in targets.found))
        faults = [*targets.faults, *(end for end in ends if isinstance(end, str))]
        if faults:
            raise Fatal(f"not delivered: {'; '.join(faults)}")
        return Told(sent=tuple(end for end in ends if isinstance(end, Sent)))

    async def _send(self, notice: Notice, target: Target) -> Sent | str:
        try:
            sent: Sent = await workflow.execute_activity(
                "notify.send",
                Sending(notice=notice, target=target),
                result_type=Sent,
                activity_id=f"address-{target.number}",
                start_to_close_timeout=SENDING_LIMIT,
                schedule_to_close_timeout=PATIENCE,
                heartbeat_timeout=BEAT,
                retry_policy=RETRIES,
                summary=f"{target}",
            )
        except FailureError as failure:
            return f"{target}: {sentence(failure)}"
        return sent
