"""What stands only for as long as a recovery lasts: gone at every end, and never in anybody's way."""

from __future__ import annotations

from typing import Any

import pytest

from recovery.names import UNDO
from recovery.report import Report
from tests.recovery.box import Toys
from tests.recovery.test_holding import HOLD, OPENS
from tests.recovery.test_undoing import undone
from tests.running import Recovery

pytestmark = pytest.mark.asyncio(loop_scope="module")


def passing(toys: Toys, **more: Any) -> dict[str, Any]:
    """Return a file that is to be gone at the end."""
    return toys.put("quiet", how="pass", **more)


def failing(toys: Toys, name: str = "b") -> dict[str, Any]:
    """Return a file that cannot be written."""
    return toys.put(name, fail_apply="before")


def states(report: Report) -> dict[str, str]:
    """Return the state of each step."""
    return {line.title: line.state for line in report.steps}


async def test_recovered_it_is_gone(toys: Toys) -> None:
    report = await toys.run(puts=[passing(toys), toys.put("a")])
    assert (report.outcome, toys.has()) == ("recovered", {"a": "new"})
    assert states(report) == {"put quiet": "undone", "put a": "changed"}


async def test_compensated_it_is_gone(toys: Toys) -> None:
    report = await toys.run(puts=[passing(toys), toys.put("a"), failing(toys)])
    assert (report.outcome, report.residual, toys.has()) == ("compensated", (), {})
    ended = {line.title: line.ended for line in report.steps}
    assert ended["put quiet"] > ended["put a"]


async def test_undo_that_failed_does_not_block_it(toys: Toys) -> None:
    report = await toys.run(puts=[toys.put("a"), passing(toys), toys.put("c", fail_undo=True), failing(toys)])
    assert states(report)["put a"] == "undo blocked"
    assert states(report)["put quiet"] == "undone"
    assert toys.has() == {"a": "new", "c": "new"}


async def test_past_the_point_of_no_return_it_is_gone(toys: Toys) -> None:
    puts = [passing(toys), toys.put("a"), toys.put("b", commits=OPENS)]
    recovery = await toys.start(puts=puts, then=[failing(toys, "c")], hold=HOLD)
    report = await recovery.until("hold: put c")
    assert report.committed is not None
    assert report.committed.home == ("put b", "put a")
    assert "quiet" in toys.has()
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert (report.outcome, report.behind) == ("cancelled", ())
    assert toys.has() == {"a": "new", "b": "new"}


async def test_nobody_is_asked_about_one_that_failed(toys: Toys) -> None:
    report = await toys.run(puts=[passing(toys, fail_apply="before"), toys.put("a")], hold=HOLD)
    assert (report.outcome, report.holds, report.residual) == ("recovered", (), ())
    assert report.delivered["left out"] == "told to fail before"


async def test_one_that_failed_half_way_is_gone(toys: Toys) -> None:
    report = await toys.run(puts=[passing(toys, fail_apply="after"), toys.put("a")], hold=HOLD)
    assert (report.outcome, report.holds, toys.has()) == ("recovered", (), {"a": "new"})


async def test_left_behind_it_is_told_and_keeps_nothing(toys: Toys) -> None:
    system = f"{toys.folder.name}-quiet"
    report = await toys.run(puts=[passing(toys, fail_undo=True), toys.put("a")], hold=HOLD, system=system)
    assert (report.outcome, report.residual, report.holds) == ("recovered", (), ())
    assert report.behind == ("put quiet: told to fail the undo. Take it away: rm quiet",)
    again = await toys.run(puts=[toys.put("d")], system=system)
    assert again.outcome == "recovered", "the system was let go"


async def test_left_behind_it_is_no_reason_to_hold_on_the_way_back(toys: Toys) -> None:
    report = await toys.run(puts=[passing(toys, fail_undo=True), toys.put("a"), failing(toys)])
    assert (report.outcome, report.residual, report.holds) == ("compensated", (), ())
    assert len(report.behind) == 1


async def test_terminated_it_is_gone_by_undo(toys: Toys) -> None:
    recovery = await toys.start(puts=[passing(toys), toys.put("a"), failing(toys)], hold=HOLD)
    await recovery.until("hold")
    await recovery.handle.terminate()
    undo = {"workflow": recovery.handle.id, "reason": "a test", "requested_by": "bob"}
    undoing = await toys.client.start_workflow(UNDO, undo, id=f"undo/{recovery.handle.id}", task_queue="toy")
    report = await Recovery(undoing).ended()
    assert (report.outcome, toys.has()) == ("compensated", {})


async def test_gone_it_is_no_sign_that_a_commit_was_withdrawn(toys: Toys) -> None:
    recovery = await toys.start(puts=[passing(toys), toys.put("a", commits=OPENS)])
    assert (await recovery.ended()).outcome == "recovered"
    report = await undone(toys, recovery, completed=True)
    assert (report.outcome, report.kind, toys.has()) == ("failed", "Refused", {"a": "new"})
    assert f"point of no return ({OPENS})" in report.failure


async def test_no_of_people_at_it_leads_back(toys: Toys) -> None:
    recovery = await toys.start(puts=[toys.put("a")], gate="go on", then=[passing(toys), toys.put("b")], hold=HOLD)
    await recovery.until("gate")
    await recovery.handle.signal("hold", {"by": "bob", "reason": "look first"})
    await recovery.approve("bob")
    report = await recovery.until("hold: put quiet")
    assert report.hold is not None
    await recovery.resolve("compensate")
    report = await recovery.ended()
    assert (report.outcome, toys.has()) == ("compensated", {})
    assert "left out" not in report.delivered


async def test_alone_undone_it_tells_of_no_compensation(toys: Toys) -> None:
    recovery = await toys.start(puts=[passing(toys)], gate="go on")
    await recovery.approve("bob", "reject")
    report = await recovery.ended()
    assert (report.outcome, toys.has()) == ("failed", {})
    assert states(report)["put quiet"] == "undone"


async def test_it_is_no_step_of_the_way_home(toys: Toys) -> None:
    recovery = await toys.start(
        puts=[passing(toys), toys.put("a"), toys.put("b", commits=OPENS)], then=[failing(toys, "c")], hold=HOLD
    )
    await recovery.until("hold: put c")
    await recovery.handle.terminate()
    report = await undone(toys, recovery)
    assert "quiet" in toys.has()
    assert "put b, put a" in report.failure
    assert "quiet" not in report.failure
