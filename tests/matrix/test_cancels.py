"""Cancelled at any time, once or again and again: either it had ended, or nothing is left of it."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.matrix.disturbed import Undisturbed, deciding, worked
from tests.running import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("calm", ["restore"], indirect=True, scope="session"),
]


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
        report = await recovery.ended()
        assert report.outcome in ("cancelled", "recovered"), report.failure
        assert report.residual == ()
        await calm.shows("reject" if report.outcome == "cancelled" else "approve", report)
