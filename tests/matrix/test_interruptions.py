"""Interrupted at any moment, in any way: the world is as before, or nothing is undone and exactly that is said."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError

from recovery.report import Report
from tests.matrix.disturbed import Undisturbed, deciding, worked
from tests.matrix.restores import quiet
from tests.running import Recovery, eventually, reset_points

pytestmark = [
    pytest.mark.drawn,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("calm", ["replace", "extract"], indirect=True, scope="session"),
]
ANSWERS = ("compensate", "cancel", "terminate")
OFTEN = 12


@asynccontextmanager
async def under_way(calm: Undisturbed, chance: random.Random) -> AsyncIterator[Recovery]:
    """Have a recovery that was approved at its gate, if it came so far, at a moment left to chance."""
    async with worked(calm.run, calm.engine):
        recovery = await calm.start()
        await eventually(recovery.status, "a worker answers", 20, pause=0.01)
        async with deciding(recovery, "approve"):
            await asyncio.sleep(chance.uniform(0, calm.seconds() * 1.2))
        yield recovery


async def judge(calm: Undisturbed, told: Report, last: Report) -> None:
    """Compare what the systems show with what was ``told`` of the recovery, and with the ``last`` that was said.

    Who was terminated, or left something, keeps the system: a person has looked, and lets it go.
    """
    await calm.engine.freed("lab/orders")
    if last.outcome == "recovered":
        return await calm.same("approve", last)
    if last.committed is not None:
        await quiet(calm.lab, calm.engine)
        return calm.run.stays(calm.shown["approve"], told, last)
    assert last.residual == (), last.failure
    acted = [line.step for line in last.steps if line.state in ("changing", "changed", "undoing", "undone")]
    assert last.outcome in ("cancelled", "compensated") or not acted, (last.failure, acted)  # it failed before it acted
    return await calm.shows("reject", told)


async def cancelled(calm: Undisturbed, chance: random.Random, times: int) -> None:
    """Cancel so many times, soon after each other."""
    async with under_way(calm, chance) as recovery:
        for number in range(times):
            await asyncio.sleep(chance.uniform(0, 1.5) if number else 0)
            with contextlib.suppress(RPCError):  # it has ended
                await recovery.handle.cancel()
        report = await recovery.ended(120)
        assert report.outcome in ("cancelled", "recovered"), report.failure
        await judge(calm, report, report)


async def terminated(calm: Undisturbed, chance: random.Random) -> None:
    """Terminate it, then undo it from its history, through the death of the worker at any moment of that."""
    async with under_way(calm, chance) as recovery:
        with contextlib.suppress(RPCError):  # it has ended
            await recovery.handle.terminate()
        told = await recovery.ended()
        await judge(calm, told, told if told.outcome == "recovered" else await undone(calm, recovery, chance))


async def reset(calm: Undisturbed, chance: random.Random, answer: str) -> None:
    """Reset it to any workflow task that it completed, and give it up there."""
    async with under_way(calm, chance) as recovery:
        again = await reset_anywhere(calm, recovery, chance)
        told = await recovery.ended()
        if answer == "compensate":
            with contextlib.suppress(WorkflowUpdateFailedError):  # past the point of no return it is not offered
                await again.resolve("compensate")
                return await judge(calm, told, await again.ended(120))
        await asyncio.sleep(chance.uniform(0, 1))
        await (again.handle.terminate() if answer == "terminate" else again.handle.cancel())
        last = await again.ended(120)
        return await judge(calm, told, await undone(calm, again, chance) if answer == "terminate" else last)


async def reset_anywhere(calm: Undisturbed, recovery: Recovery, chance: random.Random) -> Recovery:
    """Reset as the UI does; the run that goes on there."""
    client, run, history = calm.engine.client, str(recovery.handle.result_run_id), await recovery.handle.fetch_history()
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=recovery.handle.id, run_id=run),
            reason="a test",
            workflow_task_finish_event_id=chance.choice(reset_points(history)),
            request_id=f"{run}-reset",
        )
    )
    recovery.handle = client.get_workflow_handle(recovery.handle.id, run_id=run)
    return Recovery(client.get_workflow_handle(recovery.handle.id, run_id=answer.run_id))


async def undone(calm: Undisturbed, recovery: Recovery, chance: random.Random) -> Report:
    """Undo a recovery from its history, as ``starter.py undo`` does; its worker is killed meanwhile."""
    engine, ask = calm.engine, {"workflow": recovery.handle.id, "reason": "a test", "requested_by": "carol"}
    undoing = await engine.client.start_workflow(
        "Undo", ask, id=f"undo/{recovery.handle.id}", task_queue=engine.settings.task_queue
    )
    await asyncio.sleep(chance.uniform(0, 3))  # before it has claimed anything, or after all of it
    engine.kill_worker()
    engine.start_worker()
    return await Recovery(undoing).ended(120)


async def test_cancelled_leaves_the_world_as_it_was(calm: Undisturbed, chance: random.Random) -> None:
    await cancelled(calm, chance, chance.randint(1, 3))


async def test_terminated_is_undone_from_its_history(calm: Undisturbed, chance: random.Random) -> None:
    await terminated(calm, chance)


async def test_reset_and_given_up_leaves_the_world_as_it_was(calm: Undisturbed, chance: random.Random) -> None:
    await reset(calm, chance, chance.choice(ANSWERS))


@pytest.mark.soak
@pytest.mark.parametrize("number", range(OFTEN))
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled_often_leaves_the_world_as_it_was(
    calm: Undisturbed, chance: random.Random, times: int, number: int
) -> None:
    await cancelled(calm, chance, times)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(2 * OFTEN))
async def test_terminated_anywhere_is_undone(calm: Undisturbed, chance: random.Random, number: int) -> None:
    await terminated(calm, chance)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(OFTEN))
@pytest.mark.parametrize("answer", ANSWERS)
async def test_reset_anywhere_leaves_the_world_as_it_was(
    calm: Undisturbed, chance: random.Random, answer: str, number: int
) -> None:
    await reset(calm, chance, answer)
