"""Replay what is open before polling: a build that cannot continue a recovery must not touch it."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

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
        result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
        if result.replay_failure is not None:
            raise Mismatch(
                f"this build cannot continue {run.id} (run {run.run_id}), begun by build {_build(history)}:"
                f" {str(result.replay_failure).splitlines()[0]}. Start the worker of that build until it has ended"
            )
        count += 1
    return count


def _build(history: WorkflowHistory) -> str:
    for event in reversed(history.events):
        completed = event.workflow_task_completed_event_attributes
        if completed.worker_version.build_id or completed.binary_checksum:
            return completed.worker_version.build_id or completed.binary_checksum
    return "unknown"
