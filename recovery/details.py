"""Render a report as the Markdown that the Temporal UI shows as current details."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from recovery.report import GateLine, Report, StepLine

MARKS = {
    "looking": "…", "changing": "…", "undoing": "…", "seen": "✓", "changed": "✓", "unchanged": "=", "undone": "↩",
    "would change": "→", "would look": "→", "failed": "✗", "undo failed": "✗", "undo blocked": "✗",
}  # fmt: skip


def markdown(report: Report) -> str:
    """Return what an operator needs at three in the morning: what it waits for first, then facts, then the rest."""
    parts = [_headline(report)]
    parts += [_gate(gate) for gate in report.gates if not gate.closed and gate.plan]
    parts += _bullets("Blockers", report.blockers)
    parts += _bullets("NOT UNDONE", report.residual)
    parts += _bullets("Delivered", (f"**{name}**: `{where}`" for name, where in report.delivered.items()))
    parts += _bullets("Measured", (f"{f.name}: **{f.value}** {f.unit}{_met(f.met)}" for f in report.figures))
    parts += _steps(report.steps)
    parts += _bullets("Not accepted", report.refusals[-5:])
    parts.append(_clock(report))
    return "\n\n".join(part for part in parts if part)


def approval(gate: GateLine, by: str = "YOUR NAME") -> str:
    """Return the JSON to paste as input of the signal ``approve`` or ``reject``."""
    body = {"gate": gate.gate, "by": by, "plan": gate.plan, "evidence": gate.evidence, "reason": ""}
    return json.dumps(body, ensure_ascii=False)


def facts_of(shown: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the leaves of ``shown`` as ``name: value`` lines, nested names joined by blanks."""
    lines: list[str] = []
    for name, value in shown.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, dict):
            lines += facts_of(value, f"{label} ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{label}: {', '.join(facts_of(row))}" for row in value]
        elif value not in (None, "", [], {}):
            lines.append(f"{label}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return lines


def _headline(report: Report) -> str:
    what = report.outcome if report.outcome != "running" else report.phase
    who = f" by {report.requested_by}" if report.requested_by else ""
    lines = [f"### {report.title or report.runbook}: {what}"]
    lines.append(f"**{report.mode}** on {', '.join(report.systems) or '…'}, started{who}: {report.reason}")
    if report.failure:
        lines.append(f"**{report.kind or 'Failure'}**: {report.failure}")
    return "\n\n".join(lines)


def _gate(gate: GateLine) -> str:
    rows = [f"- {line}" for shown in gate.shown for line in facts_of(shown)]
    until = f" until {gate.until:%Y-%m-%d %H:%M:%S}Z" if gate.until else ""
    waits = f"### Waiting for {gate.approvals} × {' or '.join(gate.roles)}: “{gate.gate}”{until}"
    how = "Decide with the update `decide`, or the signal `approve` or `reject`, and this input (identity is claimed):"
    return "\n".join([waits, "", *rows, "", how, "", "```json", approval(gate), "```"])


def _steps(steps: tuple[StepLine, ...]) -> list[str]:
    if not steps:
        return []
    rows = ["| | step | state | s | |", "|---|---|---|---|---|"]
    for line in steps:
        seconds = (line.ended - line.began).total_seconds()
        failure = line.failure.replace("|", "/").replace("\n", " ")
        rows.append(f"| {MARKS[line.state]} | {line.title} | {line.state} | {seconds:.1f} | {failure} |")
    return ["\n".join(rows)]


def _clock(report: Report) -> str:
    clock = report.clock
    split = ", ".join(f"{cause} {getattr(clock, cause):.1f}" for cause in _CAUSES if getattr(clock, cause))
    return (
        f"Clock since {clock.since}: {clock.total:.1f} s ({split or '0'}) of RTO {clock.rto:.0f} s{_met(clock.rto_met)}"
    )


def _bullets(title: str, rows: Iterable[str]) -> list[str]:
    lines = [f"- {row}" for row in rows]
    return ["\n".join([f"**{title}**", "", *lines])] if lines else []


def _met(met: bool | None) -> str:
    return "" if met is None else " (met)" if met else " (**missed**)"


_CAUSES = ("detect", "decide", "people", "execute", "verify", "undo")
