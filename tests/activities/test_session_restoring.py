"""Sessions put back into a real store, and taken back, beside clients; and a server of the snapshot that dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from activities import ssh
from activities.session_restoring import (
    Plan,
    PutSpec,
    ReadSpec,
    SnapshotSpec,
    check_put,
    put_sessions,
    read_snapshot,
    see_snapshot,
)
from lab.estate import Lab
from recovery.errors import Fatal, RecoveryError, Refused
from tests.matrix.relay import relay
from tests.running import eventually
from tests.stores import Pair, lab_host, pair, snapshot

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

LATE = 2_000_000_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


@pytest.fixture
def stores(lab: Lab) -> Iterator[Pair]:
    with pair(lab_host(lab)) as found:
        yield found


def given(stores: Pair, **more: str) -> dict[str, object]:
    """Return what every spec says of north."""
    store = stores.store(stores.north, server=str(stores.server), copies=str(stores.copies)).model_copy(update=more)
    return {"system": "sessions-north", "store": store, "run": stores.folder.name}


async def planned(stores: Pair, file: Path) -> tuple[PutSpec, Plan]:
    """Compare a snapshot with north."""
    spec = SnapshotSpec.model_validate(given(stores) | {"snapshot": str(file)})
    seen = await see_snapshot.observe(spec)
    more = {"out": f"{stores.copies}/restored", "digest": seen.digest, "keys": seen.keys, "match": "session:*"}
    reading = ReadSpec.model_validate(spec.model_dump() | more)
    await read_snapshot.apply(reading, Plan())
    await read_snapshot.halt(reading)
    plan = await read_snapshot.observe(reading)
    return PutSpec.model_validate(spec.model_dump() | {"out": reading.out, "plan": plan.plan}), plan


async def test_undo_leaves_what_clients_have_written_since(stores: Pair) -> None:
    with stores.north.client() as client:
        for number in range(9):
            client.set(f"session:{number}", "snapshot", pxat=LATE + 1)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete(*(f"session:{number}" for number in range(5)))
        for number in range(5, 9):
            client.set(f"session:{number}", "store", pxat=LATE)
        spec, plan = await planned(stores, file)
        assert (plan.add, plan.replace) == (5, 4)
        before = await put_sessions.observe(spec)
        await put_sessions.apply(spec, before)
        await put_sessions.halt(spec)
        client.set("session:0", "client", pxat=LATE)
        client.pexpireat("session:1", LATE + 5)
        client.delete("session:2")
        client.set("session:5", "client", pxat=LATE)
        client.delete("session:6")
        fates = await check_put.observe(spec)
        assert (fates.there, fates.written, fates.ended, fates.undecided) == (4, 3, 2, 0)
        for _ in range(2):
            await put_sessions.undo(spec, before)
        assert {key: client.get(key) for key in client.keys("*")} == {
            "session:0": "client", "session:1": "snapshot", "session:5": "client", "session:7": "store",
            "session:8": "store",
        }  # fmt: skip
        assert client.pexpiretime("session:7") == LATE
    after = await put_sessions.observe(spec)
    assert (after.stage, after.stayed) == ("none", 3)
    listed = Path(f"{spec.out}.stayed.tsv").read_text().split()
    assert sorted(bytes.fromhex(key) for key in listed) == [b"session:0", b"session:1", b"session:5"]


async def test_what_is_too_large_to_compare_is_never_overwritten(stores: Pair) -> None:
    with stores.north.client() as client:
        for key in ("session:both", "session:lost"):
            client.set(key, "s" * 2_000_000, pxat=LATE + 1)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete("session:lost")
        client.set("session:both", "c" * 2_000_000, pxat=LATE)
        spec, plan = await planned(stores, file)
        assert (plan.add, plan.replace, plan.unsure) == (1, 0, 1)
        assert plan.named == ("session:both: too large to compare",)
        await put_sessions.apply(spec, await put_sessions.observe(spec))
        assert client.get("session:lost") == "s" * 2_000_000
        assert client.get("session:both") == "c" * 2_000_000
        assert (await check_put.observe(spec)).there == 1


async def test_server_of_the_snapshot_that_dies_is_started_again(stores: Pair) -> None:
    with stores.north.client() as client:
        pipe = client.pipeline(transaction=False)
        for number in range(6000):
            pipe.set(f"session:{number}", number, pxat=LATE)
        pipe.execute()
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.flushall()
        spec, _ = await planned(stores, file)
        before = await put_sessions.observe(spec)
        putting = asyncio.create_task(put_sessions.apply(spec, before))
        await eventually(lambda: client.exists("session:10"), "some are there", 20, pause=0.001)
        for server in Path("/proc").glob("[0-9]*/exe"):
            with contextlib.suppress(OSError):
                if server.readlink() == stores.server:
                    os.kill(int(server.parent.name), signal.SIGKILL)
        with pytest.raises(RecoveryError):
            await putting
        halfway = await put_sessions.observe(spec)
        assert put_sessions.partial(spec, before, halfway)
        assert 0 < (halfway.added or 0) < 6000
        await put_sessions.apply(spec, before)
        assert (await put_sessions.observe(spec)).added == 6000
        assert (await check_put.observe(spec)).there == 6000


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (("CONFIG", "SET", "maxmemory", 1), Refused, "no room"),
        (("CONFIG", "SET", "min-replicas-to-write", 5), Refused, "takes no write"),
        (("REPLICAOF", "192.0.2.1", 6379), Refused, "is a replica"),
    ],
)
async def test_store_that_takes_nothing_is_told_and_nothing_is_lost(
    stores: Pair, spoil: tuple[str | int, ...], kind: type[RecoveryError], says: str
) -> None:
    with stores.north.client() as client:
        client.set("session:1", "1", pxat=LATE)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete("session:1")
        spec, _ = await planned(stores, file)
        before = await put_sessions.observe(spec)
        client.execute_command(*spoil)
        with pytest.raises(kind, match=says):
            await put_sessions.apply(spec, before)
        client.config_set("maxmemory", 0)
        client.config_set("min-replicas-to-write", 0)
        client.execute_command("REPLICAOF", "NO", "ONE")
        await put_sessions.apply(spec, before)
        assert client.get("session:1") == "1"


async def test_login_that_may_not_rename_is_told_before_anything_is_changed(stores: Pair) -> None:
    with stores.north.client() as client:
        client.set("session:1", "1", pxat=LATE)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.set("session:1", "2", pxat=LATE - 1)
        spec, _ = await planned(stores, file)
        before = await put_sessions.observe(spec)
        client.execute_command("ACL", "SETUSER", "default", "-rename")
        with pytest.raises((Refused, Fatal), match="does not let this login"):
            await put_sessions.apply(spec, before)
        assert client.get("session:1") == "2"
        client.execute_command("ACL", "SETUSER", "default", "+@all")
        await put_sessions.undo(spec, before)
        assert (client.keys(), client.get("session:1")) == (["session:1"], "2")


def newer(said: bytes) -> bytes:
    """Return what a server of a later version would have said: it ends each value with the version of its format."""
    return re.sub(rb"..(.{8}\r\n\$7\r\nREPLACE)", b"\xff\x7f\\1", said, flags=re.DOTALL)


async def test_server_that_is_newer_than_the_store_is_told(stores: Pair) -> None:
    with stores.north.client() as client:
        client.set("session:1", "snapshot", pxat=LATE)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.set("session:1", "store", pxat=LATE - 1)
        spec, _ = await planned(stores, file)
        before = await put_sessions.observe(spec)
        async with relay(stores.north.port, newer) as between:
            there = spec.store.model_copy(update={"port": between.port})
            with pytest.raises(Fatal, match="name a server of its own version, or of an older one"):
                await put_sessions.apply(spec.model_copy(update={"store": there}), before)
        assert client.get("session:1") == "store"
        await put_sessions.undo(spec, before)
        assert (client.keys(), client.get("session:1")) == (["session:1"], "store")
