"""A copy holds what the log says, for each kind of target, along each timeline, from full backups and from chains."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities import ssh
from activities.backups import Inventory, backups
from activities.postgres import place, replay
from activities.restorable import Choice, choose
from activities.side_copy import SideCopy
from lab import processes
from lab.estate import Lab
from runbooks.procedures.database_point_in_time_restore import Parameters
from tests.branches import Branches, branches, estate, expected
from tests.branches import place as at
from tests.conftest import SEED

pytestmark = pytest.mark.asyncio(loop_scope="module")

TICK = timedelta(microseconds=1)
CASES = 7


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

    def copy(self, run: str = "r1", **wanted: Any) -> SideCopy:
        """Return the copy that is wanted."""
        database, host = estate(self.lab, self.world)
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
    one, other = chance.sample(after[-30:], 2)  # of a moment within a second of its end a backup is not sure
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


def chained(world: Branches, timeline: int) -> int:
    """Return where in the log the second backup of a timeline's chain ended."""
    manifest = (world.backups[timeline][1] / "backup_manifest").read_text()
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
    cells = [(timeline, wanted) for timeline in (1, 2, 3) for wanted in targets(world, timeline, chance)]
    soak = len(world.backups[1]) > 3
    for timeline, wanted in cells if soak else chance.sample(cells, CASES):
        given = wanted | ({} if timeline == 3 else {"timeline": timeline})
        chosen, rows = await restored.rows(**given)
        assert rows == world.rows(expected(world.line(timeline), *told(wanted))), given
        assert chosen.timeline == timeline
        assert len(chosen.backup.chain) > 1, "a chain is the newest backup"
