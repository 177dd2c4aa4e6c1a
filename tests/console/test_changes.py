"""What changed from one report to the next."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from console.changes import changes
from console.follow import verdict
from console.render import clock, page
from console.reports import Seen
from recovery.clock import Clock
from recovery.progress import Progress
from recovery.report import DecisionLine, GateLine, Report, StepLine

T = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)


def report(**fields: Any) -> Report:
    return Report(
        **{
            "workflow": "lab/orders", "run": "r", "procedure": "P", "runbook": "lab/restore-orders", "mode": "live",
            "reason": "dropped", "started_at": T, "clock": Clock(since="start", total=3.0, execute=3.0, rto=3600),
        }
        | fields
    )  # fmt: skip


def step(name: str, state: Any, seconds: float = 0.0, failure: str = "") -> StepLine:
    return StepLine(step=name, title=name, state=state, began=T, ended=T + timedelta(seconds=seconds), failure=failure)


def gate(**fields: Any) -> GateLine:
    shown = ({"answers": {"customers": "200"}},)
    return GateLine(gate="keep", roles=("dba",), approvals=1, plan="p1", evidence="e1", shown=shown, **fields)


def lines(before: Report | None, now: Report) -> Sequence[str]:
    return [change.line().partition("  ")[2] for change in changes(before, now)]


def test_each_change_of_a_step_is_one_line() -> None:
    first = report(steps=(step("look", "looking"),))
    then = report(steps=(step("look", "seen", 1.25), step("place", "changing", 1.25)))
    assert lines(None, first) == ["… look: looking"]
    assert lines(first, first) == []
    assert lines(first, then) == ["✓ look: seen after 1.2 s", "… place: changing"]


def test_progress_is_a_line_every_ten_seconds() -> None:
    def at(seconds: int, done: int) -> Report:
        moving = Progress(done=done, total=100, at=T + timedelta(seconds=seconds))
        return report(steps=(step("place", "changing").model_copy(update={"progress": moving}),))

    assert lines(at(0, 0), at(9, 9)) == []
    assert lines(at(9, 9), at(10, 10)) == ["… place: 10 B of 100 B (10 %), as of 22:00:10"]
    assert lines(report(steps=(step("place", "changing"),)), at(3, 3)) == [
        "… place: 3 B of 100 B (3 %), as of 22:00:03"
    ]
    assert lines(at(9, 9), report(steps=(step("place", "changed", 12),))) == ["✓ place: changed after 12.0 s"]


def test_a_failed_step_says_why() -> None:
    failed = report(
        steps=(step("place", "failed", 2, "the disk is full"),), outcome="failed", failure="the disk is full"
    )
    assert lines(None, failed) == ["✗ place: failed after 2.0 s: the disk is full", "failed: the disk is full"]


def test_gates_open_are_decided_and_close() -> None:
    until = T + timedelta(hours=1)
    opened, decided = report(gates=(gate(until=until),)), (DecisionLine(by="bob", verdict="approve", at=T),)
    closed = report(gates=(gate(until=until, decisions=decided, closed="bob approves"),))
    assert lines(None, opened) == ["? “keep” waits for 1 × dba until 23:00:00Z"]
    assert lines(opened, closed) == ["bob approves “keep”", "“keep”: bob approves"]
    assert lines(None, closed) == ["bob approves “keep”", "“keep”: bob approves"]


def test_changes_are_told_as_they_happened() -> None:
    decided = (DecisionLine(by="bob", verdict="approve", at=T + timedelta(seconds=2)),)
    steps = (step("look", "seen", 1), step("put", "changed", 3))
    now = report(steps=steps, gates=(gate(decisions=decided, closed="bob approves"),))
    assert lines(None, now) == [
        "✓ look: seen after 1.0 s", "bob approves “keep”", "“keep”: bob approves", "✓ put: changed after 3.0 s",
    ]  # fmt: skip


def test_blockers_and_refusals_are_told_once() -> None:
    first = report(blockers=("no room",), refusals=("by: not among the people",))
    assert lines(None, first) == ["! blocker: no room", "! not accepted: by: not among the people"]
    assert lines(first, report(blockers=("no room", "no port"), refusals=first.refusals)) == ["! blocker: no port"]


def test_what_a_host_wrote_cannot_steer_the_terminal() -> None:
    assert lines(None, report(steps=(step("place", "failed", 0, "a\x1b[2Jb"),)))[0].endswith("a�[2Jb")


@pytest.mark.parametrize(
    ("outcome", "blockers", "code"),
    [
        ("recovered", (), 0), ("drilled", (), 0), ("checked", (), 0), ("checked", ("no room",), 1),
        ("compensated", (), 1), ("failed", (), 1), ("cancelled", (), 1), ("running", (), 1),
    ],
)  # fmt: skip
def test_an_outcome_is_an_exit_code(outcome: Any, blockers: tuple[str, ...], code: int) -> None:
    assert verdict(report(outcome=outcome, blockers=blockers)) == code


def shown(found: Report, remark: str = "") -> str:
    text = io.StringIO()
    Console(width=200, file=text).print(page(Seen(found, remark), "http://ui/x"))
    return text.getvalue()


def test_the_page_shows_what_people_decide_on() -> None:
    text = shown(report(phase="gate: keep", gates=(gate(until=None),), steps=(step("look", "seen", 1),)))
    for part in ("gate: keep", "answers customers: 200", "plan p1  evidence e1", "approve lab/orders --gate 'keep'"):
        assert part in text


def test_the_page_shows_progress_beside_its_step() -> None:
    moving = Progress(done=3, total=12, of="hosts", at=T)
    text = shown(report(steps=(step("place", "changing").model_copy(update={"progress": moving}),)))
    row = next(line for line in text.splitlines() if "place" in line)
    assert " ".join(row.split()) == "… place changing 3 of 12 hosts (25 %), as of 22:00:00"


def test_the_page_of_an_ended_run_asks_nobody() -> None:
    text = shown(report(outcome="failed", gates=(gate(),), residual=("place: undo failed",)), "nothing was undone")
    assert "waits for" not in text
    assert "NOT UNDONE" in text
    assert "nothing was undone" in text


def test_the_clock_says_where_the_time_went() -> None:
    assert clock(report()) == "3.0 s since start (execute 3.0 s), RTO 1 h 0 min"
