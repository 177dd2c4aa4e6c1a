"""Render a report as the Markdown that the Temporal UI shows as current details; pure.

The UI (2.54.1) renders on its server, in a pane about 500 px wide: cells have no padding, code does not wrap, `1/2`
and `--` become typography. So columns carry blanks of their own, JSON stands on several lines (also because the first
click on Submit is lost when the editor has to break them), and what people wrote is escaped. The text travels in the
address of a request: every list has an end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from recovery.progress import in_words
from recovery.report import CheckLine, Figure, GateLine, HoldLine, Report, StepLine

MARKS = {
    "looking": "…", "changing": "…", "undoing": "…", "seen": "✓", "changed": "✓", "unchanged": "=", "undone": "↩",
    "would change": "→", "would look": "→", "failed": "✗", "undo failed": "✗", "undo blocked": "✗",
    "skipped": "↷", "left behind": "✗",
}  # fmt: skip
ROWS = 20
"""How many rows of a list are shown; all of them are in the query ``status``."""

_GAP = "\u00a0\u00a0"
_LONG = 400  # characters of a sentence
_NARROW = 20  # characters of a text that may stand in a column
_MEANING = re.compile(r"[\\`*_{}\[\]<>#|~&]|-(?=-)|(?<=-)-")
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # a SHA-256: its beginning tells it from another
_CAUSES = ("detect", "decide", "people", "execute", "verify", "undo")


def markdown(report: Report) -> str:
    """Return what an operator needs at three in the morning: what it waits for first, then facts, then the rest."""
    gate = next((gate for gate in report.gates if report.phase == f"gate: {gate.gate}" and not gate.closed), None)
    hold = report.hold
    refused = _some("Not accepted", map(_plain, report.refusals[-5:]))
    head = _held(hold) if hold else _waiting(gate) if gate else _headline(report)
    top, _, rest = f"{head}\n{_about(report)}".partition("\n\n")
    parts = [top, *_turning(report), *(_stake(gate) if gate and not hold else []), *_moving(report), rest]
    parts += refused if gate or hold else []
    parts += _answers(report, hold) if hold else []
    parts += _some("NOT UNDONE, look at it now", map(_plain, report.residual))
    parts += _some("Left behind, in nobody's way", map(_plain, report.behind))
    parts += _some("In the way", map(_plain, report.blockers))
    parts += _some("Delivered", (f"{_plain(name)}: {_code(where)}" for name, where in report.delivered.items()))
    parts += _some("Checks of the site", (f"{_plain(one.name)}: {_plain(told(one))}" for one in report.checks))
    parts += [part for one in report.gates if not one.closed for part in _evidence(one)]
    figures = report.beside(gate.gate) if gate and not hold else report.figures
    parts += _some("Measured", map(_figure, sorted(figures, key=lambda figure: figure.met is None)))
    parts += _choice(report, gate) if gate and not hold else []
    parts += [part for one in report.gates if one.closed for part in _evidence(one)]
    parts += [*_steps(report.steps), _clock(report), *([] if gate or hold else refused)]
    parts += _some("Notes", (f"{_plain(note.by)}: {_plain(note.text)}" for note in report.notes[-5:]))
    return "\n\n".join(part for part in parts if part)


def told(check: CheckLine) -> str:
    """Return how something was seen, as a person would say it."""
    by = f" by {', '.join(check.by)}" if check.by else ""
    return f"{check.how}{by}: {check.evidence}"


def approval(gate: GateLine, by: str = "YOUR NAME") -> str:
    """Return the JSON to paste as input of the signal ``approve`` or ``reject``."""
    return json.dumps(_decision(gate, by), ensure_ascii=False)


def facts_of(shown: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the leaves of ``shown`` as ``name: value`` lines, nested names joined by blanks."""
    lines: list[str] = []
    for name, value in shown.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            lines += facts_of(value, f"{label} ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{label}: {', '.join(facts_of(row))}" for row in value]
        elif isinstance(value, list) and name == "in_words":
            lines += [str(one) for one in value]
        elif isinstance(value, str) and "\n" in value:
            lines += [f"{label}:", *(f"  {line}" for line in value.splitlines())]
        elif value not in (None, "", [], {}):
            lines.append(f"{label}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return lines


# --- the top: what it waits for, or how it stands -------------------------------------------------------------


def _waiting(gate: GateLine) -> str:
    who = f"{gate.approvals} × {_plain(' or '.join(gate.roles))}"
    names = [_plain(name) for name in gate.people[:ROWS]] + (["others"] if len(gate.people) > ROWS else [])
    asked = f"\nWho may: {', '.join(names)}." if names else ""
    said = [f"{_plain(d.by)} {d.verdict}s{f' ({_plain(d.reason)})' if d.reason else ''}" for d in gate.decisions]
    until = f"Decide until **{gate.until:%Y-%m-%d %H:%M:%S} UTC**. " if gate.until else ""
    so_far = f"So far: {', '.join(said)}." if said else "Nobody has decided yet."
    return f"## Waiting for {who}: “{_plain(gate.gate)}”\n\n{until}{so_far}{asked}"


def _headline(report: Report) -> str:
    busy = next((s.title for s in reversed(report.steps) if MARKS[s.state] == "…"), "")
    now = f": {_plain(busy)}" if busy and report.outcome == "running" else ""
    head = f"## {_plain(report.phase if report.outcome == 'running' else report.outcome)}{now}\n"
    return f"{head}\n**{_plain(report.kind or 'Why')}**: {_plain(report.failure)}" if report.failure else head


def _about(report: Report) -> str:
    asked = f", asked for by {_plain(report.requested_by)}" if report.requested_by else ""
    case = f" ({_plain(report.incident)})" if report.incident else ""
    where = f" on {_plain(', '.join(report.systems))}" if report.systems else ""
    title = _plain(report.title or report.runbook)
    return f"{title}\n**{report.mode}**{where}{asked}{case}: {_plain(report.reason)}"


# --- the gate -------------------------------------------------------------------------------------------------


def _stake(gate: GateLine) -> list[str]:
    """Return what must not be overlooked in the evidence."""
    return [f"**{_plain(shown['at_stake'])}**" for shown in gate.shown if shown.get("at_stake")]


def _evidence(gate: GateLine) -> list[str]:
    """Return what the gate shows, or showed, by shape: single facts as lines, lists of objects as tables."""
    lines: list[str] = []
    tables: list[str] = []
    texts: list[str] = []
    for name, value in ((name, value) for shown in gate.shown for name, value in shown.items()):
        if name == "at_stake":
            continue
        if isinstance(value, dict):
            lines += [f"{_label(name)}, {_label(key)}: {_cell(one)}" for key, one in value.items()]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables += _objects(value, lines)
        elif isinstance(value, list) and any(" " in str(one) for one in value):  # sentences
            lines += [_cell(one) for one in value]
        elif isinstance(value, str) and "\n" in value:
            texts.append(_text(name, value))
        elif value not in (None, "", []):
            lines.append(f"{_label(name)}: {_cell(value)}")
    title = f"“{_plain(gate.gate)}”: {_plain(gate.closed)}" if gate.closed else "What was found"
    return [*_lines(title, lines), *tables, *texts] if gate.closed or lines or tables or texts else []


def _text(name: str, text: str) -> str:
    """Return a text of several lines as it stands, down to where a list would end."""
    lines = text.replace("`", "'").splitlines()  # nothing in it ends the block
    shown = [line[:_LONG] for line in lines[: 2 * ROWS]]
    more = [f"… and {len(lines) - len(shown)} lines more, in the query status"] if len(lines) > len(shown) else []
    return "\n".join([f"**{_label(name)}**", "", "```", *shown, *more, "```"])


def _objects(rows: list[dict[str, Any]], said: list[str]) -> list[str]:
    """Return a table of ``rows``; texts that would break its columns are told beneath, by the row's first field.

    What stands in brackets in what is ``said`` above the table is not told again.
    """
    rows = [{name: "" if _is_told(value, said) else value for name, value in row.items()} for row in rows]
    shown = rows[:ROWS]
    names = [name for name in rows[0] if any(row.get(name) not in ("", [], {}) for row in shown)]  # None is a fact
    columns = [name for name in names if name == names[0] or all(_is_narrow(row.get(name)) for row in shown)]
    table = _table([_label(name) for name in columns], [[row.get(name) for name in columns] for row in rows])
    told = []
    for row in shown:
        texts = [f"{_label(n)} {_cell(row[n])}" for n in names if n not in columns and row.get(n)]
        told += [f"{_cell(row[names[0]])}: {', '.join(texts)}"] if texts else []
    return [table, *(["\n".join(told)] if told else [])]


def _back(report: Report) -> str:
    """Return what going back would undo, and what stays all the same."""
    changed = [line for line in reversed(report.steps) if line.state in ("changed", "skipped")]
    undone = [f"“{_plain(line.title)}”" for line in changed if not line.kept]
    stays = [f"“{_plain(line.title)}” stays ({_plain(line.kept)})" for line in changed if line.kept]
    more = f" and {len(undone) - ROWS} more" if len(undone) > ROWS else ""
    if undone:
        said = f"it stops and undoes {', then '.join(undone[:ROWS])}{more}"
    else:
        said = "it stops" if stays else "it stops; nothing was changed"
    return "; ".join([said, *stays[:ROWS]])


def _choice(report: Report, gate: GateLine) -> list[str]:
    """Return what each answer leads to, and what to paste for it."""
    back = _back(report)
    silence = [f"no decision until {gate.until:%H:%M:%S} UTC: as if rejected"] if gate.until else []
    body = _decision(gate, "YOUR NAME")
    return [
        *_lines("What then", [f"approve: {_plain(gate.then)}", f"reject: {back}", *silence]),
        "Replace YOUR NAME. **More Actions, Send an Update, `decide`** is answered at once; for a no write `reject`:",
        _json({**body, "verdict": "approve"}),
        "Or **Send a Signal, `approve`** or **`reject`**; what is wrong with it is shown above (press R):",
        _json(body),
    ]


def _decision(gate: GateLine, by: str) -> dict[str, str]:
    return {"gate": gate.gate, "by": by, "plan": gate.plan, "evidence": gate.evidence, "reason": ""}


# --- a hold ---------------------------------------------------------------------------------------------------


def _held(hold: HoldLine) -> str:
    what = {"failure": "failed", "residual": "could not be undone", "asked": "waits", "reset": "waits"}[hold.cause]
    who = f"\nWho may answer: {', '.join(map(_plain, hold.people[:ROWS]))}." if hold.people else ""
    again = f" Asked {hold.again} times before; **nobody answered**." if hold.again else ""
    until = f"Answer until **{hold.until:%Y-%m-%d %H:%M:%S} UTC**.{again}{who}"
    return f"## Held: “{_plain(hold.step)}” {what}\n\n**{_plain(hold.why)}**\n\n{until}"


def _answers(report: Report, hold: HoldLine) -> list[str]:
    """Return what each answer leads to, and what to paste for it."""
    means = {
        "retry": "it is tried again; mend the cause first",
        "skip": f"it goes on without this step; its undo is kept. {_plain(hold.skippable)}",
        "compensate": _back(report),
        "withdraw": f"this step has changed nothing: the point of no return is taken back, and {_back(report)}",
        "continue": "it goes on",
        "step": "it takes one action, then holds again",
        "take over": "the old site is given up: what may be missing is measured, people are asked who answers for it",
        "accept": "it ends as failed; what is not undone stays listed, and is yours",
    }
    silence = {
        "compensate": "as if compensate", "accept": "as if accept",
        "ask again": f"people are asked again: {_onward(report)}",
    }[hold.silence]  # fmt: skip
    rows = [f"{answer}: {means[answer]}" for answer in hold.answers]
    body = {"hold": hold.token, "by": "YOUR NAME", "answer": hold.answers[0], "reason": ""}
    return [
        *_lines("What then", [*rows, f"no answer until {hold.until:%H:%M:%S} UTC: {silence}"]),
        "Replace YOUR NAME, and the answer. **More Actions, Send an Update, `resolve_step`** is answered at once; the"
        " signal `resolve` takes the same:",
        _json(body),
    ]


def _onward(report: Report) -> str:
    if report.committed is not None:
        return "after the point of no return nothing is undone"
    return "going back by itself would lead to what is lost"


def _moving(report: Report) -> list[str]:
    """Return how far each step is that tells it, one line each: in the table it would push columns out of sight."""
    lines = [f"{_plain(one.title)}: **{_plain(in_words(one.progress))}**" for one in report.steps if one.progress]
    return ["\n".join(lines[-ROWS:])] if lines else []


def _turning(report: Report) -> list[str]:
    """Return what everybody has to know before they touch anything: who is shut out, and whether a way back is left."""
    rows = []
    if report.dark and report.outcome == "running":
        since = f" since {report.dark_since:%H:%M:%S} UTC" if report.dark_since else ""
        rows.append(f"**Clients are shut out{since}.**")
    if report.committed is not None and report.outcome != "recovered":
        at, what = report.committed.at, _plain(report.committed.what)
        rows.append(f"**Past the point of no return** since {at:%H:%M:%S} UTC: {what}. Nothing is undone any more.")
    if report.was_reset:
        rows.append("This run was reset: it knows what the run before it did.")
    return ["\n".join(rows)] if rows else []


# --- the rest -------------------------------------------------------------------------------------------------


def _figure(figure: Figure) -> str:
    unit = f" {_plain(figure.unit)}" if figure.unit else ""
    return f"{_plain(figure.name)}: **{_cell(figure.shown)}**{unit}{_met(figure.met)}"


def _steps(steps: tuple[StepLine, ...]) -> list[str]:
    """Return the steps as a table, and beneath it why one failed: in it a path would push columns out of sight."""
    earlier = [f"{len(steps) - ROWS} earlier steps are in the query `status`."] if len(steps) > ROWS else []
    shown = steps[-ROWS:]
    rows = [
        (MARKS[one.state], one.title, one.state, round((one.ended - one.began).total_seconds(), 1)) for one in shown
    ]
    why = [f"{_plain(one.title)}: {_plain(one.failure.removeprefix(f'{one.title}: '))}" for one in shown if one.failure]
    return [*earlier, _table(("", "step", "state", "s"), rows), "\n".join(why)] if rows else []


def _clock(report: Report) -> str:
    clock = report.clock
    split = ", ".join(f"{cause} {span(getattr(clock, cause))}" for cause in _CAUSES if getattr(clock, cause))
    running = report.outcome == "running"
    verdict = ", within it so far" if running and clock.rto_met else _met(clock.rto_met)
    rto = f" of RTO {span(clock.rto)}{verdict}" if clock.rto else ""
    written = ", as this was written" if running else ""
    return f"Clock since {clock.since}{written}: **{span(clock.total)}**{rto} ({split or 'nothing yet'})"


# --- Markdown -------------------------------------------------------------------------------------------------


def _lines(title: str, rows: Iterable[str]) -> list[str]:
    """Return one block. Without an empty line before its list, the UI leaves no gap, others show a list."""
    lines = [f"- {row}" for row in rows]
    more = [f"- and {len(lines) - ROWS} more, in the query `status`"] if len(lines) > ROWS else []
    return ["\n".join([f"**{title}**", *lines[:ROWS], *more])]


def _some(title: str, rows: Iterable[str]) -> list[str]:
    found = list(rows)
    return _lines(title, found) if found else []


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    right = [i for i in range(len(names)) if all(_is_number(row[i]) for row in rows)]
    lines = [_row(names), "|" + "|".join("--:" if i in right else ":--" for i in range(len(names))) + "|"]
    lines += [_row([_cell(value) for value in row]) for row in rows[:ROWS]]
    more = f"\n\n{len(rows) - ROWS} more rows are in the query `status`." if len(rows) > ROWS else ""
    return "\n".join(lines) + more


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join([cells[0], *(f"{_GAP}{cell}" if cell else "" for cell in cells[1:])]) + " |"


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int() if value >= 100_000:  # below, it may be a port or a year
            return f"{value:,}"
        case dict():
            return _plain("; ".join(facts_of(value)))
        case list():
            return ", ".join(_cell(one) for one in value)
        case _:
            return _plain(value)


def _is_told(value: Any, said: list[str]) -> bool:
    return isinstance(value, str) and any(f"({_cell(value)})" in text for text in said)


def _is_narrow(value: Any) -> bool:
    text = _cell(value)
    return len(text) <= _NARROW and " " not in text


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _label(name: str) -> str:
    return _plain(name.replace("_", " "))


def _plain(value: Any) -> str:
    """Return ``value`` on one line, cut when very long, without any meaning as Markdown or HTML."""
    text = _DIGEST.sub(r"\1…", " ".join(str(value).split()))
    text = text if len(text) <= _LONG else f"{text[:_LONG]}…"
    return _MEANING.sub(r"\\\g<0>", text)


def _code(text: str) -> str:
    one_line = " ".join(text.split())
    return f"`` {one_line} ``" if "`" in one_line else f"`{one_line}`"


def _json(body: dict[str, str]) -> str:
    return f"```json\n{json.dumps(body, ensure_ascii=False, indent=2)}\n```"


def _met(met: bool | None) -> str:
    return "" if met is None else " (met)" if met else " (**missed**)"


def span(seconds: float) -> str:
    """Return seconds as people say them: 0.4 s, 42 s, 5 min 12 s, 1 h 3 min, 14 d."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds >= 172_800 and seconds % 86_400 == 0:
        return f"{seconds // 86_400:.0f} d"
    (size, upper), (part, lower) = ((60, "min"), (1, "s")) if seconds < 3600 else ((3600, "h"), (60, "min"))
    whole, rest = divmod(round(seconds), size)
    return f"{whole} {upper} {rest // part} {lower}" if rest // part else f"{whole} {upper}"
