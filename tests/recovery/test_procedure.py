"""The engine on real files: order of undo, guards, cancels, gates, modes, expiry."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError

from recovery.models import Decision
from recovery.names import activity_id
from tests.recovery.box import Toys
from tests.running import Recovery, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_live_keeps_what_it_did(toys: Toys) -> None:
    report = await toys.run(puts=[toys.put("a"), toys.put("b")])
    assert report.outcome == "recovered"
    assert toys.has() == {"a": "new", "b": "new"}
    assert report.delivered == {"files": "here"}


async def test_desired_state_is_left_unchanged(toys: Toys) -> None:
    (toys.folder / "a").write_text("new")
    report = await toys.run(puts=[toys.put("a"), toys.put("b", fail_apply="before")])
    assert [line.state for line in report.steps] == ["unchanged", "undone"]
    assert toys.has() == {"a": "new"}


async def test_failure_restores_what_was_there(toys: Toys) -> None:
    (toys.folder / "a").write_text("old")
    report = await toys.run(puts=[toys.put("a"), toys.put("b"), toys.put("c", fail_apply="after")])
    assert (report.outcome, report.kind) == ("compensated", "Fatal")
    assert toys.has() == {"a": "old"}
    undone = sorted(report.steps, key=lambda line: line.ended, reverse=True)
    assert [line.step for line in undone] == ["put a", "put b", "put c"]


async def test_failed_undo_guards_everything_beneath(toys: Toys) -> None:
    puts = [toys.put("a"), toys.put("b", fail_undo=True), toys.put("c"), toys.put("d", fail_apply="before")]
    recovery = await toys.start(puts=puts)
    report = await recovery.ended()
    assert report.outcome == "failed"
    assert {line.step: line.state for line in report.steps} == {
        "put a": "undo blocked",
        "put b": "undo failed",
        "put c": "undone",
        "put d": "undone",
    }
    assert toys.has() == {"a": "new", "b": "new"}
    assert len(report.residual) == 2
    description = await recovery.handle.describe()
    assert description.status == WorkflowExecutionStatus.FAILED


async def test_drill_puts_everything_back(toys: Toys) -> None:
    (toys.folder / "a").write_text("old")
    report = await toys.run("drill", puts=[toys.put("a"), toys.put("b")], proves=True, gate="go on")
    assert report.outcome == "drilled"
    assert toys.has() == {"a": "old"}
    assert report.gates[0].closed == "passed without people: a drill"
    assert report.delivered == {}


async def test_drill_that_leaves_something_fails(toys: Toys) -> None:
    report = await toys.run("drill", puts=[toys.put("a", fail_undo=True)])
    assert report.outcome == "failed"
    assert report.residual
    assert toys.has() == {"a": "new"}


async def test_what_is_not_to_stay_is_put_back_in_the_end(toys: Toys) -> None:
    (toys.folder / "a").write_text("old")
    report = await toys.run(procedure="Passing", puts=[toys.put("a"), toys.put("b")], proves=True)
    assert (report.outcome, report.failure) == ("verified", "")
    assert [line.state for line in report.steps] == ["undone", "undone", "seen"]
    assert toys.has() == {"a": "old"}


async def test_failure_of_what_is_not_to_stay_is_no_compensation(toys: Toys) -> None:
    report = await toys.run(procedure="Passing", puts=[toys.put("a"), toys.put("b", fail_apply="after")])
    assert (report.outcome, report.residual) == ("failed", ())
    assert toys.has() == {}


async def test_what_cannot_be_put_back_is_no_success(toys: Toys) -> None:
    report = await toys.run(procedure="Passing", puts=[toys.put("a", fail_undo=True)])
    assert (report.outcome, len(report.residual)) == ("failed", 1)
    assert toys.has() == {"a": "new"}


async def test_drill_only_plans_elsewhere(toys: Toys) -> None:
    report = await toys.run("drill", puts=[toys.put("a", drill=False)], proves=True)
    assert report.outcome == "drilled"
    assert [line.state for line in report.steps] == ["would change", "would look"]
    assert toys.has() == {}


async def test_check_only_plans(toys: Toys) -> None:
    report = await toys.run("check", puts=[toys.put("a"), toys.put("b")], proves=True, gate="go on")
    assert report.outcome == "checked"
    assert [line.state for line in report.steps] == ["would change", "would change", "would look"]
    assert report.gates[0].closed.startswith("would ask 1 × dba")
    assert toys.has() == {}


async def test_repeated_step_is_refused(toys: Toys) -> None:
    report = await toys.run(puts=[toys.put("a"), toys.put("a")])
    assert (report.outcome, report.kind) == ("compensated", "Invalid")
    assert "named twice" in report.failure
    assert toys.has() == {}


async def test_silence_at_a_gate_undoes(toys: Toys) -> None:
    report = await toys.run(puts=[toys.put("a")], gate="go on", within=0.3)
    assert (report.outcome, report.kind) == ("compensated", "Refused")
    assert "nobody decided" in report.failure
    assert toys.has() == {}


async def test_two_people_are_two_people(toys: Toys) -> None:
    recovery = await toys.start("drill", puts=[toys.put("a")], gate="go on", approvals=2, in_drill="ask")
    assert (await recovery.approve("bob"))["needed"] == 1
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await recovery.approve("bob")
    assert "decided already" in str(failed.value.cause)
    assert (await recovery.status() or pytest.fail("no answer")).phase == "gate: go on"
    assert (await recovery.approve("carol"))["needed"] == 0
    assert (await recovery.ended()).outcome == "drilled"


@pytest.mark.parametrize("who", ["alice", "dave", "eve"])
async def test_wrong_people_do_not_count(toys: Toys, who: str) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await recovery.approve(who)
    assert "by: " in str(failed.value.cause)
    await recovery.approve("bob")
    assert (await recovery.ended()).outcome == "recovered"


async def early(recovery: Recovery, evidence: str = "") -> Any:
    decision = Decision(gate="blind", by="bob", plan="p" * 16, evidence=evidence)
    await eventually(lambda: _loaded(recovery), "the gates are known")
    return await recovery.handle.execute_update("decide", decision)


async def _loaded(recovery: Recovery) -> bool:
    report = await recovery.status()
    return bool(report and report.plan)


async def test_early_decision_counts_without_evidence(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a", slow=1.5)], gate="blind", evidence=False)
    assert (await early(recovery))["needed"] == 0
    assert (await recovery.ended()).outcome == "recovered"


async def test_early_decision_does_not_count_with_evidence(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a", slow=1.5)], gate="blind", evidence=True)
    await early(recovery)
    report = await recovery.until("gate")
    assert "early decision: evidence" in report.refusals[-1]
    assert not report.gates[0].decisions
    with pytest.raises(WorkflowUpdateFailedError):
        await recovery.handle.execute_update("decide", Decision(gate="go on", by="bob", plan="x", evidence="x"))
    await recovery.approve("carol")
    assert (await recovery.ended()).outcome == "recovered"


async def test_cancel_waits_for_the_action_and_undoes(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", slow=20)])
    await eventually(lambda: "b" in toys.has(), "the second file is being put")
    for _ in range(3):
        await recovery.handle.cancel()
        await asyncio.sleep(0.05)  # not at once, so that they are three events and not one
    report = await recovery.ended()
    assert report.outcome == "cancelled"
    assert [line.state for line in report.steps] == ["undone", "undone"]
    assert toys.has() == {}
    assert (await recovery.handle.describe()).status == WorkflowExecutionStatus.CANCELED


async def test_cancel_with_residual_fails(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a", fail_undo=True), toys.put("b", slow=20)])
    await eventually(lambda: "b" in toys.has(), "the second file is being put")
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert (report.outcome, report.kind) == ("cancelled", "Cancelled")
    assert report.residual
    assert (await recovery.handle.describe()).status == WorkflowExecutionStatus.FAILED


async def test_drift_before_undo_is_not_overwritten(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    await recovery.until("gate")
    (toys.folder / "a").write_text("somebody else's")
    await recovery.approve("bob", "reject")
    report = await recovery.ended()
    assert report.outcome == "failed"
    assert "somebody else changed it" in report.residual[0]
    assert toys.has() == {"a": "somebody else's"}


async def test_clock_adds_up(toys: Toys) -> None:
    outage = datetime.now(UTC) - timedelta(seconds=100)
    start = {
        "runbook": "toy/toy", "reason": "x", "parameters": {"puts": [toys.put("a", slow=0.5)], "system": "clock"},
        "outage_started_at": outage.isoformat(), "detected_at": (outage + timedelta(seconds=30)).isoformat(),
    }  # fmt: skip
    handle = await toys.client.start_workflow("Toy", start, id="clock", task_queue="toy")
    clock = (await Recovery(handle).ended()).clock
    parts = clock.detect + clock.decide + clock.people + clock.execute + clock.verify + clock.undo
    assert clock.total == pytest.approx(parts, abs=0.01)
    assert clock.detect == pytest.approx(30, abs=0.01)
    assert 70 <= clock.decide < 75
    assert clock.execute >= 0.5
    assert (clock.since, clock.rto_met) == ("outage", True)


async def test_search_attributes_tell_the_phase(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    await recovery.until("gate")

    async def listed() -> list[str]:
        query = f"RecoveryPhase = 'gate: go on' AND RecoveryNeeds = 'dba' AND WorkflowId = '{recovery.handle.id}'"
        return [run.id async for run in toys.client.list_workflows(query)]

    assert await eventually(listed, "the visibility store knows it", 10) == [recovery.handle.id]
    await recovery.approve("bob")
    assert (await recovery.ended()).outcome == "recovered"


async def test_progress_counts_for_its_own_run_alone(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a", slow=15)])
    step = "put a"

    async def changing() -> bool:
        found = await recovery.status()
        return bool(found and found.steps and found.steps[0].state == "changing")

    await eventually(changing, "it is at work")
    run = recovery.handle.first_execution_run_id
    told = {"activity": activity_id(step, "apply"), "progress": {"done": 3, "total": 9, "at": datetime.now(UTC)}}
    saying: tuple[Any, ...] = ("no object", {"run": run}, told | {"run": "before a reset"}, told | {"run": run})
    for said in saying:
        await recovery.handle.signal("progress", said)

    async def heard() -> bool:
        found = await recovery.status()
        return bool(found and found.steps[0].progress)

    await eventually(heard, "it is heard of")
    report = await recovery.status() or pytest.fail("no answer")
    assert [message.split(":")[0] for message in report.refusals] == ["signal progress", "signal progress"]
    await recovery.handle.cancel()
    assert (await recovery.ended()).outcome == "cancelled"
