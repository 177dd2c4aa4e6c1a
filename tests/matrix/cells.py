"""The crash matrix: every activity that a recorded recovery has, times every point at which a worker can die."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from temporalio.client import WorkflowHistory

from recovery.models import Verdict

POINTS = ("before", "within", "after", "reported")
KILLS = 5
"""Workers that are killed in one recovery: each kill costs seconds, and so does each recovery."""
APART = 2
"""Steps between two of them: who dies once a result is in the history may have gone one or two further by then."""

CHANGES = re.compile(r"\d{8}t\d{6}-\d+z|\d{8}[t-]\d{6}f?\b|(?<=-)[0-9a-f]{8,12}(?=-)")
"""What is another one in each run: a moment, a backup of a tool, a revision."""


@dataclass(frozen=True)
class Cell:
    """One crash: at ``point`` of ``activity``, ``seconds`` into it, in a recovery whose gates end in ``verdict``."""

    verdict: Verdict
    activity: str
    point: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.verdict}: {self.activity} {self.point}"


def recorded(history: WorkflowHistory) -> dict[str, float]:
    """Return the activities that ``history`` has, by id, each with the seconds that it ran.

    A time or a revision in an id is a pattern: the next run has another backup to lay down, and another commit.
    """
    ids = {e.event_id: e.activity_task_scheduled_event_attributes.activity_id for e in history.events}
    names = {event: CHANGES.sub("*", found) for event, found in ids.items()}
    started = {
        e.activity_task_started_event_attributes.scheduled_event_id: e.event_time.ToDatetime() for e in history.events
    }
    done = ((e.activity_task_completed_event_attributes.scheduled_event_id, e.event_time) for e in history.events)
    return {
        names[scheduled]: (at.ToDatetime() - started[scheduled]).total_seconds() for scheduled, at in done if scheduled
    }


def matrix(runs: Mapping[Verdict, Mapping[str, float]], chance: Random) -> list[Cell]:
    """Return every cell of ``runs`` (recorded activities by verdict), in an order left to chance."""
    cells = [
        Cell(verdict, activity, point, round(chance.uniform(0, seconds), 4))
        for verdict, steps in runs.items()
        for activity, seconds in steps.items()
        for point in POINTS
    ]
    chance.shuffle(cells)
    return cells


def trips(cells: Sequence[Cell], steps: Sequence[str]) -> list[list[Cell]]:
    """Share out ``cells`` among recoveries of which each is struck up to KILLS times, in the order of ``steps``."""
    found: list[list[Cell]] = []
    for cell in cells:
        at = steps.index(cell.activity)
        free = (
            trip
            for trip in found
            if len(trip) < KILLS and all(abs(at - steps.index(one.activity)) > APART for one in trip)
        )
        trip = next(free, None)
        found.append([cell]) if trip is None else trip.append(cell)
    return [sorted(trip, key=lambda cell: steps.index(cell.activity)) for trip in found]
