"""A report as people read it in a terminal; pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from console.output import clean, duration, utc
from console.reports import Seen
from recovery.details import MARKS, facts_of, told
from recovery.progress import in_words
from recovery.report import GateLine, HoldLine, Report, StepLine

_COLOURS = {
    "recovered": "green", "checked": "green", "drilled": "green", "verified": "green", "running": "cyan",
    "cancelled": "yellow", "compensated": "yellow", "failed": "red", "undo failed": "red", "undo blocked": "red",
    "undone": "yellow", "changing": "cyan", "looking": "cyan", "undoing": "yellow", "would change": "yellow",
    "skipped": "yellow", "left behind": "yellow",
}  # fmt: skip


def page(seen: Seen, link: str) -> Group:
    """Return the whole report: what it waits for first, then what went wrong, then the rest."""
    report = seen.report
    parts: list[RenderableType] = [*_head(report, link)]
    if seen.remark:
        parts.append(_text(f"! {seen.remark}", "bold yellow"))
    parts += _turning(report)
    parts += held(report, report.hold) if report.hold and report.outcome == "running" else []
    for gate in report.gates:
        if report.outcome == "running" and gate.plan and not gate.closed:
            parts += evidence(report, gate)
    parts += _bullets("Blockers", report.blockers, "red")
    parts += _bullets("NOT UNDONE", report.residual, "bold red")
    parts += _bullets("Left behind, in nobody's way", report.behind, "yellow")
    parts += [_steps(report.steps)] if report.steps else []
    for gate in report.gates:
        if report.mode == "check" and gate.shown:
            parts += _bullets(f"What “{gate.gate}” would show", (line for one in gate.shown for line in facts_of(one)))
    parts += _bullets("Gates", (f"{gate.gate}: {gate.closed}" for gate in report.gates if gate.closed))
    parts += _bullets("Holds", (f"{one.step}: {one.closed}" for one in report.holds if one.closed))
    parts += _bullets("Notes", (f"{note.by}: {note.text}" for note in report.notes))
    parts += _bullets("Measured", (f"{f.name}: {f.shown} {f.unit}{_met(f.met)}" for f in report.figures))
    parts += _bullets("Delivered", (f"{name}: {where}" for name, where in report.delivered.items()))
    parts += _bullets("Checks of the site", (f"{one.name}: {told(one)}" for one in report.checks))
    parts += _bullets("Not accepted", report.refusals[-5:], "yellow")
    return Group(*parts, _text(clock(report), "dim"))


def evidence(report: Report, gate: GateLine) -> list[RenderableType]:
    """Return what a gate shows to those who decide, with the digests that a decision names."""
    left = (gate.until - datetime.now(UTC)).total_seconds() if gate.until else None
    until = f" within {duration(max(0.0, left))}, else rejected" if left is not None else ""
    head = f"? “{gate.gate}” waits for {gate.approvals} × {' or '.join(gate.roles)}{until}"
    rows = [f"  {line}" for shown in gate.shown for line in facts_of(shown)]
    rows += [f"  {d.by} {d.verdict}s{': ' if d.reason else ''}{d.reason}" for d in gate.decisions]
    digests = f"  plan {gate.plan}  evidence {gate.evidence or 'none'}"
    how = f"  starter.py approve {report.workflow} --gate '{gate.gate}'   (or reject)"
    return [_text(head, "bold yellow"), *map(_text, rows), _text(digests, "dim"), _text(how, "dim")]


def held(report: Report, hold: HoldLine) -> list[RenderableType]:
    """Return why a recovery is held, and how to answer."""
    left = duration(max(0.0, (hold.until - datetime.now(UTC)).total_seconds()))
    silence = "people are asked again" if hold.silence == "ask again" else hold.silence
    head = f"! held at “{hold.step}” for {' or '.join(hold.roles)}, {left} left, then: {silence}"
    answers = f"  answers: {', '.join(hold.answers)}" + (f" (skip: {hold.skippable})" if hold.skippable else "")
    how = f"  starter.py resolve {report.workflow} ANSWER --hold {hold.token} --reason WHY"
    return [_text(head, "bold yellow"), _text(f"  {hold.why}"), _text(answers), _text(how, "dim")]


def _turning(report: Report) -> list[RenderableType]:
    rows = ["! clients are shut out"] if report.dark and report.outcome == "running" else []
    if report.committed is not None and report.outcome != "recovered":
        rows.append(f"! past the point of no return ({report.committed.what}): nothing is undone any more")
    return [_text(row, "bold yellow") for row in rows]


def clock(report: Report) -> str:
    """Return where the time went."""
    now = report.clock
    causes = now.model_dump(include={"detect", "decide", "people", "execute", "verify", "undo"})
    split = ", ".join(f"{cause} {duration(seconds)}" for cause, seconds in causes.items() if seconds)
    rto = f", RTO {duration(now.rto)}{_met(now.rto_met)}" if now.rto else ""
    return f"{duration(now.total)} since {now.since}{f' ({split})' if split else ''}{rto}"


def _head(report: Report, link: str) -> Iterable[Text]:
    state = report.phase if report.outcome == "running" else report.outcome
    yield Text.assemble((clean(report.title or report.runbook), "bold"), ": ", (state, _colour(report.outcome)))
    who = f" by {report.requested_by}" if report.requested_by else ""
    where = f" on {', '.join(report.systems)}" if report.systems else ""
    about = f" ({report.incident})" if report.incident else ""
    yield _text(f"{report.mode}{where}, started {utc(report.started_at)}{who}{about}: {report.reason}")
    yield _text(f"{report.workflow}  {report.run}", "dim")
    yield _text(link, f"dim link {link}")  # whole also where it is broken over lines
    if report.failure:
        yield _text(f"{report.kind or 'Failure'}: {report.failure}", "red")


def _steps(steps: tuple[StepLine, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "step", "state", "time", ""):
        table.add_column(name, justify="right" if name == "time" else "left")
    for line in steps:
        seconds = (line.ended - line.began).total_seconds()
        style = _colour(line.state)
        said = in_words(line.progress) if line.progress else line.failure
        cells = (MARKS[line.state], line.title, line.state, duration(seconds) if seconds else "", said)
        table.add_row(*(_text(cell, style if i in (0, 2) else "") for i, cell in enumerate(cells)))
    return table


def _bullets(title: str, rows: Iterable[str], style: str = "") -> list[RenderableType]:
    lines = [_text(f"  {row}", style) for row in rows]
    return [_text(title, style or "bold"), *lines] if lines else []


def _text(text: str, style: str = "") -> Text:
    return Text(clean(text), style)


def _colour(state: str) -> str:
    return _COLOURS.get(state, "")


def _met(met: bool | None) -> str:
    return "" if met is None else " (met)" if met else " (missed)"
