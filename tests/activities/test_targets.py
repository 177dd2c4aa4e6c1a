"""A copy holds what the log says, for each kind of target, along each timeline, from full backups and from chains."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities import ssh
from activities.backups import SETTLE, Inventory, backups
from activities.postgres import place, replay
from activities.restorable import Choice, choose, way
from activities.side_copy import SideCopy
from activities.timelines import segment_name
from lab import processes
from lab.estate import Lab
from recovery.errors import Fatal
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Database
from tests.branches import Branches, Record, archived, branches, database, estate, expected, spaced
from tests.branches import place as at
from tests.conftest import SEED
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TICK = timedelta(microseconds=1)
CASES = 5
SEGMENT = 1024 * 1024


@pytest.fixture(scope="module", params=[2, pytest.param(24, marks=pytest.mark.soak)], ids=["short", "long"])
def world(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Branches]:
    """A database with three timelines, and so many incremental backups after each full one."""
    with tempfile.TemporaryDirectory(prefix="branches-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with branches(lab, Path(folder) / "own", SEED, chain=request.param) as found:
            yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


@dataclass
class Restored:
    """A restore of that database by the engine's own activities."""

    lab: Lab
    world: Branches
    changed: dict[str, Any] = field(default_factory=dict)

    def copy(self, run: str = "r1", **wanted: Any) -> SideCopy:
        """Return the copy that is wanted."""
        database, host = estate(self.lab, self.world)
        database = Database.model_validate(database.model_dump() | self.changed)
        return SideCopy("orders", database, host, Parameters.model_validate(wanted), "a-test", run)

    async def found(self, **wanted: Any) -> tuple[Inventory, Choice | str]:
        """Return what was found, and what is chosen."""
        copy = self.copy(**wanted)
        inventory = await backups.observe(copy.find())
        return inventory, choose(inventory, copy.target)

    async def rows(self, **wanted: Any) -> tuple[Choice, set[tuple[int, int]]]:
        """Restore, and return the choice, with timeline and transaction of each row of the copy."""
        copy = self.copy(**wanted)
        chosen = choose(await backups.observe(copy.find()), copy.target)
        assert not isinstance(chosen, str), chosen
        port = copy.database.copy_ports[0]
        laid, on = copy.place(chosen, port), copy.replay(chosen, port)
        try:
            await place.apply(laid, await place.observe(laid))
            await replay.apply(on, await replay.observe(on))
            assert (await replay.observe(on)).stage == "ready"
            where = ["-h", f"{copy.directory()}/run", "-p", str(port), "-U", "postgres", "-d", "orders"]
            text = await asyncio.to_thread(
                self.world.postgres.run, "psql", "-XAtq", "-F", " ", *where, "-c", "select tli, xid from journal"
            )
        finally:
            with contextlib.suppress(Exception):
                await place.halt(laid)
                await replay.halt(on)
            processes.stop(processes.postgres_in(Path(copy.directory())), signal.SIGKILL, 10)
            for path in self.world.postgres.place.copies.iterdir():
                shutil.rmtree(path)
        return chosen, {(int(one.split()[0]), int(one.split()[1])) for one in text.splitlines()}


@pytest.fixture
def restored(lab: Lab, world: Branches) -> Restored:
    """Restores of the database."""
    return Restored(lab, world)


def targets(world: Branches, timeline: int, chance: random.Random) -> list[dict[str, Any]]:
    """Return targets of each kind along a timeline, after its first restorable moment: on commits and beside them."""
    line = world.line(timeline)
    after = [one for one in line if one.timeline == timeline and one.at and one.lsn > chained(world, timeline)]
    end = after[-1].at  # what is later than the last commit in the log cannot be restored; hands are not in order there
    assert end
    known = [one for one in after if one.at and one.at + TICK < end]
    one, other = chance.sample(known[-30:], 2)  # of a moment within a second of its end a backup is not sure
    assert one.at
    assert other.at
    wanted: list[dict[str, Any]] = [
        {"target_time": one.at}, {"target_time": one.at, "inclusive": False}, {"target_time": other.at + TICK},
        {"target_lsn": lsn(one.lsn)}, {"target_lsn": lsn(one.lsn), "inclusive": False},
        {"target_lsn": lsn(chance.choice(line[line.index(after[0]) : line.index(after[-1])]).lsn + 8)},
        {"target_xid": other.xid}, {"target_xid": other.xid, "inclusive": False},
        *({"target_name": name} for name in world.points[timeline][-2:]),
    ]  # fmt: skip
    return wanted


def chained(world: Branches, timeline: int, number: int = 1) -> int:
    """Return where in the log a backup of a timeline's chain ended; the second one, if no other is meant."""
    manifest = (world.backups[timeline][number] / "backup_manifest").read_text()
    return at(manifest.split('"End-LSN": "')[1].split('"')[0])


def lsn(position: int) -> str:
    """Return a position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def told(wanted: dict[str, Any]) -> tuple[str, object, bool]:
    """Return kind, value, and whether it is inclusive."""
    name = next(one for one in wanted if one.startswith("target_"))
    return name.removeprefix("target_"), wanted[name], wanted.get("inclusive", True)


async def test_copy_is_what_the_log_says(restored: Restored, world: Branches) -> None:
    chance = random.Random(SEED)
    last = max(one.at for one in world.line(3) if one.at)
    await eventually(lambda: datetime.now(UTC) > last + SETTLE, "what was written last can be restored", 5)
    cells = [(timeline, wanted) for timeline in (1, 2, 3) for wanted in targets(world, timeline, chance)]
    soak = len(world.backups[1]) > 3
    for timeline, wanted in cells if soak else chance.sample(cells, CASES):
        given = wanted | ({} if timeline == 3 else {"timeline": timeline})
        chosen, rows = await restored.rows(**given)
        assert rows == world.rows(expected(world.line(timeline), *told(wanted))), given
        assert chosen.timeline == timeline
        assert len(chosen.backup.chain) > 1, "a chain is the newest backup"


async def test_other_branches_are_named_to_people(restored: Restored, world: Branches) -> None:
    """By default the running database's own branch is restored; what other ones have is one parameter away."""
    found, chosen = await restored.found(target_name="last of 3")
    assert isinstance(chosen, Choice)
    told = way(found, chosen, restored.copy(target_name="last of 3").target)
    assert told is not None
    assert [one.split(":")[1] for one in told.branches] == [f" parameters.timeline {n} restores it" for n in (1, 2)]
    assert told.timelines[-1] == "3"
    assert told.backups == tuple(path.name for path in world.backups[3])
    assert told.target.startswith("the restore point “last of 3” (0/")


async def test_restore_point_of_another_branch_is_not_found(restored: Restored) -> None:
    _, chosen = await restored.found(target_name="last of 1")
    assert chosen == "parameters.target_name: “last of 1”: the log has no restore point of this name"
    _, found = await restored.found(target_name="last of 1", timeline=1)
    assert isinstance(found, Choice)


@pytest.mark.drawn
async def test_transaction_id_of_two_branches_is_the_wanted_one(restored: Restored, world: Branches) -> None:
    """A database that was restored gives the same ids once more."""
    lines = {timeline: {one.xid: one for one in world.line(timeline) if one.at} for timeline in (1, 2)}
    again = [xid for xid, one in lines[2].items() if one.timeline == 2 and xid in lines[1] and (2, xid) in world.wrote]
    for timeline in (1, 2):
        _, chosen = await restored.found(target_xid=again[-1], timeline=timeline)
        assert isinstance(chosen, Choice), chosen
        assert chosen.located is not None
        assert at(chosen.located.lsn) == lines[timeline][again[-1]].lsn


@pytest.mark.drawn
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            {"target_xid": 4_000_000_000},
            "parameters.target_xid: 4000000000: in the log no transaction of this id",
        ),
        ({"target_name": "none"}, "parameters.target_name: “none”: the log has no restore point of this name"),
        (
            {"target_name": "twice"},
            "parameters.target_name: “twice” is in the log more than once, at 0/",
        ),
        ({"target_lsn": "0/100"}, "parameters.target_lsn: 0/100 cannot be restored; what can is 0/"),
        ({"target_lsn": "FF/0"}, "parameters.target_lsn: FF/0 cannot be restored; what can is 0/"),
        ({"target_name": "x", "timeline": 9}, "backups: none can be used: archive: 00000009.history is missing"),
    ],
)
async def test_target_that_cannot_be_is_told(restored: Restored, wanted: dict[str, Any], said: str) -> None:
    _, chosen = await restored.found(**wanted)
    assert isinstance(chosen, str)
    assert chosen.startswith(said)


@contextlib.contextmanager
def without(path: Path) -> Iterator[None]:
    """Have the path away, if it is there."""
    if not path.exists():
        yield
        return
    away = path.with_name(f".{path.name}.away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


@pytest.mark.drawn
async def test_missing_link_of_a_chain_is_named(restored: Restored, world: Branches) -> None:
    """What was before it is used; the ones after it are of no use."""
    full, first, *later = world.backups[3]
    with without(first):
        found, chosen = await restored.found(target_name="last of 3")
        assert isinstance(chosen, Choice)
        assert (chosen.backup.name, chosen.backup.chain) == (full.name, ())
        assert [one.split(":")[0] for one in chosen.passed] == [path.name for path in later][-5:]
        assert "incremental: the backup that began at 0/" in chosen.passed[0]
        assert "is missing" in chosen.passed[0]
    faults = {backup.name: backup.fault for backup in found.backups}
    assert faults[full.name] == ""


async def test_flipped_byte_in_a_chain_is_named(restored: Restored, world: Branches) -> None:
    """Even where it lies in a page that a later backup has anew."""
    full = world.backups[3][0]
    file = max(full.glob("base/*/*"), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    file.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    try:
        with pytest.raises(Fatal) as failed:
            await restored.rows(target_name="last of 3")
    finally:
        file.write_bytes(content)
    assert f"the backup {full.name} does not match its manifest" in failed.value.message
    assert str(file.relative_to(full)) in failed.value.message


async def test_damage_is_said_before_what_comes_of_it(restored: Restored, world: Branches) -> None:
    """What is cut short cannot even be put together: that is damage, too, and not worth another attempt."""
    last = world.backups[3][-1]
    file = max(last.glob("base/*/INCREMENTAL.*"), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    file.write_bytes(content[:6])
    try:
        with pytest.raises(Fatal) as failed:
            await restored.rows(target_name="last of 3")
    finally:
        file.write_bytes(content)
    assert f"the backup {last.name} does not match its manifest" in failed.value.message
    assert file.name in failed.value.message


async def test_missing_segment_is_named(restored: Restored, world: Branches) -> None:
    """After the newest backup: what lies before the hole can be restored, what lies after it not."""
    first = chained(world, 3, -1) // SEGMENT + 1
    path = next(p for n in range(first, first + 50) if (p := world.archive / segment_name(3, n, SEGMENT)).exists())
    with without(path), without(world.postgres.place.data / "pg_wal" / path.name):
        _, chosen = await restored.found(target_name="last of 3")
    assert isinstance(chosen, str)
    assert f"the log has holes: {path.name} to {path.name}" in chosen


@pytest.mark.drawn
@pytest.mark.parametrize("damage", ["missing", "damaged", "another"])
async def test_history_file_is_looked_into(restored: Restored, world: Branches, damage: str) -> None:
    """Without it nobody knows which branch is whose: nothing is restored until it is there again."""
    name = "00000003.history"
    files = [world.archive / name, world.postgres.place.data / "pg_wal" / name]
    was = [path.read_text() for path in files]
    row = was[0].splitlines()[0].split("\t")
    try:
        match damage:
            case "missing":
                for path in files:
                    path.unlink()
            case "damaged":
                for path in files:
                    path.write_text(was[0].replace(row[1], "\x00/junk"))
            case "another":
                files[0].write_text(was[0].replace(row[1], f"{row[1][:-1]}{'1' if row[1][-1] != '1' else '2'}"))
        found, _ = await restored.found(target_name="last of 3")
        assert [fault.split(",")[0].split(";")[0] for fault in found.faults] == [
            f"archive: {name} is "
            + {"missing": "missing", "damaged": "damaged"}.get(damage, "not as the running database has it")
        ]
    finally:
        for path, text in zip(files, was, strict=True):
            path.write_text(text)
            world.postgres.who.own(path)


@pytest.fixture
def line(world: Branches) -> list[Record]:
    """The records that lead to the running database."""
    return world.line(3)


@pytest.fixture
def squeezed(world: Branches) -> Iterator[str]:
    """Have every file of the archive compressed and scrambled; return the command that brings one back."""
    archive, away = world.archive, world.archive.with_name("archive.plain")
    archive.rename(away)
    archive.mkdir(mode=0o700)
    world.postgres.who.own(archive)
    for path in away.iterdir():
        if path.is_file() and path.suffix != ".backup":
            scrambled = gzip.compress(path.read_bytes(), 1)[::-1]
            (archive / f"{path.name}.gz.turned").write_bytes(scrambled)
            world.postgres.who.own(archive / f"{path.name}.gz.turned")
    code = "import gzip,sys;d=open(sys.argv[1],'rb').read()[::-1];open(sys.argv[2],'wb').write(gzip.decompress(d))"
    try:
        yield f'test -f {archive}/%f.gz.turned && python3 -c "{code}" {archive}/%f.gz.turned %p'
    finally:
        shutil.rmtree(archive)
        away.rename(archive)


@pytest.mark.drawn
async def test_squeezed_archive_is_read_by_its_own_command(
    restored: Restored, world: Branches, line: list[Record], squeezed: str
) -> None:
    """Along three timelines, whose history files are squeezed, too; the target has to be looked for in the log."""
    restored.changed = {"restore_command": squeezed}
    one = [record for record in line if record.at and record.timeline == 3][-20]
    _, rows = await restored.rows(target_xid=one.xid)
    assert rows == world.rows(expected(line, "xid", one.xid, inclusive=True))


@pytest.fixture(scope="module")
def spacious(lab: Lab) -> Iterator[Branches]:
    """A database with a tablespace, a full and an incremental backup."""
    with tempfile.TemporaryDirectory(prefix="spaces-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with database(lab, folder / "own") as found:
            spaced(found, folder / "own" / "north" / "far=away")
            kept = folder / "own" / "north" / "kept"
            kept.mkdir(mode=0o700)
            found.postgres.who.own(kept)
            with found.postgres.connect("orders") as connection:
                connection.execute("insert into far select generate_series(1, 1000)")
                full = found.postgres.backup(spaces=kept)
                connection.execute("update far set id = -id where id <= 10")
                found.backups[1] = [full, found.postgres.backup(since=full, spaces=kept)]
                connection.execute("insert into far values (5000)")
                connection.execute("select pg_create_restore_point('there')")
                connection.execute("drop table far")
            archived(found.postgres)
            yield found


@pytest.mark.parametrize("chain", [False, True])
async def test_tablespaces_go_into_the_copy(lab: Lab, spacious: Branches, chain: bool) -> None:
    """Not a link of it leads to the original, or to the backup."""
    restored, postgres = Restored(lab, spacious), spacious.postgres
    last = spacious.backups[1][1]
    with contextlib.nullcontext() if chain else without(last):
        copy = restored.copy(target_name="there")
        chosen = choose(await backups.observe(copy.find()), copy.target)
        assert isinstance(chosen, Choice), chosen
        assert len(chosen.backup.chain) == (2 if chain else 0)
        laid, on = copy.place(chosen, copy.database.copy_ports[0]), copy.replay(chosen, copy.database.copy_ports[0])
        await place.apply(laid, await place.observe(laid))
        await place.halt(laid)
    await replay.apply(on, await replay.observe(on))
    await replay.halt(on)
    ask = ["-XAtq", "-h", f"{copy.directory()}/run", "-p", str(laid.copy_port), "-U", "postgres", "-d", "orders", "-c"]
    told = postgres.run("psql", *ask, "select count(*), min(id), max(id) from far")
    links = {link.name: link.readlink() for link in Path(copy.directory(), "data", "pg_tblspc").iterdir()}
    assert told.strip() == "1001|-10|5000"
    assert [path.parent for path in links.values()] == [Path(copy.directory(), "spaces")]
    await replay.undo(on, await replay.observe(on))
    await place.undo(laid, await place.observe(laid))
    assert list(postgres.place.copies.iterdir()) == []


@pytest.mark.drawn
async def test_backup_whose_tablespaces_are_gone_is_named(lab: Lab, spacious: Branches) -> None:
    restored = Restored(lab, spacious)
    link = next((spacious.backups[1][1] / "pg_tblspc").iterdir())
    with without(link.readlink()):
        found, chosen = await restored.found(target_name="there")
    assert isinstance(chosen, Choice)
    assert chosen.backup.name == spacious.backups[1][0].name
    assert chosen.passed == (
        f"{spacious.backups[1][1].name}: the files of its tablespaces {link.name} are not where its links lead",
    )
    own = next((spacious.postgres.place.data / "pg_tblspc").iterdir())
    target = link.readlink()
    link.unlink()
    link.symlink_to(own.readlink())
    try:
        found, _ = await restored.found(target_name="there")
    finally:
        link.unlink()
        link.symlink_to(target)
    faults = {backup.name: backup.fault for backup in found.backups}
    assert faults[spacious.backups[1][1].name] == f"the links of its tablespaces {link.name} lead into the original"
