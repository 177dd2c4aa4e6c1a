"""What people read: short, in plain words, and whatever the report holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.clock import Clock
from recovery.notices import Notice, ended, gate_waits
from recovery.report import DecisionLine, Figure, GateLine, Report, StepLine, report
from tests.recovery.test_report import EARLY, STORY, at

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
GATE = GateLine(
    gate="keep the copy", roles=("dba",), people=("bob", "carol"), approvals=1, plan="p", evidence="e",
    shown=({"proof": {"rows": 7}, "notes": ["all there"]},), then="the copy stays", opened=NOON,
    until=NOON + timedelta(hours=1),
)  # fmt: skip
CHANGED = StepLine(step="lay", title="lay the copy down", state="changed", began=NOON, ended=NOON)


def told(**fields: Any) -> Report:
    clock = Clock(since="outage", total=754.0, rto=3600.0, rto_met=True)
    given = {
        "workflow": "lab/orders", "run": "run-1", "procedure": "Restore", "runbook": "lab/restore", "mode": "live",
        "reason": "dropped table", "title": "Bring the orders back", "systems": ("orders",), "requested_by": "alice",
        "incident": "INC-7", "started_at": NOON, "clock": clock, "gates": (GATE,), "steps": (CHANGED,),
    }  # fmt: skip
    return Report.model_validate(given | fields)


WAITS = """\
WAITING for 1 × dba: “keep the copy”.
Until 2026-11-21 13:00:00 UTC; no decision counts as a rejection.
Who may: bob, carol.

Bring the orders back
live on orders, asked for by alice (INC-7): dropped table

What was found:
- proof rows: 7
- notes: all there
- rows lost: 3 (MISSED)

What then:
- approve: the copy stays
- reject: it stops and undoes “lay the copy down”

To decide (it shows the facts again and asks):
    starter.py approve lab/orders --gate 'keep the copy' --by YOUR-NAME
    starter.py reject lab/orders --gate 'keep the copy' --by YOUR-NAME --reason WHY"""

FAILED = """\
FAILED, 1 NOT UNDONE.
Refused: gate keep the copy: rejected by bob
Clock since outage: 12 min 34 s of RTO 1 h (met).

NOT UNDONE, look at it now:
- lay the copy down: undo failed. the host is away

Bring the orders back
live on orders, asked for by alice (INC-7): dropped table

More:
    starter.py status lab/orders"""

RECOVERED = """\
RECOVERED.
Clock since outage: 12 min 34 s of RTO 1 h (met).

Delivered:
- copy: psql -p 5433

Bring the orders back
live on orders, asked for by alice (INC-7): dropped table

Measured:
- lag: 0.25 s (met)

More:
    starter.py status lab/orders"""


def test_gate_says_what_it_waits_for_and_how_to_decide() -> None:
    lost = Figure(name="rows lost", value=3, unit="", met=False)
    notice = gate_waits(told(figures=(lost,)), "keep the copy", ("dba",), 3)
    assert notice.title == "orders: dba to decide until 13:00 UTC: keep the copy"
    assert notice.body == WAITS
    assert (notice.id, notice.number, notice.workflow, notice.run) == ("run-1/3", 3, "lab/orders", "run-1")
    assert (notice.kind, notice.tone, notice.channels, notice.link) == ("waits", "warning", ("dba",), "")


def test_figures_that_a_gate_tells_itself_are_told_once() -> None:
    figure = Figure(name="connections", value=37, unit="", met=False, told_at=("keep the copy",))
    assert "connections" not in gate_waits(told(figures=(figure,)), "keep the copy", ("dba",), 3).body
    assert "connections: 37 (MISSED)" in ended(told(outcome="failed", figures=(figure,)), ("dba",), 4).body


def test_failure_says_why_and_what_is_left() -> None:
    fields = {"outcome": "failed", "kind": "Refused", "failure": "gate keep the copy: rejected by bob"}
    notice = ended(told(**fields, residual=("lay the copy down: undo failed. the host is away",)), ("dba",), 4)
    assert (notice.title, notice.tone, notice.kind) == ("orders: failed, 1 NOT UNDONE", "failure", "ended")
    assert notice.body == FAILED


def test_success_says_where_the_result_is() -> None:
    lag = Figure(name="lag", value=0.25, unit="s", met=True)
    notice = ended(told(outcome="recovered", delivered={"copy": "psql -p 5433"}, figures=(lag,)), ("dba",), 4)
    assert (notice.title, notice.tone) == ("orders: recovered", "success")
    assert notice.body == RECOVERED


@pytest.mark.parametrize(
    ("outcome", "tone"),
    [("recovered", "success"), ("drilled", "success"), ("compensated", "warning"), ("cancelled", "warning"),
     ("failed", "failure")],
)  # fmt: skip
def test_outcome_has_its_tone(outcome: str, tone: str) -> None:
    assert ended(told(outcome=outcome), ("dba",), 1).tone == tone


def test_residual_of_a_cancel_is_a_failure() -> None:
    assert ended(told(outcome="cancelled", residual=("x: undo failed. y",)), ("dba",), 1).tone == "failure"


def test_drill_is_called_one_in_the_subject() -> None:
    assert ended(told(mode="drill", outcome="drilled"), ("dba",), 1).title == "drill orders: drilled"


def test_decisions_so_far_are_told() -> None:
    line = DecisionLine(by="bob", verdict="approve", at=NOON)
    gate = GATE.model_copy(update={"approvals": 2, "decisions": (line,)})
    assert "So far: bob approves." in gate_waits(told(gates=(gate,)), "keep the copy", ("dba",), 1).body


def test_missed_rto_is_loud() -> None:
    clock = Clock(since="outage", total=7200.0, rto=3600.0, rto_met=False)
    assert "2 h of RTO 1 h (MISSED)" in ended(told(outcome="recovered", clock=clock), ("dba",), 1).body


def test_long_lists_have_an_end() -> None:
    notice = ended(told(outcome="failed", residual=tuple(f"step {n}: undo failed." for n in range(50))), (), 1)
    assert notice.body.count("undo failed") == 20
    assert "- and 30 more, in the query `status`" in notice.body


def test_written_text_stays_on_its_line() -> None:
    evil = "x\r\nBcc: all@example.org\x1b[2J\n\nRECOVERED"
    notice = ended(told(outcome="failed", failure=evil, reason=evil, systems=(evil,), title=evil), ("dba",), 1)
    assert notice.title == "x Bcc: all@example.org [2J RECOVERED: failed"
    assert not [line for line in notice.body.splitlines() if line.startswith(("Bcc", "RECOVERED"))]
    assert "\x1b" not in notice.body


def test_subject_fits_a_list_of_mails() -> None:
    assert len(ended(told(outcome="failed", systems=("s" * 200, "t" * 200)), ("dba",), 1).title) == 120


def test_words_survive_a_shell() -> None:
    gate = GATE.model_copy(update={"gate": "don't; rm -rf /"})
    body = gate_waits(told(gates=(gate,)), gate.gate, ("dba",), 1).body
    assert """--gate 'don'"'"'t; rm -rf /' --by""" in body


@given(st.lists(st.sampled_from(STORY[1:]), max_size=12), st.lists(st.sampled_from(EARLY), max_size=3))
@settings(deadline=None)
def test_whatever_happened_can_be_told(later: list[Any], early: list[Any]) -> None:
    found = report([*early, STORY[0], *(replace(fact, at=at(n)) for n, fact in enumerate(later))], at(len(later)))
    for notice in (gate_waits(found, "keep", ("dba",), 1), gate_waits(found, "", (), 2), ended(found, ("dba",), 3)):
        assert Notice.model_validate_json(notice.model_dump_json()) == notice
        assert 0 < len(notice.title) <= 120
        assert notice.body
