"""What a hold offers, whose answer counts, and where silence leads: over every situation there is."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from recovery.holds import ANYBODY, Cause, Hold, Situation, answers, deadline, overslept, refusal, silence
from recovery.models import Choice, HoldPolicy, Resolution

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PEOPLE = {"alice": ("operator",), "bob": ("dba",), "carol": ("dba", "incident-commander")}
SITUATIONS = [
    Situation(cause, committed, unchanged, skip)
    for cause, committed, unchanged, skip in itertools.product(
        get_args(Cause), (False, True), (False, True), ("", "it is missing then")
    )
]


def hold(now: Situation = SITUATIONS[0], roles: tuple[str, ...] = ("dba",)) -> Hold:
    return Hold("1-abc", now.cause, "fence", "Fatal: no", answers(now), roles, NOON, silence(now), now.skippable)


def said(**fields: str) -> Resolution:
    return Resolution.model_validate({"hold": "1-abc", "by": "bob", "answer": "retry", "reason": "why"} | fields)


@pytest.mark.parametrize("now", SITUATIONS, ids=str)
def test_nothing_leads_back_after_the_commit(now: Situation) -> None:
    if now.committed and now.cause != "residual":
        assert "compensate" not in answers(now)
        assert silence(now) == "ask again"
        assert ("withdraw" in answers(now)) == now.unchanged


@pytest.mark.parametrize("now", SITUATIONS, ids=str)
def test_silence_leads_back_while_there_is_a_way(now: Situation) -> None:
    if now.cause != "residual" and not now.committed:
        assert "compensate" in answers(now)
        assert silence(now) == "compensate"
        assert "withdraw" not in answers(now)


@pytest.mark.parametrize("now", SITUATIONS, ids=str)
def test_only_what_may_be_missing_is_skipped(now: Situation) -> None:
    assert ("skip" in answers(now)) == (now.cause == "failure" and bool(now.skippable))


@pytest.mark.parametrize("now", SITUATIONS, ids=str)
def test_every_hold_has_a_way_on(now: Situation) -> None:
    assert set(answers(now)) & {"retry", "continue"}
    assert len(set(answers(now))) == len(answers(now))


@pytest.mark.parametrize("now", SITUATIONS, ids=str)
@pytest.mark.parametrize("answer", get_args(Choice))
def test_what_is_not_offered_is_refused(now: Situation, answer: Choice) -> None:
    no = refusal(hold(now), PEOPLE, said(answer=answer))
    assert (no is None) == (answer in answers(now))
    assert no is None or no.startswith(f"answer: {answer} is not offered here")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"hold": "1-abd"}, "hold: this is not the token"),
        ({"by": "mallory"}, "by: this name is not among the people"),
        ({"by": "alice"}, "by: this person has not the role dba"),
        ({"answer": "accept"}, "answer: accept is not offered"),
    ],
)
def test_wrong_answers_are_named(fields: dict[str, str], why: str) -> None:
    no = refusal(hold(), PEOPLE, said(**fields))
    assert no is not None
    assert no.startswith(why)


def test_no_hold_takes_no_answer() -> None:
    assert refusal(None, PEOPLE, said()) == "hold: nothing is held just now"


@pytest.mark.parametrize("answer", ["skip", "accept", "withdraw"])
def test_grave_answers_need_a_reason(answer: str) -> None:
    now = {
        "skip": Situation("failure", skippable="it is missing then"),
        "accept": Situation("residual"),
        "withdraw": Situation("failure", committed=True, unchanged=True),
    }[answer]
    assert refusal(hold(now), PEOPLE, said(answer=answer)) is None
    assert refusal(hold(now), PEOPLE, said(answer=answer, reason=" ")) == f"reason: who answers {answer} says why"


@pytest.mark.parametrize("roles", [(), ANYBODY.roles])
def test_anybody_of_the_estate_answers_where_nobody_is_named(roles: tuple[str, ...]) -> None:
    assert refusal(hold(roles=roles), PEOPLE, said(by="alice")) is None
    assert refusal(hold(roles=roles), PEOPLE, said(by="mallory")) is not None


def test_dark_deadline_is_never_the_longer_one() -> None:
    for within, dark in itertools.product((1, 60, 3600), repeat=2):
        policy = HoldPolicy(roles=("dba",), within=timedelta(seconds=within), dark_within=timedelta(seconds=dark))
        assert deadline(policy, dark=False) == policy.within
        assert deadline(policy, dark=True) == min(policy.within, policy.dark_within)


@pytest.mark.parametrize("first", [timedelta(seconds=1), timedelta(minutes=5), timedelta(hours=9), timedelta(9999)])
def test_who_is_asked_again_has_longer_each_time(first: timedelta) -> None:
    policy = HoldPolicy(roles=("dba",), within=first)
    times = [deadline(policy, dark=False, again=again) for again in range(40)]
    assert times[0] == first
    assert times == sorted(times)
    assert times[-1] == max(first, timedelta(hours=4))
    assert {deadline(policy, dark=True, again=again) for again in range(40)} == {min(first, policy.dark_within)}
    assert all(later <= 2 * sooner for sooner, later in itertools.pairwise(times))


@pytest.mark.parametrize(("late", "away"), [(0, False), (29, False), (31, True), (7200, True)])
def test_deadline_that_nobody_could_keep_is_known(late: int, away: bool) -> None:
    assert overslept(NOON, NOON + timedelta(seconds=late)) is away
