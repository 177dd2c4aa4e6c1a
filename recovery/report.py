"""The report: one pure fold over the facts, used by the workflow, by ``status`` and by whoever audits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from recovery.clock import Cause, Clock, split
from recovery.facts import (
    Blocked,
    CancelAsked,
    Checked,
    CheckState,
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
    Outcome,
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
from recovery.gates import approvers
from recovery.models import Choice, Mode, Start, Tier, Wire
from recovery.names import activity_id
from recovery.progress import Progress

RESIDUAL: tuple[StepState, ...] = ("undo failed", "undo blocked")
LEFT: tuple[StepState, ...] = ("failed", "changing", "looking")
_PHASES: dict[Cause, str] = {
    "detect": "assessing", "decide": "assessing", "people": "assessing", "execute": "restoring", "verify": "verifying",
    "undo": "compensating",
}  # fmt: skip


_PARTS: dict[StepState, str] = {"looking": "observe", "changing": "apply", "undoing": "undo"}
"""What is under way in a step that is under way."""


class CheckLine(Wire):
    """Something that had to be seen: how it was, what shows it, or by whom it was attested."""

    name: str
    how: CheckState
    evidence: str = ""
    by: tuple[str, ...] = ()


class StepLine(Wire):
    """One step: its state, when that began and ended, what it shows, what went wrong, and why it is not undone.

    ``progress`` is how far it is, while it is under way and tells that.
    """

    step: str
    title: str
    state: StepState
    began: datetime
    ended: datetime
    shows: dict[str, Any] = {}
    failure: str = ""
    kept: str = ""
    progress: Progress | None = None


class DecisionLine(Wire):
    """One decision that counted; identity is claimed until a signature proves it."""

    by: str
    verdict: str
    at: datetime
    reason: str = ""
    identity: str = "claimed"


class GateLine(Wire):
    """One gate: what it waits for, on which plan and evidence, and how it closed ("" while open)."""

    gate: str
    roles: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    approvals: int = 0
    plan: str = ""
    evidence: str = ""
    shown: tuple[dict[str, Any], ...] = ()
    then: str = ""
    opened: datetime | None = None
    until: datetime | None = None
    decisions: tuple[DecisionLine, ...] = ()
    closed: str = ""


class HoldLine(Wire):
    """One hold: why it waits, what may be answered, where silence leads, and how it closed ("" while open)."""

    token: str
    cause: str
    step: str
    why: str
    answers: tuple[Choice, ...] = ()
    roles: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    opened: datetime
    until: datetime
    silence: str = ""
    skippable: str = ""
    again: int = 0
    closed: str = ""
    by: str = ""
    answer: str = ""
    answered_at: datetime | None = None
    reason: str = ""
    identity: str = "claimed"


class NoteLine(Wire):
    """What a person wrote into the record."""

    at: datetime
    by: str
    text: str


class Commit(Wire):
    """The point of no return: what was opened, by which step, and the steps whose undo would lead home."""

    at: datetime
    step: str
    what: str
    home: tuple[str, ...] = ()


class Figure(Wire):
    """A figure measured on the systems, with its verdict against the tier where there is one.

    ``told_at`` are gates whose own evidence tells it.
    """

    name: str
    value: int | float | str
    unit: str
    met: bool | None = None
    told_at: tuple[str, ...] = ()

    @property
    def shown(self) -> float | str:
        """The value as people read it: no sixth decimal of a second, and no half of a row."""
        if not isinstance(self.value, float):
            return self.value
        found = round(self.value, 1 if abs(self.value) >= 10 else 3)
        return int(found) if found.is_integer() else found


class Report(Wire):
    """What a recovery is, did and found; the same model while it runs (``outcome`` "running") and after.

    ``residual`` is what is not as it was, or was to become; ``behind`` what could not be taken away at the end, stands
    in nobody's way, and is no reason to keep any system.
    """

    workflow: str
    run: str
    procedure: str
    runbook: str
    mode: Mode
    reason: str
    title: str = ""
    version: str = ""
    plan: str = ""
    requested_by: str | None = None
    incident: str | None = None
    systems: tuple[str, ...] = ()
    tier: str = ""
    outcome: Outcome = "running"
    phase: str = "starting"
    needs: str = ""
    failure: str = ""
    kind: str = ""
    started_at: datetime
    ended_at: datetime | None = None
    clock: Clock
    steps: tuple[StepLine, ...] = ()
    gates: tuple[GateLine, ...] = ()
    blockers: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    delivered: dict[str, str] = {}
    checks: tuple[CheckLine, ...] = ()
    residual: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    cancels: int = 0
    holds: tuple[HoldLine, ...] = ()
    notes: tuple[NoteLine, ...] = ()
    committed: Commit | None = None
    dark: bool = False
    dark_since: datetime | None = None
    was_reset: bool = False
    epochs: dict[str, int] = {}

    @property
    def hold(self) -> HoldLine | None:
        """The hold that waits for an answer now."""
        return next((one for one in self.holds if not one.closed), None)

    def beside(self, gate: str) -> tuple[Figure, ...]:
        """Return the figures that are not told by the evidence of a gate."""
        return tuple(one for one in self.figures if gate not in one.told_at)


def moved(steps: Iterable[StepLine], activity: str, progress: Progress) -> tuple[StepLine, ...]:
    """Return ``steps`` with the progress of the one that ``activity`` is at, unless newer figures are there already."""
    lines = list(steps)
    for i, line in enumerate(lines):
        part = _PARTS.get(line.state)
        newer = line.progress is None or line.progress.at < progress.at
        if part and newer and activity.startswith(activity_id(line.step, part)):
            lines[i] = line.model_copy(update={"progress": progress})
    return tuple(lines)


def report(facts: Sequence[Fact], now: datetime) -> Report:
    """Fold ``facts`` (the first is Started) into the report as of ``now``."""
    fold = Fold()
    for fact in facts:
        fold.take(fact)
    return fold.report(now)


class Fold:
    """The running state of the fold: a recovery keeps one, so that a fact costs the same however many came before."""

    def __init__(self) -> None:
        self.ended: datetime | None = None
        self.fields: dict[str, Any] = {}
        self.start: Start | None = None
        self.objectives: Tier | None = None
        self.turns: list[tuple[Cause, datetime]] = []
        self.steps: dict[str, StepLine] = {}
        self.gates: dict[str, GateLine] = {}
        self.lists: dict[str, list[Any]] = {"blockers": [], "figures": [], "refusals": [], "notes": [], "checks": []}
        self.holds: dict[str, HoldLine] = {}
        self.people: dict[str, tuple[str, ...]] = {}
        self.delivered: dict[str, str] = {}
        self.cancels = 0
        self.darkened = ""

    def take(self, fact: Fact) -> None:
        """Take the next fact in."""
        match fact:
            case Started():
                self._started(fact)
            case Loaded(frozen=frozen):
                self.objectives, self.people = frozen.objectives, frozen.people
                self.fields |= frozen.model_dump(include={"title", "version", "systems", "tier"})
                self.fields |= {"plan": frozen.digest, "phase": "assessing"}
            case Stepped():
                self._stepped(fact)
            case GateOpened() | Decided() | GateClosed():
                self._gate(fact)
            case HoldOpened() | HoldClosed():
                self._held(fact)
            case Unwinding(reason=reason):
                self._turn("undo", fact.at)
                self._abandon("left undecided")
                self.fields |= {"phase": "compensating", "failure": reason, "needs": ""}
            case Ended(outcome=outcome, failure=failure, kind=kind):
                self.ended = fact.at
                self.fields |= {"outcome": outcome, "phase": outcome, "failure": failure, "kind": kind}
                self.fields |= {"needs": "", "ended_at": fact.at}
                self._abandon("left undecided")
            case _:
                self._told(fact)

    def _told(self, fact: Fact) -> None:
        match fact:
            case Blocked(blockers=blockers):
                self.lists["blockers"] += blockers
            case Measured(name=name, value=value, unit=unit, met=met, told_at=gates, again=again):
                if again:
                    self.lists["figures"] = [one for one in self.lists["figures"] if one.name != name]
                self.lists["figures"].append(Figure(name=name, value=value, unit=unit, met=met, told_at=gates))
            case Delivered(name=name, where=where):
                self.delivered[name] = where
            case Checked(name=name, how=how, evidence=evidence, by=by):
                self.lists["checks"].append(CheckLine(name=name, how=how, evidence=evidence, by=by))
            case Refusal(message=message):
                self.lists["refusals"].append(message)
            case CancelAsked():
                self.cancels += 1
            case Progressed(activity=activity, progress=progress):
                self.steps = {line.step: line for line in moved(self.steps.values(), activity, progress)}
            case Noted(note=note):
                self.lists["notes"].append(NoteLine(at=fact.at, by=note.by, text=note.text))
            case _:
                self._turned(fact)

    def _turned(self, fact: Fact) -> None:
        match fact:
            case Queued(system=system, behind=behind):
                self.fields["phase"] = f"waits for {system}, which {behind} has in hand"
            case Leased(system=system, epoch=epoch):
                self.fields["epochs"] = self.fields.get("epochs", {}) | {system: epoch}
                if self.fields.get("phase", "").startswith("waits for"):
                    self.fields["phase"] = "assessing"
            case Darkened(step=step):
                self.fields |= {"dark": True, "dark_since": fact.at}
                self.darkened = step
            case Committed(step=step, what=what, failback=home):
                self.fields["committed"] = Commit(at=fact.at, step=step, what=what, home=home)
            case Withdrawn():
                self.fields["committed"] = None
            case WasReset(entries=entries, commits=commits, dark=dark):
                self.fields |= {"was_reset": True, "committed": None, "dark": dark}
                if commits:
                    self.fields["dark"] = False  # that run has let clients in, or was about to
                    home = tuple(reversed(entries))
                    self.fields["committed"] = Commit(at=fact.at, step="before the reset", what=commits, home=home)

    def _held(self, fact: HoldOpened | HoldClosed) -> None:
        match fact:
            case HoldOpened(hold=hold, again=again):
                self._turn("people", fact.at)
                wanted = set(hold.roles)
                able = tuple(n for n, roles in self.people.items() if wanted & set(roles) or "anybody" in wanted)
                self.fields |= {"phase": f"hold: {hold.step}", "needs": " or ".join(hold.roles)}
                self.holds[hold.token] = HoldLine(
                    token=hold.token, cause=hold.cause, step=hold.step, why=hold.why, answers=hold.answers,
                    roles=hold.roles, people=tuple(sorted(able)), opened=fact.at, until=hold.until,
                    silence=hold.silence, skippable=hold.skippable, again=again,
                )  # fmt: skip
            case HoldClosed(token=token, how=how, resolution=said, back_to=cause):
                self._turn(cause, fact.at)
                self.fields |= {"needs": "", "phase": _PHASES[cause]}
                update: dict[str, Any] = {"closed": how}
                if said is not None:
                    update |= {"by": said.by, "answer": said.answer, "reason": said.reason, "answered_at": fact.at}
                if token in self.holds:
                    self.holds[token] = self.holds[token].model_copy(update=update)

    def _started(self, fact: Started) -> None:
        self.start = fact.start
        self.turns = [("decide", fact.at)]
        self.fields |= fact.start.model_dump(include={"runbook", "mode", "reason", "requested_by", "incident"})
        self.fields |= {"workflow": fact.workflow, "run": fact.run, "procedure": fact.procedure}
        self.fields["started_at"] = fact.at

    def _turn(self, cause: Cause, at: datetime) -> None:
        if self.turns[-1][0] != cause:
            self.turns.append((cause, at))

    def _stepped(self, fact: Stepped) -> None:
        if not self.fields.get("needs"):  # beside one that waits for people, another branch ends what it had begun
            self._turn(fact.cause, fact.at)
            if fact.cause in ("execute", "verify"):
                self.fields["phase"] = _PHASES[fact.cause]
        if fact.state == "changed" and (commit := self.fields.get("committed")) and commit.step == fact.step:
            self.fields["dark"] = False
        if fact.state == "undone" and fact.step == self.darkened:
            self.fields["dark"] = False
        old = self.steps.get(fact.step)
        self.steps[fact.step] = StepLine(
            step=fact.step,
            title=fact.title,
            state=fact.state,
            began=old.began if old else fact.at,
            ended=fact.at,
            shows=fact.shows or (old.shows if old else {}),
            failure=fact.failure or (old.failure if old else ""),
            kept=fact.kept or (old.kept if old else ""),
        )

    def _gate(self, fact: GateOpened | Decided | GateClosed) -> None:
        match fact:
            case GateOpened(gate=gate, until=until, evidence=shown, then=then):
                self._turn("people", fact.at)
                self.fields |= {"phase": f"gate: {gate.name}", "needs": " or ".join(gate.policy.roles)}
                waiting = GateLine(gate=gate.name, roles=gate.policy.roles, approvals=gate.policy.approvals)
                update = {
                    "people": approvers(gate),
                    "then": then,
                    "plan": gate.plan,
                    "evidence": gate.evidence,
                    "shown": shown,
                    "until": until,
                    "opened": fact.at,
                }
                self.gates[gate.name] = waiting.model_copy(update=update)
            case Decided(decision=decision):
                old = self.gates.get(decision.gate) or GateLine(gate=decision.gate)
                line = DecisionLine(by=decision.by, verdict=decision.verdict, at=fact.at, reason=decision.reason)
                self.gates[decision.gate] = old.model_copy(update={"decisions": (*old.decisions, line)})
            case GateClosed(gate=name, how=how, back_to=cause, evidence=shown):
                self._turn(cause, fact.at)
                self.fields["needs"] = ""
                old = self.gates.get(name) or GateLine(gate=name)
                self.gates[name] = old.model_copy(update={"closed": how, "shown": shown or old.shown})

    def _abandon(self, how: str) -> None:
        """Close what nobody will decide any more, so that nobody is asked to."""
        self.gates = {
            name: gate if gate.closed else gate.model_copy(update={"closed": how}) for name, gate in self.gates.items()
        }
        self.holds = {
            token: hold if hold.closed else hold.model_copy(update={"closed": how})
            for token, hold in self.holds.items()
        }

    def report(self, now: datetime) -> Report:
        """Return the report of all facts so far, as of ``now`` or of the end."""
        start = self.start
        if start is None:
            raise ValueError("facts: the first fact of a recovery is Started")
        objective = self.objectives.rto if self.objectives else timedelta(0)
        clock = split(self.turns, self.ended or now, objective, start.outage_started_at, start.detected_at)
        return Report(
            **self.fields,
            clock=clock,
            steps=tuple(self.steps.values()),
            gates=tuple(self.gates.values()),
            **{name: tuple(rows) for name, rows in self.lists.items()},
            delivered=self.delivered,
            residual=self._residual(),
            behind=tuple(
                f"{line.title}: {line.failure}" for line in self.steps.values() if line.state == "left behind"
            ),
            cancels=self.cancels,
            holds=tuple(self.holds.values()),
        )

    def _residual(self) -> tuple[str, ...]:
        """Return what is not as it was, or not as it was to become, and will not be without somebody."""
        rows = [f"{line.title}: {line.state}. {line.failure}" for line in self.steps.values() if line.state in RESIDUAL]
        commit, outcome = self.fields.get("committed"), self.fields.get("outcome", "running")
        if commit is not None and outcome in ("failed", "cancelled"):
            rows.append(f"past the point of no return ({commit.what}): nothing was undone")
            left = [f"{line.title}: not done. {line.failure}" for line in self.steps.values() if line.state in LEFT]
            rows += left or ["what the runbook does after it was not begun, a base backup for one"]
        return tuple(rows)
