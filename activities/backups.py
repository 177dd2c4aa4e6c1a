"""PostgreSQL backups and WAL archive: what there is, and which of it can be used."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from activities import ssh
from activities.chains import by_place, chains
from activities.sources import Source
from activities.ssh import HostAt
from activities.targets import Target
from activities.timelines import Line, lines, lsn, numbered, position, segment_name, segments_on, timeline_of, unbroken
from recovery.actions import Probe, Spec
from recovery.models import Wire

SETTLE = timedelta(seconds=1)
"""A commit carries a time slightly earlier than its place in the log; nearer to now than this nothing is final."""
PART = timedelta(minutes=5)
"""How long one look at backups or log may take."""
SKEW = timedelta(seconds=2)
"""Clocks further apart than this make a target time ambiguous."""
REACH_BACK = 1024
"""How many segments are read, newest first, to find the last commit before a gap.

A database that is down leaves up to ``max_wal_size`` of recycled segments behind its last one, quickly told apart.
"""

SEGMENT = 16 * 1024 * 1024
"""Bytes of a segment of the log where nothing tells another size."""

SAID = {
    "path": ".+", "incremental": r"[0-9A-Za-z/_.-]{0,80}", "status": "[A-Za-z_ ]{0,40}", "stopped": r"\d{0,11}",
    "gone": r"[\d ]{0,400}", "original": r"[\d ]{0,400}",
} | dict.fromkeys(("start_lsn", "stop_lsn"), "[0-9A-F]{1,8}/[0-9A-F]{1,8}")  # fmt: skip
"""What a backup may say of itself; numbers else. What a damaged one says otherwise is as if it said nothing."""


class Backup(Wire):
    """One base backup; ``fault`` says why it cannot be used, "" if it can. Times are UTC, sizes bytes.

    ``chain`` are the folders that an incremental one is put together from, the full one first, its own last; ``size``
    is of all of them, ``laid`` about what laying it down writes. ``links`` tells whether it has tablespaces.
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
    laid: int = 0
    links: bool = False


class Range(Wire):
    """An unbroken run of WAL segments that leads to ``timeline``, by number; restorable up to ``until``.

    ``end`` is where its last record begins, as far as was looked. ``open_ended`` means that it reaches the running
    database's present position.
    """

    timeline: int
    first: int
    last: int
    until: datetime | None = None
    open_ended: bool = False
    end: str = ""


class Located(Wire):
    """Where a transaction ended in the log, or a restore point is; ``at`` is what the log says of it."""

    lsn: str
    at: str = ""


class Inventory(Wire):
    """What backups and WAL exist, as seen on the database's host.

    ``timeline`` is the running database's. ``path`` is how the log comes to the timeline that is to be restored;
    ``ranges`` of that timeline are runs along this path. ``located`` are the places of a target that had to be looked
    for, ``unread`` why not all of the log could be.
    """

    now: datetime
    live: bool
    down: str = ""
    flush_lsn: str = ""
    timeline: int = 0
    system: str = ""
    segment: int = SEGMENT
    archiving: bool = True
    amcheck: bool = True
    backups: tuple[Backup, ...] = ()
    ranges: tuple[Range, ...] = ()
    faults: tuple[str, ...] = ()
    path: tuple[Line, ...] = ()
    located: tuple[Located, ...] = ()
    unread: str = ""

    def carrying(self, backup: Backup) -> Range | None:
        """Return the run of log that makes this backup whole and carries it on, if there is one."""
        path = self.path or (Line(timeline=self.timeline),)
        first, last = (position(at) // self.segment for at in (backup.start_lsn, backup.stop_lsn))
        return next(
            (
                run
                for run in self.ranges
                if run.timeline == path[-1].timeline
                and run.first <= first
                and last <= run.last
                and any(line.timeline == backup.timeline and line.holds(backup.stop_lsn) for line in path)
            ),
            None,
        )


class FindBackups(Spec):
    """Where to look: the database's own folders and sockets on its host, where its backups are; and for what.

    ``wanted`` is the timeline to restore (0: the running database's).
    """

    host: HostAt
    bin: str
    data: str
    sockets: str
    port: int
    dbname: str
    dbuser: str
    source: Source
    target: Target | None = None
    wanted: int = 0

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``inventory``."""
        own = self.model_dump(include={"bin", "data", "sockets", "port", "dbname", "dbuser"})
        return own | self.source.values()


class Backups(Probe[FindBackups, Inventory]):
    """List the base backups and the unbroken runs of WAL, and look for the target where only the log knows it."""

    name = "backups"
    limit = 2 * PART  # what large backups take up is counted file by file

    def title(self, spec: FindBackups) -> str:
        """Say what is looked for."""
        return f"find the backups and the log of {spec.system}"

    async def observe(self, spec: FindBackups) -> Inventory:
        """Look on the host; a command for each run of log, and two."""
        told = await ssh.look(spec.host, "inventory", spec.values(), ssh.within(PART))
        found = await asyncio.to_thread(inventory, told, spec.wanted)
        ranges = [await self._dated(spec, found, run) if _leads(run, found) else run for run in found.ranges]
        found = found.model_copy(update={"ranges": tuple(ranges)})
        if spec.target is None or spec.target.kind not in ("xid", "name"):
            return found
        return await self._located(spec, spec.target, found)

    async def _dated(self, spec: FindBackups, found: Inventory, run: Range) -> Range:
        if run.open_ended:
            return run.model_copy(update={"until": found.now - SETTLE})
        numbers = range(run.last, max(run.first, run.last - REACH_BACK) - 1, -1)
        told = await self._read(spec, "last_commit", found, numbers, {})
        said = dict(line.split("\t") for line in told.splitlines())
        until = (
            datetime.fromisoformat(f"{said['commit']}+00:00") - timedelta(microseconds=1) if "commit" in said else None
        )
        return run.model_copy(update={"until": until, "end": lsn(position(said["record"])) if "record" in said else ""})

    async def _located(self, spec: FindBackups, target: Target, found: Inventory) -> Inventory:
        places: list[Located] = []
        unread = ""
        for run in (run for run in found.ranges if _leads(run, found)):
            values = {"kind": target.kind, "target": target.value}
            told = await self._read(spec, "locate", found, range(run.first, run.last + 1), values)
            rows = [line.split("\t") for line in told.splitlines()]
            places += [Located(lsn=lsn(position(row[1])), at=row[2]) for row in rows if row[0] == "found"]
            # Nothing is written yet beyond the present position, nor after the last record of a run.
            upto = position(found.flush_lsn) if run.open_ended else position(run.end or "0/0") + 1
            unread = next((row[2] for row in rows if row[0] == "unread" and position(row[1]) < upto), unread)
        return found.model_copy(update={"located": tuple(places), "unread": unread})

    async def _read(
        self, spec: FindBackups, script: str, found: Inventory, numbers: Iterable[int], values: Mapping[str, object]
    ) -> str:
        """Run a script on these segments of the path."""
        names = (segment_name(timeline_of(n, found.path, found.segment), n, found.segment) for n in numbers)
        given = {
            **spec.source.values(), "bin": spec.bin, "data": spec.data, "size": found.segment,
            "timeline": f"{found.path[-1].timeline:08X}", "segments": " ".join(names),
        }  # fmt: skip
        return await ssh.look(spec.host, script, given | dict(values), ssh.within(PART))


backups = Backups()


def _leads(run: Range, found: Inventory) -> bool:
    return run.timeline == found.path[-1].timeline


def inventory(text: str, wanted: int = 0) -> Inventory:
    """Return what the script ``inventory`` printed, with usable and unusable backups told apart.

    ``wanted`` is the timeline that is to be restored; 0: the running database's.
    """
    facts: dict[str, str] = {}
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    segments: list[tuple[str, int]] = []
    branches: dict[str, dict[int, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    faults: list[str] = []
    for line in text.splitlines():
        match line.split("\t"):
            case ["backup", name, key, value] if re.fullmatch(SAID.get(key, r"\d{0,20}"), value):
                rows[name][key] = value
            case ["wal", _, name, size]:
                segments.append((name, int(size)))
            case ["history", name, timeline, left] if re.fullmatch("[0-9A-F]{8}", name):
                branches["archive"][int(name, 16)].append((timeline, left))
            case ["history", where, name, timeline, left] if re.fullmatch("[0-9A-F]{8}", name):
                branches[where][int(name, 16)].append((timeline, left))
            case ["fault", fault]:
                faults.append(fault)
            case ["down", *said]:  # psql indents its hints by tabs
                facts["down"] = " ".join(said).strip()
            case [key, value]:
                facts[key] = value
    live: dict[str, Any] = json.loads(facts["live"]) if "live" in facts else {}
    # Of a database that is lost only what it left behind tells.
    segment = int(facts.get("segment") or next((size for name, size in segments if len(name) == 24), SEGMENT))
    flush = live.get("flush_lsn", "")
    own = live.get("timeline") or int(facts.get("timeline") or 0) or _newest(rows.values(), branches)
    path, fault = _path(wanted or own, branches)
    # What is final is counted from when the position was read: looking at large backups takes its time after that.
    now = datetime.fromisoformat(live["now"]) if live else datetime.fromtimestamp(float(facts["now"]), UTC)
    found = Inventory(
        now=now,
        live=bool(live),
        down=facts.get("down", ""),
        flush_lsn=flush,
        timeline=own,
        system=facts.get("system", ""),
        segment=segment,
        archiving=live.get("archiving", True),
        amcheck=live.get("amcheck", True),
        # At the first byte of a segment that segment need not exist yet.
        ranges=tuple(runs(segments, segment, (own, (position(flush) - 1) // segment) if flush else None)),
        faults=(*faults, *([fault] if fault else [])),
        path=path,
    )
    found = found.model_copy(update={"ranges": along(found)})
    linked = chains(rows)
    listed = tuple(_backup(name, rows, found, linked[name]) for name in sorted(rows))
    return found.model_copy(update={"backups": listed})


def _newest(rows: Iterable[Mapping[str, str]], branches: Mapping[str, Mapping[int, list[tuple[str, str]]]]) -> int:
    known = [int(row.get("timeline") or 0) for row in rows]
    return max([0, *known, *(timeline for told in branches.values() for timeline in told)])


def _path(wanted: int, branches: Mapping[str, Mapping[int, list[tuple[str, str]]]]) -> tuple[tuple[Line, ...], str]:
    """Return what leads to the timeline, and what is wrong with that. A copy reads what the archive has first."""
    archived, kept = branches.get("archive", {}), branches.get("live", {})
    found = lines(wanted, {**kept, **archived})
    if isinstance(found, str):
        return (Line(timeline=wanted),), found
    if wanted in archived and wanted in kept and archived[wanted] != kept[wanted]:
        return found, f"archive: {wanted:08X}.history is not as the running database has it; copy it from there"
    return found, ""


def runs(segments: Iterable[tuple[str, int]], size: int, present: tuple[int, int] | None) -> list[Range]:
    """Return the unbroken runs among ``segments`` (name, bytes); files of a wrong size count as missing.

    ``present`` is the timeline and the number of the segment that is being written: what lies beyond it are recycled
    files.
    """
    there: dict[int, set[int]] = defaultdict(set)
    for name, length in segments:
        known = numbered(name, size) if length == size else None
        if known and (present is None or known[0] != present[0] or known[1] <= present[1]):
            there[known[0]].add(known[1])
    return [
        Range(timeline=timeline, first=first, last=last, open_ended=(timeline, last) == present)
        for timeline, numbers in sorted(there.items())
        for first, last in unbroken(numbers)
    ]


def along(found: Inventory) -> tuple[Range, ...]:
    """Return the runs of log, those that lead to the wanted timeline joined over the timelines before it."""
    if not found.path:
        return found.ranges
    wanted = found.path[-1].timeline
    parts = [
        (max(run.first, first), run.last if last is None else min(run.last, last), run.open_ended)
        for timeline, first, last in segments_on(found.path, found.segment)
        for run in found.ranges
        if run.timeline == timeline and run.last >= first and (last is None or run.first <= last)
    ]
    ends = {last for _, last, open_ended in parts if open_ended}
    joined = unbroken(number for first, last, _ in parts for number in range(first, last + 1))
    others = tuple(run for run in found.ranges if run.timeline != wanted)
    led = (Range(timeline=wanted, first=first, last=last, open_ended=last in ends) for first, last in joined)
    return tuple(sorted((*others, *led), key=lambda run: (run.timeline, run.first)))


def _backup(
    name: str, rows: Mapping[str, Mapping[str, str]], found: Inventory, linked: tuple[str, ...] | str
) -> Backup:
    row, chain = rows[name], linked if isinstance(linked, tuple) else (name,)
    backup = Backup(
        name=name,
        path=row.get("path", ""),
        version=int(row.get("version") or 0),
        timeline=int(row.get("timeline") or 0),
        start_lsn=row.get("start_lsn", ""),
        stop_lsn=row.get("stop_lsn", ""),
        stopped_at=datetime.fromtimestamp(int(row["stopped"]), UTC) if row.get("stopped") else None,
        size=sum(int(rows[one].get("kbytes") or 0) for one in (chain if by_place(row) else (name,))) * 1024,
        chain=tuple(rows[one].get("path", "") for one in chain) if len(chain) > 1 else (),
        laid=int(rows[chain[0] if by_place(row) else name].get("kbytes") or 0) * 1024,
        links=bool(int(row.get("tablespaces") or 0)),
    )
    fault = linked if isinstance(linked, str) else _fault(backup, row, found)
    return backup.model_copy(update={"fault": fault})


def _fault(backup: Backup, row: Mapping[str, str], found: Inventory) -> str:
    if row.get("system") and found.system and row["system"] != found.system:
        return "of another database system"
    if row.get("status") == "with damaged pages":
        return "has pages that were damaged when it was taken"
    if row.get("gone"):
        return f"the files of its tablespaces {row['gone'].strip()} are not where its links lead"
    if row.get("original"):
        return f"the links of its tablespaces {row['original'].strip()} lead into the original"
    path = found.path or (Line(timeline=found.timeline),)
    line = next((line for line in path if line.timeline == backup.timeline), None)
    if line is None:
        return f"of timeline {backup.timeline}, which does not lead to timeline {path[-1].timeline}"
    if not line.holds(backup.stop_lsn):
        return f"was taken on timeline {line.timeline} after {line.end}, where timeline {path[-1].timeline} left it"
    return "" if found.carrying(backup) else "the log that belongs to it is not complete"
