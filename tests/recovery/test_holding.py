"""Holds on real files: who may answer what, where silence leads, the point of no return, and what a cancel does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowUpdateFailedError

from tests.recovery.box import Toys
from tests.recovery.putting import PUT
from tests.running import Recovery, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOLD = {"roles": ["dba"], "within": "PT60S", "dark_within": "PT30S"}
SHORT = {"roles": ["dba"], "within": "PT0.5S", "dark_within": "PT0.5S"}
OPENS = "clients may write"


def failing(toys: Toys, name: str = "b", when: str = "before", **how: Any) -> dict[str, Any]:
    return toys.put(name, fail_apply=when, mend=str(toys.folder / "mended"), **how)


async def refused(recovery: Recovery, answer: str, by: str = "bob", reason: str = "a test") -> str:
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await recovery.resolve(answer, by, reason)
    return str(failed.value.cause)


async def test_retried_step_goes_on(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), failing(toys)], hold=HOLD)
    await recovery.until("hold: put b")
    (toys.folder / "mended").touch()
    await recovery.resolve("retry")
    report = await recovery.ended()
    assert (report.outcome, report.holds[0].answer, report.holds[0].by) == ("recovered", "retry", "bob")
    assert toys.has() == {"a": "new", "b": "new", "mended": ""}


async def test_retry_keeps_what_was_before(toys: Toys) -> None:
    (toys.folder / "b").write_text("old")
    recovery = await toys.start(puts=[failing(toys, when="after"), failing(toys, "c")], hold=HOLD)
    await recovery.until("hold: put b")
    await recovery.resolve("retry")  # it had acted before it failed: now it finds its own work
    await recovery.until("hold: put c")
    await recovery.resolve("compensate")
    assert (await recovery.ended()).outcome == "compensated"
    assert toys.has() == {"b": "old"}


async def test_compensated_hold_undoes(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), failing(toys)], hold=HOLD)
    await recovery.resolve("compensate")
    report = await recovery.ended()
    assert (report.outcome, report.kind) == ("compensated", "Refused")
    assert toys.has() == {}


async def test_silent_hold_undoes(toys: Toys) -> None:
    report = await toys.run(puts=[toys.put("a"), failing(toys)], hold=SHORT)
    assert (report.outcome, report.holds[0].closed) == ("compensated", "nobody answered in time")
    assert toys.has() == {}


async def test_step_that_must_not_be_missing_is_not_skipped(toys: Toys) -> None:
    recovery = await toys.start(puts=[failing(toys)], hold=HOLD)
    assert "answer: skip is not offered here" in await refused(recovery, "skip")
    await recovery.resolve("compensate")
    assert (await recovery.ended()).outcome == "compensated"


async def test_skip_needs_a_reason(toys: Toys) -> None:
    recovery = await toys.start(puts=[failing(toys, how="lay"), toys.put("c")], hold=HOLD)
    assert "reason: who answers skip says why" in await refused(recovery, "skip", reason=" ")
    await recovery.resolve("skip", reason="nobody needs it")
    report = await recovery.ended()
    assert report.outcome == "recovered"
    assert report.steps[0].failure == "skipped by bob: nobody needs it"
    assert toys.has() == {"c": "new"}


async def test_proof_that_may_be_missing_is_skipped(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], reads=toys.put("a", text="another"), hold=HOLD)
    report = await recovery.until("hold: read")
    assert report.hold is not None
    assert (report.hold.answers, report.hold.skippable) == (
        ("retry", "skip", "compensate"),
        "nobody knows what stands there",
    )
    await recovery.resolve("skip")
    report = await recovery.ended()
    assert (report.outcome, report.figures[0].value) == ("recovered", "nothing")


async def test_skipped_step_keeps_its_undo(toys: Toys) -> None:
    (toys.folder / "a").write_text("old")
    recovery = await toys.start(puts=[failing(toys, "a", "after", how="lay")], gate="go on", hold=HOLD)
    await recovery.resolve("skip", reason="it will be written by hand")
    await recovery.until("gate")
    assert toys.has() == {"a": "new"}
    await recovery.approve("carol", "reject")
    report = await recovery.ended()
    assert report.outcome == "compensated"
    assert toys.has() == {"a": "old"}


async def test_wrong_people_do_not_answer(toys: Toys) -> None:
    recovery = await toys.start(puts=[failing(toys)], hold=HOLD)
    assert "by: this person has not the role dba" in await refused(recovery, "compensate", "dave")
    assert "by: this name is not among the people" in await refused(recovery, "compensate", "eve")
    await recovery.resolve("compensate", "carol")
    assert (await recovery.ended()).outcome == "compensated"


async def test_answer_to_another_hold_is_refused(toys: Toys) -> None:
    recovery = await toys.start(puts=[failing(toys)], hold=HOLD)
    hold = (await recovery.until("hold")).hold
    assert hold is not None
    await recovery.resolve("retry")

    async def next_one() -> bool:
        found = await recovery.status()
        return bool(found and found.hold and found.hold.token != hold.token)

    await eventually(next_one, "it failed again and holds again")
    old = {"hold": hold.token, "by": "bob", "answer": "compensate"}
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await recovery.handle.execute_update("resolve_step", old)
    assert "hold: this is not the token" in str(failed.value.cause)
    await recovery.handle.signal("resolve", old)

    async def told() -> bool:
        found = await recovery.status()
        return bool(found and any("signal resolve: hold:" in line for line in found.refusals))

    await eventually(told, "the refusal is shown")
    await recovery.resolve("compensate")
    assert (await recovery.ended()).outcome == "compensated"


async def test_nothing_is_compensated_after_the_commit(toys: Toys) -> None:
    puts = [toys.put("a"), toys.put("b", commits=OPENS)]
    recovery = await toys.start(puts=puts, then=[failing(toys, "c")], hold=HOLD)
    report = await recovery.until("hold: put c")
    assert report.hold is not None
    assert (report.hold.answers, report.hold.silence) == (("retry",), "ask again")
    assert report.committed is not None
    assert (report.committed.step, report.committed.what, report.committed.home) == ("put b", OPENS, ("put b", "put a"))
    assert "answer: compensate is not offered" in await refused(recovery, "compensate")
    (toys.folder / "mended").touch()
    await recovery.resolve("retry")
    assert (await recovery.ended()).outcome == "recovered"
    assert toys.has() == {"a": "new", "b": "new", "c": "new", "mended": ""}


async def test_silence_after_the_commit_asks_again(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("b", commits=OPENS)], then=[failing(toys, "c")], hold=SHORT)

    async def thrice() -> bool:
        found = await recovery.status()
        return bool(found and len([one for one in found.holds if one.again]) >= 2)

    await eventually(thrice, "people were asked again, twice")
    (toys.folder / "mended").touch()
    while (report := await recovery.status()) and report.outcome == "running":
        try:
            await recovery.resolve("retry")
        except (WorkflowUpdateFailedError, AssertionError):
            continue  # the deadline passed between reading and answering, or it has ended
    assert (await recovery.ended()).outcome == "recovered"


async def test_commit_that_changed_nothing_may_be_withdrawn(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), failing(toys, commits=OPENS)], hold=HOLD)
    report = await recovery.until("hold: put b")
    assert report.hold is not None
    assert report.hold.answers == ("retry", "withdraw")
    assert "reason: who answers withdraw says why" in await refused(recovery, "withdraw", reason=" ")
    await recovery.resolve("withdraw")
    report = await recovery.ended()
    assert (report.outcome, report.committed) == ("compensated", None)
    assert toys.has() == {}


async def test_look_of_an_action_has_limits_of_its_own(toys: Toys) -> None:
    recovery = await toys.start(puts=[failing(toys, commits=OPENS)], hold=HOLD)
    await recovery.resolve("withdraw")  # before and after this, it is looked at afresh
    await recovery.ended()
    asked = [e.activity_task_scheduled_event_attributes for e in (await recovery.handle.fetch_history()).events]
    looks = [one for one in asked if one.activity_type.name == "toy.put.observe"]
    assert len(looks) == 3
    assert {look.start_to_close_timeout.ToTimedelta() for look in looks} == {PUT.look_limit}
    assert {look.schedule_to_close_timeout.ToTimedelta() for look in looks} == {PUT.look_patience}


async def test_commit_that_changed_something_stays(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), failing(toys, when="after", commits=OPENS)], hold=HOLD)
    report = await recovery.until("hold: put b")
    assert report.hold is not None
    assert report.hold.answers == ("retry",)
    await recovery.resolve("retry")
    assert (await recovery.ended()).outcome == "recovered"
    assert toys.has() == {"a": "new", "b": "new"}


async def test_cancel_after_the_commit_undoes_nothing(toys: Toys) -> None:
    puts = [toys.put("a"), toys.put("b", commits=OPENS)]
    recovery = await toys.start(puts=puts, then=[toys.put("c", slow=20)], hold=HOLD)
    await eventually(lambda: "c" in toys.has(), "what comes after the commit is on its way")
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert report.outcome == "cancelled"
    assert report.residual[0] == f"past the point of no return ({OPENS}): nothing was undone"
    assert any(line.startswith("put c: not done") for line in report.residual)
    assert toys.has() == {"a": "new", "b": "new", "c": "new"}
    assert (await recovery.handle.describe()).status == WorkflowExecutionStatus.FAILED


async def test_cancel_during_the_commit_lets_it_finish(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", slow=1.5, commits=OPENS)], hold=HOLD)
    await eventually(lambda: "b" in toys.has(), "the step that commits is on its way")
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert report.outcome == "cancelled"
    assert {line.step: line.state for line in report.steps} == {"put a": "changed", "put b": "changed"}
    assert toys.has() == {"a": "new", "b": "new"}


async def test_cancel_at_a_commit_that_changed_nothing_undoes(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), failing(toys, commits=OPENS)], hold=HOLD)
    await recovery.until("hold: put b")
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert (report.outcome, report.residual, report.committed) == ("cancelled", (), None)
    assert toys.has() == {}


async def test_cancel_while_the_commit_fails_undoes(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), failing(toys, slow=1.5, commits=OPENS)], hold=HOLD)

    async def committing() -> bool:
        report = await recovery.status()
        return report is not None and {line.step: line.state for line in report.steps}.get("put b") == "changing"

    await eventually(committing, "the step that commits is on its way")
    await recovery.handle.cancel()
    report = await recovery.ended(30)
    assert (report.outcome, report.residual, report.committed, report.holds) == ("cancelled", (), None, ())
    assert toys.has() == {}


async def test_cancel_at_a_hold_undoes(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), failing(toys)], hold=HOLD)
    await recovery.until("hold")
    for _ in range(3):
        await recovery.handle.cancel()
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("cancelled", ())
    assert toys.has() == {}


async def test_cancel_that_ends_in_a_failure_asks_nobody(toys: Toys) -> None:
    """So it is when the worker dies with the cancel on its way: its heartbeat is missed."""
    puts = [toys.put("a"), toys.put("b", slow=15, fail_apply="cancelled")]
    recovery = await toys.start(puts=puts, hold=HOLD)
    await eventually(lambda: "b" in toys.has(), "the second file is being put")
    await recovery.handle.cancel()
    report = await recovery.ended(20)
    assert (report.outcome, report.residual, report.holds) == ("cancelled", (), ())
    assert toys.has() == {}


async def test_failed_undo_is_held_and_tried_again(toys: Toys) -> None:
    mend = str(toys.folder / "mended")
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", fail_undo=True, mend=mend)], gate="go on", hold=HOLD)
    await recovery.approve("carol", "reject")
    report = await recovery.until("hold: put b")
    assert report.hold is not None
    assert (report.hold.answers, report.hold.silence) == (("retry", "accept"), "accept")
    assert toys.has() == {"a": "new", "b": "new"}
    (toys.folder / "mended").touch()
    await recovery.resolve("retry")
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("compensated", ())
    assert toys.has() == {"mended": ""}


async def test_cancels_do_not_end_the_hold_of_a_failed_undo(toys: Toys) -> None:
    mend = str(toys.folder / "mended")
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", fail_undo=True, mend=mend)], gate="go on", hold=HOLD)
    await recovery.until("gate")
    await recovery.handle.cancel()
    await recovery.until("hold: put b")
    for _ in range(2):
        await recovery.handle.cancel()
    (toys.folder / "mended").touch()
    await recovery.resolve("retry")
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("cancelled", ())
    assert toys.has() == {"mended": ""}


async def test_accepted_residual_is_listed(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a"), toys.put("b", fail_undo=True)], gate="go on", hold=HOLD)
    await recovery.approve("carol", "reject")
    await recovery.resolve("accept", reason="both are wiped by hand")
    report = await recovery.ended()
    assert report.outcome == "failed"
    assert [line.partition(":")[0] for line in report.residual] == ["put a", "put b"]
    assert toys.has() == {"a": "new", "b": "new"}


async def test_hold_now_comes_before_the_next_action(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a", slow=1.0), toys.put("b"), toys.put("c")], hold=HOLD)
    await eventually(lambda: "a" in toys.has(), "the first file is being put")
    await recovery.handle.signal("hold", {"by": "alice", "reason": "wait for the vendor"})
    report = await recovery.until("hold: put b")
    assert report.hold is not None
    assert "wait for the vendor" in report.hold.why
    await recovery.resolve("step")
    await recovery.until("hold: put c")
    assert toys.has() == {"a": "new", "b": "new"}
    await recovery.resolve("continue")
    report = await recovery.ended()
    assert report.outcome == "recovered"
    assert report.notes[0].by == "alice"


async def test_order_is_given_anew_after_people_were_asked(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a", slow=1.0), toys.put("b")], not_after=1.5, hold=HOLD)
    await eventually(lambda: "a" in toys.has(), "the first file is being put")
    await recovery.handle.signal("hold", {"by": "alice", "reason": "wait for the vendor"})
    hold = (await recovery.until("hold: put b")).hold
    assert hold is not None
    await eventually(lambda: datetime.now(UTC) > hold.opened + timedelta(seconds=1.6), "an order of then would be late")
    await recovery.resolve("continue")
    report = await recovery.ended()
    assert (report.outcome, len(report.holds)) == ("recovered", 1)


async def test_notes_are_kept(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on")
    await recovery.until("gate")
    await recovery.handle.signal("note", {"by": "bob", "text": "the vendor was called"})
    await recovery.handle.signal("note", {"by": "mallory", "text": "trust me"})
    await recovery.handle.signal("note", "no object")
    await recovery.approve("bob")
    report = await recovery.ended()
    assert [(note.by, note.text) for note in report.notes] == [("bob", "the vendor was called")]
    assert [line.partition(": ")[0] for line in report.refusals] == ["signal note", "signal note"]


async def test_old_approval_is_asked_for_again(toys: Toys) -> None:
    recovery = await toys.start(
        puts=[], gate="go on", then=[toys.put("a", slow=4.0), toys.put("b")], valid=3, hold=HOLD
    )
    await recovery.approve("bob")
    await eventually(lambda: "a" in toys.has(), "it goes on")

    async def again() -> bool:
        found = await recovery.status()
        return bool(found and found.phase == "gate: go on" and "asked_again" in str(found.gates[0].shown))

    await eventually(again, "people are asked again")
    assert toys.has() == {"a": "new"}
    await recovery.approve("carol", "reject")
    assert (await recovery.ended()).outcome == "compensated"
    assert toys.has() == {}


async def test_dark_deadline_is_short(toys: Toys) -> None:
    hold = {"roles": ["dba"], "within": "PT1H", "dark_within": "PT0.5S"}
    began = asyncio.get_running_loop().time()
    report = await toys.run(puts=[toys.put("a", dark=True), failing(toys)], hold=hold)
    assert (report.outcome, report.dark) == ("compensated", False)
    assert (report.holds[0].until - report.holds[0].opened).total_seconds() == 0.5
    assert asyncio.get_running_loop().time() - began < 30


async def test_drill_holds_nobody_up(toys: Toys) -> None:
    report = await toys.run("drill", puts=[toys.put("a"), failing(toys)], hold=HOLD)
    assert (report.outcome, report.holds) == ("compensated", ())
    assert toys.has() == {}


async def test_kept_action_is_not_undone(toys: Toys) -> None:
    report = await toys.run(puts=[toys.put("a"), toys.put("b", how="keep"), failing(toys, "c")])
    assert report.outcome == "compensated"
    assert toys.has() == {"b": "new"}


async def test_drill_has_no_point_of_no_return(toys: Toys) -> None:
    report = await toys.run("drill", puts=[toys.put("a"), toys.put("b", commits=OPENS), failing(toys, "c")], hold=HOLD)
    assert (report.outcome, report.committed, report.holds) == ("compensated", None, ())
    assert toys.has() == {}


async def test_closed_gate_hears_nobody(toys: Toys) -> None:
    recovery = await toys.start(puts=[], gate="go on", then=[failing(toys)], hold=HOLD)
    gate = (await recovery.until("gate")).gates[0]
    await recovery.approve("bob")
    await recovery.until("hold")
    late = {"gate": "go on", "by": "carol", "plan": gate.plan, "evidence": gate.evidence, "verdict": "reject"}
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await recovery.handle.execute_update("decide", late)
    assert "gate: it is closed already" in str(failed.value.cause)
    await recovery.resolve("compensate")
    assert [line.by for line in (await recovery.ended()).gates[0].decisions] == ["bob"]
