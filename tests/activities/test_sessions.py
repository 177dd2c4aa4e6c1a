"""Sessions at two real stores: what arrives, what differs, and what clients are just writing."""

from __future__ import annotations

import asyncio
import random
import signal
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import valkey
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from activities import sessions, ssh
from activities.comparing import MOST
from activities.sessions import Comparison, PairOfStores, compare_sessions, see_store, write_canary
from activities.stores import StoreSpec
from lab import ports
from lab.estate import Lab
from recovery.errors import Invalid, Transient
from tests.matrix.relay import relay
from tests.stores import Pair, Valkey, lab_host, pair

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 3000
RATE = 1000
"""Times a second that a client writes. As fast as it can, it writes each session anew while the stores are read once,
on a machine that is busy: what is being written all the time can not be compared.
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


@pytest.fixture(scope="module", params=[MANY, pytest.param(100_000, marks=pytest.mark.soak)], ids=["few", "many"])
def many(request: pytest.FixtureRequest) -> int:
    """How many sessions there are."""
    found: int = request.param
    return found


@pytest.fixture(scope="module")
def stores(lab: Lab, many: int) -> Iterator[Pair]:
    """North with sessions of every type, and south that replicates it."""
    with pair(lab_host(lab)) as found:
        with found.north.client() as client:
            fill(client, many)
            assert client.wait(1, 5000) == 1
        yield found


def fill(client: valkey.Valkey, many: int) -> None:
    """Write so many sessions: strings and hashes, and a few of every other type."""
    pipe = client.pipeline(transaction=False)
    for number in range(many):
        key = f"session:{number}"
        if number % 2:
            pipe.set(key, f"basket {number}", ex=900)
        else:
            pipe.hset(key, mapping={"user": number, "basket": "x" * 60})
            pipe.expire(key, 900)
        if number % 5000 == 4999:
            pipe.execute()
    pipe.sadd("session:set", *range(600))
    pipe.rpush("session:list", *range(30))
    pipe.zadd("session:zset", {str(number): number for number in range(300)})
    pipe.xadd("session:stream", {"a": "b"})
    pipe.execute()


def of(stores: Pair) -> dict[str, object]:
    """Return what tells a probe which stores."""
    return {
        "system": "sessions-south",
        "primary": stores.store(stores.north),
        "replica": stores.store(stores.south),
        "run": "r1",
    }


def comparing(stores: Pair, **more: object) -> Comparison:
    return Comparison.model_validate({**of(stores), "match": "session:*", "sample": 400, **more})


@contextmanager
def written(stores: Pair, many: int, seed: int = 7) -> Iterator[list[int]]:
    """Write sessions all the time, new ones, others and some that go; yield how many, so far."""
    stop, count, chance = threading.Event(), [0], random.Random(seed)

    def write() -> None:
        with stores.north.client() as client:
            while not stop.wait(1 / RATE):
                number = chance.randrange(many)
                pipe = client.pipeline(transaction=False)
                pipe.delete(f"session:{number}") if chance.random() < 0.1 else None
                pipe.set(f"session:{number}", chance.random(), px=chance.randrange(500, 900_000))
                pipe.hset("session:hot", "seen", chance.random())
                pipe.execute()
                count[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield count
    finally:
        stop.set()
        writer.join()


@contextmanager
def writable(stores: Pair) -> Iterator[valkey.Valkey]:
    """Let the replica be written to, as somebody may have by mistake; then have it be a copy again."""
    stores.south.tell("CONFIG", "SET", "replica-read-only", "no")
    try:
        with stores.south.client() as client:
            yield client
    finally:
        stores.south.tell("CONFIG", "SET", "replica-read-only", "yes")
        stores.south.tell("REPLICAOF", "NO", "ONE")
        stores.south.tell("FLUSHALL")
        stores.south.tell("REPLICAOF", *stores.north.at.split(":"))
        with stores.north.client() as client:
            client.set("again", 1)
            assert client.wait(1, 10_000) == 1


async def test_healthy_pair_is_the_same(stores: Pair, many: int) -> None:
    for whole in (False, True):
        found = await compare_sessions.observe(comparing(stores, whole=whole))
        assert not found.differences, found
        assert found.compared > (many if whole else 300)
        assert found.undecided == 0
    canary = await write_canary.observe(PairOfStores.model_validate(of(stores)))
    assert (canary.confirmed, canary.arrived, canary.refused) == (1, True, "")
    assert 0 < canary.seconds < 2
    ttl = stores.north.tell("PTTL", "recovery:canary:r1")
    assert isinstance(ttl, int)
    assert 0 < ttl < 70_000


@pytest.mark.parametrize("number", [*range(3), *(pytest.param(one, marks=pytest.mark.soak) for one in range(3, 100))])
async def test_healthy_pair_under_load_is_never_accused(stores: Pair, many: int, number: int) -> None:
    with written(stores, many, seed=number) as count:
        found = await compare_sessions.observe(comparing(stores, whole=number % 3 == 0))
        assert count[0] > 50
    assert not found.differences, found
    assert found.compared > 100


async def test_what_differs_is_found_and_named(stores: Pair, many: int) -> None:
    with stores.north.client() as north:
        for number in range(40):
            north.hset(f"mine:{number}", mapping={"user": number, "basket": "x"})
            north.expire(f"mine:{number}", 900)
        assert north.wait(1, 5000) == 1
    with writable(stores) as south:
        south.delete("mine:11")
        south.set("mine:13", "something else", keepttl=True)
        south.hset("mine:20", "basket", "y")
        south.pexpire("mine:15", 10_000_000)
        south.persist("mine:21")
        south.hset("mine:of-nobody", "user", "1")
        for load in (False, True):
            with written(stores, many) if load else nullcontext():
                found = await compare_sessions.observe(comparing(stores, whole=True, match="mine:*"))
            assert found.differences == {
                "missing": 1, "left over": 1, "other contents": 2, "other expiry": 2,
            }, found  # fmt: skip
            assert set(found.named) == {
                "mine:11: missing", "mine:13: other contents", "mine:20: other contents",
                "mine:15: other expiry", "mine:21: other expiry", "mine:of-nobody: left over",
            }  # fmt: skip
            assert found.compared == 41


async def test_large_sessions_are_all_compared(stores: Pair) -> None:
    """A command that has read enough leaves the rest to the next one."""
    with stores.north.client() as north:
        north.flushall()
        for number in range(30):
            north.set(f"large:{number}", "x" * 50_000)
        north.set('large:a "name" \n\x00 of its own', "x")
        assert north.wait(1, 10_000) == 1
    with writable(stores) as south:
        south.set("large:17", "y" * 50_000)
        found = await compare_sessions.observe(comparing(stores, match="large:*", sample=4000))
    assert found.compared == 31
    assert found.differences == {"other contents": 1}


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ("read 0\nread 2\nstring -1 0a", Transient),
        ("read 0\nread 1\nstring -1 0a", Transient),
        ("read 0\n", Transient),
        ("read 0\nLOADING the dataset\n", Transient),
        ("read 0\nwhat is this\n", Invalid),
        ("read 0\nread 1\nstring -1 0a\nstring -1 0b", Invalid),
    ],
)
async def test_of_what_broke_off_nothing_is_missing(told: str, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        sessions.taken(told.splitlines(), [["61", "62"], ["63"]], {})


async def test_sample_finds_what_is_often_wrong(stores: Pair, many: int) -> None:
    with stores.north.client() as north:  # what clients of other tests left, some of it about to expire, is no part
        north.flushall()
        fill(north, many)
        assert north.wait(1, 10_000) == 1
    with writable(stores) as south:
        for number in range(0, many, 2):
            south.delete(f"session:{number}")
        found = await compare_sessions.observe(comparing(stores))
    assert found.differences.keys() == {"missing"}
    assert 0.15 < found.differences["missing"] / found.compared < 0.9
    assert found.undecided == 0, "nobody writes"


async def test_replica_that_stands_still_is_said_to(stores: Pair) -> None:
    assert stores.south.process is not None
    stores.south.process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            canary = await write_canary.observe(PairOfStores.model_validate({**of(stores), "seconds": 1}))
            seen = await see_store.observe(StoreSpec(system="south", store=stores.store(stores.south)))
            compared = await compare_sessions.observe(comparing(stores))
        assert "does not answer" in canary.failed
        assert not canary.arrived
        assert not seen.answered
        assert "does not answer" in compared.failed
    finally:
        stores.south.process.send_signal(signal.SIGCONT)


async def test_replica_that_lags_with_its_link_up_is_not_accused(stores: Pair) -> None:
    more = MOST + 300
    async with relay(stores.north.port) as between:
        stores.south.tell("REPLICAOF", "127.0.0.1", between.port)
        await asyncio.to_thread(stores.linked, stores.south, 15)
        between.silence()
        try:
            with stores.north.client() as client:
                pipe = client.pipeline(transaction=False)
                for number in range(more):
                    pipe.set(f"session:late-{number}", "x", ex=900)
                pipe.execute()
            found = await compare_sessions.observe(comparing(stores, whole=True, seconds=1))
            assert (found.differences, found.failed) == ({}, "")
            assert found.undecided >= more
            lost = await compare_sessions.observe(comparing(stores, whole=True, keeps_up=False))
            assert lost.differences == {"missing": more}
        finally:
            stores.south.tell("REPLICAOF", *stores.north.at.split(":"))
            await asyncio.to_thread(stores.linked, stores.south, 15)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"secret": ""}, "does not let this login in"),
        ({"cli": "/bin/true"}, "does not tell of itself"),
        ({"port": 1}, "cannot be reached; does it run"),
    ],
)
async def test_store_that_cannot_be_read_is_told(stores: Pair, changes: dict[str, object], told: str) -> None:
    for which in ("primary", "replica"):
        found = comparing(stores)
        store = getattr(found, which).model_copy(update=changes)
        compared = await compare_sessions.observe(found.model_copy(update={which: store}))
        assert (compared.compared, told in compared.failed) == (0, True), compared
    store = stores.store(stores.north).model_copy(update=changes)
    canary = await write_canary.observe(PairOfStores.model_validate({**of(stores), "primary": store}))
    assert told in canary.failed


@pytest.mark.parametrize("what", ["primary", "replica"])
async def test_store_that_dies_while_it_is_read_is_told(lab: Lab, what: str) -> None:
    with pair(lab_host(lab)) as stores:
        with stores.north.client() as client:
            fill(client, 500)
            assert client.wait(1, 5000) == 1
        dies = stores.north if what == "primary" else stores.south
        comparing_ = asyncio.create_task(compare_sessions.observe(comparing(stores, sample=800)))
        with dies.client() as client:
            while client.info("commandstats").get("cmdstat_evalsha_ro", {}).get("calls", 0) < 2:
                await asyncio.sleep(0.01)
            assert not comparing_.done()
        dies.kill()
        found = await comparing_
        assert (found.compared, found.differences) == (0, {})
        assert any(told in found.failed for told in ("broke off", "cannot be reached", "closes the connection")), found


async def test_reading_opens_one_connection(stores: Pair) -> None:
    def connections() -> int:
        with stores.north.client() as client:
            return int(client.info("stats")["total_connections_received"])

    await compare_sessions.observe(comparing(stores))
    before = connections()
    await compare_sessions.observe(comparing(stores))
    assert connections() - before == 1 + 3  # ours; what is drawn, and what is read before and after the replica


async def test_store_that_is_shut_takes_no_canary(stores: Pair) -> None:
    stores.north.tell("CONFIG", "SET", "min-replicas-to-write", 5)
    try:
        canary = await write_canary.observe(PairOfStores.model_validate(of(stores)))
    finally:
        stores.north.tell("CONFIG", "SET", "min-replicas-to-write", 0)
    assert canary.refused.startswith("NOREPLICAS")
    assert not canary.arrived


async def test_member_of_a_cluster_is_told(stores: Pair, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    one = Valkey(tmp_path, "member", stores.password)
    with one.file.open("a") as file:
        file.write(f"cluster-enabled yes\ncluster-port {ports.choose(['bus'])['bus']}\n")
    try:
        one.start()
        seen = await see_store.observe(StoreSpec(system="member", store=stores.store(one)))
    finally:
        one.kill()
    assert not seen.answered
    assert "part of a cluster" in seen.why


async def test_store_that_expects_tls_is_told(stores: Pair, tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, ports.ADDRESS, 0, ssl=certified(tmp_path))
    async with server:
        port = server.sockets[0].getsockname()[1]
        store = stores.store(stores.north).model_copy(update={"port": port})
        seen = await see_store.observe(StoreSpec(system="sessions", store=store))
    assert not seen.answered
    assert "does it expect TLS" in seen.why


def certified(folder: Path) -> ssl.SSLContext:
    """Return what a server needs to speak TLS, with a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "both.pem").write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return context
