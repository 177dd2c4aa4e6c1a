"""Terminated and reset recoveries, on real files: the stack of any run is in its history."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.worker import Replayer

from recovery.leasing import SystemLease
from recovery.plugin import plugin
from recovery.replay import check_open_runs, of_its_run
from recovery.report import Report
from recovery.undoing import Undoing
from tests.recovery.box import Toys
from tests.recovery.test_holding import HOLD, failing
from tests.recovery.toys import Toy
from tests.running import Recovery, eventually, reset_points

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def undone(toys: Toys, recovery: Recovery, **fields: Any) -> Report:
    """Undo a recovery from its history, as ``starter.py undo`` does."""
    ask = {"workflow": recovery.handle.id, "reason": "a test", "requested_by": "bob"} | fields
    handle = await toys.client.start_workflow("Undo", ask, id=f"undo/{recovery.handle.id}", task_queue="toy")
    return await Recovery(handle).ended()


async def reset(client: Client, recovery: Recovery, after: str) -> Recovery:
    """Reset a run to the workflow task that followed the last completion of the activity ``after``, as the UI does.

    Without an activity it is the first one.
    """
    own = client.get_workflow_handle(recovery.handle.id, run_id=_run(recovery))

    async def task() -> int | None:
        """Return the task's end; a query may have shown what it did before that was written."""
        history = await own.fetch_history()
        names = {e.event_id: e.activity_task_scheduled_event_attributes.activity_id for e in history.events}
        ends = ((e.event_id, e.activity_task_completed_event_attributes.scheduled_event_id) for e in history.events)
        done = [event for event, scheduled in ends if names.get(scheduled) == after] if after else [0]
        return next((point for point in reset_points(history) if done and point > done[-1]), None)

    return await reset_at(client, recovery, await eventually(task, f"a task is done after {after or 'the start'}"))


async def reset_at(client: Client, recovery: Recovery, event: int) -> Recovery:
    """Reset a run to the workflow task that completed with ``event``."""
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=recovery.handle.id, run_id=_run(recovery)),
            reason="a test",
            workflow_task_finish_event_id=event,
            request_id=f"{recovery.handle.id}-{event}",
        )
    )
    return Recovery(client.get_workflow_handle(recovery.handle.id, run_id=answer.run_id))


def _run(recovery: Recovery) -> str:
    """Return the run that was started or reset to, also where another one has come after it."""
    return recovery.handle.run_id or recovery.handle.result_run_id or ""


async def test_terminated_recovery_is_undone(toys: Toys) -> None:
    (toys.folder / "a").write_text("old")
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b")], gate="go on")
    await recovery.until("gate")
    await recovery.handle.terminate()
    assert toys.has() == {"a": "new", "b": "new"}
    report = await undone(toys, recovery)
    assert (report.outcome, report.residual) == ("compensated", ())
    assert [line.step for line in report.steps] == ["put b", "put a"]
    assert toys.has() == {"a": "old"}


async def test_action_in_flight_is_waited_out(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", slow=15)])
    await eventually(lambda: "b" in toys.has(), "the second file is being put")
    await recovery.handle.terminate()
    report = await undone(toys, recovery)
    assert (report.outcome, report.residual) == ("compensated", ())
    assert toys.has() == {}


async def test_undo_twice_is_undo_once(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    await recovery.until("gate")
    await recovery.handle.terminate()
    for _ in range(2):
        assert (await undone(toys, recovery)).outcome == "compensated"
        assert toys.has() == {}


async def test_running_recovery_is_not_undone(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    await recovery.until("gate")
    report = await undone(toys, recovery)
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert "still running; cancel it" in report.failure
    assert toys.has() == {"a": "new"}
    await recovery.handle.cancel()
    assert (await recovery.ended()).outcome == "cancelled"


async def test_unknown_recovery_is_refused(toys: Toys) -> None:
    handle = await toys.client.start_workflow(
        "Undo", {"workflow": "nobody", "reason": "a test"}, id="undo/nobody", task_queue="toy"
    )
    report = await Recovery(handle).ended()
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert "Temporal knows no such recovery" in report.failure


async def test_committed_recovery_is_not_undone(toys: Toys) -> None:
    puts = [toys.put("a"), toys.put("b", commits="clients may write")]
    recovery = await toys.start(puts=puts, gate="go on")
    await recovery.until("gate")
    await recovery.handle.terminate()
    report = await undone(toys, recovery)
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert "point of no return (clients may write)" in report.failure
    assert "put b, put a" in report.failure
    assert toys.has() == {"a": "new", "b": "new"}


async def test_commit_that_never_acted_is_undone(toys: Toys) -> None:
    puts = [toys.put("a"), failing(toys, commits="clients may write")]
    recovery = await toys.start(puts=puts, hold=HOLD)
    await recovery.until("hold")
    await recovery.handle.terminate()
    report = await undone(toys, recovery)
    assert (report.outcome, report.committed) == ("compensated", None)
    assert toys.has() == {}


async def test_undo_names_what_drifted(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b")], gate="go on")
    await recovery.until("gate")
    await recovery.handle.terminate()
    (toys.folder / "b").write_text("somebody else's")
    report = await undone(toys, recovery)
    assert report.outcome == "failed"
    assert [line.partition(":")[0] for line in report.residual] == ["put b", "put a"]
    assert "somebody else changed it" in report.residual[0]
    assert toys.has() == {"a": "new", "b": "somebody else's"}


async def test_reset_run_holds_and_knows_what_was_done(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b")], then=[toys.put("c")], gate="go on", hold=HOLD)
    await recovery.approve("bob")
    await recovery.ended()
    assert toys.has() == {"a": "new", "b": "new", "c": "new"}
    again = await reset(toys.client, recovery, "put-a.apply")
    report = await again.until("hold: go on after the reset")
    assert report.was_reset
    await again.resolve("compensate")
    report = await again.ended()
    assert (report.outcome, report.residual) == ("compensated", ())
    assert toys.has() == {}


async def test_reset_run_that_is_cancelled_at_once_undoes_what_was_done(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b")], gate="go on", hold=HOLD)
    await recovery.until("gate")
    again = await reset(toys.client, recovery, "")
    await again.handle.cancel()
    report = await again.ended()
    assert (report.outcome, report.residual) == ("cancelled", ())
    assert toys.has() == {}


@pytest.mark.parametrize("after", ["", "load-the-runbook"])
async def test_run_reset_to_its_beginning_takes_over(toys: Toys, after: str) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", hold=HOLD)
    await recovery.until("gate")
    again = await reset(toys.client, recovery, after)
    await again.until("hold: go on after the reset")
    await again.resolve("compensate")
    report = await again.ended()
    assert (report.outcome, report.residual, report.was_reset) == ("compensated", (), True)
    assert toys.has() == {}


async def test_reset_run_goes_on_without_old_approvals(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], then=[toys.put("c", slow=5)], gate="go on", hold=HOLD)
    old = (await recovery.until("gate")).gates[0]
    await recovery.approve("bob")
    await eventually(lambda: "c" in toys.has(), "what was approved is on its way")
    again = await reset(toys.client, recovery, "put-a.apply")
    await again.until("hold: go on after the reset")
    await again.resolve("continue")
    report = await again.until("gate")
    assert not report.gates[0].decisions
    with pytest.raises(WorkflowUpdateFailedError):
        await again.handle.execute_update(
            "decide", {"gate": "go on", "by": "carol", "plan": old.plan, "evidence": old.evidence}
        )
    await again.approve("carol")
    assert (await again.ended()).outcome == "recovered"
    assert toys.has() == {"a": "new", "c": "new"}


async def test_reset_at_a_gate_voids_what_was_decided(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", then=[toys.put("c")], hold=HOLD)
    await recovery.approve("bob")
    await recovery.ended()
    again = await reset(toys.client, recovery, "put-a.apply")  # the approval is applied again by Temporal
    report = await again.until("hold: go on after the reset")
    assert not report.gates or not report.gates[0].decisions
    await again.resolve("compensate")
    assert (await again.ended()).outcome == "compensated"
    assert toys.has() == {}


async def test_reset_of_a_reset_run_is_known(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", then=[toys.put("c"), toys.put("d")], hold=HOLD)
    await recovery.approve("bob")
    await recovery.ended()
    first = await reset(toys.client, recovery, "put-a.apply")
    await first.resolve("continue")
    await first.until("gate")
    second = await reset(toys.client, first, "put-a.apply")
    await second.until("hold: go on after the reset")
    await second.resolve("compensate")
    report = await second.ended()
    assert (report.outcome, report.residual) == ("compensated", ())
    assert toys.has() == {}


async def test_terminated_reset_run_is_undone(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", then=[toys.put("c")], hold=HOLD)
    await recovery.approve("bob")
    await recovery.ended()
    again = await reset(toys.client, recovery, "put-a.observe")
    await again.until("hold: go on after the reset")
    await again.handle.terminate()
    report = await undone(toys, again)
    assert (report.outcome, report.residual) == ("compensated", ())
    assert toys.has() == {}


async def test_reset_run_can_be_replayed(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", then=[toys.put("c")], hold=HOLD)
    await recovery.approve("bob")
    await recovery.ended()
    first = await reset(toys.client, recovery, "put-a.apply")
    await first.resolve("continue")
    await first.until("gate")
    second = await reset(toys.client, first, "put-a.apply")
    await second.until("hold: go on after the reset")
    for run in (recovery, first, second):
        history = await run.handle.fetch_history()
        replayer = Replayer(workflows=[Toy], plugins=[plugin()])
        result = await replayer.replay_workflow(of_its_run(history), raise_on_replay_failure=False)
        assert result.replay_failure is None
    assert await check_open_runs(toys.client, "toy", [Toy, Undoing, SystemLease]) > 0
    await second.resolve("compensate")
    assert (await second.ended()).outcome == "compensated"


async def test_check_leaves_nothing_to_undo(toys: Toys) -> None:
    recovery = await toys.start("check", puts=[toys.put("a")])
    await recovery.ended()
    report = await undone(toys, recovery)
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert "was a check" in report.failure


async def test_history_that_is_no_json_is_refused_at_once(toys: Toys) -> None:
    handle = await toys.client.start_workflow("Toy", b"\x00\xff", id=f"raw-{toys.folder.name}", task_queue="toy")
    await handle.terminate()
    report = await undone(toys, Recovery(handle))
    assert (report.outcome, report.kind) == ("failed", "Fatal")
    assert report.failure.startswith("history: what it holds is no JSON")


async def test_commit_of_what_stood_already_is_in_the_history(toys: Toys) -> None:
    (toys.folder / "b").write_text("new")
    puts = [toys.put("a"), toys.put("b", commits="clients may write")]
    recovery = await toys.start(puts=puts, gate="go on")
    await recovery.until("gate")
    await recovery.handle.terminate()
    report = await undone(toys, recovery)
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert toys.has() == {"a": "new", "b": "new"}


async def test_what_ended_well_is_not_undone_by_mistake(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")])
    assert (await recovery.ended()).outcome == "recovered"
    report = await undone(toys, recovery)
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert "ended well" in report.failure
    assert toys.has() == {"a": "new"}
    assert (await undone(toys, recovery, completed=True)).outcome == "compensated"
    assert toys.has() == {}


async def test_undo_knows_that_clients_are_shut_out(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a", dark=True), toys.put("b", fail_undo=True)], gate="go on", hold=HOLD)
    await recovery.until("gate")
    await recovery.handle.terminate()
    ask = {"workflow": recovery.handle.id, "reason": "a test", "requested_by": "bob"}
    handle = await toys.client.start_workflow("Undo", ask, id=f"undo/{recovery.handle.id}", task_queue="toy")
    report = await Recovery(handle).until("hold")
    assert report.dark
    assert report.hold is not None
    assert (report.hold.until - report.hold.opened).total_seconds() == 30
    await Recovery(handle).resolve("accept")
    assert (await Recovery(handle).ended()).outcome == "failed"


async def test_reset_run_terminated_at_once_leaves_its_systems_free(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", hold=HOLD)
    await recovery.until("gate")
    again = await reset(toys.client, recovery, "put-a.observe")
    await again.handle.terminate()  # it had no time to take the claims of the run before it over
    report = await undone(toys, again)
    assert (report.outcome, report.residual) == ("compensated", ())
    assert toys.has() == {}
