"""Replay what is open before polling: a build that cannot continue a recovery must not touch it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from recovery.past import resets
from recovery.plugin import plugin


class Mismatch(Exception):
    """This build decides differently from the one that began an open recovery."""


async def check_open_runs(client: Client, queue: str, workflows: Sequence[type]) -> int:
    """Replay every open run of ``queue``, and return how many there were.

    Raises ``Mismatch``, naming the run and the build that began it.
    """
    replayer = Replayer(workflows=workflows, plugins=[plugin()])
    count = 0
    async for run in client.list_workflows(f'TaskQueue = "{queue}" AND ExecutionStatus = "Running"'):
        history = await client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        result = await replayer.replay_workflow(of_its_run(history), raise_on_replay_failure=False)
        if result.replay_failure is not None:
            raise Mismatch(
                f"this build cannot continue {run.id} (run {run.run_id}), begun by build {_build(history)}:"
                f" {str(result.replay_failure).splitlines()[0]}. Start the worker of that build until it has ended"
            )
        count += 1
    return count


def of_its_run(history: WorkflowHistory) -> WorkflowHistory:
    """Return ``history`` so that a replay has the id of its own run.

    The SDK takes it from the first event, which a reset run shares with the run that it came from; a workflow that
    asks whether it was reset would decide otherwise than it did.
    """
    found = resets(history.events)
    if not found:
        return history
    events = [copy.deepcopy(history.events[0]), *history.events[1:]]
    events[0].workflow_execution_started_event_attributes.original_execution_run_id = found[-1].new_run_id
    return WorkflowHistory(history.workflow_id, events)


def _build(history: WorkflowHistory) -> str:
    for event in reversed(history.events):
        completed = event.workflow_task_completed_event_attributes
        if completed.worker_version.build_id or completed.binary_checksum:
            return completed.worker_version.build_id or completed.binary_checksum
    return "unknown"
