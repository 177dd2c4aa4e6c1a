"""A worker is killed at any activity of SessionRecovery: the stores end as without that, and nothing is lost."""

from __future__ import annotations

import random
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from lab.estate import Lab
from recovery.report import Report
from tests.activities.test_sessions import fill
from tests.conftest import SEED
from tests.matrix.cells import Cell
from tests.matrix.disasters import decided
from tests.matrix.disturbed import PROGRAM
from tests.matrix.turns import Turns
from tests.running import Recovery, eventually, running
from tests.stores import Pair, catalog, info, lab_host, pair, snapshot, snapshot_of
from tests.workflows.test_session_recovery import runbook, settled
from tests.workflows.test_session_restore import LATE
from tests.workflows.test_session_restore import runbook as restoring

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

OWN = 20
PARTS = 4
"""Of one way: each part takes some minutes by itself."""


def split(stores: Pair) -> None:
    """Have both take sessions."""
    stores.south.tell("REPLICAOF", "NO", "ONE")
    for number in range(OWN):
        stores.south.tell("SET", f"session:own-{number}", number, "EX", 3600)


def lost(stores: Pair) -> None:
    """Have north lose sessions of which there is a snapshot, and have others instead of some."""
    for number in range(OWN):
        stores.north.tell("SET", f"session:own-{number}", number, "PXAT", LATE + 1)
    snapshot(stores.north, stores.copies / "lost.rdb")
    for number in range(OWN):
        stores.north.tell("DEL", f"session:own-{number}")
    for number in range(OWN // 2):
        stores.north.tell("SET", f"session:own-{number}", "older", "PXAT", LATE)


class Way(NamedTuple):
    """One way to recover: what is wrong before, by which runbook, and who takes sessions at the end."""

    before: Callable[[Pair], object]
    how: str
    serves: str


WAYS = {
    "reattach a split store": Way(split, "reattach", "north"),
    "promote a replica": Way(lambda stores: None, "promote", "south"),
    "take over from a lost store": Way(lambda stores: stores.north.kill(), "promote", "south"),
    "restore from a snapshot": Way(lost, "restore", "north"),
}


class Ring(NamedTuple):
    """Two stores, and a Temporal without a worker."""

    stores: Pair
    turns: Turns
    folder: Path

    def reset(self) -> None:
        """Have north take sessions again, and south be its copy."""
        stores = self.stores
        if stores.north.process is None:
            stores.north.start()
        for store in (stores.north, stores.south):
            store.tell("CONFIG", "SET", "min-replicas-to-write", 0)
        stores.north.tell("REPLICAOF", "NO", "ONE")
        stores.south.tell("REPLICAOF", *stores.north.at.split(":"))
        stores.linked(stores.south)
        for found in self.stores.copies.iterdir():
            shutil.rmtree(found) if found.is_dir() else found.unlink()
        for key in stores.north.tell("KEYS", "*own-*"):  # type: ignore[attr-defined]
            stores.north.tell("DEL", key)

    async def conducted(self, way: Way, cells: Sequence[Cell] = ()) -> tuple[Report, Recovery]:
        """Conduct one recovery; each worker is killed at one of the ``cells``, and followed by another one."""
        self.reset()
        way.before(self.stores)

        return await self.turns.conducted(lambda: self.started(way), cells)

    async def started(self, way: Way) -> Recovery:
        """Start one recovery."""
        parameters = {"snapshot": f"{self.stores.copies}/lost.rdb"} if way.how == "restore" else {}
        given = {"runbook": f"lab/{way.how}", "reason": "a test", "requested_by": "alice", "parameters": parameters}
        queue = self.turns.engine.settings.task_queue
        client, name = self.turns.engine.client, f"lab/{secrets.token_hex(4)}"
        return Recovery(await client.start_workflow("SessionRecovery", given, id=name, task_queue=queue))

    def stands(self, way: Way) -> None:
        """Assert that the stores are what they have to be, and that all that only one had is kept, once."""
        stores = self.stores
        if way.how == "restore":
            settled(stores.north, stores.south)
            with stores.south.client() as client:
                for number in range(OWN):
                    key = f"session:own-{number}"
                    assert (client.get(key), client.pexpiretime(key)) == (str(number), LATE + 1)
                assert not client.keys("recovery:*")
            assert sorted(path.name[:24] for path in stores.copies.iterdir()) == [
                "lost.rdb", "sessions-north.replaced-", "sessions-north.restored-"
            ]  # fmt: skip
        elif way.serves == "north":
            settled(stores.north, stores.south)
            (file,) = stores.copies.glob("*/sessions.rdb")
            shutil.rmtree(self.folder / "snapshot", ignore_errors=True)
            with snapshot_of(file, self.folder) as kept:
                assert [kept.get(f"session:own-{number}") for number in range(OWN)] == [str(n) for n in range(OWN)]
        elif stores.north.process is not None:
            settled(stores.south, stores.north)
        else:
            assert info(stores.south)["role"] == "master"
        assert not list(stores.copies.glob("*.partial"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ring(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ring]:
    with pair(lab_host(lab)) as stores:
        with stores.north.client() as client:
            fill(client, 200)
        work = tmp_path_factory.mktemp("ring")
        runbooks = {how: runbook(how, "south") for how in ("reattach", "promote")}
        runbooks["restore"] = restoring("north")
        folder = catalog(work, stores, runbooks, copies=str(stores.copies))
        async with running(lab, PROGRAM, False, RECOVERY_CATALOGS=str(folder)) as engine:
            yield Ring(stores, Turns(engine, work), work)


async def crash(ring: Ring, way: Way, chance: random.Random, subtests: pytest.Subtests, share: slice) -> None:
    await ring.turns.crash(
        lambda cells: ring.conducted(way, cells), lambda: ring.stands(way), "recovered", chance, subtests, share
    )


@pytest.mark.parametrize("way", WAYS)
async def test_killed_worker_recovers_sessions_all_the_same(
    ring: Ring, chance: random.Random, way: str, subtests: pytest.Subtests
) -> None:
    await crash(ring, WAYS[way], chance, subtests, slice(1))


async def test_look_without_a_worker_for_a_while_asks_nobody(ring: Ring) -> None:
    """It has no patience: the time in which it may be taken again is over before there is a worker."""
    ring.reset()
    engine = ring.turns.engine
    cell = Cell("approve", "see-sessions-south.observe", "before", 0)
    engine.start_worker(**ring.turns.hurt(cell))
    recovery = await ring.started(WAYS["promote a replica"])
    try:
        await eventually(lambda: engine.died() is not None, "the worker has killed itself", 60)

        async def timed_out() -> bool:
            events = (await recovery.handle.fetch_history()).events
            return any(event.HasField("activity_task_timed_out_event_attributes") for event in events)

        await eventually(timed_out, "nobody can take it again", 60)
        engine.start_worker()
        assert (await decided(recovery, 120, by="bob")).outcome == "recovered"
    finally:
        engine.kill_worker()
    ring.stands(WAYS["promote a replica"])


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("way", WAYS)
async def test_worker_killed_anywhere_recovers_sessions_all_the_same(
    ring: Ring, way: str, part: int, subtests: pytest.Subtests
) -> None:
    await crash(ring, WAYS[way], random.Random(f"{SEED}/{way}"), subtests, slice(part, None, PARTS))
