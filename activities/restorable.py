"""What can be restored, and from which backup along which log: chosen from what was found; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from activities.backups import Backup, Inventory, Located, Range
from activities.targets import Target, utc
from activities.timelines import Line, lsn, position, segment_name, timeline_of
from recovery.models import Wire


class Choice(Wire):
    """From which backup to start, along which timeline, how far the log surely goes (``enough``).

    ``earliest`` and ``latest`` are the moments that can be restored. ``path`` is how the log came to that timeline, if
    it is not the first one; ``located`` where a transaction or a restore point lies in it; ``passed`` are backups that
    are newer than the chosen one and of no use, each with the reason.
    """

    backup: Backup
    timeline: int
    enough: str
    earliest: datetime | None = None
    latest: datetime | None = None
    path: tuple[Line, ...] = ()
    located: Located | None = None
    passed: tuple[str, ...] = ()


class Way(Wire):
    """How the copy comes about, where that is not just one backup and the log after it; for people to decide on.

    ``branches`` are other ways that the log went, which the copy does not have.
    """

    target: str
    timelines: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()


def way(found: Inventory, chosen: Choice, target: Target) -> Way | None:
    """Return how the target is reached, if there is something to tell."""
    where = chosen.located
    at = f" ({where.lsn}{f', {where.at}' if where.at else ''})" if where else ""
    told = Way(
        target=f"{'' if target.inclusive else 'just before '}{_KINDS[target.kind]} {target}{at}",
        timelines=tuple(f"{line.timeline}{f' up to {line.end}' if line.end else ''}" for line in chosen.path),
        backups=tuple(one.rsplit("/", maxsplit=1)[-1] for one in chosen.backup.chain),
        passed_over=chosen.passed,
        branches=_branches(found, chosen.path),
    )
    plain = target.kind == "time" and target.inclusive
    return None if plain and told == Way(target=told.target) else told


_KINDS = {"time": "the moment", "lsn": "the position", "xid": "the transaction", "name": "the restore point"}


def _branches(found: Inventory, path: Sequence[Line]) -> tuple[str, ...]:
    """Return what the log has of timelines that did not lead to the wanted one; recoveries of long ago know no path."""
    if not path:
        return ()
    ends = {line.timeline: position(line.end) for line in path if line.end}
    more = {
        run.timeline: f"timeline {run.timeline} after {lsn(ends[run.timeline])}"
        if run.timeline in ends
        else f"timeline {run.timeline}"
        for run in found.ranges
        if run.timeline != path[-1].timeline
        and (run.timeline not in ends or (run.last + 1) * found.segment > ends[run.timeline])
    }
    return tuple(f"{what}: parameters.timeline {number} restores it" for number, what in sorted(more.items()))


def span(found: Inventory) -> tuple[datetime, datetime] | None:
    """Return the first and last moment that can be restored, or None if there is none."""
    known = reachable(found)
    return (min(first for _, first, _ in known), max(until for _, _, until in known)) if known else None


def reachable(found: Inventory) -> list[tuple[Backup, datetime, datetime]]:
    """Return each usable backup with the first and the last moment that it can give back."""
    return [
        (backup, first, run.until) for backup, run in _carried(found) for first in _moments(backup, run) if run.until
    ]


def choose(found: Inventory, target: Target) -> Choice | str:
    """Return the newest backup from which ``target`` can be reached, or a sentence that says what can be."""
    if target.kind == "time":
        fits, said = _at_moment(found, target)
    else:
        fits, said = _at_position(found, target)
    if said:
        return said
    _, backup, run = max(fits, key=lambda fit: fit[0])
    limits = span(found)
    return Choice(
        backup=backup,
        timeline=run.timeline,
        enough=found.flush_lsn if run.open_ended else lsn((run.last + 1) * found.segment),
        earliest=limits[0] if limits else None,
        latest=limits[1] if limits else None,
        path=found.path if len(found.path) > 1 else (),
        located=found.located[0] if target.kind in ("xid", "name") else None,
        passed=_passed(found, backup),
    )


_Fit = tuple[tuple[float, int], Backup, Range]


def _at_moment(found: Inventory, target: Target) -> tuple[list[_Fit], str]:
    limits = span(found)
    if limits is None:
        return [], f"backups: none can be used: {_faults(found)}"
    fits = [
        ((first.timestamp(), position(backup.start_lsn)), backup, run)
        for backup, run in _carried(found)
        for first in _moments(backup, run)
        if run.until is not None and target.moment is not None and first <= target.moment <= run.until
    ]
    if fits:
        return fits, ""
    return [], f"{_cannot(target)} {utc(limits[0])} to {utc(limits[1])}{_holes(found)}{_unused(found)}"


def _at_position(found: Inventory, target: Target) -> tuple[list[_Fit], str]:
    carried = [(backup, run, upto) for backup, run in _carried(found) for upto in _upto(found, run)]
    if not carried:
        return [], f"backups: none can be used: {_faults(found)}"
    at, said = _place(found, target)
    if said:
        return [], said
    fits = [
        ((float(position(backup.stop_lsn)), position(backup.start_lsn)), backup, run)
        for backup, run, upto in carried
        if position(backup.stop_lsn) <= at <= upto
    ]
    if fits:
        return fits, ""
    first, last = min(position(b.stop_lsn) for b, _, _ in carried), max(upto for _, _, upto in carried)
    lies = "" if target.kind == "lsn" else f" (it is at {lsn(at)})"
    return [], f"{_cannot(target, lies)} {lsn(first)} to {lsn(last)}{_holes(found)}{_unused(found)}"


def _place(found: Inventory, target: Target) -> tuple[int, str]:
    """Return the position of the target in the log, or what is wrong with it."""
    if target.kind == "lsn":
        return position(target.value), ""
    match found.located:
        case ():
            said = "in the log no transaction of this id ended; one that is part of another has no end of its own"
            if target.kind == "name":
                said = "the log has no restore point of this name"
            return 0, f"{target.field}: {target}: {said}{_unread(found)}{_holes(found)}"
        case (one,):
            return position(one.lsn), ""
        case several:
            rows = ", ".join(f"{one.lsn}{f' ({one.at})' if one.at else ''}" for one in several)
            return 0, f"{target.field}: {target} is in the log more than once, at {rows}; name target_lsn instead"


def _upto(found: Inventory, run: Range) -> Iterator[int]:
    """Yield how far a run surely goes: to the present position, else to its last record."""
    if run.open_ended or run.end:
        yield position(found.flush_lsn if run.open_ended else run.end)


def _carried(found: Inventory) -> Iterator[tuple[Backup, Range]]:
    """Yield each usable backup with the run of log that carries it on."""
    for backup in found.backups:
        run = None if backup.fault else found.carrying(backup)
        if run is not None:
            yield backup, run


def _moments(backup: Backup, run: Range) -> Iterator[datetime]:
    """Yield the first moment that the backup can give back, if there is one. Its end is known to the second only."""
    if backup.stopped_at is not None and run.until is not None:
        first = backup.stopped_at + timedelta(seconds=1)
        if first <= run.until:
            yield first


def _passed(found: Inventory, chosen: Backup) -> tuple[str, ...]:
    return tuple(
        f"{backup.name}: {backup.fault}"
        for backup in found.backups
        if backup.fault and backup.stopped_at and chosen.stopped_at and backup.stopped_at > chosen.stopped_at
    )[-5:]


def _cannot(target: Target, more: str = "") -> str:
    return f"{target.field}: {target}{more} cannot be restored; what can is"


def _faults(found: Inventory) -> str:
    fault = "the log holds nothing that was committed after it"
    return "; ".join([*found.faults, *(f"{b.name}: {b.fault or fault}" for b in found.backups)]) or "there are none"


def _unused(found: Inventory) -> str:
    rows = [f"{backup.name}: {backup.fault}" for backup in found.backups if backup.fault]
    return f"; not usable: {', '.join(rows)}" if rows else ""


def _unread(found: Inventory) -> str:
    return f"; it could not be read to its end: {found.unread}" if found.unread else ""


def _holes(found: Inventory) -> str:
    path = found.path or (Line(timeline=found.timeline),)
    edges = [(one.first, one.last) for one in found.ranges if one.timeline == path[-1].timeline]
    if edges and found.flush_lsn and path[-1].timeline == found.timeline:
        present = (position(found.flush_lsn) - 1) // found.segment
        edges += [(present + 1, present)] if edges[-1][1] < present else []
    holes = [
        f"{_named(a + 1, path, found.segment)} to {_named(b - 1, path, found.segment)}"
        for (_, a), (b, _) in pairwise(edges)
    ]
    return f"; the log has holes: {', '.join(holes)}" if holes else ""


def _named(number: int, path: Sequence[Line], size: int) -> str:
    return segment_name(timeline_of(number, path, size), number, size)
