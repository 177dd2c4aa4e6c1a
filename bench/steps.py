"""What a step costs beside the bare activities: the same work, the same server, the same run, interleaved."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from activities import leases
from bench.flows import Bare, Steps
from bench.toys import ON, SWITCH, Switch, frozen
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.leasing import SystemLease
from recovery.models import Frozen, Load, Start, Wire
from recovery.settings import Settings

STEPS = 100
ROUNDS = 4


@activity.defn(name="bench.bare")
async def bare(spec: Switch) -> Wire:
    """Do nothing, as an activity."""
    return Wire()


@activity.defn(name="catalog.load")
async def load(order: Load) -> Frozen:
    """Stand in for the catalog: this measures steps, not files."""
    return frozen(order.start)


async def measure() -> dict[str, float]:
    """Return the ratio of a step to a bare activity, both in milliseconds, and what an activity costs at p95."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = Settings.from_environment({"RECOVERY_STATE": folder})
        async with Keeper(settings) as endpoint:
            client = await connect(settings, endpoint)
            activities: list[Callable[..., Any]] = [bare, load, *leases.ALL, *SWITCH.activities()]
            async with Worker(client, task_queue="bench", workflows=[Bare, Steps, SystemLease], activities=activities):
                return await _rounds(client)


async def _rounds(client: Client) -> dict[str, float]:
    bare_seconds, step_seconds, outside = [], [], []
    for turn in range(ROUNDS + 1):
        ON.clear()
        began = time.perf_counter()
        await client.execute_workflow(Bare.run, STEPS, id="bare", task_queue="bench")
        middle = time.perf_counter()
        start = Start(runbook="bench/steps", reason="bench", parameters={"steps": STEPS})
        await client.execute_workflow(Steps.run, start, id="steps", task_queue="bench")
        ended = time.perf_counter()
        if turn:  # the first round warms up
            bare_seconds.append((middle - began) / STEPS)
            step_seconds.append((ended - middle) / STEPS)
            outside += await _outside(client, "steps")
    return {
        "bare activity, ms": round(median(bare_seconds) * 1000, 1),
        "step of the engine, ms": round(median(step_seconds) * 1000, 1),
        "ratio": round(median(s / b for s, b in zip(step_seconds, bare_seconds, strict=True)), 2),
        "an activity outside its action, p50 ms": round(median(outside) * 1000, 1),
        "an activity outside its action, p95 ms": round(quantiles(outside, n=20)[-1] * 1000, 1),
    }


async def _outside(client: Client, identity: str) -> list[float]:
    """Return, for each activity, the seconds from being scheduled to being completed; its action takes none."""
    history = await client.get_workflow_handle(identity).fetch_history()
    scheduled = {
        event.event_id: event.event_time.ToDatetime(UTC)
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    }
    return [
        _between(
            scheduled[event.activity_task_completed_event_attributes.scheduled_event_id],
            event.event_time.ToDatetime(UTC),
        )
        for event in history.events
        if event.HasField("activity_task_completed_event_attributes")
    ]


def _between(first: datetime, last: datetime) -> float:
    return (last - first).total_seconds()
