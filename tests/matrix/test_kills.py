"""A worker killed at any point of any activity, Temporal killed at any time: every recovery ends as if nothing was."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from lab.estate import Lab
from recovery import embedded, processes
from recovery.models import Verdict
from recovery.report import Report
from tests.matrix.cells import Cell, matrix, recorded
from tests.matrix.restores import RUNS, Run, quiet
from tests.running import Recovery, Running, eventually, running
from tests.workflows.test_side_copy import restorable

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAM = ["-m", "tests.matrix.crashing_worker"]
OUTCOMES: Mapping[Verdict, str] = {"approve": "recovered", "reject": "compensated"}
SAMPLE = 8


@dataclass(frozen=True)
class Undisturbed:
    """What a run showed that nobody disturbed, by verdict, and how long each of its activities took."""

    run: Run
    shown: Mapping[Verdict, Mapping[str, object]]
    steps: Mapping[Verdict, Mapping[str, float]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab) -> AsyncIterator[Running]:
    async with running(lab, program=PROGRAM, worker=False) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(RUNS))
async def undisturbed(request: pytest.FixtureRequest, lab: Lab, engine: Running) -> AsyncIterator[Undisturbed]:
    run = RUNS[request.param](lab, await restorable(lab))
    shown, steps = {}, {}
    verdict: Verdict
    for verdict in OUTCOMES:
        async with worked(engine, run):
            recovery = await run.start(engine)
            await recovery.approve(verdict=verdict)
            report = await recovery.ended()
            await quiet(lab, engine)
            assert report.outcome == OUTCOMES[verdict], report.failure
            shown[verdict] = run.shows(report)
            steps[verdict] = recorded(await recovery.handle.fetch_history())
    assert shown["approve"]["copies"]
    assert shown["reject"] == {**shown["approve"], "copies": [], "servers": 0, "jobs": []}
    yield Undisturbed(run, shown, steps)


@contextlib.asynccontextmanager
async def worked(engine: Running, run: Run, **hurt: str) -> AsyncIterator[None]:
    """Run a worker meanwhile, and take away whatever is left, in the lab and in Temporal."""
    engine.start_worker(**hurt)
    try:
        yield
    finally:
        engine.kill_worker()
        async for left in engine.client.list_workflows("ExecutionStatus = 'Running'"):
            await engine.client.get_workflow_handle(left.id, run_id=left.run_id).terminate("the test is over")
        run.clear()


async def decided(recovery: Recovery, verdict: Verdict) -> Report:
    """Decide at the gate, whatever happens meanwhile, and wait for the end."""
    await recovery.until("gate")
    await recovery.approve(verdict=verdict)
    return await recovery.ended()


async def crash(engine: Running, calm: Undisturbed, cell: Cell, folder: Path) -> None:
    """Run the recovery of ``cell`` and compare what is left with the undisturbed one."""
    hurt = {"HURT_ACTIVITY": cell.activity, "HURT_POINT": cell.point, "HURT_SECONDS": str(cell.seconds)}
    async with worked(engine, calm.run, **hurt, HURT_ONCE=str(folder / "struck")):
        recovery = await calm.run.start(engine)
        deciding = asyncio.create_task(decided(recovery, cell.verdict))
        try:
            await eventually(lambda: engine.died() == -signal.SIGKILL, "the worker has killed itself", 40)
            engine.start_worker()
            report = await deciding
        finally:
            deciding.cancel()
        await same_end(engine, calm, cell.verdict, report)


async def same_end(engine: Running, calm: Undisturbed, verdict: Verdict, report: Report) -> None:
    """Compare outcome and systems with those of the undisturbed run."""
    assert (report.outcome, report.residual) == (OUTCOMES[verdict], ()), report.failure
    await quiet(calm.run.lab, engine)
    assert calm.run.shows(report) == calm.shown[verdict]


async def crash_all(
    cells: Sequence[Cell], engine: Running, calm: Undisturbed, folder: Path, subtests: pytest.Subtests
) -> None:
    for number, cell in enumerate(cells):
        (own := folder / str(number)).mkdir()
        with subtests.test(str(cell)):
            await crash(engine, calm, cell, own)


async def test_killed_worker_changes_nothing(
    engine: Running, undisturbed: Undisturbed, chance: random.Random, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    cells = matrix(undisturbed.steps, chance)[:SAMPLE]
    await crash_all(cells, engine, undisturbed, tmp_path, subtests)


@pytest.mark.soak
async def test_worker_killed_anywhere_changes_nothing(
    engine: Running, undisturbed: Undisturbed, chance: random.Random, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    await crash_all(matrix(undisturbed.steps, chance), engine, undisturbed, tmp_path, subtests)


@pytest.mark.parametrize("verdict", OUTCOMES)
async def test_killed_temporal_changes_nothing(
    engine: Running, undisturbed: Undisturbed, chance: random.Random, verdict: Verdict
) -> None:
    took = sum(undisturbed.steps[verdict].values())
    async with worked(engine, undisturbed.run):
        recovery = await undisturbed.run.start(engine)
        deciding = asyncio.create_task(decided(recovery, verdict))
        for _ in range(2):
            await asyncio.sleep(chance.uniform(0, took))
            await kill_temporal(engine)
        await same_end(engine, undisturbed, verdict, await deciding)


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
