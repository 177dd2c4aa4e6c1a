"""Decide whether a gate opens: pure, so that every order of events can be tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recovery.models import Decision, GatePolicy, Verdict


@dataclass(frozen=True)
class Gate:
    """A gate as it is shown: its policy, the people, who started, and the digests to decide on.

    ``plan`` is known from the start; ``evidence`` only once the gate is open, and "" at a gate that shows none.
    ``starter`` is None when nobody was named. ``closed`` once it was decided, or passed over.
    """

    name: str
    policy: GatePolicy
    people: Mapping[str, tuple[str, ...]]
    starter: str | None
    plan: str
    evidence: str = ""
    open: bool = True
    closed: bool = False


def refusal(gate: Gate, decision: Decision, earlier: Iterable[Decision]) -> str | None:
    """Return why ``decision`` does not count, as a sentence that names the field, or None if it counts."""
    return _who(gate, decision) or _what(gate, decision) or _again(decision, earlier)


def _who(gate: Gate, decision: Decision) -> str | None:
    roles = gate.people.get(decision.by)
    needed = " or ".join(gate.policy.roles)
    if roles is None:
        return "by: this name is not among the people of the estate"
    if not set(roles) & set(gate.policy.roles):
        return f"by: this person has not the role {needed}"
    own = decision.by == gate.starter and decision.verdict == "approve"
    if own and not gate.policy.starter_may_approve:
        return f"by: who starts a recovery does not approve it; another {needed} has to"
    return None


def _what(gate: Gate, decision: Decision) -> str | None:
    if gate.closed:
        return "gate: it is closed already; to stop what goes on, hold the recovery, or cancel it"
    if decision.plan != gate.plan:
        return "plan: this is not the digest of the plan that the gate shows; read it again"
    if not gate.open and decision.evidence:
        return "gate: it is not open yet; decide when its evidence is shown"
    if gate.open and decision.evidence != gate.evidence:
        return "evidence: this is not the digest of the evidence that the gate shows; read it again"
    return None


def _again(decision: Decision, earlier: Iterable[Decision]) -> str | None:
    if any(before.by == decision.by and before.verdict == decision.verdict for before in earlier):
        return "by: this person has decided already"
    return None


def approvers(gate: Gate) -> tuple[str, ...]:
    """Return who may approve, by name."""
    asked = (name for name, roles in gate.people.items() if set(roles) & set(gate.policy.roles))
    return tuple(sorted(name for name in asked if gate.policy.starter_may_approve or name != gate.starter))


def outcome(policy: GatePolicy, decisions: Iterable[Decision]) -> Verdict | None:
    """Return the gate's verdict, or None while people are still needed. One rejection closes it."""
    counted = list(decisions)
    if any(decision.verdict == "reject" for decision in counted):
        return "reject"
    return "approve" if needed(policy, counted) == 0 else None


def needed(policy: GatePolicy, decisions: Iterable[Decision]) -> int:
    """Return how many distinct people still have to approve."""
    return max(0, policy.approvals - len({d.by for d in decisions if d.verdict == "approve"}))
