"""Cancelled at any time, once or again and again: either it had ended, or nothing is left of it."""

from __future__ import annotations

import asyncio
import random

import pytest
from temporalio.client import WorkflowHistory

from recovery.report import Report
from tests.matrix.disturbed import Undisturbed, deciding, worked
from tests.running import Recovery, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled_recovery_leaves_nothing(calm: Undisturbed, chance: random.Random, times: int) -> None:
    await cancelled(calm, chance, times)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(15))
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancel_at_any_time_leaves_nothing(
    calm: Undisturbed, chance: random.Random, times: int, number: int
) -> None:
    await cancelled(calm, chance, times)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 10))])
async def test_cancel_while_it_is_put_back_leaves_nothing(
    calm: Undisturbed, chance: random.Random, number: int
) -> None:
    took = sum(seconds for name, seconds in calm.steps["reject"].items() if name.endswith(".undo"))
    async with worked(calm.run, calm.engine):
        recovery = await calm.start()
        async with deciding(recovery, "reject") as end:
            await recovery.until("compensating", pause=0.002)
            await asyncio.sleep(chance.uniform(0, took))
            await recovery.handle.cancel()
            await left_nothing(calm, recovery, await end)


async def cancelled(calm: Undisturbed, chance: random.Random, times: int) -> None:
    """Cancel so many times within the time that it takes undisturbed."""
    async with worked(calm.run, calm.engine):
        recovery = await calm.start()
        await eventually(recovery.status, "a worker answers", 20, pause=0.01)
        async with deciding(recovery, "approve") as end:
            for _ in range(times):
                await asyncio.sleep(chance.uniform(0, calm.seconds()))
                await recovery.handle.cancel()
            await asyncio.gather(end, return_exceptions=True)
        await left_nothing(calm, recovery, await recovery.ended())


async def left_nothing(calm: Undisturbed, recovery: Recovery, report: Report) -> None:
    """Compare with an undisturbed run that was put back; or with a kept one, if it had ended before."""
    assert report.outcome in ("cancelled", "compensated", "recovered"), report.failure
    assert report.residual == ()
    assert undone_too_early(await recovery.handle.fetch_history()) == []
    await calm.shows("approve" if report.outcome == "recovered" else "reject", report)


def undone_too_early(history: WorkflowHistory) -> list[str]:
    """Return the applies that had not ended when their undo was scheduled."""
    running: dict[int, str] = {}
    early = []
    for event in history.events:
        name = event.activity_task_scheduled_event_attributes.activity_id
        if name.endswith(".apply"):
            running[event.event_id] = name
        if name.endswith(".undo"):
            early += [apply for apply in running.values() if apply == name.replace(".undo", ".apply")]
        for ended in (
            event.activity_task_completed_event_attributes,
            event.activity_task_failed_event_attributes,
            event.activity_task_timed_out_event_attributes,
            event.activity_task_canceled_event_attributes,
        ):
            running.pop(ended.scheduled_event_id, None)
    return early
