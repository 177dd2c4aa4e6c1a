"""The clock: no second is lost, none is counted twice, and the verdict is against the outage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery.clock import Cause, Clock, misdated, split

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CAUSES: tuple[Cause, ...] = get_args(Cause)
seconds = st.floats(0, 1e6).map(lambda s: timedelta(seconds=s))


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def parts(clock: Clock) -> float:
    return sum(float(getattr(clock, cause)) for cause in CAUSES)


@given(
    st.lists(st.tuples(st.sampled_from(CAUSES), seconds), min_size=1, max_size=12),
    seconds,
    st.none() | seconds,
    st.none() | seconds,
)
@settings(deadline=None)
def test_parts_add_up(
    spans: list[tuple[Cause, timedelta]], last: timedelta, detecting: timedelta | None, deciding: timedelta | None
) -> None:
    passed = [timedelta(0), *accumulate(span for _, span in spans)]
    turns = [(cause, NOON + before) for (cause, _), before in zip(spans, passed, strict=False)]
    until = turns[-1][1] + last
    detected = NOON - deciding if deciding is not None else None
    outage = (detected or NOON) - detecting if detecting is not None else None
    clock = split(turns, until, HOUR, outage, detected)
    assert parts(clock) == pytest.approx(clock.total, abs=0.001 * len(CAUSES))
    assert clock.total == pytest.approx((until - (outage or detected or NOON)).total_seconds(), abs=0.001)
    assert all(getattr(clock, cause) >= 0 for cause in CAUSES)
    assert clock.rto_met == (None if outage is None else until - outage <= HOUR)


def test_each_cause_gets_its_turns() -> None:
    turns: list[tuple[Cause, datetime]] = [
        ("decide", at(0)), ("execute", at(1)), ("people", at(3)), ("execute", at(7)), ("verify", at(15)),
        ("undo", at(31)),
    ]  # fmt: skip
    clock = split(turns, at(63), HOUR, at(-6), at(-4))
    assert [getattr(clock, cause) / 60 for cause in CAUSES] == [2, 5, 4, 10, 16, 32]
    assert clock.total == 69 * 60


def test_outage_alone_is_all_detecting() -> None:
    clock = split([("decide", at(0))], at(1), HOUR, at(-5), None)
    assert (clock.since, clock.detect, clock.decide) == ("outage", 300, 60)


def test_detection_alone_is_deciding() -> None:
    clock = split([("decide", at(0))], at(1), HOUR, None, at(-5))
    assert (clock.since, clock.detect, clock.decide, clock.rto_met) == ("detection", 0, 360, None)


def test_neither_counts_from_the_start() -> None:
    clock = split([("decide", at(0))], at(1), HOUR, None, None)
    assert (clock.since, clock.total, clock.rto_met) == ("start", 60, None)


def test_times_after_the_start_take_nothing_away() -> None:
    clock = split([("decide", at(0))], at(2), HOUR, at(1), at(1))
    assert (clock.total, clock.detect, clock.decide) == (120, 0, 120)


@pytest.mark.parametrize(("minutes", "met"), [(59, True), (60, True), (60 + 1e-7, False), (61, False)])
def test_objective_is_met_to_the_end(minutes: float, met: bool) -> None:
    assert split([("decide", at(minutes))], at(minutes), HOUR, at(0), at(1)).rto_met is met


def test_verdict_is_of_the_outage() -> None:
    """A start that comes late does not stop the clock: an hour of silence is an hour."""
    clock = split([("decide", at(61))], at(62), HOUR, at(0), None)
    assert clock.rto_met is False
    assert clock.rto == 3600


@pytest.mark.parametrize(
    ("outage", "detected", "wrong"),
    [
        (None, None, False), (at(-2), None, False), (None, at(-2), False), (at(-2), at(-1), False),
        (at(-1), at(-1), False), (at(0.9), at(0.95), False), (at(-1), at(-2), True), (at(2), None, True),
        (None, at(2), True), (at(-1), at(2), True), (at(2), at(-1), True),
    ],
)  # fmt: skip
def test_moments_come_in_order(outage: datetime | None, detected: datetime | None, wrong: bool) -> None:
    answer = misdated(outage, detected, at(0))
    assert (answer is not None) is wrong
    assert not answer or answer.startswith("outage_started_at, detected_at: ")
