"""The report: one pure fold over the facts, whatever they are and in whatever order they come."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery import facts
from recovery.clock import Cause
from recovery.facts import (
    Blocked,
    CancelAsked,
    Checked,
    Committed,
    Darkened,
    Decided,
    Delivered,
    Ended,
    Fact,
    GateClosed,
    GateOpened,
    HoldClosed,
    HoldOpened,
    Leased,
    Loaded,
    Measured,
    Noted,
    Progressed,
    Queued,
    Refusal,
    Started,
    Stepped,
    StepState,
    Unwinding,
    WasReset,
    Withdrawn,
)
from recovery.gates import Gate
from recovery.holds import Hold
from recovery.models import Decision, Frozen, GatePolicy, Note, Resolution, Start, Tier
from recovery.progress import Progress
from recovery.report import Figure, Fold, Report, moved, report

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = GatePolicy(roles=("dba", "operator"), approvals=2)
GATE = Gate("keep", POLICY, {"bob": ("dba",)}, "alice", "plan-1", "evidence-1")
FROZEN = Frozen(
    runbook="lab/restore",
    title="Bring it back",
    version="3",
    procedure="Restore",
    catalog="lab",
    systems=("orders",),
    tier="gold",
    objectives=Tier(rto=HOUR, rpo=HOUR),
    gates={"keep": POLICY},
    people={"bob": ("dba",)},
    parameters={},
    estate={},
    not_after=HOUR,
    digest="plan-1",
)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def started(seconds: float = 0, **fields: object) -> Started:
    given = {"runbook": "lab/restore", "reason": "a table is gone", "requested_by": "alice", "incident": "INC-7"}
    return Started(at(seconds), Start.model_validate(given | fields), "Restore", "lab/orders", "run-1")


def stepped(
    seconds: float, state: StepState, cause: Cause = "execute", step: str = "lay", failure: str = ""
) -> Stepped:
    return Stepped(at(seconds), step, f"{step} it down", state, cause, {}, failure)


def decided(seconds: float, by: str = "bob", gate: str = "keep") -> Decided:
    return Decided(at(seconds), Decision(gate=gate, by=by, plan="plan-1", evidence="evidence-1", reason="looks right"))


HELD = Hold("1-abc", "failure", "lay", "Fatal: no", ("retry", "compensate"), ("dba",), at(90), "compensate")
ANSWER = Resolution(hold="1-abc", by="bob", answer="retry", reason="mended")
OPENED = GateOpened(at(20), GATE, at(3620), ({"rows": 7},))
STORY: tuple[Fact, ...] = (
    started(outage_started_at=at(-120), detected_at=at(-60)),
    Loaded(at(1), FROZEN),
    Queued(at(1.2), "orders", "lab/another"),
    Leased(at(1.4), "orders", 7),
    stepped(2, "looking", "decide", "find"),
    stepped(3, "seen", "decide", "find"),
    Measured(at(3), "restorable to", "12:00", ""),
    Blocked(at(3), ("disk: full",)),
    stepped(4, "changing"),
    Progressed(at(7), "lay.apply", Progress(done=7, total=10, at=at(6.5), rate=2.0, ends=at(8))),
    stepped(9, "changed"),
    stepped(9, "looking", "verify", "prove"),
    stepped(20, "seen", "verify", "prove"),
    OPENED,
    Refusal(at(21), "by: this name is not among the people of the estate"),
    decided(50),
    decided(60, "carol"),
    GateClosed(at(60), "keep", "bob approves, carol approves"),
    Measured(at(61), "last commit before the target", 0.25, "s", True),
    WasReset(at(61), ("lay",)),
    Darkened(at(61), "close"),
    HoldOpened(at(61), HELD),
    HoldClosed(at(61.5), "1-abc", "bob: retry", ANSWER),
    Noted(at(61.6), Note(by="bob", text="the vendor was called")),
    Committed(at(61.7), "open", "clients may write", ("lay",)),
    Withdrawn(at(61.8), "open", "bob"),
    CancelAsked(at(62)),
    Delivered(at(62), "copy", "psql -p 5433"),
    Checked(at(62), "network", "proven", "south-db: 2 uplinks"),
    Checked(at(62), "power and cooling", "attested", "both feeds are up", ("bob",)),
    Unwinding(at(63), "cancelled"),
    stepped(64, "undoing", "undo"),
    stepped(70, "undo failed", "undo", failure="the host is away"),
    Ended(at(75), "failed", "cancelled", "Cancelled"),
)
EARLY: tuple[Fact, ...] = (Refusal(at(-1), "gate: none"), CancelAsked(at(-1)), Blocked(at(-1), ("x: y",)))


def kinds(known: type[Fact] = Fact) -> set[type[Fact]]:
    return {known, *(kind for child in known.__subclasses__() for kind in kinds(child))} - {Fact}


def test_story_tells_every_kind_of_fact() -> None:
    assert {type(fact) for fact in STORY} == kinds(), f"a kind of {facts.__name__} is in no test of the report"


def test_every_fact_changes_the_report() -> None:
    for moment in range(1, len(STORY)):
        assert report(STORY[: moment + 1], at(100)) != report(STORY[:moment], at(100)), STORY[moment]


@pytest.mark.parametrize(
    ("activity", "state", "is_meant"),
    [
        ("lay.apply", "changing", True),
        ("lay.apply-2", "changing", True),
        ("lay.undo", "undoing", True),
        ("lay.observe", "looking", True),
        ("lay.apply", "undoing", False),
        ("lay.apply", "changed", False),
        ("lay.apply", "failed", False),
        ("re-lay.apply", "changing", False),
        ("la.apply", "changing", False),
        ("", "changing", False),
    ],
)
def test_progress_is_of_what_is_under_way(activity: str, state: StepState, is_meant: bool) -> None:
    line = report([started(), stepped(4, state)], at(5)).steps[0]
    assert (moved([line], activity, Progress(done=1, at=at(5)))[0].progress is not None) == is_meant


def test_newer_figures_stay() -> None:
    line = report([started(), stepped(4, "changing")], at(5)).steps[0]
    newer = moved([line], "lay.apply", Progress(done=7, at=at(6)))
    assert moved(newer, "lay.apply", Progress(done=5, at=at(5))) == newer


def test_step_that_has_come_further_drops_its_figures() -> None:
    story = [started(), stepped(4, "changing"), Progressed(at(5), "lay.apply", Progress(done=7, at=at(5)))]
    assert report(story, at(6)).steps[0].progress == Progress(done=7, at=at(5))
    states: tuple[StepState, ...] = ("changed", "failed", "undoing", "changing")
    for state in states:
        assert report([*story, stepped(6, state)], at(6)).steps[0].progress is None


def test_fold_is_pure() -> None:
    told = copy.deepcopy(STORY)
    first = report(told, at(100))
    assert told == STORY
    assert report(told, at(100)) == first
    assert report(list(told), at(100)) == first


def test_fold_kept_is_fold_begun_anew() -> None:
    """A recovery keeps one fold and asks it again and again: asking must change nothing."""
    kept = Fold()
    for moment, fact in enumerate(STORY, start=1):
        kept.take(fact)
        assert kept.report(at(100)) == report(STORY[:moment], at(100)) == kept.report(at(100))


@pytest.mark.parametrize("moment", range(1, len(STORY) + 1))
def test_report_survives_json(moment: int) -> None:
    told = report(STORY[:moment], at(100))
    assert Report.model_validate_json(told.model_dump_json()) == told


def test_end_stops_the_clock() -> None:
    assert report(STORY, at(100)) == report(STORY, at(1000))
    assert report(STORY, at(100)).clock.total == 195
    assert report(STORY[:-1], at(100)).clock.total == 220


def test_clock_is_split_by_cause() -> None:
    clock = report(STORY, at(100)).clock
    assert (clock.detect, clock.decide, clock.execute) == (60, 60 + 4, 5 + 2.5)
    assert (clock.verify, clock.people, clock.undo) == (11, 40.5, 12)
    assert (clock.rto, clock.rto_met) == (3600, True)


def test_start_is_carried_over() -> None:
    told = report(STORY, at(100))
    assert (told.workflow, told.run, told.procedure, told.runbook) == ("lab/orders", "run-1", "Restore", "lab/restore")
    assert (told.mode, told.reason, told.requested_by, told.incident) == ("live", "a table is gone", "alice", "INC-7")
    assert (told.started_at, told.ended_at) == (at(0), at(75))


def test_runbook_is_carried_over() -> None:
    told = report(STORY[:2], at(100))
    assert (told.title, told.version, told.plan) == ("Bring it back", "3", "plan-1")
    assert (told.systems, told.tier) == (("orders",), "gold")


@pytest.mark.parametrize(
    ("facts_until", "phase"),
    [
        (1, "starting"),
        (2, "assessing"),
        (3, "waits for orders, which lab/another has in hand"),
        (4, "assessing"),
        (6, "assessing"),
        (9, "restoring"),
        (12, "verifying"),
        (14, "gate: keep"),
        (22, "hold: lay"),
        (23, "restoring"),
        (31, "compensating"),
        (33, "compensating"),
        (34, "failed"),
    ],
)
def test_phase_follows_the_facts(facts_until: int, phase: str) -> None:
    assert report(STORY[:facts_until], at(100)).phase == phase


def test_needs_are_told_while_a_gate_is_open() -> None:
    needs = [report(STORY[:n], at(100)).needs for n in range(1, len(STORY) + 1)]
    gate = STORY.index(OPENED)
    assert set(needs[:gate]) == {""}
    assert set(needs[gate : gate + 4]) == {"dba or operator"}
    hold = STORY.index(next(fact for fact in STORY if isinstance(fact, HoldOpened)))
    assert needs[hold] == "dba"
    assert set(needs[gate + 4 : hold] + needs[hold + 1 :]) == {""}


def test_compensation_needs_nobody() -> None:
    assert report([started(), OPENED, Unwinding(at(30), "cancelled")], at(100)).needs == ""


def test_gate_shows_what_is_decided_on() -> None:
    line = report(STORY, at(100)).gates[0]
    assert (line.gate, line.roles, line.approvals) == ("keep", ("dba", "operator"), 2)
    assert (line.plan, line.evidence, line.shown) == ("plan-1", "evidence-1", ({"rows": 7},))
    assert (line.opened, line.until) == (at(20), at(3620))
    assert [(d.by, d.verdict, d.at, d.reason) for d in line.decisions] == [
        ("bob", "approve", at(50), "looks right"),
        ("carol", "approve", at(60), "looks right"),
    ]
    assert line.closed == "bob approves, carol approves"


def test_gate_names_who_may_approve() -> None:
    line = report(STORY, at(100)).gates[0]
    assert (line.people, line.then) == (("bob",), "it goes on")


def test_compensation_leaves_no_gate_open() -> None:
    told = [started(), GateClosed(at(1), "first", "bob approves"), OPENED, Unwinding(at(30), "cancelled")]
    assert [g.closed for g in report(told, at(40)).gates] == ["bob approves", "left undecided"]


def test_early_decision_gets_its_own_line() -> None:
    line = report([started(), decided(1)], at(100)).gates[0]
    assert (line.gate, line.until, [d.by for d in line.decisions]) == ("keep", None, ["bob"])


def test_opening_a_gate_asks_everybody_again() -> None:
    """The engine counts early decisions anew when the evidence is there, and records those that stand."""
    told = report([started(), decided(1), decided(1, "carol"), OPENED, decided(20)], at(100))
    assert [(d.by, d.at) for d in told.gates[0].decisions] == [("bob", at(20))]


def test_gate_passed_unopened_is_told() -> None:
    line = report([started(), GateClosed(at(1), "keep", "would ask")], at(100)).gates[0]
    assert (line.gate, line.closed, line.decisions) == ("keep", "would ask", ())


def test_closed_gate_gives_its_cause_back() -> None:
    told = [started(), OPENED, GateClosed(at(30), "keep", "bob approves", back_to="verify")]
    assert report(told, at(40)).clock.verify == 10


def test_step_keeps_its_beginning_and_its_failure() -> None:
    line = next(line for line in report(STORY, at(100)).steps if line.step == "lay")
    assert (line.began, line.ended, line.state) == (at(4), at(70), "undo failed")
    assert line.failure == "the host is away"
    told = [started(), replace(stepped(1, "failed"), failure="too late", shows={"a": 1}), stepped(2, "undone", "undo")]
    assert [(s.failure, s.shows) for s in report(told, at(9)).steps] == [("too late", {"a": 1})]


def test_steps_stand_in_the_order_of_their_beginning() -> None:
    told = [
        started(),
        *(stepped(n, "looking", step=step) for n, step in enumerate("cab")),
        stepped(9, "seen", step="a"),
    ]
    assert [line.step for line in report(told, at(10)).steps] == ["c", "a", "b"]


@pytest.mark.parametrize("state", [s for s in get_args(StepState) if s not in ("undo failed", "undo blocked")])
def test_only_bad_undos_are_residual(state: StepState) -> None:
    assert report([started(), stepped(1, state, failure="x")], at(2)).residual == ()


@pytest.mark.parametrize("state", ["undo failed", "undo blocked"])
def test_bad_undo_is_residual(state: StepState) -> None:
    told = report([started(), stepped(1, state, "undo", failure="the host is away")], at(2))
    assert told.residual == (f"lay it down: {state}. the host is away",)


def test_undo_tried_again_leaves_no_residual() -> None:
    told = [started(), stepped(1, "undo failed", "undo", failure="x"), stepped(2, "undone", "undo")]
    assert report(told, at(3)).residual == ()


def test_lists_keep_everything_in_order() -> None:
    told = [started(), *(Refusal(at(n), f"no {n}") for n in range(3)), CancelAsked(at(4)), CancelAsked(at(5))]
    told += [Blocked(at(6), ("a", "b")), Blocked(at(7), ("c",)), Measured(at(8), "lag", 1.5, "s", False)]
    told += [Delivered(at(9), "copy", "here"), Delivered(at(9), "log", "there")]
    found = report(told, at(10))
    assert (found.refusals, found.cancels) == (("no 0", "no 1", "no 2"), 2)
    assert (found.blockers, found.delivered) == (("a", "b", "c"), {"copy": "here", "log": "there"})
    assert [(f.name, f.value, f.unit, f.met) for f in found.figures] == [("lag", 1.5, "s", False)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(11.744367, "11.7"), (0.25, "0.25"), (0.00049, "0"), (3.0, "3"), (1234567.0, "1234567"), (-10.06, "-10.1"),
     (7, "7"),
     (math.inf, "inf"), ("noon", "noon")],
)  # fmt: skip
def test_figure_is_shown_to_what_decides(value: float | str, shown: str) -> None:
    figure = Figure(name="lag", value=value, unit="s")
    assert (str(figure.shown), figure.value) == (shown, value)


def test_figures_of_one_name_are_all_told_unless_one_is_measured_again() -> None:
    told = [started(), *(Measured(at(n), name, n, "s") for n, name in enumerate(("lag", "size", "lag")))]
    assert [(f.name, f.value) for f in report(told, at(3)).figures] == [("lag", 0), ("size", 1), ("lag", 2)]
    told.append(Measured(at(3), "lag", 3, "s", again=True))
    assert [(f.name, f.value) for f in report(told, at(4)).figures] == [("size", 1), ("lag", 3)]


@pytest.mark.parametrize("early", EARLY, ids=lambda fact: type(fact).__name__)
def test_fact_before_the_start_is_kept(early: Fact) -> None:
    assert report([early, *STORY], at(100)) != report(STORY, at(100))
    assert report([early, *STORY], at(100)).clock == report(STORY, at(100)).clock


def test_no_start_is_no_report() -> None:
    with pytest.raises(ValueError, match="Started"):
        report([], NOON)


@given(st.lists(st.sampled_from(STORY[1:]), max_size=12), st.lists(st.sampled_from(EARLY), max_size=3))
@settings(deadline=None)
def test_any_order_folds(later: list[Fact], early: list[Fact]) -> None:
    """Times only ever grow in a workflow, so the facts get new ones; everything else may come in any order."""
    told: list[Fact] = [*early, STORY[0], *(replace(fact, at=at(n)) for n, fact in enumerate(later))]
    found = report(told, at(len(told)))
    assert Report.model_validate_json(found.model_dump_json()) == found
    assert len(found.steps) == len({fact.step for fact in later if isinstance(fact, Stepped)})
    assert found.cancels == sum(isinstance(fact, CancelAsked) for fact in told)
    clock = found.clock
    parts = (clock.detect, clock.decide, clock.people, clock.execute, clock.verify, clock.undo)
    assert sum(parts) == pytest.approx(clock.total)


def test_reset_after_a_withdrawal_leaves_no_commit() -> None:
    story = [started(), Committed(at(1), "open", "clients may write"), WasReset(at(2), ("lay",))]
    assert report(story, at(3)).committed is None


def test_doors_that_were_opened_again_are_not_dark() -> None:
    began = [Started(NOON, Start(runbook="lab/restore", reason="x"), "Restore", "w", "r"), Darkened(NOON, "close")]
    assert (report(began, NOON).dark, report(began, NOON).dark_since) == (True, NOON)
    assert report([*began, Stepped(NOON, "other", "other", "undone", "undo")], NOON).dark
    assert not report([*began, Stepped(NOON, "close", "close", "undone", "undo")], NOON).dark
    assert report([*began, WasReset(NOON, ("close",), "", dark=True)], NOON).dark
    assert not report([*began, WasReset(NOON, ("close",), "clients write")], NOON).dark
