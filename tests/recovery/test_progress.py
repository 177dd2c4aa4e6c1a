"""How far, how fast, until when: whatever is read, and however seldom a history hears of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.progress import APART, MOST, Pace, Progress, due, heard, in_words, tell

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MIB = 1 << 20

amounts = st.integers(-10, 10**16)
totals = st.none() | st.integers(0, 10**16)
steps = st.floats(-5, 10**7, allow_nan=False)
readings = st.lists(st.tuples(steps, amounts, totals), min_size=1, max_size=40)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def told(rows: Sequence[tuple[float, int, int | None]]) -> list[Progress]:
    """Return what is made of readings: seconds after the one before, done, in all."""
    pace, now, found = Pace(), 0.0, []
    for seconds, done, total in rows:
        now += seconds
        found.append(pace.take(at(now), done, total))
    return found


def even(seconds: int, rate: int, total: int | None, start: int = 0) -> list[Progress]:
    return told([(1, min(start + rate * n, total or 10**18), total) for n in range(seconds)])


# --- speed and end ----------------------------------------------------------------------------------------------


@given(readings)
def test_figures_are_figures(rows: Sequence[tuple[float, int, int | None]]) -> None:
    for now in told(rows):
        assert now.done >= 0
        assert now.rate is None or (now.rate >= 0 and math.isfinite(now.rate))
        assert now.ends is None or now.ends >= now.at
        assert now.total is None or now.total >= now.done
        assert in_words(now)


@given(readings)
def test_total_never_shrinks(rows: Sequence[tuple[float, int, int | None]]) -> None:
    known = [now.total or 0 for now in told(rows)]
    assert known == sorted(known)


@given(st.lists(st.tuples(steps, amounts, st.sampled_from([None, 0])), min_size=1, max_size=20))
def test_unknown_total_has_no_end(rows: Sequence[tuple[float, int, int | None]]) -> None:
    assert {(now.total, now.ends) for now in told(rows)} == {(None, None)}


@given(st.integers(1, 10**9), st.integers(2, 200), st.integers(1, 10**6))
def test_even_speed_is_met_exactly(rate: int, seconds: int, left: int) -> None:
    now = even(seconds, rate, rate * (seconds - 1 + left))[-1]
    assert now.rate == pytest.approx(rate, abs=0.001)
    assert now.ends == at(seconds + left)


@given(readings)
def test_progress_survives_the_wire(rows: Sequence[tuple[float, int, int | None]]) -> None:
    now = told(rows)[-1]
    assert Progress.model_validate_json(now.model_dump_json()) == now


def test_first_reading_tells_no_speed() -> None:
    assert told([(0, 5, 10)]) == [Progress(done=5, total=10, at=NOON)]


def test_speed_is_that_of_the_last_while() -> None:
    rows = [(1.0, 10 * n, 10_000) for n in range(100)] + [(1.0, 990 + 40 * n, 10_000) for n in range(1, 41)]
    assert told(rows)[-1].rate == 40


def test_what_stands_still_has_no_end() -> None:
    now = told([(1, 10, 100), *[(10, 10, 100)] * 6])[-1]
    assert (now.rate, now.ends) == (0, None)
    assert in_words(now) == "10 B of 100 B (10 %), stands still, as of 12:01:01"


def test_what_begins_anew_is_measured_anew() -> None:
    rows = [(1.0, 100 * n, 1000) for n in range(9)] + [(1.0, 10 * n, 1000) for n in range(3)]
    assert told(rows)[9].rate is None
    assert told(rows)[-1].rate == 10


def test_more_than_all_is_all() -> None:
    now = told([(1, 90, 100), (1, 110, 100)])[-1]
    assert (now.done, now.total, now.ends) == (110, 110, now.at)


# --- when a history hears of it -----------------------------------------------------------------------------------


def heard_of(story: Sequence[Progress]) -> list[Progress]:
    """Return what a history hears of that was there all the time."""
    last: Progress | None = None
    found: list[Progress] = []
    for now in story:
        if due(now, last, len(found), NOON):
            last = now
            found.append(now)
    return found


@given(readings)
def test_history_hears_seldom(rows: Sequence[tuple[float, int, int | None]]) -> None:
    found = heard_of(told(rows))
    assert len(found) <= MOST
    assert all(b.at - a.at >= APART for a, b in pairwise(found))
    assert all(now.at - NOON >= APART for now in found)


def test_short_step_is_not_heard_of() -> None:
    assert heard_of(even(14, MIB, 14 * MIB)) == []


def test_long_step_is_heard_of_by_fifths() -> None:
    found = heard_of(even(1001, 100, 100_000))
    assert [now.done // 1000 for now in found] == [1, 21, 41, 61, 81]


def test_step_without_a_total_is_heard_of_ever_later() -> None:
    found = heard_of(even(10_000, 100, None))
    assert [round((now.at - NOON).total_seconds()) for now in found] == [15, 60, 240, 960, 3840]


def test_attempt_that_goes_on_does_not_begin_to_count_anew() -> None:
    last = Progress(done=30, total=100, at=at(100))
    assert not due(Progress(done=45, total=100, at=at(200)), last, 2, at(150))
    assert due(Progress(done=50, total=100, at=at(200)), last, 2, at(150))
    assert not due(Progress(done=99, total=100, at=at(900)), last, MOST, at(150))


# --- in words -----------------------------------------------------------------------------------------------------

GIB = 1 << 30
WORDS = {
    "1.2 GiB of 3.4 GiB (35 %), 52.1 MiB/s, ends about 12:34:56 UTC, as of 12:00:00": Progress(
        done=int(1.2 * GIB), total=int(3.4 * GIB), at=NOON, rate=52.1 * MIB, ends=at(34 * 60 + 56)
    ),
    "0 B of 2.0 TiB (0 %), as of 12:00:00": Progress(done=0, total=2 << 40, at=NOON),
    "700 B, 3 B/s, as of 12:00:00": Progress(done=700, at=NOON, rate=3.2),
    "1.0 KiB of 1.0 KiB (100 %), as of 12:00:00": Progress(done=1024, total=1024, at=NOON, rate=5, ends=NOON),
    "1.0 MiB of 9.0 MiB (11 %), 10 B/s, ends about 2026-11-22 00:00:00 UTC, as of 12:00:00 (of log)": Progress(
        done=MIB, total=9 * MIB, at=NOON, rate=10, ends=at(43_200), note="of log"
    ),
    "3 of 12 hosts (25 %), 0.5 hosts/s, as of 12:00:00": Progress(done=3, total=12, of="hosts", at=NOON, rate=0.5),
    "1,200,000 rows, as of 12:00:00": Progress(done=1_200_000, of="rows", at=NOON),
}


@pytest.mark.parametrize("said", WORDS)
def test_progress_is_one_line(said: str) -> None:
    assert in_words(WORDS[said]) == said


# --- who hears ----------------------------------------------------------------------------------------------------


def test_nobody_has_to_listen() -> None:
    tell(5, 10)


def test_what_is_told_is_heard_within() -> None:
    found: list[tuple[int, int | None, str, str]] = []
    with heard(lambda *said: found.append(said)):
        tell(5, 10, note="of log")
        tell(1, of="rows")
    tell(9)
    assert found == [(5, 10, "bytes", "of log"), (1, None, "rows", "")]
