"""Split the time of a recovery by its cause; pure. All figures are seconds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from recovery.models import Wire

Cause = Literal["detect", "decide", "people", "execute", "verify", "undo"]


class Clock(Wire):
    """Seconds by cause; they add up to ``total``, which runs from the outage, not from the start.

    ``since`` says what the clock counts from. ``rto_met`` is None when no outage time was given.
    """

    since: Literal["outage", "detection", "start"]
    detect: float = 0.0
    decide: float = 0.0
    people: float = 0.0
    execute: float = 0.0
    verify: float = 0.0
    undo: float = 0.0
    total: float = 0.0
    rto: float = 0.0
    rto_met: bool | None = None


def misdated(outage: datetime | None, detected: datetime | None, now: datetime) -> str | None:
    """Return what is wrong with the moments that a start names, as a sentence naming the fields, or None."""
    times = [at for at in (outage, detected) if at is not None]
    # A minute of grace: the clock of whoever detected is not ours.
    if [*times, now + timedelta(minutes=1)] != sorted([*times, now + timedelta(minutes=1)]):
        return "outage_started_at, detected_at: the outage comes first, and neither lies in the future"
    return None


def split(
    turns: Sequence[tuple[Cause, datetime]],
    until: datetime,
    objective: timedelta,
    outage: datetime | None,
    detected: datetime | None,
) -> Clock:
    """Return where the time went.

    ``turns`` are the moments at which the cause changed, the first being the start; ``until`` ends the last.
    """
    started = turns[0][1]
    edges: list[tuple[Cause, datetime]] = list(turns)
    if detected is not None and detected < started:
        edges.insert(0, ("decide", detected))
    if outage is not None and outage < edges[0][1]:
        edges.insert(0, ("detect", outage))
    sums: dict[str, float] = {}
    for (cause, begin), (_, end) in zip(edges, [*edges[1:], ("undo", until)], strict=True):
        sums[cause] = sums.get(cause, 0.0) + (end - begin).total_seconds()
    total = (until - edges[0][1]).total_seconds()
    return Clock(
        since="outage" if outage is not None else "detection" if detected is not None else "start",
        **{cause: round(seconds, 3) for cause, seconds in sums.items()},
        total=round(total, 3),
        rto=objective.total_seconds(),
        rto_met=None if outage is None else total <= objective.total_seconds(),
    )
