"""Current details, by data: what stands where, what is escaped, and where lists end."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from recovery.clock import Clock
from recovery.details import ROWS, approval, facts_of, markdown
from recovery.facts import StepState
from recovery.progress import Progress
from recovery.report import DecisionLine, Figure, GateLine, Report, StepLine

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
TABLE: dict[str, Any] = {
    "table": "public.orders", "in_copy": 4623, "in_running": 2_963_000, "only_in_copy": 0, "only_in_running": None,
    "lost_keys": "1 10 100", "note": "",
}  # fmt: skip
GATE = GateLine(
    gate="keep the copy",
    roles=("dba", "incident-commander"),
    approvals=2,
    plan="2b1d2b9ceb7df33b",
    evidence="37357341fc3f5e55",
    shown=({"stage": "paused", "skew": 0.0, "faults": []}, {"answers": {"all there": "200"}, "tables": [TABLE]}),
    until=NOON,
    then="the copy stays",
)


def step(title: str, state: StepState = "seen", failure: str = "") -> StepLine:
    return StepLine(
        step=title, title=title, state=state, began=NOON, ended=NOON + timedelta(seconds=1.25), failure=failure
    )


def report(**fields: Any) -> Report:
    """Return a recovery that waits at its gate, with ``fields``."""
    waiting: dict[str, Any] = {
        "workflow": "lab/orders",
        "run": "r",
        "procedure": "P",
        "runbook": "lab/restore-orders",
        "mode": "live",
        "reason": "rows were deleted",
        "title": "Bring the orders back",
        "requested_by": "alice",
        "incident": "INC-7",
        "systems": ("orders",),
        "phase": "gate: keep the copy",
        "started_at": NOON,
        "clock": Clock(since="outage", detect=300, execute=12.34, total=312.34, rto=3600, rto_met=True),
        "steps": (step("lay down"), step("replay", "changed"), step("start", "changed")),
        "gates": (GATE,),
        "figures": (Figure(name="from", value="noon", unit=""), Figure(name="lag", value=0.005, unit="s", met=True)),
    }
    return Report(**(waiting | fields))


def ended(outcome: str, **fields: Any) -> str:
    return markdown(report(outcome=outcome, phase=outcome, ended_at=NOON, **fields))


def test_what_it_waits_for_comes_first() -> None:
    lines = [line for line in markdown(report()).splitlines() if line]
    assert lines[:4] == [
        "## Waiting for 2 × dba or incident-commander: “keep the copy”",
        "Decide until **2026-11-22 12:00:00 UTC**. Nobody has decided yet.",
        "Bring the orders back",
        "**live** on orders, asked for by alice (INC-7): rows were deleted",
    ]


def test_decisions_so_far_are_named() -> None:
    said = (DecisionLine(by="bob", verdict="approve", at=NOON, reason="rows are right"),)
    text = markdown(report(gates=(GATE.model_copy(update={"decisions": said}),)))
    assert "So far: bob approves (rows are right)." in text


def test_objects_become_a_table() -> None:
    rows = [line.replace("\u00a0", " ") for line in markdown(report()).splitlines() if line.startswith("|")]
    assert rows[:3] == [
        "| table |   in copy |   in running |   only in copy |   only in running |",
        "|:--|--:|--:|--:|--:|",
        "| public.orders |   4623 |   2,963,000 |   0 |   – |",
    ]


def test_texts_stand_beneath_their_table() -> None:
    assert "\n\npublic.orders: lost keys 1 10 100\n" in markdown(report())


def test_what_is_said_above_is_not_told_again() -> None:
    shown = ({"in_words": ["a: 512 rows (1001-1512) go"], "tables": [TABLE | {"lost_keys": "1001-1512"}]},)
    text = markdown(report(gates=(GATE.model_copy(update={"shown": shown}),)))
    assert text.count("1001-1512") == 1
    assert "lost keys" not in text


def test_stake_stands_above_everything() -> None:
    shown = (*GATE.shown, {"at_stake": "512 rows_of orders go"})
    gate = GATE.model_copy(update={"shown": shown})
    lines = [line for line in markdown(report(gates=(gate,))).splitlines() if line]
    assert lines[1] == "**512 rows\\_of orders go**"
    assert "512 rows" not in ended("recovered", gates=(gate.model_copy(update={"closed": "bob approves"}),))


@pytest.mark.parametrize("dark", [True, False])
def test_shut_doors_stand_above_everything(dark: bool) -> None:
    lines = [line for line in markdown(report(dark=dark, dark_since=NOON)).splitlines() if line]
    assert ("**Clients are shut out since 12:00:00 UTC.**" in lines) == dark
    assert (lines[1] == "**Clients are shut out since 12:00:00 UTC.**") == dark


def test_short_texts_are_columns() -> None:
    shown = ({"hosts": [{"host": "a", "role": "primary", "up": True}, {"host": "b", "role": "standby", "up": False}]},)
    text = markdown(report(gates=(GATE.model_copy(update={"shown": shown}),))).replace("\u00a0", "")
    assert "| host | role | up |\n|:--|:--|:--|\n| a | primary | yes |\n| b | standby | no |" in text


def test_single_facts_are_lines() -> None:
    assert "**What was found**\n- stage: paused\n- skew: 0.0\n- answers, all there: 200\n\n" in markdown(report())


def test_verdicts_lead_the_figures() -> None:
    assert "**Measured**\n- lag: **0.005** s (met)\n- from: **noon**\n" in markdown(report())


def test_figures_that_a_gate_tells_itself_are_told_once() -> None:
    figure = Figure(name="connections", value=37, unit="", met=False, told_at=("keep the copy",))
    assert "connections" not in markdown(report(figures=(figure,)))
    assert "- connections: **37** (**missed**)" in ended("recovered", figures=(figure,))


def test_each_answer_says_what_then() -> None:
    text = markdown(report())
    assert "- approve: the copy stays\n- reject: it stops and undoes “start”, then “replay”\n" in text
    assert "- no decision until 12:00:00 UTC: as if rejected\n" in text


def test_what_is_not_undone_is_said_to_stay() -> None:
    steps = [line.model_copy(update={"kept": "it goes with the folder"}) for line in report().steps]
    assert "- reject: it stops; “start” stays (it goes with the folder);" in markdown(report(steps=tuple(steps)))
    one = [line if line.title == "start" else plain for line, plain in zip(steps, report().steps, strict=True)]
    said = "- reject: it stops and undoes “replay”; “start” stays (it goes with the folder)\n"
    assert said in markdown(report(steps=tuple(one)))


def test_nothing_changed_is_said() -> None:
    assert "- reject: it stops; nothing was changed\n" in markdown(report(steps=()))


def test_json_is_ready_to_paste() -> None:
    blocks = re.findall(r"```json\n(.*?)\n```", markdown(report()), re.DOTALL)
    body = {"gate": "keep the copy", "by": "YOUR NAME", "plan": GATE.plan, "evidence": GATE.evidence, "reason": ""}
    assert [json.loads(block) for block in blocks] == [body | {"verdict": "approve"}, body]
    assert json.loads(approval(GATE)) == body
    assert json.loads(approval(GATE, "bob"))["by"] == "bob"
    assert max(len(line) for block in blocks for line in block.splitlines()) < 60, "code does not wrap in its pane"


def test_refusals_stand_above_the_facts() -> None:
    text = markdown(report(refusals=tuple(f"refusal {n}" for n in range(7))))
    assert "refusal 1" not in text
    assert text.index("**Not accepted**\n- refusal 2\n") < text.index("What was found")


def test_work_in_progress_is_the_headline() -> None:
    text = markdown(report(phase="restoring", gates=(), steps=(step("look"), step("replay", "changing"))))
    assert text.startswith("## restoring: replay\n\nBring the orders back\n")


def test_progress_stands_beneath_the_headline() -> None:
    moving = Progress(done=3 << 20, total=9 << 20, at=NOON, rate=1 << 20, ends=NOON + timedelta(seconds=6), note="<b>")
    steps = (step("look"), step("lay down a_b", "changing").model_copy(update={"progress": moving}))
    text = markdown(report(phase="restoring", gates=(), steps=steps))
    said = "**3.0 MiB of 9.0 MiB (33 %), 1.0 MiB/s, ends about 12:00:06 UTC, as of 12:00:00 (\\<b\\>)**"
    assert text.startswith(f"## restoring: lay down a\\_b\n\nlay down a\\_b: {said}\n\nBring the orders back\n"), text
    hold_or_gate = markdown(report(steps=steps))
    assert hold_or_gate.index("Waiting for") < hold_or_gate.index(said) < hold_or_gate.index("What was found")


@pytest.mark.parametrize(("outcome", "phase"), [("cancelled", "cancelled"), ("running", "compensating")])
def test_gate_that_was_left_waits_for_nobody(outcome: str, phase: str) -> None:
    text = markdown(report(outcome=outcome, phase=phase, failure="cancelled"))
    assert text.startswith(f"## {phase}\n\n**Why**: cancelled\n")
    assert "Waiting" not in text
    assert "```" not in text


def test_closed_gate_keeps_its_evidence() -> None:
    closed = GATE.model_copy(update={"closed": "bob approves"})
    text = ended("recovered", gates=(closed,), delivered={"copy": "psql -h `x`"})
    assert text.startswith("## recovered\n\n")
    assert "**“keep the copy”: bob approves**\n- stage: paused\n" in text
    assert "- copy: `` psql -h `x` ``" in text
    assert "What was found" not in text
    assert "in copy" in text


def test_what_is_left_comes_before_facts() -> None:
    text = ended("failed", kind="Fatal", failure="no room", residual=("start: undo failed",), gates=())
    assert text.startswith("## failed\n\n**Fatal**: no room\n")
    assert text.index("**NOT UNDONE, look at it now**\n- start: undo failed\n") < text.index("Measured")


def test_check_lists_what_is_in_the_way() -> None:
    gate = GateLine(gate="keep the copy", closed="would ask 1 × dba")
    text = ended("checked", mode="check", blockers=("disk: free room",), gates=(gate,), steps=(step("lay", "failed"),))
    assert "**In the way**\n- disk: free room\n" in text
    assert "**“keep the copy”: would ask 1 × dba**" in text
    assert "✗" in text


def test_failure_stands_beneath_the_steps() -> None:
    digest = f"{'0123456789ab' * 5}cdef"
    text = markdown(report(steps=(step("replay", "failed", f"replay: a | b\nno {digest}"),))).replace("\u00a0", "")
    assert "| ✗ | replay | failed | 1.2 |" in text
    assert "\n\nreplay: a \\| b no 0123456789ab…\n\n" in text


@pytest.mark.parametrize(
    "evil",
    ["**bold**", "<b>html</b>", "[a](b)", "`code`", "# head", "two\n\n## lines", "a | b", "--host", "a_b_c", "&lt;"],
)
def test_what_people_write_is_no_markdown(evil: str) -> None:
    line = next(line for line in markdown(report(reason=evil)).splitlines() if line.startswith("**live**"))
    written = line.split("(INC-7): ")[1]
    assert re.sub(r"\\(.)", r"\1", written) == " ".join(evil.split())
    assert not re.search(r"(?<!\\)([*<>\[\]`#|_&]|--)", written)


def test_lists_have_an_end() -> None:
    tables = [TABLE | {"table": f"public.table_{number}"} for number in range(500)]
    steps = tuple(step(f"step {number}", "changed") for number in range(500))
    gate = GATE.model_copy(update={"shown": ({"tables": tables},)})
    text = markdown(report(gates=(gate,), steps=steps, blockers=("x" * 5000,) * 500, reason="y" * 2000))
    assert f"{500 - ROWS} more rows are in the query `status`." in text
    assert f"- and {500 - ROWS} more, in the query `status`" in text
    assert "“step 480” and 480 more\n" in text
    assert "| ✓ | \u00a0\u00a0step 480 |" in text
    assert "step 479" not in text
    assert len(quote(text)) < 32_000, "the UI sends the text in an address"


def test_ordinary_details_pass_a_proxy() -> None:
    assert len(quote(markdown(report()))) < 6_000, "proxies take addresses of 8 KB"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min"),
        (312.4, "5 min 12 s"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (1_209_600, "14 d"),
    ],
)
def test_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    clock = Clock(since="start", total=seconds, rto=0)
    assert markdown(report(clock=clock)).endswith(f"Clock since start, as this was written: **{said}** (nothing yet)")


@pytest.mark.parametrize(
    ("met", "outcome", "said"),
    [
        (True, "running", "5 min 12 s** of RTO 1 h, within it so far ("),
        (True, "recovered", "5 min 12 s** of RTO 1 h (met) ("),
        (False, "recovered", "5 min 12 s** of RTO 1 h (**missed**) ("),
        (None, "recovered", "5 min 12 s** of RTO 1 h ("),
    ],
)
def test_clock_has_a_verdict(met: bool | None, outcome: str, said: str) -> None:
    clock = Clock(since="outage", detect=300, execute=12.34, total=312.34, rto=3600, rto_met=met)
    assert said in markdown(report(clock=clock, outcome=outcome))


def test_leaves_are_lines_for_the_console() -> None:
    shown = {
        "a_b": {"c": 1, "none": None},
        "rows": [{"x": 1, "y": ""}],
        "many": [1, 2],
        "zero": 0,
        "in_words": ["one", "2"],
    }
    assert facts_of(shown) == ["a b c: 1", "rows: x: 1", "many: 1, 2", "zero: 0", "one", "2"]
