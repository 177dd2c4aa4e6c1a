"""The cut-over itself disturbed: a worker that stands still and wakes, a connection cut in the middle of a job."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.matrix.disturbed import Undisturbed, deciding, worked
from tests.matrix.relay import relay
from tests.matrix.test_cuts import cut, through
from tests.matrix.test_takeovers import POINTS, woken_at_the_end
from tests.running import eventually

pytestmark = [
    pytest.mark.drawn,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("calm", ["replace"], indirect=True, scope="session"),
]

STEPS = {
    "close": "refuse-clients-at-the-running-orders.apply",
    "salvage": "export-what-the-copy-of-orders-lacks.apply",
    "fence": "fence-the-running-orders.apply",
    "promote": "promote-the-copy-of-orders.apply",
    "install": "put-the-copy-in-the-place-of-orders.apply",
    "archive": "write-into-the-restored-orders-and-archive-its-log.apply",
    "open": "let-clients-into-the-restored-orders.apply",
    "base_backup": "take-a-base-backup-of-orders.apply",
}
"""The jobs of a cut-over, and the activities that run them."""


async def test_every_job_has_its_activity(calm: Undisturbed) -> None:
    assert set(STEPS.values()) == {name for name in calm.applies() if not name.startswith(("lay-", "replay-"))}


async def test_worker_that_wakes_after_the_cut_over_changes_nothing(
    calm: Undisturbed, chance: random.Random, tmp_path: Path
) -> None:
    step = chance.choice(["close", "fence", "install", "open"])
    await woken_at_the_end(calm, chance, STEPS[step], "within", "approve", tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("step", STEPS)
async def test_worker_that_wakes_after_any_step_changes_nothing(
    calm: Undisturbed, chance: random.Random, tmp_path: Path, step: str, point: str
) -> None:
    await woken_at_the_end(calm, chance, STEPS[step], point, "approve", tmp_path)


@pytest.mark.parametrize(
    "job", [pytest.param(job, marks=() if job in ("fence", "install") else pytest.mark.soak) for job in STEPS]
)
async def test_connection_cut_in_a_job_changes_nothing(calm: Undisturbed, job: str, tmp_path: Path) -> None:
    async with relay(calm.lab.ports["ssh"]) as between, cut(calm, job, **through(between, calm.lab, tmp_path)):
        between.cut()


@pytest.mark.soak
async def test_connection_cut_at_random_changes_nothing(
    calm: Undisturbed, chance: random.Random, tmp_path: Path
) -> None:
    async with (
        relay(calm.lab.ports["ssh"]) as between,
        worked(calm.run, calm.engine, **through(between, calm.lab, tmp_path)),
        deciding(await calm.start(), "approve") as end,
    ):
        await eventually(lambda: between.accepted, "the worker has connected", 20)
        for _ in range(chance.randint(3, 9)):
            await asyncio.sleep(chance.uniform(0, calm.seconds() / 3))
            between.cut()
        await calm.same("approve", await end)
