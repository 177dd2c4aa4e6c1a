"""A worker for the procedure that tells people: ``python -m tests.recovery.telling_worker``"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from activities import leases, notifications
from recovery.connection import connect
from recovery.leasing import SystemLease
from recovery.models import Frozen, Load
from recovery.notification import Notification
from recovery.settings import Settings
from tests.recovery.putting import load
from tests.recovery.telling import Telling

QUEUE = "telling"


@activity.defn(name="catalog.load")
async def load_telling(order: Load) -> Frozen:
    """Give every start the same runbook, with the channels that it asks for."""
    frozen = await load(order)
    return frozen.model_copy(update={"notify": tuple(order.start.parameters.get("notify", ()))})


@contextlib.asynccontextmanager
async def worker(client: Client, cached: int = 500) -> AsyncIterator[None]:
    """Run a worker that knows this procedure."""
    known: list[Callable[..., Any]] = [load_telling, *leases.ALL, notifications.targets, notifications.send]
    workflows = [Telling, SystemLease, Notification]
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=workflows,
        activities=known,
        max_cached_workflows=cached,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
    ):
        yield


async def main() -> None:
    """Run until killed."""
    async with worker(await connect(Settings.from_environment())):
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
