"""SessionRecovery restores sessions from a snapshot into a store that serves on: none is lost, none of a client's."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import valkey

from activities.store_roles import CLOSED
from lab import ports
from lab.estate import Lab
from recovery.report import Report
from tests.activities.test_sessions import fill, written
from tests.matrix.disasters import decided
from tests.running import Recovery, Running, running
from tests.stores import Pair, Valkey, catalog, lab_host, pair, snapshot, snapshot_of
from tests.workflows.test_session_check import figures
from tests.workflows.test_session_recovery import GATE, HOLD

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

MANY = 3000
BINARY = b'session:\x00\xff "\\ \n\xc3\xa9'
LATE = 2_000_000_000_000
"""An expiry, in milliseconds, that no sliding one reaches while a test runs."""


def runbook(store: str, **more: object) -> dict[str, object]:
    parameters = {"how": "restore", "store": f"sessions-{store}", "match": "session:*", "sample": 4000, "lag": "PT2S"}
    gates = {"restore the sessions": GATE}
    return {"procedure": "SessionRecovery", "parameters": parameters | more, "gates": gates, "hold": HOLD}


RUNBOOKS = {
    "restore": runbook("north"),
    "restore-by-version": runbook("north", version="seen"),
    "restore-south": runbook("south"),
}


@pytest.fixture(scope="module")
def stores(lab: Lab) -> Iterator[Pair]:
    with pair(lab_host(lab)) as found:
        yield found


@pytest.fixture(autouse=True)
def _clean(stores: Pair) -> Iterator[None]:
    """Have both hold nothing, and south follow north; leave no server of a snapshot behind."""
    yield
    stores.south.tell("CONFIG", "SET", "replica-read-only", "yes")
    stores.north.tell("CONFIG", "SET", "min-replicas-to-write", 0, "maxmemory", 0)
    stores.north.tell("REPLICAOF", "NO", "ONE")
    stores.north.tell("FLUSHALL")
    stores.south.tell("REPLICAOF", "NO", "ONE")
    stores.south.tell("REPLICAOF", *stores.north.at.split(":"))
    stores.linked(stores.south)
    shutil.rmtree(stores.copies)
    stores.copies.mkdir()
    stores.copies.chmod(0o777)
    assert not [path for path in Path("/proc").glob("[0-9]*/exe") if reads(path, stores.server)]


def reads(path: Path, program: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.readlink() == program
    return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, stores: Pair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = catalog(tmp_path_factory.mktemp("catalogs"), stores, RUNBOOKS, copies=str(stores.copies))
    async with running(lab, RECOVERY_CATALOGS=str(folder)) as found:
        yield found


async def start(engine: Running, file: Path, name: str = "restore", mode: str = "live") -> Recovery:
    given = {"runbook": f"lab/{name}", "reason": "a test", "mode": mode, "requested_by": "alice"}
    handle = await engine.client.start_workflow(
        "SessionRecovery", given | {"parameters": {"snapshot": str(file)}}, id="lab/sessions-north",
        task_queue=engine.settings.task_queue,
    )  # fmt: skip
    return Recovery(handle)


async def restored(engine: Running, file: Path, name: str = "restore") -> Report:
    report = await decided(await start(engine, file, name), by="bob")
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert figures(report)["sessions lost"] == 0
    return report


def raw(store: Valkey) -> valkey.Valkey:
    """Connect, and take every name and value as it is."""
    return valkey.Valkey(ports.ADDRESS, store.port, password=store.password or None, socket_timeout=5)


def contents(client: Any, soon: float = 0) -> dict[bytes, object]:
    """Return all that a store holds: by key what it is, and when it expires; but for what does so ``soon``."""
    reading: Mapping[bytes, Any] = {
        b"string": client.get, b"hash": client.hgetall, b"set": lambda key: sorted(client.smembers(key)),
        b"list": lambda key: client.lrange(key, 0, -1), b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }  # fmt: skip
    found: dict[bytes, object] = {}
    for key in client.scan_iter(count=5000):
        kind, expires = client.type(key), client.pexpiretime(key)
        if kind != b"none" and (expires == -1 or expires > soon):
            found[key] = kind, expires, reading[kind](key)
    return found


def settled(stores: Pair) -> dict[bytes, object]:
    """Assert that south is north's whole copy, and nothing of a recovery is left; return what both hold."""
    with raw(stores.north) as first, raw(stores.south) as second:
        first.set(b"last", 1, px=60_000)
        assert first.wait(1, 5000) == 1
        first.delete(b"last")
        assert first.wait(1, 5000) == 1
        soon = (time.time() + 10) * 1000
        held = contents(first, soon)
        assert contents(second, soon) == held
    assert not [key for key in held if key.startswith(b"recovery:")]
    return held


def lose(stores: Pair) -> None:
    """Have north lose everything."""
    stores.north.tell("FLUSHALL")


async def test_sessions_of_every_kind_come_back_as_they_were(engine: Running, stores: Pair) -> None:
    with raw(stores.north) as client:
        fill(client, MANY)
        client.set(BINARY, b"\x00\xff\r\n binary", pxat=LATE)
        client.set(b"other:1", b"no session")
        for number in range(40):  # enough for an encoding of its own
            client.hset(b"session:large", f"field {number}", "x" * 100)
        before = contents(client)
        client.set(b"session:gone", b"1", px=500)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        while client.exists(b"session:gone"):
            pass
    lose(stores)
    with written(stores, 50) as count:
        report = await restored(engine, file)
        assert count[0] > 50
    held = settled(stores)
    hot = {f"session:{number}".encode() for number in range(50)} | {b"session:hot"}  # what clients wrote meanwhile
    before = {key: what for key, what in before.items() if key not in hot | {b"other:1"}}
    assert {key: what for key, what in held.items() if key not in hot} == before
    assert len(before) == MANY + 6 - 50
    shown = figures(report)
    assert shown["keys in the snapshot"] == MANY + 8
    parts = [value for name, value in shown.items() if name.startswith("of these ")]
    assert sum(parts) == MANY + 8
    assert shown["of these are no sessions, by their name"] == 1
    assert shown["of these had expired"] == 1
    planned = shown["of these sessions-north lacks"] + shown["of these sessions-north has an older version"]
    done = ("sessions added", "sessions replaced by newer ones", "sessions that expired meanwhile")
    left = "sessions left, which clients had written or ended meanwhile"
    assert sum(shown[name] for name in (*done, left)) == planned >= MANY + 6 - 50
    assert report.delivered["replica of sessions-north"] == "sessions-south"
    (plan,) = stores.copies.glob("sessions-north.restored-*/plan.tsv")
    assert (plan.stat().st_mode & 0o777, plan.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert BINARY.hex() in plan.read_text()
    assert str(plan) in report.delivered["what was done with each session"]


async def test_newer_version_wins_and_the_other_one_is_kept(engine: Running, stores: Pair, tmp_path: Path) -> None:
    with stores.north.client() as client:
        client.set("session:snapshot-newer", "snapshot", pxat=LATE + 1000)
        client.set("session:store-newer", "snapshot", pxat=LATE)
        client.set("session:even", "snapshot", pxat=LATE)
        client.set("session:for-ever", "snapshot")
        client.set("session:same", "same", pxat=LATE)
        client.set("session:alone", "snapshot", pxat=LATE)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.set("session:snapshot-newer", "store", pxat=LATE)
        client.set("session:store-newer", "store", pxat=LATE + 1000)
        client.set("session:even", "store", pxat=LATE)
        client.set("session:for-ever", "store", pxat=LATE)
        client.delete("session:alone")
        client.set("session:own", "store", pxat=LATE)
    report = await restored(engine, file)
    with stores.north.client() as client:
        found = {key.removeprefix("session:"): client.get(key) for key in client.keys("session:*")}
        assert client.pexpiretime("session:snapshot-newer") == LATE + 1000
    assert found == {
        "snapshot-newer": "snapshot", "store-newer": "store", "even": "store", "for-ever": "store", "same": "same",
        "alone": "snapshot", "own": "store",
    }  # fmt: skip
    settled(stores)
    (shown,) = next(gate for gate in report.gates if gate.decisions).shown
    assert "1 sessions are added to sessions-north, and 1 of its own replaced" in shown["at_stake"]
    words = "\n".join(shown["in_words"])
    assert "session:even: the store's is newer" in words
    (kept,) = stores.copies.glob("sessions-north.replaced-*/sessions.rdb")
    assert str(kept.parent) in words
    with snapshot_of(kept, tmp_path) as other:
        assert other.get("session:snapshot-newer") == "store"
    (plan,) = stores.copies.glob("sessions-north.restored-*/plan.tsv")
    ways = {bytes.fromhex(line.split("\t")[0]): line.split("\t")[1] for line in plan.read_text().splitlines()[1:]}
    assert ways == {
        b"session:snapshot-newer": "replace", b"session:store-newer": "keep", b"session:even": "keep",
        b"session:for-ever": "keep", b"session:alone": "add",
    }  # fmt: skip
    shutil.rmtree(tmp_path / "snapshot")
    with snapshot_of(plan.parent / "sessions.rdb", tmp_path) as other:
        assert other.get("session:store-newer") == "snapshot"


VERSIONS = {
    "number": ("10", "9", "snapshot"),
    "long-number": ("10000000000000000000001", "10000000000000000000000", "snapshot"),
    "fraction": ("1.5", "1.25", "snapshot"),
    "older": ("9", "10", "store"),
    "time": ("2026-11-21T22:00:00Z", "2026-11-21T22:30:00+01:00", "snapshot"),
    "fraction-of-a-second": ("2026-11-21T22:00:00.5Z", "2026-11-21T22:00:00.25Z", "snapshot"),
    "older-time": ("2026-02-28T23:59:59Z", "2026-03-01T00:00:00Z", "store"),
    "number-against-time": ("9999", "2026-11-21T22:00:00Z", "store"),
    "words": ("new", "old", "store"),
    "none": ("", "1", "store"),
    "even": ("7", "7", "store"),
}
"""By name: the version in the snapshot, that at the store, and whose stays; the store's expires later."""


async def test_version_tells_which_is_newer(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        for number, (name, (snapshots, _, _)) in enumerate(VERSIONS.items()):
            client.hset(f"session:{name}", mapping={"of": "snapshot"} | ({"seen": snapshots} if snapshots else {}))
            client.pexpireat(f"session:{name}", LATE + number)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        for number, (name, (_, at_store, _)) in enumerate(VERSIONS.items()):
            client.hset(f"session:{name}", mapping={"of": "store", "seen": at_store})
            client.pexpireat(f"session:{name}", LATE + number + 1000)
    await restored(engine, file, "restore-by-version")
    with stores.north.client() as client:
        assert {name: client.hget(f"session:{name}", "of") for name in VERSIONS} == {
            name: wins for name, (_, _, wins) in VERSIONS.items()
        }
    settled(stores)


async def test_what_clients_do_while_people_decide_stays(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        for number in range(10):
            client.set(f"session:{number}", "snapshot", pxat=LATE + 1000)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete(*(f"session:{number}" for number in range(5)))
        for number in range(5, 9):
            client.set(f"session:{number}", "store", pxat=LATE)
        client.set("session:9", "store", px=800)
        recovery = await start(engine, file)
        await recovery.until("gate")
        client.set("session:0", "client", pxat=LATE)  # logged in again
        client.set("session:5", "client", pxat=LATE)
        client.pexpireat("session:6", LATE + 2000)  # seen again
        client.delete("session:7")  # logged out
        while client.exists("session:9"):
            pass
        report = await decided(recovery, by="bob")
        assert report.outcome == "recovered", report.failure
        assert {key: client.get(key) for key in client.keys("session:*")} == {
            "session:0": "client", "session:5": "client", "session:6": "store",
            **{f"session:{number}": "snapshot" for number in (1, 2, 3, 4, 8, 9)},
        }  # fmt: skip
    assert figures(report)["sessions left, which clients had written or ended meanwhile"] == 4
    assert (figures(report)["sessions added"], figures(report)["sessions replaced by newer ones"]) == (5, 1)
    settled(stores)


async def test_rejected_restore_changes_nothing(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        fill(client, 100)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete("session:1")
    before = settled(stores)
    recovery = await start(engine, file)
    await recovery.approve("bob", "reject")
    assert (await recovery.ended()).outcome == "compensated"
    assert settled(stores) == before
    assert [path.name for path in stores.copies.iterdir()] == ["lost.rdb"]


async def test_cancelled_restore_changes_nothing(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        fill(client, 100)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete("session:1")
    before = settled(stores)
    recovery = await start(engine, file)
    await recovery.until("gate")
    await recovery.handle.cancel()
    assert (await recovery.ended()).outcome == "cancelled"
    assert settled(stores) == before
    assert [path.name for path in stores.copies.iterdir()] == ["lost.rdb"]


async def test_restore_that_is_not_replicated_goes_back(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        fill(client, 300)
        client.set("session:1", "snapshot", pxat=LATE + 1000)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete(*(f"session:{number}" for number in range(100, 300)))
        client.set("session:1", "store", pxat=LATE)
    before = settled(stores)
    stores.south.tell("CONFIG", "SET", "replica-read-only", "no")
    stores.south.tell("SET", "session:2", "otherwise", "EX", 900)
    report = await decided(await start(engine, file), by="bob", back=True)
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    assert "sessions-south is not the same" in report.failure
    assert figures(report)["sessions seen as they were put back"] == 201
    stores.north.tell("SET", "session:2", "1")  # the difference is not the recovery's
    stores.north.tell("DEL", "session:2")
    held = settled(stores)
    before.pop(b"session:2")
    assert held == before
    (kept,) = stores.copies.glob("sessions-north.replaced-*")
    assert sorted(path.name for path in stores.copies.iterdir()) == ["lost.rdb", kept.name]


async def test_nothing_that_lacks_asks_nobody(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        fill(client, 100)
    report = await restored_unasked(engine, snapshot(stores.north, stores.copies / "lost.rdb"))
    assert figures(report)["of these sessions-north has the same"] == 104
    assert not [step.step for step in report.steps if "put" in step.step]


async def restored_unasked(engine: Running, file: Path) -> Report:
    report = await (await start(engine, file)).ended()
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert not any(gate.decisions for gate in report.gates)
    return report


async def test_folder_of_a_recovery_is_restored_from(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        fill(client, 100)
    before = settled(stores)
    folder = kept(stores)
    lose(stores)
    await restored(engine, folder)
    assert settled(stores) == before


def kept(stores: Pair) -> Path:
    """Return a folder as ``sessions.keep`` leaves it."""
    folder = stores.copies / "sessions-north.replaced-1"
    folder.mkdir()
    file = snapshot(stores.north, folder / "sessions.rdb")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "manifest.tsv").write_text(f"bytes\t{file.stat().st_size}\ndigest\t{digest}\nkeys\t104\n")
    return folder


def turned(file: Path, at: int, to: bytes) -> None:
    """Overwrite some bytes of a file."""
    old = file.read_bytes()
    at %= len(old)
    file.write_bytes(old[:at] + to + old[at + len(to) :])


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda file: file.unlink(), "snapshot: there is no "),
    "empty": (lambda file: file.write_bytes(b""), "is no snapshot (RDB)"),
    "another file": (lambda file: file.write_bytes(b"hello, world\n" * 9), "is no snapshot (RDB)"),
    "cut off": (lambda file: file.write_bytes(file.read_bytes()[:-900]), "is damaged"),
    "wrong checksum": (lambda file: turned(file, -3, b"\0\1\2"), "CRC"),
    "of the future": (lambda file: turned(file, 6, b"999"), "does not read"),
    "unreadable": (lambda file: file.chmod(0), "cannot be read by"),
}


@pytest.mark.parametrize("how", SPOILT)
async def test_damaged_snapshot_is_named_and_nothing_is_changed(engine: Running, stores: Pair, how: str) -> None:
    with stores.north.client() as client:
        fill(client, 100)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete("session:1")
    spoil, says = SPOILT[how]
    spoil(file)
    await refused(engine, stores, file, says)


@pytest.mark.parametrize(
    ("name", "says"), [("sessions.rdb", "is not what its manifest says"), ("manifest.tsv", "there is no")]
)
async def test_folder_that_was_changed_is_refused(engine: Running, stores: Pair, name: str, says: str) -> None:
    folder = kept(stores)
    (folder / name).unlink()
    if name == "sessions.rdb":
        stores.north.tell("SET", "session:forged", "1")
        snapshot(stores.north, folder / name)
    await refused(engine, stores, folder, says)


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        (
            "restore-south",
            (),
            "sessions-south: is a replica; sessions are put where they are taken",
        ),
        ("restore", ("CONFIG", "SET", "min-replicas-to-write", CLOSED), "sessions-north: is fenced"),
        (
            "restore",
            ("CONFIG", "SET", "min-replicas-to-write", 2),
            "sessions-north: takes no write: it asks",
        ),
        ("restore", ("split",), "sessions-south: takes sessions, too; reattach one of both first"),
    ],
)
async def test_store_that_takes_no_sessions_is_named(
    engine: Running, stores: Pair, name: str, spoil: tuple[str | int, ...], says: str
) -> None:
    with stores.north.client() as client:
        fill(client, 100)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete("session:1")
    if spoil == ("split",):
        stores.south.tell("REPLICAOF", "NO", "ONE")
    elif spoil:
        stores.north.tell(*spoil)
    await refused(engine, stores, file, says, name)


async def test_store_without_room_is_named(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        fill(client, 3000)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        lose(stores)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 50_000)
        report = await decided(await start(engine, file), by="bob")
        assert report.outcome == "compensated"
        assert "sessions-north: has room for" in report.failure
        assert client.dbsize() == 0
    assert [path.name for path in stores.copies.iterdir()] == ["lost.rdb"]


async def refused(engine: Running, stores: Pair, file: Path, says: str, name: str = "restore") -> None:
    """Assert that a check and a recovery say what is wrong, and change nothing."""
    with raw(stores.north) as client:
        before = contents(client)
        there = sorted(stores.copies.rglob("*"))
        for mode in ("check", "live"):
            report = await (await start(engine, file, name, mode)).ended()
            assert report.outcome == ("checked" if mode == "check" else "failed")
            told = [*report.blockers, report.failure]
            assert any(says in line for line in told), told
            assert not [line for line in report.steps if line.state == "changed"]
        assert contents(client) == before
    assert sorted(stores.copies.rglob("*")) == there


async def test_check_tells_what_would_change_and_changes_nothing(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        fill(client, 100)
        file = snapshot(stores.north, stores.copies / "lost.rdb")
        client.delete("session:1")
    before = settled(stores)
    report = await (await start(engine, file, mode="check")).ended()
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure
    assert [line.step for line in report.steps if line.state == "would change"] == [
        "compare the snapshot with sessions-north", "keep what sessions-north holds",
        "put sessions back into sessions-north",
    ]  # fmt: skip
    assert settled(stores) == before
    assert [path.name for path in stores.copies.iterdir()] == ["lost.rdb"]
