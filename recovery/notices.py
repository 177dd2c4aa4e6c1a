"""What people are told, and how it is put into words: pure functions of the report.

The text is plain, and Markdown as well where a channel makes that of it. It is read on a telephone, at three in the
morning: the subject says which system and what is wanted, the first lines what to do and until when.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Literal

from recovery.clock import Clock
from recovery.details import ROWS, facts_of, span
from recovery.models import Wire
from recovery.report import Figure, GateLine, HoldLine, Report

Kind = Literal["waits", "ended", "note"]
Tone = Literal["info", "success", "warning", "failure"]

_LONG = 400  # characters of a sentence
_SUBJECT = 120  # characters that a list of mails still shows
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_GOOD = ("recovered", "checked", "drilled", "verified")


class Notice(Wire):
    """One thing that people are told, once, over each of ``channels``.

    ``id`` is the run's id and ``number``, which counts the notices of that run. ``link`` is empty until a worker
    delivers it: workflow code does not know where the UI is.
    """

    id: str
    number: int
    workflow: str
    run: str
    channels: tuple[str, ...]
    kind: Kind
    tone: Tone = "info"
    title: str
    body: str
    link: str = ""


class Target(Wire):
    """Where a notice goes: the ``number``-th address of the worker's file (from 1), reached by ``service``.

    The address itself holds secrets and stays with the worker.
    """

    channel: str
    number: int
    service: str

    def __str__(self) -> str:
        """Name it without its address."""
        return f"{self.channel}: {self.service} (address {self.number} in the file)"


class Targets(Wire):
    """What stands behind the channels of a notice, and what is wrong with the others."""

    found: tuple[Target, ...] = ()
    faults: tuple[str, ...] = ()


class Sending(Wire):
    """Send ``notice`` to ``target``."""

    notice: Notice
    target: Target


class Sent(Wire):
    """It was accepted; ``repeat`` if it may have been before, which the message said."""

    target: Target
    repeat: bool = False


class Told(Wire):
    """Every target behind the channels has accepted the notice."""

    sent: tuple[Sent, ...] = ()


def gate_waits(report: Report, gate: str, channels: tuple[str, ...], number: int) -> Notice:
    """Tell that ``gate`` is open: what for, who may decide, until when, on which facts, and how."""
    line = next((one for one in report.gates if one.gate == gate), GateLine(gate=gate))
    roles = " or ".join(line.roles)
    until = f" until {line.until:%H:%M} UTC" if line.until else ""
    seen = [fact for shown in line.shown for fact in facts_of(shown)]
    parts = [
        _waiting(line, roles),
        _about(report),
        _list("What was found", [*seen, *map(_figure, report.beside(gate))]),
        _list("What then", _choice(report, line)),
        _list("NOT UNDONE, look at it now", report.residual),
        _list("To decide (it shows the facts again and asks)", _commands(report, line), bullet="    "),
    ]
    return _notice(report, f"{roles} to decide{until}: {gate}", parts, channels, number, "waits", "warning")


def hold_waits(report: Report, token: str, channels: tuple[str, ...], number: int) -> Notice:
    """Tell that the recovery is held: why, who may answer what, until when, where silence leads, and how."""
    line = next(one for one in report.holds if one.token == token)
    roles = " or ".join(line.roles)
    again = f" Asked {line.again} times before; NOBODY ANSWERED." if line.again else ""
    parts = [
        f"HELD at “{_line(line.step)}”: {_line(line.why)}",
        f"{'CLIENTS ARE SHUT OUT. ' if report.dark else ''}{_past(report)}".strip(),
        f"Until {line.until:%Y-%m-%d %H:%M:%S} UTC, then: {line.silence}.{again}",
        f"Who may answer: {', '.join(map(_line, line.people[:ROWS]))}." if line.people else "",
        _about(report),
        _list("NOT UNDONE, look at it now", report.residual),
        _list("To answer", [_answer(report, line, answer) for answer in line.answers], bullet="    "),
    ]
    return _notice(report, f"held for {roles} until {line.until:%H:%M} UTC: {line.step}", parts, channels, number,
                   "waits", "failure")  # fmt: skip


def ended(report: Report, channels: tuple[str, ...], number: int) -> Notice:
    """Tell how the recovery ended: outcome, why, what is not undone, what it left, and the clock."""
    good = report.outcome in _GOOD
    left = f", {len(report.residual)} NOT UNDONE" if report.residual else ""
    why = f"{report.kind or 'Why'}: {_line(report.failure)}" if report.failure else ""
    parts = [
        "\n".join(filter(None, [f"{report.outcome.upper()}{left}.", why, _clock(report.clock)])),
        _list("NOT UNDONE, look at it now", report.residual),
        _list("In the way", report.blockers),
        _list("Delivered", [f"{name}: {where}" for name, where in report.delivered.items()]),
        _about(report),
        _list("Measured", map(_figure, report.figures)),
        _list("More", [f"starter.py status {shlex.quote(report.workflow)}"], bullet="    "),
    ]
    tone: Tone = "success" if good else "failure" if report.residual or report.outcome == "failed" else "warning"
    return _notice(report, f"{report.outcome}{left}", parts, channels, number, "ended", tone)


def verdict_changed(report: Report, now: str, before: str, why: str, channels: tuple[str, ...], number: int) -> Notice:
    """Tell that what is looked at again and again is not any more what it was: what it was, what it is, and why."""
    well = not why
    parts = [
        f"{now.upper()}{f', after {before}' if before else ''}.",
        _list("What was seen", why.splitlines()),
        _list("Measured", map(_figure, report.figures[-ROWS:])),
        _about(report),
        _list("More", [f"starter.py status {shlex.quote(report.workflow)}"], bullet="    "),
    ]
    return _notice(report, now, parts, channels, number, "note", "success" if well else "failure")


# --- words ------------------------------------------------------------------------------------------------------


def _notice(
    report: Report, title: str, parts: list[str], channels: tuple[str, ...], number: int, kind: Kind, tone: Tone
) -> Notice:
    mode = "" if report.mode == "live" else f"{report.mode} "
    return Notice(
        id=f"{report.run}/{number}",
        number=number,
        workflow=report.workflow,
        run=report.run,
        channels=channels,
        kind=kind,
        tone=tone,
        title=_cut(f"{mode}{', '.join(report.systems) or report.runbook}: {title}", _SUBJECT),
        body="\n\n".join(filter(None, parts)),
    )


def _waiting(line: GateLine, roles: str) -> str:
    names = [_line(name) for name in line.people[:ROWS]] + (["others"] if len(line.people) > ROWS else [])
    until = f"Until {line.until:%Y-%m-%d %H:%M:%S} UTC; no decision counts as a rejection." if line.until else ""
    said = ", ".join(f"{_line(d.by)} {d.verdict}s" for d in line.decisions)
    rows = [
        f"WAITING for {line.approvals} × {roles}: “{_line(line.gate)}”.",
        until,
        f"Who may: {', '.join(names)}." if names else "",
        f"So far: {said}." if said else "",
    ]
    return "\n".join(filter(None, rows))


def _about(report: Report) -> str:
    asked = f", asked for by {_line(report.requested_by)}" if report.requested_by else ""
    case = f" ({_line(report.incident)})" if report.incident else ""
    where = f" on {_line(', '.join(report.systems))}" if report.systems else ""
    return f"{_line(report.title or report.runbook)}\n{report.mode}{where}{asked}{case}: {_line(report.reason)}"


def _choice(report: Report, line: GateLine) -> list[str]:
    undone = [f"“{one.title}”" for one in reversed(report.steps) if one.state == "changed"]
    back = f"it stops and undoes {', then '.join(undone)}" if undone else "it stops; nothing was changed"
    return [f"approve: {line.then or 'it goes on'}", f"reject: {back}"]


def _commands(report: Report, line: GateLine) -> list[str]:
    which = f"{shlex.quote(report.workflow)} --gate {shlex.quote(line.gate)} --by YOUR-NAME"
    return [f"starter.py approve {which}", f"starter.py reject {which} --reason WHY"]


def _answer(report: Report, line: HoldLine, answer: str) -> str:
    which = f"{shlex.quote(report.workflow)} {answer} --hold {line.token} --by YOUR-NAME --reason WHY"
    return f"starter.py resolve {which}"


def _past(report: Report) -> str:
    if report.committed is None:
        return ""
    return f"Past the point of no return ({_line(report.committed.what)}): nothing is undone any more."


def _clock(clock: Clock) -> str:
    met = {None: "", True: " (met)", False: " (MISSED)"}[clock.rto_met]
    rto = f" of RTO {span(clock.rto)}{met}" if clock.rto else ""
    return f"Clock since {clock.since}: {span(clock.total)}{rto}."


def _figure(figure: Figure) -> str:
    met = {None: "", True: " (met)", False: " (MISSED)"}[figure.met]
    return f"{figure.name}: {figure.shown} {figure.unit}".rstrip() + met


def _list(title: str, rows: Iterable[str], bullet: str = "- ") -> str:
    lines = [f"{bullet}{_line(row)}" for row in rows]
    more = [f"- and {len(lines) - ROWS} more, in the query `status`"] if len(lines) > ROWS else []
    return "\n".join([f"{title}:", *lines[:ROWS], *more]) if lines else ""


def _line(text: object) -> str:
    """Return ``text`` on one line without control characters, cut when very long."""
    return _cut(str(text), _LONG)


def _cut(text: str, length: int) -> str:
    one_line = " ".join(_CONTROL.sub(" ", text).split())
    return one_line if len(one_line) <= length else f"{one_line[: length - 1]}…"
