"""What changed from one report to the next, one line each; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from console.output import clean
from recovery.details import MARKS
from recovery.progress import Progress, in_words
from recovery.report import GateLine, HoldLine, Report, StepLine

_EVERY = 10  # seconds
_LASTED = ("seen", "changed", "unchanged", "undone", "failed", "undo failed")


@dataclass(frozen=True)
class Change:
    """One change: what kind of thing (step, gate, decision, …), which, its new state, and a sentence."""

    at: datetime
    kind: str
    name: str
    state: str
    text: str

    def line(self) -> str:
        """Return it as a line for people, in UTC."""
        return clean(f"{self.at.astimezone(UTC):%H:%M:%S}  {self.text}")

    def plain(self) -> dict[str, Any]:
        """Return it as JSON can carry it."""
        return {**asdict(self), "at": self.at.isoformat()}


def changes(before: Report | None, now: Report) -> list[Change]:
    """Return what ``now`` says that ``before`` did not, as it happened."""
    return sorted(_changes(before, now), key=lambda change: change.at)


def _changes(before: Report | None, now: Report) -> Iterator[Change]:
    yield from _steps(before.steps if before else (), now.steps)
    old_gates = {line.gate: line for line in before.gates} if before else {}
    for gate in now.gates:
        yield from _gate(old_gates.get(gate.gate, GateLine(gate=gate.gate)), gate)
    old_holds = {hold.token: hold for hold in before.holds} if before else {}
    for hold in now.holds:
        yield from _hold(old_holds.get(hold.token), hold)
    at = now.ended_at or datetime.now(UTC)
    for note in now.notes[len(before.notes) if before else 0 :]:
        yield Change(note.at, "note", note.by, "note", f"note by {note.by}: {note.text}")
    if now.committed and not (before and before.committed):
        yield Change(now.committed.at, "commit", now.committed.step, "committed",
                     f"! past the point of no return: {now.committed.what}")  # fmt: skip
    for kind, said in (("blocker", "blockers"), ("not accepted", "refusals")):
        for text in getattr(now, said)[len(getattr(before, said, ())) :]:
            yield Change(at, kind, "", kind, f"! {kind}: {text}")
    if now.outcome != "running" and (before is None or before.outcome == "running"):
        why = f": {now.failure}" if now.failure else ""
        yield Change(at, "outcome", now.workflow, now.outcome, f"{now.outcome}{why}")


def _is_news(before: Progress | None, now: Progress) -> bool:
    """Tell whether a line is due: every ten seconds is enough for what moves all the time."""
    return before is None or before.at.timestamp() // _EVERY < now.at.timestamp() // _EVERY


def _steps(before: Sequence[StepLine], now: Sequence[StepLine]) -> Iterator[Change]:
    old = {line.step: line for line in before}
    for line in now:
        known = old.get(line.step)
        if known is None or known.state != line.state:
            yield _step(line)
        if line.progress is not None and _is_news(known.progress if known else None, line.progress):
            said = f"… {line.title}: {in_words(line.progress)}"
            yield Change(line.progress.at, "progress", line.step, line.state, said)


def _step(line: StepLine) -> Change:
    seconds = (line.ended - line.began).total_seconds()
    lasted = f" after {seconds:.1f} s" if line.state in _LASTED else ""
    why = f": {line.failure}" if line.failure else ""
    text = f"{MARKS[line.state]} {line.title}: {line.state}{lasted}{why}"
    return Change(line.ended, "step", line.step, line.state, text)


def _hold(before: HoldLine | None, now: HoldLine) -> Iterator[Change]:
    if before is None:
        until = f"{now.until.astimezone(UTC):%H:%M:%S}Z"
        text = f"! held at “{now.step}” until {until}: {now.why}; answers: {', '.join(now.answers)}"
        yield Change(now.opened, "hold", now.token, "open", text)
    if now.closed and not (before and before.closed):
        at = now.answered_at or datetime.now(UTC)
        yield Change(at, "hold", now.token, "closed", f"“{now.step}”: {now.closed}")


def _gate(before: GateLine, now: GateLine) -> Iterator[Change]:
    at = now.decisions[-1].at if now.decisions else datetime.now(UTC)
    if now.plan and not (before.plan or now.closed):
        until = f" until {now.until.astimezone(UTC):%H:%M:%S}Z" if now.until else ""
        waits = f"? “{now.gate}” waits for {now.approvals} × {' or '.join(now.roles)}{until}"
        yield Change(datetime.now(UTC), "gate", now.gate, "open", waits)
    for decision in now.decisions[len(before.decisions) :]:
        why = f": {decision.reason}" if decision.reason else ""
        said = f"{decision.by} {decision.verdict}s “{now.gate}”{why}"
        yield Change(decision.at, "decision", now.gate, decision.verdict, said)
    if now.closed and not before.closed:
        yield Change(at, "gate", now.gate, "closed", f"“{now.gate}”: {now.closed}")
