"""People around a recovery: they decide at gates, answer at holds, or are silent; some cancel, terminate, reset."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError

from recovery.report import GateLine, HoldLine, Report
from tests.matrix.plans import Plan
from tests.running import Recovery, eventually, reset_points

PATIENCE = 150.0
"""Seconds in which a recovery has to end once nothing strikes any more and everybody answers at once."""

LOST = (RPCError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError)
"""What becomes of a word that comes too late, or when nobody is there to hear it."""


class People:
    """Whoever decides and answers in one recovery."""

    def __init__(self, plan: Plan, note: Callable[[str], None]) -> None:
        self._chance, self._note, self.calm = Random(f"{plan.name}/people"), note, False
        self._plan, self.approved = plan, asyncio.Event()
        self._seen: set[str] = set()
        self._asked: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def around(self, recovery: Recovery) -> AsyncIterator[None]:
        """Decide and answer while the body runs."""
        task = asyncio.create_task(self._attend(recovery))
        try:
            yield
        finally:
            task.cancel()
            found = (await asyncio.gather(task, return_exceptions=True))[0]
            assert isinstance(found, asyncio.CancelledError | WorkflowUpdateRPCTimeoutOrCancelledError), repr(found)

    async def _attend(self, recovery: Recovery) -> None:
        while True:
            if report := await recovery.status():
                with contextlib.suppress(*LOST):
                    async with asyncio.timeout(10):
                        await self._heed(recovery, report)
            await asyncio.sleep(0.3)

    async def _heed(self, recovery: Recovery, report: Report) -> None:
        if report.outcome != "running":
            return
        if (hold := report.hold) is not None:
            await self._answer(recovery, hold)
        for gate in report.gates:
            if gate.opened and not gate.closed:
                await self._decide(recovery, gate)

    async def _decide(self, recovery: Recovery, gate: GateLine) -> None:
        # Where everything is to fall into the cut-over, there has to be one.
        shares = [1, 0, 0] if self._plan.late and not self.approved.is_set() else [16, 1, 2]
        verdict = self._once(f"{gate.gate} {gate.plan} {gate.evidence}", ["approve", "reject", ""], shares)
        if not verdict:
            return
        said = {"gate": gate.gate, "by": "bob", "plan": gate.plan, "evidence": gate.evidence, "verdict": verdict}
        self._note(f"bob decides: {verdict} at {gate.gate}")
        await recovery.handle.execute_update("decide", said)
        self.approved.set()

    async def _answer(self, recovery: Recovery, hold: HoldLine) -> None:
        answers = list(hold.answers)
        answer = self._once(hold.token, [*answers, ""], [*(3 if one == "retry" else 1 for one in answers), 1])
        if self.calm:
            self._asked[hold.step] += self._asked[hold.token] == 0
            self._asked[hold.token] += 1
            answer = answers[0] if self._asked[hold.step] <= 3 else answers[-1]
        if not answer:
            return
        self._note(f"carol answers: {answer} at {hold.step} ({hold.why})")
        said = {"hold": hold.token, "by": "carol", "answer": answer, "reason": "chaos"}
        await recovery.handle.execute_update("resolve_step", said)

    def _once(self, key: str, choices: list[str], shares: list[int]) -> str:
        """Choose once for ``key``; while faults strike, what was chosen is not said twice."""
        if key in self._seen and not self.calm:
            return ""
        self._seen.add(key)
        choice = self._chance.choices(choices, shares)[0]
        return choice if choice or not self.calm else choices[0]


@dataclasses.dataclass
class Meddling:
    """What becomes of a recovery that people interfere with: ``recovery`` is its run of the moment."""

    client: Client
    recovery: Recovery
    plan: Plan
    note: Callable[[str], None]
    terminated: bool = False

    @contextlib.asynccontextmanager
    async def interfering(self) -> AsyncIterator[None]:
        """Interfere while the body runs."""
        task = asyncio.create_task(self._all())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _all(self) -> None:
        moments: list[tuple[float, Callable[[], Any]]] = [(at, self._cancel) for at in self.plan.cancels]
        asked = ((self.plan.pause, self._pause), (self.plan.reset, self._reset), (self.plan.terminate, self._terminate))
        moments += [(at, call) for at, call in asked if at is not None]
        began = time.monotonic()
        for at, call in sorted(moments, key=lambda one: one[0]):
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            await self._surely(call)

    async def _surely(self, call: Callable[[], Any]) -> None:
        """Call until Temporal has answered: it may be down just now, or the recovery over."""
        for _ in range(20):
            with contextlib.suppress(RPCError):
                if (await self.recovery.handle.describe()).close_time is None:
                    await call()
                return
            await asyncio.sleep(0.5)

    async def _cancel(self) -> None:
        self.note("somebody cancels")
        await self.recovery.handle.cancel()

    async def _pause(self) -> None:
        self.note("somebody asks to hold")
        await self.recovery.handle.signal("hold", {"by": "bob", "reason": "chaos"})

    async def _terminate(self) -> None:
        self.note("somebody terminates it")
        await self.recovery.handle.terminate("chaos")
        self.terminated = True

    async def _reset(self) -> None:
        """Reset it to any of its workflow tasks."""
        handle = self.recovery.handle
        done = reset_points(await handle.fetch_history())
        if not done:
            return
        chosen = Random(f"{self.plan.name}/reset").choice(done)
        request = ResetWorkflowExecutionRequest(
            namespace=self.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            reason="chaos",
            workflow_task_finish_event_id=chosen,
            request_id=f"{handle.id}-{chosen}",
        )
        answer = await self.client.workflow_service.reset_workflow_execution(request)
        self.note(f"somebody resets it to event {chosen} of {done[-1]}")
        self.recovery.handle = self.client.get_workflow_handle(handle.id, run_id=answer.run_id)


async def closed(recovery: Recovery, seconds: float) -> bool:
    """Wait until the newest run is closed; False when it is not in time."""

    async def look() -> bool:
        with contextlib.suppress(RPCError):
            return (await recovery.handle.describe()).close_time is not None
        return False

    with contextlib.suppress(AssertionError):
        return bool(await eventually(look, "the end", seconds, pause=0.2))
    return False
