"""Run a procedure while something is disturbed, and compare its end with that of a run that nobody disturbed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from temporalio.service import RPCError

from lab.estate import Lab
from recovery.models import Verdict
from recovery.report import Report
from tests.matrix.cells import recorded
from tests.matrix.restores import Run, quiet
from tests.running import Recovery, Running

PROGRAM = ["-m", "tests.matrix.crashing_worker"]
OUTCOMES: Mapping[Verdict, str] = {"approve": "recovered", "reject": "compensated"}


@dataclass(frozen=True)
class Undisturbed:
    """What a run showed that nobody disturbed, by verdict, and how long each of its activities took."""

    run: Run
    engine: Running
    shown: Mapping[Verdict, Mapping[str, object]]
    steps: Mapping[Verdict, Mapping[str, float]]

    @property
    def lab(self) -> Lab:
        """The lab on which it ran."""
        return self.run.lab

    def seconds(self, verdict: Verdict = "approve") -> float:
        """Return how long the activities took together."""
        return sum(self.steps[verdict].values())

    def applies(self) -> list[str]:
        """Return the activity ids of its applies."""
        return [name for name in self.steps["approve"] if name.endswith(".apply")]

    async def start(self) -> Recovery:
        """Start the same once more."""
        return await self.run.start(self.engine)

    async def same(self, verdict: Verdict, report: Report) -> None:
        """Compare outcome and systems with the undisturbed run's."""
        assert (report.outcome, report.residual) == (OUTCOMES[verdict], ()), report.failure
        await self.shows(verdict, report)

    async def shows(self, verdict: Verdict, report: Report) -> None:
        """Compare what the systems show."""
        await quiet(self.lab, self.engine)
        shown, wanted = self.run.shows(report), self.shown[verdict]
        wrong = {what: (found, wanted[what]) for what, found in shown.items() if found != wanted[what]}
        assert not wrong, f"{wrong} {self.run.seen()}"


async def undisturbed(run: Run, engine: Running) -> Undisturbed:
    """Run ``run`` once for each verdict."""
    shown: dict[Verdict, Mapping[str, object]] = {}
    steps: dict[Verdict, Mapping[str, float]] = {}
    verdict: Verdict
    for verdict in ("approve", "reject"):
        async with worked(run, engine):
            recovery = await run.start(engine)
            report = await decided(recovery, verdict)
            await quiet(run.lab, engine)
            assert report.outcome == OUTCOMES[verdict], report.failure
            shown[verdict] = run.shows(report)
            steps[verdict] = recorded(await recovery.handle.fetch_history())
    run.proves(shown)
    return Undisturbed(run, engine, shown, steps)


@contextlib.asynccontextmanager
async def worked(run: Run, engine: Running, **environment: str) -> AsyncIterator[None]:
    """Have a worker meanwhile, and take away whatever is left, in the lab and in Temporal."""
    engine.start_worker(**environment)
    try:
        yield
    finally:
        engine.kill_worker()
        async for left in engine.client.list_workflows("ExecutionStatus = 'Running'"):
            await engine.client.get_workflow_handle(left.id, run_id=left.run_id).terminate("the test is over")
        run.clear()


async def decided(recovery: Recovery, verdict: Verdict) -> Report:
    """Decide at the gate, again if the answer was lost on its way, and wait for the end."""
    async with asyncio.timeout(150):
        while not (report := await recovery.status()) or not any(gate.closed for gate in report.gates):
            with contextlib.suppress(RPCError):
                await recovery.approve(verdict=verdict)
        return await recovery.ended(120)


@contextlib.asynccontextmanager
async def deciding(recovery: Recovery, verdict: Verdict) -> AsyncIterator[asyncio.Task[Report]]:
    """Decide and wait for the end beside the body; its result is the last report."""
    task = asyncio.create_task(decided(recovery, verdict))
    try:
        yield task
    finally:
        task.cancel()
