"""A worker of the engine's for one machine at Azure: ``python -m tests.activities.azure_worker``"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from activities.machines import MachineSpec, Powered, run_machine
    from recovery.actions import Order
    from recovery.connection import connect
    from recovery.settings import Settings
    from recovery.stepping import RETRIES

QUEUE = "azure"


@workflow.defn
class Carrying:
    """Give one order to the activity ``part`` of the action, with the limits that a recovery gives it."""

    @workflow.run
    async def run(self, part: str, order: Order[MachineSpec, Powered]) -> Powered:
        """Do so."""
        found: Any = await workflow.execute_activity(
            f"{run_machine.name}.{part}",
            order,
            result_type=Powered,
            start_to_close_timeout=run_machine.limit,
            schedule_to_close_timeout=run_machine.patience,
            heartbeat_timeout=max(run_machine.beat * 4, timedelta(seconds=3)),
            retry_policy=RETRIES,
        )
        return Powered.model_validate(found)


async def main() -> None:
    """Run until killed."""
    client = await connect(Settings.from_environment())
    activities = run_machine.activities()
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[Carrying],
        activities=activities,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
