"""Every order of up to four decisions at every kind of gate, as a machine that is walked through completely."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import timedelta

import pytest

from recovery.gates import Gate, approvers, needed, outcome, refusal
from recovery.models import Decision, GatePolicy, Verdict

PEOPLE = {"alice": ("operator",), "bob": ("dba",), "carol": ("dba", "incident-commander")}
NAMES = (*PEOPLE, "mallory")
VERDICTS: tuple[Verdict, ...] = ("approve", "reject")
DECISIONS = tuple(
    Decision(gate="keep", by=by, plan=plan, evidence=evidence, verdict=verdict)
    for by, verdict, plan, evidence in itertools.product(NAMES, VERDICTS, ("plan", "old"), ("", "shown", "old"))
)
LONGEST = 4


def policy(approvals: int = 1, roles: tuple[str, ...] = ("dba",), starter_may_approve: bool = False) -> GatePolicy:
    within = timedelta(hours=1)
    return GatePolicy(roles=roles, approvals=approvals, within=within, starter_may_approve=starter_may_approve)


def gate(of: GatePolicy, starter: str | None = "alice", evidence: str = "shown", is_open: bool = True) -> Gate:
    return Gate("keep", of, PEOPLE, starter, "plan", evidence, open=is_open)


def decision(by: str, verdict: Verdict = "approve", plan: str = "plan", evidence: str = "shown") -> Decision:
    return Decision(gate="keep", by=by, plan=plan, evidence=evidence, verdict=verdict)


# Who may decide does not hang on how many have to; that is tried where outcomes are.
GATES = [
    gate(policy(1, roles, may), starter, evidence, is_open)
    for roles, may, starter, (evidence, is_open) in itertools.product(
        (("dba",), ("operator", "dba")),
        (False, True),
        (None, "bob"),
        (("", True), ("shown", True), ("", False)),
    )
]
Answer = tuple[Gate, tuple[Decision, ...], Decision, str | None]


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    """Every gate, what counted so far, what is sent next, and the answer, over every order of decisions."""
    return [answer for at in GATES for answer in walk(at)]


def walk(at: Gate) -> Iterator[Answer]:
    states: list[tuple[Decision, ...]] = [()]
    while states:
        counted = states.pop()
        for sent in DECISIONS:
            answer = refusal(at, sent, counted)
            yield at, counted, sent, answer
            if answer is None and len(counted) + 1 < LONGEST:
                states.append((*counted, sent))


def settled(at: Gate, sent: Iterable[Decision]) -> list[Decision]:
    """Return which of the decisions ``sent`` counted, as whoever asks ``refusal`` first keeps them."""
    counted: list[Decision] = []
    for one in sent:
        counted += [one] if refusal(at, one, counted) is None else []
    return counted


def test_refused_decision_changes_nothing() -> None:
    some = [decision("bob"), decision("carol"), decision("carol", "reject"), decision("mallory", "reject")]
    some += [decision("alice"), decision("bob", "reject", plan="old"), decision("bob", evidence="old")]
    for at, order in itertools.product((gate(policy(1)), gate(policy(2))), itertools.permutations(some, LONGEST)):
        counted = settled(at, order)
        assert settled(at, [d for d in order if d in counted]) == counted
        assert settled(at, (*order, *order)) == counted


def test_approved_means_enough_authorised_people(answers: list[Answer]) -> None:
    for at, counted, sent, _ in (a for a in answers if a[3] is None):
        people = {d.by for d in (*counted, sent) if d.verdict == "approve"}
        assert all(set(PEOPLE[by]) & set(at.policy.roles) for by in people)
        for approvals in (1, 2, 3):
            if outcome(policy(approvals), (*counted, sent)) == "approve":
                assert len(people) >= approvals


def test_starter_never_counts(answers: list[Answer]) -> None:
    for at, _, sent, answer in answers:
        own = sent.by == at.starter and sent.verdict == "approve"
        assert not own or at.policy.starter_may_approve or answer


def test_one_rejection_closes(answers: list[Answer]) -> None:
    for at, counted, sent, answer in answers:
        if answer is None and sent.verdict == "reject":
            assert outcome(at.policy, (*counted, sent)) == "reject"


def test_rejection_beats_every_approval() -> None:
    approvals = [decision(by) for by in PEOPLE]
    for order in itertools.permutations([*approvals, decision("bob", "reject")]):
        assert outcome(policy(3), order) == "reject"


def test_whoever_decided_counts_once(answers: list[Answer]) -> None:
    for _, counted, sent, answer in answers:
        assert answer or all((d.by, d.verdict) != (sent.by, sent.verdict) for d in counted)
    assert needed(policy(2), [decision("bob"), decision("bob")]) == 1


def test_another_digest_is_refused(answers: list[Answer]) -> None:
    for at, _, sent, answer in answers:
        assert answer or (sent.plan == at.plan and (sent.evidence == at.evidence or not at.open))


def test_early_decision_names_no_evidence(answers: list[Answer]) -> None:
    for at, _, sent, answer in answers:
        assert answer or at.open or not sent.evidence


def test_early_decision_counts_without_evidence_only() -> None:
    early = decision("bob", evidence="")
    assert refusal(gate(policy(), evidence="", is_open=False), early, []) is None
    assert refusal(gate(policy(), evidence=""), early, []) is None
    assert "evidence" in (refusal(gate(policy()), early, []) or "")


def test_nothing_else_is_refused(answers: list[Answer]) -> None:
    for at, counted, sent, answer in (a for a in answers if a[3] is not None):
        shown = sent.plan == at.plan and sent.evidence == at.evidence
        role = bool(set(PEOPLE.get(sent.by, ())) & set(at.policy.roles))
        own = sent.by == at.starter and sent.verdict == "approve" and not at.policy.starter_may_approve
        again = any((d.by, d.verdict) == (sent.by, sent.verdict) for d in counted)
        assert not shown or not role or own or again, answer


def test_outcome_knows_no_order() -> None:
    known = [decision(by, verdict) for by in PEOPLE for verdict in VERDICTS]
    for length, of in itertools.product(range(LONGEST + 1), (policy(1), policy(2), policy(3))):
        for some in itertools.combinations(known, length):
            assert len({outcome(of, order) for order in itertools.permutations(some)}) == 1


def test_needed_falls_by_one() -> None:
    of = policy(3)
    approvals = [decision(by) for by in PEOPLE]
    assert [needed(of, approvals[:n]) for n in range(4)] == [3, 2, 1, 0]
    assert needed(policy(1), approvals) == 0


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (decision("mallory"), "by: "),
        (decision("alice", "reject"), "by: "),
        (decision("bob", plan="old"), "plan: "),
        (decision("bob", evidence="old"), "evidence: "),
        (decision("bob", evidence=""), "evidence: "),
    ],
    ids=["a stranger", "another role", "another plan", "another evidence", "no evidence"],
)
def test_refusal_names_the_field(sent: Decision, field: str) -> None:
    answer = refusal(gate(policy()), sent, [])
    assert answer is not None
    assert answer.startswith(field)
    assert sent.by not in answer


def test_approvers_are_who_is_not_refused() -> None:
    for at in (g for g in GATES if g.open):
        able = {by for by in PEOPLE if refusal(at, decision(by, evidence=at.evidence), []) is None}
        assert approvers(at) == tuple(sorted(able))


def test_refusal_of_the_starter_says_who_may() -> None:
    answer = refusal(gate(policy(roles=("dba", "incident-commander")), starter="bob"), decision("bob"), [])
    assert answer == "by: who starts a recovery does not approve it; another dba or incident-commander has to"
