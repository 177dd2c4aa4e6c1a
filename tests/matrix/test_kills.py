"""A worker killed at any point of any activity, Temporal killed at any time: every recovery ends as if nothing was."""

from __future__ import annotations

import random
import signal
from asyncio import sleep
from collections.abc import Sequence
from pathlib import Path

import pytest

from recovery import embedded, processes
from recovery.models import Verdict
from tests.matrix.cells import Cell, matrix
from tests.matrix.disturbed import OUTCOMES, Undisturbed, deciding, worked
from tests.running import Running, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAMPLE = {"restore": 1, "replace": 1, "extract": 1}


async def crash(calm: Undisturbed, cell: Cell, folder: Path) -> None:
    """Run the recovery of ``cell``, and compare what is left with the undisturbed one."""
    hurt = {"HURT_ACTIVITY": cell.activity, "HURT_POINT": cell.point, "HURT_SECONDS": str(cell.seconds)}
    worker = worked(calm.run, calm.engine, **hurt, HURT_ONCE=str(folder / "struck"))
    async with worker, deciding(await calm.start(), cell.verdict) as end:
        await eventually(lambda: calm.engine.died() == -signal.SIGKILL, "the worker has killed itself", 90)
        calm.engine.start_worker()
        await calm.same(cell.verdict, await end)


async def crash_all(cells: Sequence[Cell], calm: Undisturbed, folder: Path, subtests: pytest.Subtests) -> None:
    for number, cell in enumerate(cells):
        (own := folder / str(number)).mkdir()
        with subtests.test(str(cell)):
            await crash(calm, cell, own)


async def test_killed_worker_changes_nothing(
    calm: Undisturbed, chance: random.Random, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    await crash_all(matrix(calm.steps, chance)[: SAMPLE[calm.run.name]], calm, tmp_path, subtests)


@pytest.mark.soak
async def test_worker_killed_anywhere_changes_nothing(
    calm: Undisturbed, chance: random.Random, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    await crash_all(matrix(calm.steps, chance), calm, tmp_path, subtests)


@pytest.mark.parametrize(
    ("calm", "verdict"),
    [
        ("restore", "reject"),
        ("replace", "approve"),
        pytest.param("restore", "approve", marks=pytest.mark.soak),
        pytest.param("extract", "approve", marks=pytest.mark.soak),
    ],
    indirect=["calm"],
    scope="session",
)
async def test_killed_temporal_changes_nothing(calm: Undisturbed, chance: random.Random, verdict: Verdict) -> None:
    await temporal_killed(calm, chance, verdict)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("verdict", OUTCOMES)
async def test_temporal_killed_often_changes_nothing(
    calm: Undisturbed, chance: random.Random, verdict: Verdict, number: int
) -> None:
    await temporal_killed(calm, chance, verdict)


async def temporal_killed(calm: Undisturbed, chance: random.Random, verdict: Verdict) -> None:
    """Kill Temporal twice in one recovery, each time after it was back for as long as chance says."""
    async with worked(calm.run, calm.engine), deciding(await calm.start(), verdict) as end:
        for _ in range(2):
            await sleep(chance.uniform(0, calm.seconds(verdict)))
            await kill_temporal(calm.engine)
        await calm.same(verdict, await end)


async def kill_temporal(engine: Running) -> None:
    """Kill -9 the embedded server, and wait until somebody has brought it back."""
    pid = embedded.status(engine.settings).pid
    victim = processes.identify(pid) if pid else None
    assert victim is not None
    processes.send(victim, signal.SIGKILL)

    def back() -> bool:
        found = embedded.status(engine.settings).pid
        return found is not None and found != victim.pid

    await eventually(back, "Temporal is back", 20)
