"""PostgreSQL backups and WAL archive: what there is, what can be restored from it, and from which backup."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from activities import ssh
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.models import Wire

SETTLE = timedelta(seconds=1)
"""A commit carries a time slightly earlier than its place in the log; nearer to now than this nothing is final."""
SKEW = timedelta(seconds=2)
"""Clocks further apart than this make a target time ambiguous."""
REACH_BACK = 1024
"""How many segments are read, newest first, to find the last commit before a gap.

A database that is down leaves up to ``max_wal_size`` of recycled segments behind its last one, quickly told apart.
"""

SAID = {"path": ".+", "incremental": ".*", "stopped": r"\d{0,11}"} | dict.fromkeys(
    ("start_lsn", "stop_lsn"), "[0-9A-F]{1,8}/[0-9A-F]{1,8}"
)
"""What a backup may say of itself; numbers else. What a damaged one says otherwise is as if it said nothing."""


class Backup(Wire):
    """One base backup; ``fault`` says why it cannot be used, "" if it can. Times are UTC, sizes bytes.

    ``chain`` are the paths from the full backup to this one; longer than one: it is incremental.
    """

    name: str
    path: str
    version: int
    timeline: int
    start_lsn: str
    stop_lsn: str
    stopped_at: datetime | None
    size: int
    fault: str = ""
    chain: tuple[str, ...] = ()


class Range(Wire):
    """An unbroken run of WAL segments of one timeline, by number; restorable up to ``until``.

    ``open_ended`` means that it reaches the running database's present position.
    """

    timeline: int
    first: int
    last: int
    until: datetime | None = None
    open_ended: bool = False


class Inventory(Wire):
    """What backups and WAL exist, as seen on the database's host."""

    now: datetime
    live: bool
    down: str = ""
    flush_lsn: str = ""
    timeline: int = 0
    system: str = ""
    segment: int = 16 * 1024 * 1024
    archiving: bool = True
    amcheck: bool = True
    backups: tuple[Backup, ...] = ()
    ranges: tuple[Range, ...] = ()
    faults: tuple[str, ...] = ()


class FindBackups(Spec):
    """Where to look: the database's own folders and sockets on its host."""

    host: HostAt
    bin: str
    data: str
    sockets: str
    port: int
    dbname: str
    dbuser: str
    backups: str
    archive: str

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``inventory``."""
        return self.model_dump(exclude={"host", "system", "drill"})


class Backups(Probe[FindBackups, Inventory]):
    """List the base backups and the unbroken runs of WAL."""

    name = "backups"
    limit = timedelta(minutes=10)  # what large backups take up is counted file by file

    def title(self, spec: FindBackups) -> str:
        """Say what is looked for."""
        return f"find the backups and the log of {spec.system}"

    async def observe(self, spec: FindBackups) -> Inventory:
        """Look on the host; two commands."""
        told = await ssh.look(spec.host, "inventory", spec.values(), ssh.within(self.limit / 2))
        found = await asyncio.to_thread(inventory, told)
        ranges = [await self._dated(spec, found, r) for r in found.ranges if r.timeline == found.timeline]
        return found.model_copy(update={"ranges": tuple(ranges)})

    async def _dated(self, spec: FindBackups, found: Inventory, run: Range) -> Range:
        if run.open_ended:
            return run.model_copy(update={"until": found.now - SETTLE})
        numbers = range(run.last, max(run.first, run.last - REACH_BACK) - 1, -1)
        names = " ".join(segment_name(run.timeline, number, found.segment) for number in numbers)
        values = {"bin": spec.bin, "archive": spec.archive, "data": spec.data, "segments": names}
        said = (await ssh.look(spec.host, "last_commit", values, ssh.within(self.limit / 2))).strip()
        until = datetime.fromisoformat(f"{said}+00:00") - timedelta(microseconds=1) if said else None
        return run.model_copy(update={"until": until})


backups = Backups()


class Choice(Wire):
    """From which backup to start, along which run of WAL, how far the log surely goes (``enough``)."""

    backup: Backup
    timeline: int
    enough: str
    earliest: datetime
    latest: datetime


def span(found: Inventory) -> tuple[datetime, datetime] | None:
    """Return the first and last moment that can be restored, or None if there is none."""
    reachable = list(_reachable(found))
    if not reachable:
        return None
    return min(at for _, _, at in reachable), max(run.until for _, run, _ in reachable if run.until)


def reachable(found: Inventory) -> list[tuple[Backup, datetime, datetime]]:
    """Return each usable backup with the first and the last moment that it can give back."""
    return [(backup, first, run.until) for backup, run, first in _reachable(found) if run.until]


def choose(found: Inventory, target: datetime) -> Choice | str:
    """Return the newest backup from which ``target`` can be reached, or a sentence that says what can be."""
    limits = span(found)
    if limits is None:
        return f"backups: none can be used: {_faults(found)}"
    fits = [
        (at, backup, run)
        for backup, run, at in _reachable(found)
        if run.until is not None and at <= target <= run.until
    ]
    if not fits:
        return (
            f"parameters.target_time: {_utc(target)} cannot be restored; what can is {_utc(limits[0])} to"
            f" {_utc(limits[1])}{_holes(found)}{_unused(found)}"
        )
    _, backup, run = max(fits, key=lambda fit: fit[0])
    enough = found.flush_lsn if run.open_ended else lsn((run.last + 1) * found.segment)
    return Choice(backup=backup, timeline=run.timeline, enough=enough, earliest=limits[0], latest=limits[1])


def inventory(text: str) -> Inventory:
    """Return what the script ``inventory`` printed, with usable and unusable backups told apart."""
    facts: dict[str, str] = {}
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    segments: list[tuple[str, int]] = []
    faults: list[str] = []
    for line in text.splitlines():
        match line.split("\t"):
            case ["backup", name, key, value] if re.fullmatch(SAID.get(key, r"\d{0,20}"), value):
                rows[name][key] = value
            case ["wal", _, name, size]:
                segments.append((name, int(size)))
            case ["fault", fault]:
                faults.append(fault)
            case ["down", *said]:  # psql indents its hints by tabs
                facts["down"] = " ".join(said).strip()
            case [key, value]:
                facts[key] = value
    live: dict[str, Any] = json.loads(facts["live"]) if "live" in facts else {}
    segment = int(facts.get("segment") or 16 * 1024 * 1024)
    flush = live.get("flush_lsn", "")
    # What is final is counted from when the position was read: looking at large backups takes its time after that.
    now = datetime.fromisoformat(live["now"]) if live else datetime.fromtimestamp(float(facts["now"]), UTC)
    found = Inventory(
        now=now,
        live=bool(live),
        down=facts.get("down", ""),
        flush_lsn=flush,
        timeline=live.get("timeline") or int(facts.get("timeline") or 0),
        system=facts.get("system", ""),
        segment=segment,
        archiving=live.get("archiving", True),
        amcheck=live.get("amcheck", True),
        # At the first byte of a segment that segment need not exist yet.
        ranges=tuple(runs(segments, segment, (position(flush) - 1) // segment if flush else None)),
        faults=tuple(faults),
    )
    listed = tuple(_backup(name, row, found) for name, row in sorted(rows.items()))
    return found.model_copy(update={"backups": listed})


def runs(segments: Iterable[tuple[str, int]], size: int, present: int | None) -> list[Range]:
    """Return the unbroken runs among ``segments`` (name, bytes); files of a wrong size count as missing.

    ``present`` is the number of the segment that is being written: what lies beyond it are recycled files.
    """
    numbers: dict[int, set[int]] = defaultdict(set)
    for name, length in segments:
        if len(name) == 24 and length == size and not set(name) - set("0123456789ABCDEF"):
            number = int(name[8:16], 16) * (0x1_0000_0000 // size) + int(name[16:], 16)
            if present is None or number <= present:
                numbers[int(name[:8], 16)].add(number)
    return [
        Range(timeline=timeline, first=first, last=last, open_ended=last == present)
        for timeline, found in sorted(numbers.items())
        for first, last in _unbroken(sorted(found))
    ]


def segment_name(timeline: int, number: int, size: int) -> str:
    """Return the file name of WAL segment ``number``."""
    per_log = 0x1_0000_0000 // size
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"


def position(text: str) -> int:
    """Return the byte position of an LSN such as ``0/2000028``."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn(at: int) -> str:
    """Return the LSN of byte position ``at``."""
    return f"{at >> 32:X}/{at & 0xFFFFFFFF:X}"


def _unbroken(numbers: Sequence[int]) -> list[tuple[int, int]]:
    breaks = [i for i, (a, b) in enumerate(pairwise(numbers), start=1) if b != a + 1]
    edges = [0, *breaks, len(numbers)]
    return [(numbers[a], numbers[b - 1]) for a, b in pairwise(edges) if b > a]


def _reachable(found: Inventory) -> Iterable[tuple[Backup, Range, datetime]]:
    """Yield each usable backup with the run of WAL that carries it on, and the first moment it can give back."""
    for backup in found.backups:
        run = None if backup.fault else _carrying(found, backup)
        if run is not None and run.until is not None and backup.stopped_at is not None:
            # Its end is known to the second only.
            first = backup.stopped_at + timedelta(seconds=1)
            if first <= run.until:
                yield backup, run, first


def _carrying(found: Inventory, backup: Backup) -> Range | None:
    first, last = (position(at) // found.segment for at in (backup.start_lsn, backup.stop_lsn))
    fits = (r for r in found.ranges if r.timeline == backup.timeline and r.first <= first and last <= r.last)
    return next(fits, None)


def _backup(name: str, row: dict[str, str], found: Inventory) -> Backup:
    backup = Backup(
        name=name,
        path=row.get("path", ""),
        version=int(row.get("version") or 0),
        timeline=int(row.get("timeline") or 0),
        start_lsn=row.get("start_lsn", ""),
        stop_lsn=row.get("stop_lsn", ""),
        stopped_at=datetime.fromtimestamp(int(row["stopped"]), UTC) if row.get("stopped") else None,
        size=int(row.get("kbytes") or 0) * 1024,
    )
    return backup.model_copy(update={"fault": _fault(backup, row, found)})


def _fault(backup: Backup, row: dict[str, str], found: Inventory) -> str:
    if not (backup.version and backup.start_lsn and backup.stop_lsn and backup.stopped_at):
        return "not complete: label or manifest is missing"
    if row.get("system") and found.system and row["system"] != found.system:
        return "of another database system"
    if row.get("incremental"):
        return "incremental: this version restores full backups only"
    if int(row.get("tablespaces") or 0):
        return "has tablespaces, whose links would lead into the original"
    if backup.timeline != found.timeline:
        return f"of timeline {backup.timeline}, the database is on {found.timeline}"
    return "" if _carrying(found, backup) else "the log that belongs to it is not complete"


def _faults(found: Inventory) -> str:
    fault = "the log holds nothing that was committed after it"
    return "; ".join([*found.faults, *(f"{b.name}: {b.fault or fault}" for b in found.backups)]) or "there are none"


def _unused(found: Inventory) -> str:
    rows = [f"{backup.name}: {backup.fault}" for backup in found.backups if backup.fault]
    return f"; not usable: {', '.join(rows)}" if rows else ""


def _holes(found: Inventory) -> str:
    holes = [
        f"{segment_name(a.timeline, a.last + 1, found.segment)} to"
        f" {segment_name(b.timeline, b.first - 1, found.segment)}"
        for a, b in pairwise(found.ranges)
        if a.timeline == b.timeline
    ]
    return f"; the log has holes: {', '.join(holes)}" if holes else ""


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
