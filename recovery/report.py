"""The report: one pure fold over the facts, used by the workflow, by ``status`` and by whoever audits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from recovery.clock import Cause, Clock, split
from recovery.facts import (
    Blocked,
    CancelAsked,
    Decided,
    Delivered,
    Ended,
    Fact,
    GateClosed,
    GateOpened,
    Loaded,
    Measured,
    Outcome,
    Refusal,
    Started,
    Stepped,
    StepState,
    Unwinding,
)
from recovery.gates import approvers
from recovery.models import Mode, Start, Tier, Wire

RESIDUAL: tuple[StepState, ...] = ("undo failed", "undo blocked")


class StepLine(Wire):
    """One step: its state, when that began and ended, what it shows, and what went wrong."""

    step: str
    title: str
    state: StepState
    began: datetime
    ended: datetime
    shows: dict[str, Any] = {}
    failure: str = ""


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


class Figure(Wire):
    """A figure measured on the systems, with its verdict against the tier where there is one."""

    name: str
    value: float | str
    unit: str
    met: bool | None = None


class Report(Wire):
    """What a recovery is, did and found; the same model while it runs (``outcome`` "running") and after."""

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
    residual: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    cancels: int = 0


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
        self.lists: dict[str, list[Any]] = {"blockers": [], "figures": [], "refusals": []}
        self.delivered: dict[str, str] = {}
        self.cancels = 0

    def take(self, fact: Fact) -> None:
        """Take the next fact in."""
        match fact:
            case Started():
                self._started(fact)
            case Loaded(frozen=frozen):
                self.objectives = frozen.objectives
                self.fields |= frozen.model_dump(include={"title", "version", "systems", "tier"})
                self.fields |= {"plan": frozen.digest, "phase": "assessing"}
            case Stepped():
                self._stepped(fact)
            case GateOpened() | Decided() | GateClosed():
                self._gate(fact)
            case Unwinding(reason=reason):
                self._turn("undo", fact.at)
                self._abandon("left undecided")
                self.fields |= {"phase": "compensating", "failure": reason, "needs": ""}
            case Ended(outcome=outcome, failure=failure, kind=kind):
                self.ended = fact.at
                self.fields |= {"outcome": outcome, "phase": outcome, "failure": failure, "kind": kind}
                self.fields |= {"needs": "", "ended_at": fact.at}
            case _:
                self._told(fact)

    def _told(self, fact: Fact) -> None:
        match fact:
            case Blocked(blockers=blockers):
                self.lists["blockers"] += blockers
            case Measured(name=name, value=value, unit=unit, met=met):
                self.lists["figures"].append(Figure(name=name, value=value, unit=unit, met=met))
            case Delivered(name=name, where=where):
                self.delivered[name] = where
            case Refusal(message=message):
                self.lists["refusals"].append(message)
            case CancelAsked():
                self.cancels += 1

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
        self._turn(fact.cause, fact.at)
        if fact.cause in ("execute", "verify"):
            self.fields["phase"] = {"execute": "restoring", "verify": "verifying"}[fact.cause]
        old = self.steps.get(fact.step)
        self.steps[fact.step] = StepLine(
            step=fact.step,
            title=fact.title,
            state=fact.state,
            began=old.began if old else fact.at,
            ended=fact.at,
            shows=fact.shows or (old.shows if old else {}),
            failure=fact.failure or (old.failure if old else ""),
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
            case GateClosed(gate=name, how=how, back_to=cause):
                self._turn(cause, fact.at)
                self.fields["needs"] = ""
                old = self.gates.get(name) or GateLine(gate=name)
                self.gates[name] = old.model_copy(update={"closed": how})

    def _abandon(self, how: str) -> None:
        """Close what nobody will decide any more, so that nobody is asked to."""
        self.gates = {
            name: gate if gate.closed else gate.model_copy(update={"closed": how}) for name, gate in self.gates.items()
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
            residual=tuple(
                f"{line.title}: {line.state}. {line.failure}" for line in self.steps.values() if line.state in RESIDUAL
            ),
            cancels=self.cancels,
        )
