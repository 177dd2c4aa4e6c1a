"""What backups there have to be, against what is there: each breach named, how old it is, what to do; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from activities.backups import Backup, Inventory, Range
from activities.holdings import Held, Unarchived
from activities.restorable import reachable
from activities.timelines import position, segment_name
from recovery.details import span
from runbooks.procedures.restore_verification import Offsite, Policy


@dataclass(frozen=True)
class Away:
    """What has to lie off-site, which is what has been at home for long enough, and what does."""

    home: Held
    there: Held


def breaches(
    policy: Policy, found: Inventory, log: Unarchived, away: Away | None, now: datetime, rpo: timedelta
) -> tuple[str, ...]:
    """Return each breach of ``policy`` as a sentence that begins with its field.

    ``found`` is what can be restored without the running database, ``log`` what of its log is nowhere else. ``rpo`` is
    that of the tier.
    """
    said = [
        *_full(policy, found, now),
        *_incremental(policy, found, now),
        *_log(policy.log_within or rpo, found, log, now),
        *_kept(policy, found, now),
    ]
    if policy.offsite is not None and away is not None:
        said += _offsite(policy.offsite, away, found, now - policy.keep_for if policy.keep_for else None)
    return tuple(said)


def newest_run(found: Inventory) -> Range | None:
    """Return the run of log that ends with the newest moment that can be restored."""
    last = max((last for _, _, last in reachable(found)), default=None)
    return next((run for run in found.ranges if run.until == last), None) if last else None


def lost_since(found: Inventory, log: Unarchived) -> datetime | None:
    """Return since when what was committed would be lost with the running database; None: nothing would be.

    Raises ValueError where nothing can be restored at all.
    """
    run = newest_run(found)
    if run is None or run.until is None:
        raise ValueError("found: nothing in it can be restored")
    if _after(found, run) or not log.read:
        return run.until
    return log.first


def intervals(found: Inventory) -> list[tuple[datetime, datetime]]:
    """Return the spans of time of which every moment can be restored, oldest first, none touching another."""
    whole: list[tuple[datetime, datetime]] = []
    for first, last in sorted((first, last) for _, first, last in reachable(found)):
        if whole and first <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(last, whole[-1][1]))
        else:
            whole.append((first, last))
    return whole


def _full(policy: Policy, found: Inventory, now: datetime) -> Iterator[str]:
    if policy.full_every is not None:
        full = [backup for backup in found.backups if len(backup.chain) <= 1]
        yield from _late("full_every", "full backup", policy.full_every, policy.grace, full, now)


def _incremental(policy: Policy, found: Inventory, now: datetime) -> Iterator[str]:
    if policy.incremental_every is not None:
        what = "backup of any kind"
        yield from _late("incremental_every", what, policy.incremental_every, policy.grace, found.backups, now)


def _late(
    field: str, what: str, every: timedelta, grace: timedelta, among: Sequence[Backup], now: datetime
) -> Iterator[str]:
    ends = [backup.stopped_at for backup in among if not backup.fault and backup.stopped_at is not None]
    unused = [f"{backup.name}: {backup.fault}" for backup in among if backup.fault]
    why = f" ({'; '.join(unused[-3:])})" if unused else ""
    if not ends:
        yield f"policy.{field}: there is no {what} that can be used{why}; take one now"
    elif (age := now - max(ends)) > every + grace:
        yield (
            f"policy.{field}: the newest {what} that can be used is of {_utc(max(ends))}, {_span(age)} old, and"
            f" {_span(every)} is wanted{why}; take one now, and see why none was taken"
        )


def _log(within: timedelta, found: Inventory, log: Unarchived, now: datetime) -> Iterator[str]:
    run = newest_run(found)
    if run is None or run.until is None:
        yield "policy.log_within: nothing can be restored at all; take a full backup now, and see that log is archived"
        return
    since = lost_since(found, log)
    if since is None or now - since <= within:
        return
    later = _after(found, run)
    if later:
        hole = _segments(run.timeline, run.last + 1, later[0].first - 1, found.segment)
        why = f"{hole} missing in the archive; bring them back from off-site, else take a full backup now"
    elif log.read:
        why = "the archive lacks its log; see pg_stat_archiver why the running database does not archive it"
    else:
        why = "the log of the running database cannot be read; what it has beyond the archive is not known"
    yield (
        f"policy.log_within: what was committed since {_utc(since)}, {_span(now - since)} ago, cannot be restored, and"
        f" {_span(within)} is allowed: {why}"
    )


def _kept(policy: Policy, found: Inventory, now: datetime) -> Iterator[str]:
    whole = intervals(found)
    if policy.keep_for is None or not whole:
        return
    since, oldest = now - policy.keep_for, whole[0][0]
    born = _made(found)
    # A database that is younger than that has its first backup once it was time for one.
    if oldest > since and not (born and oldest <= born + (policy.full_every or timedelta(0)) + policy.grace):
        yield (
            f"policy.keep_for: the oldest moment that can be restored is {_utc(oldest)}, {_span(now - oldest)} ago, and"
            f" {_span(policy.keep_for)} is wanted; keep the newest full backup that is older than that, and all log"
            " since"
        )
    for (_, end), (begin, _) in pairwise(whole):
        if begin > since:
            yield (
                f"policy.keep_for: no moment from {_utc(end)} to {_utc(begin)}, {_span(now - begin)} ago, can be"
                f" restored{_hole(found, end)}; bring back from off-site what is missing"
            )


def _offsite(wanted: Offsite, away: Away, found: Inventory, oldest: datetime | None) -> Iterator[str]:
    for place, seen in (("at home", away.home), (f"on {wanted.host}", away.there)):
        if seen.faults:
            why = "; ".join(seen.faults)
            yield f"policy.offsite: what is {place} cannot be seen: {why}; see that it can be reached, and read"
    if not away.home.faults and not away.there.faults:
        since = _anchor(found, oldest)
        yield from _backups_away(wanted, away, {one.name for one in found.backups if since and _is_older(one, since)})
        yield from _log_away(wanted, away, since, found.segment)


def _backups_away(wanted: Offsite, away: Away, old: Collection[str]) -> Iterator[str]:
    """Say which backups are not off-site as they are at home, leaving aside the ``old`` ones."""
    where = f"{wanted.host}:{wanted.backups}"
    there = {backup.name: backup for backup in away.there.backups}
    for backup in away.home.backups:
        copy = there.get(backup.name)
        if backup.name in old:
            continue
        if copy is None:
            yield f"policy.offsite: backup {backup.name} is not in {where}, {_late_by(wanted)}; copy it there"
        elif copy.manifest != backup.manifest:
            yield f"policy.offsite: backup {backup.name} in {where} is another one, its manifest differs; copy it anew"
        elif copy != backup:
            yield (
                f"policy.offsite: backup {backup.name} in {where} has {copy.files} files of {copy.size} bytes, and"
                f" {backup.files} of {backup.size} at home; copy it anew"
            )


def _log_away(wanted: Offsite, away: Away, since: Backup | None, segment: int) -> Iterator[str]:
    """Say which log is not off-site, from the anchor on."""
    where = f"{wanted.host}:{wanted.archive}"
    for name in sorted(set(away.home.histories) - set(away.there.histories)):
        yield f"policy.offsite: {name} is not in {where}, {_late_by(wanted)}; copy it there"
    for timeline, first, last in _lacking(away.home.log, away.there.log, since, segment):
        what = _segments(timeline, first, last, segment)
        yield f"policy.offsite: {what} missing in {where}, {_late_by(wanted)}; copy what is missing there"


def _late_by(wanted: Offsite) -> str:
    return f"and has been here for more than {_span(wanted.within)}"


def _anchor(found: Inventory, oldest: datetime | None) -> Backup | None:
    """Return the backup from which the oldest wanted moment is restored: what is older is not needed off-site."""
    ends = [
        (backup.stopped_at, backup)
        for backup in found.backups
        if oldest and not backup.fault and len(backup.chain) <= 1 and backup.stopped_at and backup.stopped_at <= oldest
    ]
    return max(ends, key=lambda end: end[0])[1] if ends else None


def _is_older(backup: Backup, anchor: Backup) -> bool:
    return backup.stopped_at is not None and anchor.stopped_at is not None and backup.stopped_at < anchor.stopped_at


def _lacking(
    home: Sequence[Range], there: Sequence[Range], since: Backup | None, segment: int
) -> Iterator[tuple[int, int, int]]:
    """Yield the runs of segments (timeline, first, last) that are at home, from the anchor on, and not there."""
    begin = position(since.start_lsn) // segment if since else 0
    have = _numbers(there)
    for timeline, numbers in sorted(_numbers(home).items()):
        if since is not None and timeline < since.timeline:
            continue
        missing = sorted(number for number in numbers - have.get(timeline, set()) if number >= begin)
        first = 0
        for index, number in enumerate(missing):
            if index == 0 or missing[index - 1] != number - 1:
                first = number
            if index + 1 == len(missing) or missing[index + 1] != number + 1:
                yield timeline, first, number


def _numbers(ranges: Iterable[Range]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for run in ranges:
        found.setdefault(run.timeline, set()).update(range(run.first, run.last + 1))
    return found


def _after(found: Inventory, run: Range) -> list[Range]:
    """Return the runs of log that lie beyond a hole after ``run``, oldest first."""
    later = [one for one in found.ranges if one.timeline == run.timeline and one.first > run.last]
    return sorted(later, key=lambda one: one.first)


def _hole(found: Inventory, end: datetime) -> str:
    run = next((one for one in found.ranges if one.until == end), None)
    later = _after(found, run) if run else []
    if run is None or not later:
        return ""
    return f": {_segments(run.timeline, run.last + 1, later[0].first - 1, found.segment)} missing in the archive"


def _segments(timeline: int, first: int, last: int, size: int) -> str:
    names = [segment_name(timeline, number, size) for number in (first, last)]
    return f"the log {names[0]} is" if first == last else f"the log {names[0]} to {names[1]} is"


def _made(found: Inventory) -> datetime | None:
    """Return when the database was made: PostgreSQL's identifier of it begins with that, in seconds."""
    return datetime.fromtimestamp(int(found.system) >> 32, UTC) if found.system.isdigit() else None


def _span(length: timedelta) -> str:
    return span(length.total_seconds())


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
