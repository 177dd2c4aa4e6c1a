"""A real database that was restored twice: three timelines, chains of backups on each, and what each commit wrote.

What has to be in a copy is computed here from pg_waldump and the history files alone, not by the code under test.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lab import processes
from lab.estate import Lab
from lab.place import Place
from lab.ports import choose as free_ports
from lab.postgres import Postgres
from runbooks.schema import Database, Host
from tests.running import SLOWER

RECORD = re.compile(r"tx:\s*(\d+), lsn: ([0-9A-F/]+), .*?desc: (.*)")
COMMIT = re.compile(r"COMMIT (\d{4}-\d\d-\d\d [\d:.]+)")
TABLE = "create table journal (id bigint primary key, tli int, xid bigint)"
ROW = "insert into journal values (%s, %s, pg_current_xact_id()::text::bigint) returning xid"


@dataclass(frozen=True)
class Record:
    """A record of the log; ``at`` is the time of a commit, ``point`` the name of a restore point."""

    timeline: int
    lsn: int
    xid: int
    at: datetime | None = None
    point: str = ""


@dataclass
class Branches:
    """The database, its backups by timeline (a chain each), and its log."""

    postgres: Postgres
    archive: Path
    backups: dict[int, list[Path]] = field(default_factory=dict)
    points: dict[int, list[str]] = field(default_factory=dict)
    wrote: set[tuple[int, int]] = field(default_factory=set)
    written: int = 0

    def line(self, timeline: int) -> list[Record]:
        """Return every record that leads to the end of a timeline, in the order of the log."""
        history = self.archive / f"{timeline:08X}.history"
        told = history.read_text().splitlines() if timeline > 1 else []
        rows = [row.split() for row in told if row.strip()]
        ends = [(int(row[0]), place(row[1])) for row in rows] + [(timeline, 2**64)]
        found: list[Record] = []
        begin = 0
        for one, end in ends:
            found += [record for record in self._records(one) if begin <= record.lsn < end]
            begin = end
        return found

    def _records(self, timeline: int) -> list[Record]:
        names = sorted(path.name for path in self.archive.glob(f"{timeline:08X}????????????????"))
        text = self.postgres.run("pg_waldump", "-p", self.archive, names[0], names[-1]) if names else ""
        return [record(timeline, *found.groups()) for found in RECORD.finditer(text)]

    def rows(self, records: Sequence[Record]) -> set[tuple[int, int]]:
        """Return timeline and transaction of every row of the journal that these records committed."""
        return {(one.timeline, one.xid) for one in records if one.at} & self.wrote


def record(timeline: int, xid: str, lsn: str, text: str) -> Record:
    """Return a record as pg_waldump tells of it."""
    commit = COMMIT.match(text)
    point = text.partition("RESTORE_POINT ")[2] if text.startswith("RESTORE_POINT ") else ""
    at = datetime.fromisoformat(f"{commit[1]}+00:00") if commit else None
    return Record(timeline, place(lsn), int(xid), at, point)


def place(lsn: str) -> int:
    """Return a position in the log as a number."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def expected(records: Sequence[Record], kind: str, value: object, inclusive: bool) -> list[Record]:
    """Return what a copy holds that stops there: as PostgreSQL's documentation of recovery targets says."""
    found: list[Record] = []
    for one in records:
        if kind == "time" and one.at and (one.at > value if inclusive else one.at >= value):  # type: ignore[operator]
            return found
        if kind == "lsn" and not inclusive and one.lsn >= place(str(value)):
            return found
        if kind == "xid" and not inclusive and one.at and one.xid == value:
            return found
        found.append(one)
        if kind == "lsn" and inclusive and one.lsn >= place(str(value)):
            return found
        if (kind == "xid" and one.at and one.xid == value) or (kind == "name" and one.point == value):
            return found
    return found


@contextmanager
def database(lab: Lab, folder: Path) -> Iterator[Branches]:
    """Make a database with a journal in a folder, on a lab's machine."""
    site, of = Place(folder), lab.postgres
    folder.mkdir(mode=0o755)
    site.make(of.who)
    ports = free_ports(("own", "reached"))
    postgres = Postgres(site, of.who, of.binaries, ports["own"], ports["reached"], of.passwords)
    try:
        postgres.create()
        postgres.start()
        postgres.seed()
        postgres.summarize()
        with postgres.connect("orders") as connection:
            connection.execute(TABLE)
        yield Branches(postgres, site.archive)
    finally:
        processes.stop(processes.postgres_in(site.root), signal.SIGKILL, 10)


@contextmanager
def branches(lab: Lab, folder: Path, seed: str, chain: int = 2) -> Iterator[Branches]:
    """Make the database in a folder, on a lab's machine; ``chain`` incremental backups follow each full one."""
    chance = random.Random(seed)
    with database(lab, folder) as found:
        for timeline in (1, 2, 3):
            if timeline > 1:
                _back(found, timeline, chance)
            _live(found, timeline, chance, chain)
        archived(found.postgres)
        yield found


def host(lab: Lab) -> Host:
    """Return what an estate says of the lab's host."""
    here = lab.place
    return Host(
        site="north", address="127.0.0.1", port=lab.ports["ssh"], user=lab.postgres.who.name,
        known_hosts=str(here.ssh / "known_hosts"), key=str(here.ssh / "client_key"), jobs=str(here.jobs),
    )  # fmt: skip


def estate(lab: Lab, found: Branches) -> tuple[Database, Host]:
    """Return what an estate says of the database: it lies on a host of the lab."""
    site = found.postgres.place
    return Database(
        host="north-db", tier="gold", bin=str(found.postgres.binaries), data=str(site.data), sockets=str(site.sockets),
        port=found.postgres.port, name="orders", user="postgres", backups=str(site.backups), archive=str(site.archive),
        copies=str(site.copies), copy_ports=tuple(free_ports(("a", "b")).values()), drill=True,
    ), host(lab)  # fmt: skip


def spaced(found: Branches, folder: Path) -> None:
    """Put a second journal into a tablespace of its own, in a folder."""
    folder.mkdir(mode=0o700)
    found.postgres.who.own(folder)
    with found.postgres.connect("orders") as connection:
        connection.execute(f"create tablespace apart location '{folder}'".encode())
        connection.execute("create table far (id int) tablespace apart")


def _live(found: Branches, timeline: int, chance: random.Random, chain: int) -> None:
    """Write with several hands, with restore points and backups in between."""
    _write(found, timeline, chance)
    backups = [found.postgres.backup()]
    for number in range(chain):
        _write(found, timeline, chance)
        found.points.setdefault(timeline, []).append(_point(found, f"point {timeline}.{number} it's C:\\new"))
        backups.append(found.postgres.backup(since=backups[-1]))
        _switch(found)
    _write(found, timeline, chance)
    found.backups[timeline] = backups
    with found.postgres.connect("orders") as connection:
        time.sleep(1.1)  # the end of a backup is known to the second: what is restorable begins after it
        connection.execute("select 1")
    _write(found, timeline, chance)
    for _ in range(2):
        _point(found, "twice")
    found.points[timeline].append(_point(found, f"last of {timeline}"))


def _point(found: Branches, name: str) -> str:
    with found.postgres.connect("orders") as connection:
        connection.execute("select pg_create_restore_point(%s)", (name,))
    return name


def _switch(found: Branches) -> None:
    with found.postgres.connect("orders") as connection:
        connection.execute("select pg_switch_wal()")


def _write(found: Branches, timeline: int, chance: random.Random, hands: int = 3, rows: int = 15) -> None:
    def hand(seed: float, first: int) -> None:
        own = random.Random(seed)
        with found.postgres.connect("orders") as connection:
            for number in range(rows):
                with connection.transaction(force_rollback=own.random() < 0.1):
                    row = connection.execute(ROW, (first + number, timeline)).fetchone()
                    found.wrote.add((timeline, int(str(row and row[0]))))
                    if own.random() < 0.2:
                        connection.execute("select pg_sleep(%s)", (own.random() / 50,))

    threads = [
        threading.Thread(target=hand, args=(chance.random(), found.written + rows * number)) for number in range(hands)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.written += rows * hands


def archived(postgres: Postgres) -> None:
    """Have all that was written in the archive."""
    with postgres.connect("orders") as connection:
        connection.execute("select pg_create_restore_point('to be archived')")
        row = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
    deadline = time.monotonic() + 30 * SLOWER
    while not (postgres.place.archive / str(row and row[0])).exists():
        assert time.monotonic() < deadline, "the log is archived in time"
        time.sleep(0.05)


def _back(found: Branches, timeline: int, chance: random.Random) -> None:
    """Restore the database in its place to a moment of its life so far, as a person would; it goes on from there."""
    archived(found.postgres)
    records = [one for one in found.line(timeline - 1) if one.timeline == timeline - 1]
    begun = place(_label(found.backups[timeline - 1][0], "START WAL LOCATION").split()[0])
    after = [one for one in records if one.at and one.lsn > begun]
    target = after[len(after) * chance.randint(6, 8) // 9]
    found.postgres.stop(quick=False)
    shutil.rmtree(found.postgres.place.data)
    shutil.copytree(found.backups[timeline - 1][0], found.postgres.place.data, symlinks=True)
    data, who = found.postgres.place.data, found.postgres.who
    for path in (data, *data.rglob("*")):
        who.own(path)
    (data / "recovery.signal").touch()
    who.own(data / "recovery.signal")
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"restore_command = 'cp {found.archive}/%f %p'\nrecovery_target_action = 'promote'\n")
        settings.write(f"recovery_target_lsn = '{target.lsn >> 32:X}/{target.lsn & 0xFFFFFFFF:X}'\n")
        settings.write(f"recovery_target_timeline = '{timeline - 1}'\n")
    found.postgres.start()
    deadline = time.monotonic() + 30 * SLOWER
    while True:
        with found.postgres.connect("orders") as connection:
            row = connection.execute("select pg_is_in_recovery()").fetchone()
        if row == (False,):
            break
        assert time.monotonic() < deadline, "the restored database is promoted in time"
        time.sleep(0.05)
    with found.postgres.connect("orders") as connection:
        row = connection.execute("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").fetchone()
    assert row is not None
    assert int(str(row[0]), 16) == timeline


def _label(backup: Path, line: str) -> str:
    text = (backup / "backup_label").read_text()
    return next(one.partition(": ")[2] for one in text.splitlines() if one.startswith(line))
