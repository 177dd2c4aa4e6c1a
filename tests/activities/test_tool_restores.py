"""A restore from the repository of Barman, or of pgBackRest, by the engine's own activities: exact at each target."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities import ssh
from activities.apart import Apart
from activities.backups import Inventory, backups
from activities.postgres import place, ready, replay
from activities.restorable import Choice, choose, span
from activities.side_copy import SideCopy, assess
from lab import processes
from lab.estate import Lab
from lab.ports import choose as free_ports
from recovery.errors import Fatal
from runbooks.procedures import restore_verification
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Backups, Database
from tests.branches import host
from tests.repositories import PORT, SERVER, Repository, barman, pgbackrest
from tests.running import SLOWER, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Told:
    """A database whose backups a tool keeps: with rows of which each has its transaction and place in the log."""

    at: Repository
    lab: Lab
    rows: list[tuple[int, datetime, str, int]]
    backups: list[str]

    def copy(self, run: str = "r1", **wanted: Any) -> SideCopy:
        """Return the copy that is wanted."""
        site = self.at.place
        keeps = {"server": SERVER, "cli": str(self.at.cli), "configuration": str(self.at.configuration)}
        database = Database(
            host="north-db", tier="gold", bin=str(self.at.binaries), data=str(site.data), sockets=str(site.sockets),
            port=PORT, name="postgres", user="postgres", copies=str(site.copies), drill=True,
            backups=Backups.model_validate({"kind": self.at.kind, **keeps}),
            copy_ports=tuple(free_ports(("a", "b")).values()),
        )  # fmt: skip
        return SideCopy("orders", database, host(self.lab), Parameters.model_validate(wanted), "a-test", run)

    async def found(self, **wanted: Any) -> tuple[Inventory, Choice | str]:
        """Return what was found, and what is chosen."""
        copy = self.copy(**wanted)
        inventory = await backups.observe(copy.find())
        return inventory, choose(inventory, copy.target)

    async def restored(self, **wanted: Any) -> tuple[Choice, list[int]]:
        """Restore, and return the choice, and the numbers of the rows in the copy."""
        return await self.made(self.copy(**wanted))

    async def made(self, copy: SideCopy) -> tuple[Choice, list[int]]:
        """Make that copy, and return the choice, and the numbers of the rows in it."""
        assessed = assess(copy, await backups.observe(copy.find()), await ready.observe(copy.room()))
        assert assessed.choice is not None, assessed.blockers
        laid, on = copy.place(assessed.choice, assessed.port), copy.replay(assessed.choice, assessed.port)
        try:
            await place.apply(laid, await place.observe(laid))
            await place.halt(laid)
            await replay.apply(on, await replay.observe(on))
            await replay.halt(on)
            where = ["-h", f"{copy.directory()}/run", "-p", str(assessed.port), "-U", "postgres", "-d", "postgres"]
            sql = "select number from rows where number > 0 order by 1"
            told = await asyncio.to_thread(self.at.run, self.at.binaries / "psql", "-XAtq", *where, "-c", sql)
        finally:
            processes.stop(processes.postgres_in(Path(copy.directory())), signal.SIGKILL, 10)
            for path in self.at.place.copies.iterdir():
                shutil.rmtree(path)
        return assessed.choice, [int(line) for line in told.splitlines()]


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


@pytest.fixture(scope="module", params=["barman", "pgbackrest"])
def told(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Told]:
    """A full backup and one that begins with it, rows before, between and after them, and a restore point."""
    with barman() if request.param == "barman" else pgbackrest() as at:
        found = Told(at, lab, [], [])
        for number in range(1, 10):
            row = at.ask(
                f"insert into rows values ({number}, '') returning pg_current_xact_id(), pg_current_wal_insert_lsn()"
            )[0].split("|")
            found.rows.append(
                (number, datetime.fromisoformat(at.ask("select clock_timestamp()")[0]), row[1], int(row[0]))
            )
            if number in (2, 4):
                found.backups.append(at.back_up(incremental=number == 4))
            if number == 5:
                at.ask("select pg_sleep(1.1)")
            if number == 7:
                at.ask("select pg_create_restore_point('before the release')")
        at.archive()
        yield found


async def test_every_target_is_exact(told: Told) -> None:
    """From the backup that begins with another one, whose log the tool fetches."""
    await eventually(lambda: datetime.now(UTC) > told.rows[-1][1] + timedelta(seconds=2), "the last moment is final")
    wanted: list[tuple[dict[str, Any], int]] = [
        ({"target_time": told.rows[6][1]}, 7),
        ({"target_lsn": told.rows[7][2], "inclusive": False}, 7),
        ({"target_xid": told.rows[7][3]}, 8),
        ({"target_name": "before the release"}, 7),
    ]
    for target, last in wanted:
        choice, rows = await told.restored(**target)
        assert rows == list(range(1, last + 1)), target
        assert choice.backup.path == told.backups[1]


@pytest.mark.drawn
async def test_moment_before_the_newest_backup_takes_an_older_one(told: Told) -> None:
    inventory, _ = await told.found(target_time=told.rows[6][1])
    older = next(one for one in inventory.backups if one.path == told.backups[0])
    choice, rows = await told.restored(target_lsn=told.rows[2][2])
    assert choice.backup.path == told.backups[0] == older.path
    assert rows in ([1, 2, 3], [1, 2])  # the position is that before the row's commit, or the one after it


@pytest.mark.drawn
async def test_missing_segment_is_named(told: Told) -> None:
    """Neither the tool nor the running database has it."""
    inventory, _ = await told.found(target_name="before the release")
    newest = inventory.backups[-1]
    assert newest.fault == ""
    names = [path.name for path in (told.at.place.data / "pg_wal").iterdir() if len(path.name) == 24]
    last = told.at.ask(f"select pg_walfile_name('{newest.stop_lsn}')")[0]
    files = [told.at.segment(last), *(told.at.place.data / "pg_wal" / name for name in names if name == last)]
    for path in files:
        path.rename(path.with_name(f"aside.{path.name}"))
    try:
        inventory, _ = await told.found(target_name="before the release")
    finally:
        for path in files:
            path.with_name(f"aside.{path.name}").rename(path)
    faults = {one.name: one.fault for one in inventory.backups}
    assert faults[newest.name] == "the log that belongs to it is not complete"


@pytest.mark.drawn
async def test_damaged_byte_stops_the_copy(told: Told) -> None:
    file = told.at.file_of(told.backups[0], told.at.ask("select pg_relation_filepath('pg_proc')")[0])
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)
        opened.seek(-1, 1)
        opened.write(bytes([byte[0] ^ 0xFF]))
    try:
        with pytest.raises(Fatal) as failed:
            await told.restored(target_name="before the release")
    finally:
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 2)
            opened.write(byte)
    assert any(backup in failed.value.message for backup in told.backups)


@pytest.mark.drawn
async def test_lost_database_is_restored(told: Told) -> None:
    """Its server is down and its folder is gone: what the tool has is enough."""
    at = told.at
    await asyncio.to_thread(at.run, at.binaries / "pg_ctl", "-D", at.place.data, "-m", "fast", "stop")
    lost = at.place.data.rename(at.folder / "lost")
    try:
        _, rows = await told.restored(target_name="before the release")
        assert rows == list(range(1, 8))
        _, rows = await told.restored(target_time=told.rows[6][1])
        assert rows == list(range(1, 8))
    finally:
        lost.rename(at.place.data)
        await asyncio.to_thread(at.start, at.place.data)


@pytest.mark.drawn
async def test_wrong_block_is_a_blocker(told: Told) -> None:
    """Not a host that cannot be understood: the field is named, and nothing is begun."""
    copy = told.copy(target_name="before the release")
    wrong = copy.database.backups.model_copy(update={"server": "nothing"})
    copy = SideCopy("orders", copy.database.model_copy(update={"backups": wrong}), copy.host, copy.wanted, "t", "r")
    assessed = assess(copy, await backups.observe(copy.find()), await ready.observe(copy.room()))
    assert [one for one in assessed.blockers if one.startswith("backups.server: ")]
    assert assessed.choice is None


@pytest.mark.drawn
async def test_newest_moment_is_restored_apart(told: Told) -> None:
    """As a verification does: without the running database's own log."""
    of = told.copy(target_name="any")
    await eventually(lambda: datetime.now(UTC) > told.rows[-1][1] + timedelta(seconds=2), "the last moment is final")
    wanted = restore_verification.Parameters()
    apart = Apart("orders", of.database, of.host, wanted, "a-test", "r1")
    limits = span(await backups.observe(apart.copy().find()))
    assert limits is not None
    choice, rows = await told.made(apart.copy(limits[1]))
    assert choice.backup.path == told.backups[1]
    assert rows in (list(range(1, 9)), list(range(1, 10))), "a log that is closed ends with its last commit"


LONG = 24
"""Incremental backups in one chain."""


@pytest.fixture(scope="module", params=["barman", "pgbackrest"])
def turned(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Told]:
    """A database that was restored in its place twice, and whose first timeline has a long chain of backups.

    Rows 1 to 30 are of the first timeline, 31 to 36 of the second, which left it after row 28, and 37 to 42 of the
    third, which left that after row 34.
    """
    with barman() if request.param == "barman" else pgbackrest() as at:
        found = Told(at, lab, [], [])
        for number in range(1, 31):
            note(found, number)
            if number <= LONG + 1:
                found.backups.append(at.back_up(incremental=number > 1))
        for left, first in ((28, 31), (34, 37)):
            back(found, f"left at {left}", found.rows[left - 1][3])
            for number in range(first, first + 6):
                note(found, number)
                if number == first:
                    found.backups.append(at.back_up())
        at.archive()
        yield found


def note(told: Told, number: int) -> None:
    """Commit a row, and write down its transaction and place."""
    sql = f"insert into rows values ({number}, '') returning pg_current_xact_id(), pg_current_wal_insert_lsn()"
    xid, lsn = told.at.ask(sql)[0].split("|")
    moment = datetime.fromisoformat(told.at.ask("select clock_timestamp()")[0])
    told.rows.append((number, moment, lsn, int(xid)))


def back(told: Told, name: str, xid: int) -> None:
    """Put a backup in the database's place, replayed up to a transaction, as a person would; it goes on from there."""
    at = told.at
    at.archive()
    copy, wrong = at.lay_down(told.backups[-1], name.replace(" ", "-"))
    assert wrong == ""
    at.run(at.binaries / "pg_ctl", "-D", at.place.data, "-m", "fast", "stop")
    at.place.data.rename(at.folder / f"data {name}")
    (copy / "data").rename(at.place.data)
    with (at.place.data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f'restore_command = \'sh "{copy}/fetch" "%f" "%p"\'\nrecovery_target_xid = \'{xid}\'\n')
        settings.write("recovery_target_action = 'promote'\nrecovery_target_timeline = 'current'\n")
    (at.place.data / "recovery.signal").touch()
    at.who.own(at.place.data / "recovery.signal")
    at.start(at.place.data)
    deadline = time.monotonic() + 60 * SLOWER
    while at.ask("select pg_is_in_recovery()") != ["f"]:
        assert time.monotonic() < deadline, "the restored database is promoted in time"
        time.sleep(0.1)


ON = {1: [*range(1, 31)], 2: [*range(1, 29), *range(31, 37)], 3: [*range(1, 29), *range(31, 35), *range(37, 43)]}
"""The rows of each timeline."""


@pytest.mark.soak
async def test_every_timeline_is_exact(turned: Told) -> None:
    """From the newest backup that leads there: a long chain on the first one, a full one on each other."""
    await eventually(lambda: datetime.now(UTC) > turned.rows[-1][1] + timedelta(seconds=2), "the last moment is final")
    for timeline, number in ((1, 30), (1, 29), (2, 35), (2, 28), (3, 41), (3, 34), (3, 28)):
        _, moment, lsn, xid = turned.rows[number - 1]
        rows = [one for one in ON[timeline] if ON[timeline].index(one) <= ON[timeline].index(number)]
        given = {} if timeline == 3 else {"timeline": timeline}
        choice, found = await turned.restored(target_xid=xid, **given)
        assert found == rows, (timeline, number, "xid")
        assert choice.timeline == timeline
        _, found = await turned.restored(target_lsn=lsn, inclusive=False, **given)
        assert found == rows[:-1], (timeline, number, "lsn")
        if number in (29, 35, 41):  # of the last commit on a line that was left, the log does not tell what came after
            _, found = await turned.restored(target_time=moment, **given)
            assert found == rows, (timeline, number, "time")
    inventory, _ = await turned.found(target_xid=turned.rows[29][3], timeline=1)
    longest = max(inventory.backups, key=lambda one: len(one.chain))
    assert len(longest.chain) == LONG + 1
    assert longest.fault == ""
