"""Branches that run side by side, on real files: who is asked what, and what begins beside a failure."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from recovery.report import Report, StepLine
from tests.recovery.box import Toys
from tests.recovery.test_holding import HOLD, failing
from tests.recovery.test_undoing import reset
from tests.running import Recovery, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def line(report: Report, step: str) -> StepLine:
    return next(line for line in report.steps if line.step == step)


async def changed(recovery: Recovery, step: str) -> None:
    """Wait until a step has been done."""

    async def done() -> bool:
        report = await recovery.status()
        return bool(report and any((line.step, line.state) == (step, "changed") for line in report.steps))

    await eventually(done, f"{step} is done")


async def test_branches_run_side_by_side(toys: Toys) -> None:
    report = await toys.run(beside=[[toys.put("a", slow=3)], [toys.put("b"), toys.put("c")]])
    assert report.outcome == "recovered"
    assert line(report, "put a").began < line(report, "put c").ended < line(report, "put a").ended
    assert toys.has() == {"a": "new", "b": "new", "c": "new"}


async def test_people_are_asked_about_one_branch_at_a_time(toys: Toys) -> None:
    recovery = await toys.start(beside=[[failing(toys, "a")], [failing(toys, "b", slow=1)]], hold=HOLD)
    await recovery.until("hold: put a")

    async def both_failed() -> bool:
        report = await recovery.status()
        return bool(report and line(report, "put b").state == "failed")

    await eventually(both_failed, "the other one has failed, too")
    assert len((await recovery.until("hold: put a")).holds) == 1
    (toys.folder / "mended").touch()
    await recovery.resolve("retry")
    await recovery.until("hold: put b")
    await recovery.resolve("retry")
    report = await recovery.ended()
    assert (report.outcome, [hold.step for hold in report.holds]) == ("recovered", ["put a", "put b"])
    assert toys.has() == {"a": "new", "b": "new", "mended": ""}


async def test_nothing_begins_beside_a_failure(toys: Toys) -> None:
    (toys.folder / "c").write_text("old")
    rows = [[failing(toys, "a"), toys.put("b")], [toys.put("c", slow=1), toys.put("d")]]
    recovery = await toys.start(beside=rows, hold=HOLD)
    await recovery.until("hold: put a")
    await changed(recovery, "put c")
    await recovery.resolve("compensate")
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("compensated", ())
    assert {line.step for line in report.steps} == {"put a", "put c"}
    assert toys.has() == {"c": "old"}


async def test_nothing_begins_after_branches_of_a_branch_beside_a_failure(toys: Toys) -> None:
    rows = [[failing(toys, "a")], [{"beside": [[toys.put("c", slow=3)]]}, toys.put("d")]]
    recovery = await toys.start(beside=rows, hold=HOLD)
    await recovery.until("hold: put a")
    await recovery.resolve("compensate")
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("compensated", ())
    assert {line.step for line in report.steps} == {"put a", "put c"}
    assert toys.has() == {}


async def test_one_answer_leads_all_branches_back(toys: Toys) -> None:
    recovery = await toys.start(beside=[[failing(toys, "a")], [failing(toys, "b", slow=1)]], hold=HOLD)
    await recovery.until("hold: put a")
    await recovery.resolve("compensate")
    report = await recovery.ended()
    assert (report.outcome, len(report.holds), report.failure) == ("compensated", 1, "told to fail before")


async def test_hold_stops_every_branch(toys: Toys) -> None:
    rows = [[toys.put("a", slow=1), toys.put("b")], [toys.put("c", slow=1), toys.put("d")]]
    recovery = await toys.start(beside=rows, hold=HOLD)
    await eventually(lambda: {"a", "c"} <= set(toys.has()), "both are being put")
    await recovery.handle.signal("hold", {"by": "bob", "reason": "wait"})
    await changed(recovery, "put a")
    await changed(recovery, "put c")
    report = await recovery.until("hold: put")
    assert set(toys.has()) == {"a", "c"}
    assert report.hold is not None
    await recovery.resolve("continue")
    report = await recovery.ended()
    assert (report.outcome, len(report.holds)) == ("recovered", 1)
    assert set(toys.has()) == {"a", "b", "c", "d"}


async def test_single_step_takes_one_step_of_all_branches(toys: Toys) -> None:
    rows: list[list[dict[str, Any]]] = [[toys.put("a", slow=1), toys.put("b")], [toys.put("c", slow=1), toys.put("d")]]
    recovery = await toys.start(beside=rows, hold=HOLD)
    await eventually(lambda: {"a", "c"} <= set(toys.has()), "both are being put")
    await recovery.handle.signal("hold", {"by": "bob", "reason": "wait"})
    first = (await recovery.until("hold: put")).hold
    assert first is not None
    await recovery.resolve("step")

    async def next_hold() -> bool:
        report = await recovery.status()
        return bool(report and report.hold and report.hold.token != first.token)

    await eventually(next_hold, "it holds before the step of the other branch")
    await recovery.resolve("continue")
    report = await recovery.ended()
    assert (report.outcome, len(report.holds)) == ("recovered", 2)


async def test_cancel_ends_all_branches(toys: Toys) -> None:
    rows = [[toys.put("a"), toys.put("b", slow=15)], [toys.put("c", slow=15)]]
    recovery = await toys.start(beside=rows, hold=HOLD)
    await eventually(lambda: {"b", "c"} <= set(toys.has()), "both are being put")
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("cancelled", ())
    assert toys.has() == {}


@pytest.mark.parametrize(("answer", "outcome"), [("continue", "recovered"), ("compensate", "compensated")])
async def test_reset_in_the_middle_of_branches(toys: Toys, answer: str, outcome: str) -> None:
    rows = [[toys.put("a"), toys.put("b", slow=2)], [toys.put("c", slow=2), toys.put("d")]]
    recovery = await toys.start(beside=rows, hold=HOLD)
    await eventually(lambda: {"b", "c"} <= set(toys.has()), "both are being put")
    again = await reset(toys.client, recovery, "put-a.apply")
    await again.resolve(answer)
    report = await again.ended()
    assert (report.outcome, report.residual, len(report.holds)) == (outcome, (), 1)
    assert set(toys.has()) == (set("abcd") if outcome == "recovered" else set())


async def waiting_to_put(toys: Toys) -> Recovery:
    """Return a recovery that has looked at the file "a", which is another one now, and waits for a note to put it."""
    (toys.folder / "a").write_text("old")
    recovery = await toys.start(beside=[[toys.put("a", noted=True)]], hold=HOLD)

    async def seen() -> bool:
        report = await recovery.status()
        return bool(report and any((line.step, line.state) == ("put a", "seen") for line in report.steps))

    await eventually(seen, "it has looked")
    (toys.folder / "a").write_text("other")
    return recovery


async def noted(recovery: Recovery) -> None:
    await recovery.handle.signal("note", {"by": "bob", "text": "go on"})


async def test_what_was_seen_before_a_wait_must_be_so_after_it(toys: Toys) -> None:
    recovery = await waiting_to_put(toys)
    await noted(recovery)
    report = await recovery.until("hold: put a")
    assert report.hold is not None
    assert "somebody else changed it" in report.hold.why
    assert toys.has() == {"a": "other"}


@pytest.mark.soak
async def test_what_was_seen_long_before_a_wait_is_looked_at_again(toys: Toys) -> None:
    recovery = await waiting_to_put(toys)
    await asyncio.sleep(31)  # what is tried is that time passes
    await noted(recovery)
    report = await recovery.ended()
    assert (report.outcome, toys.has()) == ("recovered", {"a": "new"})
