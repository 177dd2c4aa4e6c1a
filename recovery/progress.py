"""How far a step is that takes long: what it tells, how fast that is, when it will end, and when a history hears of it.

All of it is pure but for who listens: an action tells its progress without knowing to whom.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

from recovery.models import Wire

WHILE = timedelta(seconds=30)
"""Over how long a speed is measured: long enough for even figures, short enough to notice that it stands still."""
FAR = timedelta(days=365)
"""Further off than this an end is not told: nobody plans with it."""
APART = timedelta(seconds=15)
"""Nobody is told sooner than this after the beginning, or after the last time."""
MOST = 5
"""How often a history hears of one step: each time costs it four events."""
SHARE = 5
"""It hears of it again once another fifth is done."""
LONGER = 4
"""Where nobody knows how much there is, it hears again after so many times as long."""


class Progress(Wire):
    """``done`` of ``total`` units ``of`` something, as of ``at``; ``total`` is None where nobody knows.

    ``rate`` is units a second over the last while, ``ends`` an estimate; None where they cannot be told. ``note`` is
    what else is to be known about the figures.
    """

    done: int
    total: int | None = None
    of: str = "bytes"
    note: str = ""
    at: datetime
    rate: float | None = None
    ends: datetime | None = None


class Underway(Wire):
    """What an activity beats with, and what it signals to its own run; ``told`` is what was signalled last."""

    run: str = ""
    activity: str = ""
    progress: Progress
    told: Progress | None = None
    times: int = 0


class Pace:
    """Speed and end of one attempt at a step, from readings in the order in which they came.

    The total never shrinks, and is never less than what is done. What begins anew is measured anew.
    """

    def __init__(self) -> None:
        self._readings: deque[tuple[datetime, int]] = deque()
        self._total: int | None = None

    def take(self, at: datetime, done: int, total: int | None = None, of: str = "bytes", note: str = "") -> Progress:
        """Take the next reading in; ``total`` None or 0 tells that it is not known."""
        done = max(done, 0)
        if self._readings and (done < self._readings[-1][1] or at <= self._readings[-1][0]):
            self._readings.clear()
        self._readings.append((at, done))
        while len(self._readings) > 2 and at - self._readings[1][0] >= WHILE:
            self._readings.popleft()
        if total or self._total:
            self._total = max(total or 0, self._total or 0, done)
        rate = self._rate()
        ends = None if self._total is None or rate is None else _end(at, self._total - done, rate)
        return Progress(done=done, total=self._total, of=of, note=note, at=at, rate=rate, ends=ends)

    def _rate(self) -> float | None:
        (since, had), (at, has) = self._readings[0], self._readings[-1]
        seconds = (at - since).total_seconds()
        return round((has - had) / seconds, 3) if seconds > 0 else None


def _end(at: datetime, left: int, rate: float) -> datetime | None:
    if left == 0:
        return at
    seconds = left / rate if rate > 0 else math.inf
    return at + timedelta(seconds=round(seconds)) if seconds < FAR.total_seconds() else None


def due(now: Progress, told: Progress | None, times: int, began: datetime) -> bool:
    """Tell whether a history is to hear of ``now``, having heard of ``told`` as the last of so many ``times``."""
    if times >= MOST or now.at - (told.at if told else began) < APART:
        return False
    if told is None:
        return True
    if now.total is None:
        return now.at - began >= LONGER * (told.at - began)
    return abs(now.done - told.done) * SHARE >= now.total


# --- in words -------------------------------------------------------------------------------------------------


def in_words(now: Progress) -> str:
    """Return it as one line: 1.2 GiB of 3.4 GiB (35 %), 52.1 MiB/s, ends about 12:34:56 UTC, as of 12:30:01."""
    parts = [_amount(now.done, now.of) if now.total is None else _of_total(now.done, now.total, now.of)]
    if now.done != now.total:
        if now.rate is not None:
            parts.append(f"{_amount(now.rate, now.of)}/s" if now.rate > 0 else "stands still")
        if now.ends is not None:
            ends = now.ends.astimezone(UTC)
            day = "" if ends.date() == now.at.astimezone(UTC).date() else f"{ends:%Y-%m-%d} "
            parts.append(f"ends about {day}{ends:%H:%M:%S} UTC")
    said = ", ".join([*parts, f"as of {now.at.astimezone(UTC):%H:%M:%S}"])
    return f"{said} ({now.note})" if now.note else said


def _of_total(done: int, total: int, of: str) -> str:
    share = 100 * done // total if total else 100
    amounts = [_amount(done, of), _amount(total, of)]
    if of != "bytes":
        amounts[0] = amounts[0].removesuffix(f" {of}")
    return f"{' of '.join(amounts)} ({share} %)"


def _amount(number: float, of: str) -> str:
    if of != "bytes":
        return f"{number:,.0f} {of}" if number >= 10 or number == int(number) else f"{number:.1f} {of}"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            break
        number, unit = number / 1024, "TiB"
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


# --- who tells whom -------------------------------------------------------------------------------------------

Hear = Callable[[int, int | None, str, str], None]
_HEARS: ContextVar[Hear] = ContextVar("hears")


def tell(done: int, total: int | None = None, of: str = "bytes", note: str = "") -> None:
    """Tell how far the action is that runs here; outside of one nobody hears it."""
    if hear := _HEARS.get(None):
        hear(done, total, of, note)


@contextmanager
def heard(hear: Hear) -> Iterator[None]:
    """Have ``hear`` called with what is told within the body."""
    token = _HEARS.set(hear)
    try:
        yield
    finally:
        _HEARS.reset(token)
