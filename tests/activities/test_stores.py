"""Two real stores over SSH: looked at, fenced, promoted, made a replica, and back, whoever meddles and restarts."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from activities import ssh
from activities.scripts import script
from activities.store_roles import (
    CLOSED,
    Follow,
    Gate,
    PromoteSpec,
    Role,
    StoreAction,
    Unfence,
    fence_store,
    follow_store,
    promote_store,
    unfence_store,
)
from activities.stores import CatchUp, StoreSpec, alone, caught_up, look
from lab.estate import Lab
from recovery.actions import Order, agrees
from recovery.errors import Drifted, Fatal, RecoveryError, Refused, Transient
from tests.stores import Pair, Valkey, info, lab_host, pair

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


@pytest_asyncio.fixture(loop_scope="module")
async def stores(lab: Lab) -> AsyncIterator[Pair]:
    """North with three keys, and south that replicates it."""
    with pair(lab_host(lab)) as found:
        for number in range(3):
            found.north.tell("SET", f"session:{number}", number, "EX", 900 + number)
        yield found


def spec(stores: Pair, which: Valkey, **more: str) -> StoreSpec:
    """Return what tells an action which store."""
    return StoreSpec(system=f"sessions-{which.name}", store=stores.store(which, **more), run="r1", drill=True)


def promoting(stores: Pair, peer: Valkey | None = None) -> PromoteSpec:
    """Return what tells an action to promote south, of whose peer it is not asked unless that is given."""
    other = stores.store(peer) if peer else None
    return PromoteSpec.model_validate({**spec(stores, stores.south).model_dump(), "peer": other})


def follow(stores: Pair, which: Valkey, whom: Valkey, **more: Any) -> Follow:
    """Return what tells a store to follow another one."""
    known = spec(stores, which)
    return Follow(system=known.system, store=known.store, run="r1", peer=stores.store(whom), **more)


async def carried_out(action: StoreAction[Any, Any], what: StoreSpec, before: Any = None) -> tuple[Any, Any]:
    """Carry out an order, and return what was before and after."""
    before = before or await action.observe(what)
    return before, await action.carry_out(_order(action, what, before))


async def carried_back(action: StoreAction[Any, Any], what: StoreSpec, before: Any) -> None:
    """Carry an order back; what was before must be again."""
    assert agrees(before, await action.carry_back(_order(action, what, before)))


def _order(action: StoreAction[Any, Any], what: StoreSpec, before: Any) -> Order[Any, Any]:
    wire = Order[action.spec_type, action.state_type]  # type: ignore[name-defined]
    spec = action.spec_type.model_validate(what.model_dump())
    return wire(spec=spec, before=before, mode="live", not_after=datetime.now(UTC) + timedelta(minutes=5))


def refusals(store: Valkey) -> set[str]:
    """Return how a store answers to writes of every kind."""
    commands = (
        ("SET", "a", 1), ("DEL", "session:0"), ("EXPIRE", "session:0", 1), ("FLUSHALL",),
        ("EVAL", "return redis.call('set', 'b', 1)", 0), ("XADD", "s", "*", "a", "b"),
    )  # fmt: skip
    said = set()
    for command in commands:
        try:
            store.tell(*command)
            said.add("taken")
        except Exception as error:  # the client has a class of its own for some of them
            said.add(str(error).split()[0].strip(".:"))
    return said


def restarted(stores: Pair, which: Valkey) -> None:
    """Kill one with SIGKILL and start it again, as a power cut does."""
    which.kill()
    which.start()
    other = stores.south if which is stores.north else stores.north
    for one in (which, other):
        if info(one)["role"] == "slave":
            stores.linked(one)


async def test_look_tells_both_sides(stores: Pair) -> None:
    first, second = await look(stores.store(stores.north)), await look(stores.store(stores.south))
    assert (first.role, first.of, first.writes) == ("primary", "", "taken")
    assert (second.role, second.of, second.linked, second.writes) == ("replica", stores.north.at, True, "refused")
    assert (first.keys, first.expiring, second.keys) == (3, 3, 3)
    assert first.history == second.history
    assert alone(first, second) == 0
    assert [replica.address for replica in first.replicas] == [stores.south.at]
    assert (first.lasting_role, first.lasting_gate, second.lasting_role) == (True, True, True)
    assert first.version.startswith("9.")
    assert first.used > 0
    stores.north.kill()
    assert not (await look(stores.store(stores.south))).linked


async def test_planned_switch_and_back_lose_nothing(stores: Pair) -> None:
    here, there = stores.north, stores.south
    for turn in range(2):
        here.tell("SET", f"turn:{turn}", "x")
        before, _ = await carried_out(fence_store, spec(stores, here))
        known = spec(stores, here)
        wait = CatchUp(system=known.system, store=known.store, replica=stores.store(there))
        assert (await caught_up.observe(wait)).left == 0
        await carried_out(promote_store, spec(stores, there))
        assert alone(await look(stores.store(here)), await look(stores.store(there))) == 0
        _, after = await carried_out(follow_store, follow(stores, here, there))
        assert after == Role(role="replica", of=there.at, copied=True, lasting=True)
        again = Unfence(system=known.system, store=known.store, least=before.least, lag=before.lag)
        await carried_out(unfence_store, again)
        here, there = there, here
    stores.linked(stores.south)
    assert refusals(stores.north) == {"taken"}
    stores.north.tell("SET", "last", "x")
    assert info(stores.south)["master_link_status"] == "up"


async def test_fenced_store_refuses_every_write(stores: Pair) -> None:
    _, after = await carried_out(fence_store, spec(stores, stores.north))
    assert after == Gate(least=CLOSED, lag=10, lasting=True)
    assert refusals(stores.north) == {"NOREPLICAS"}
    assert stores.north.tell("GET", "session:1") == "1"
    restarted(stores, stores.north)
    assert refusals(stores.north) == {"NOREPLICAS"}
    assert await fence_store.observe(spec(stores, stores.north)) == after


@pytest.mark.parametrize(("least", "lag"), [(0, 10), (1, 7), (0, 0)])
async def test_unfenced_store_is_as_it_was(stores: Pair, least: int, lag: int) -> None:
    stores.north.tell("CONFIG", "SET", "min-replicas-to-write", least, "min-replicas-max-lag", lag)
    stores.north.tell("CONFIG", "REWRITE")
    before, _ = await carried_out(fence_store, spec(stores, stores.north))
    assert refusals(stores.north) == {"NOREPLICAS"}
    await carried_back(fence_store, spec(stores, stores.north), before)
    assert before == Gate(least=least, lag=lag, lasting=True)
    restarted(stores, stores.north)
    assert await fence_store.observe(spec(stores, stores.north)) == before
    stores.north.tell("SET", "a", 1)


async def test_fence_that_was_not_written_down_is_finished(stores: Pair) -> None:
    what = spec(stores, stores.north)
    before = await fence_store.observe(what)
    stores.north.tell("CONFIG", "SET", "min-replicas-to-write", CLOSED)  # and there its job was killed
    _, after = await carried_out(fence_store, what, before)
    assert after.lasting
    restarted(stores, stores.north)
    assert refusals(stores.north) == {"NOREPLICAS"}


async def test_file_of_settings_is_read_by_no_more_people_than_before(stores: Pair) -> None:
    stores.north.file.chmod(0o600)
    values = stores.store(stores.north).values()
    values |= {"expected": "0 10", "least": CLOSED, "lag": 10, "closed": "yes"}
    body = script("store_gate", values)
    done = await asyncio.to_thread(subprocess.run, ["sh", "-s"], input=body, text=True, capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert f"min-replicas-to-write {CLOSED}" in stores.north.file.read_text()
    assert stores.north.file.stat().st_mode & 0o777 == 0o600


async def test_gate_that_somebody_set_is_not_overwritten(stores: Pair) -> None:
    what = spec(stores, stores.north)
    before = await fence_store.observe(what)
    stores.north.tell("CONFIG", "SET", "min-replicas-to-write", 1)
    with pytest.raises(Drifted, match="somebody else"):
        await carried_out(fence_store, what, before)
    with pytest.raises(Drifted, match="somebody else"):  # between the look and the job
        await fence_store.apply(what, before)
    assert (await look(what.store)).least == 1


async def test_what_a_stopped_replica_lacks_is_told(stores: Pair) -> None:
    assert stores.south.process is not None
    known = spec(stores, stores.north)
    wait = CatchUp(system=known.system, store=known.store, replica=stores.store(stores.south), seconds=0)
    stores.south.tell("REPLICAOF", "192.0.2.1", 6379)
    stores.north.tell("SET", "late", "x" * 100)
    found = await caught_up.observe(wait)
    assert found.left is not None
    assert found.left > 100
    assert found.left == found.offset - found.replica
    stores.south.tell("REPLICAOF", "127.0.0.1", stores.north.port)
    assert (await caught_up.observe(wait.model_copy(update={"seconds": 10}))).left == 0


async def test_promoted_store_stays_a_primary(stores: Pair) -> None:
    what = spec(stores, stores.south)
    before, after = await carried_out(promote_store, what)
    assert before == Role(role="replica", of=stores.north.at, lasting=True, writes="refused")
    assert after == Role(role="primary", lasting=True, writes="taken")
    restarted(stores, stores.south)
    assert info(stores.south)["role"] == "master"
    stores.south.tell("SET", "new", 1)
    await carried_back(promote_store, what, before)
    restarted(stores, stores.south)
    stores.linked(stores.south)
    assert stores.south.tell("DBSIZE") == 3


async def test_promoted_store_that_takes_no_write_is_no_success(stores: Pair) -> None:
    stores.south.tell("CONFIG", "SET", "min-replicas-to-write", 1)
    what = promoting(stores)
    before = await promote_store.observe(what)
    with pytest.raises(Fatal, match="takes no write: see its min-replicas-to-write"):
        await carried_out(promote_store, what, before)
    stores.south.tell("CONFIG", "SET", "min-replicas-to-write", 0)
    await carried_out(promote_store, what, before)
    assert (await promote_store.observe(what)).writes == "taken"


async def test_store_is_not_promoted_beside_one_that_takes_writes(stores: Pair) -> None:
    what = promoting(stores, stores.north)
    with pytest.raises(Refused, match="sessions-north takes writes; with sessions-south two would"):
        await carried_out(promote_store, what)
    assert info(stores.south)["role"] == "slave"
    stores.north.kill()  # of one that does not answer nobody can know: who approves answers for it
    await carried_out(promote_store, what)
    assert info(stores.south)["role"] == "master"


async def test_second_promotion_has_no_effect(stores: Pair) -> None:
    before, _ = await carried_out(promote_store, promoting(stores))
    history = info(stores.south)["master_replid"]
    await carried_out(promote_store, promoting(stores), before)
    assert info(stores.south)["master_replid"] == history


async def test_promotion_that_was_not_written_down_is_finished(stores: Pair) -> None:
    before = await promote_store.observe(promoting(stores))
    stores.south.tell("REPLICAOF", "NO", "ONE")
    await carried_out(promote_store, promoting(stores), before)
    restarted(stores, stores.south)
    assert info(stores.south)["role"] == "master"


async def test_store_that_was_made_another_ones_replica_is_not_promoted(stores: Pair) -> None:
    before = await promote_store.observe(promoting(stores))
    stores.south.tell("REPLICAOF", "192.0.2.1", 6379)
    with pytest.raises(Drifted, match="somebody else"):
        await carried_out(promote_store, promoting(stores), before)
    with pytest.raises(Drifted, match="since it was looked at"):
        await promote_store.apply(promoting(stores), before)
    assert info(stores.south)["role"] == "slave"


async def test_store_in_its_first_copy_is_not_promoted(stores: Pair) -> None:
    stores.north.tell("CONFIG", "SET", "rdb-key-save-delay", 3000000)
    stores.south.tell("REPLICAOF", "NO", "ONE")
    stores.south.tell("REPLICAOF", "127.0.0.1", stores.north.port)
    what = promoting(stores)
    deadline = time.monotonic() + 20
    while not (await look(what.store)).filling:
        assert time.monotonic() < deadline
        stores.south.tell("REPLICAOF", "NO", "ONE")
        stores.south.tell("SET", "own", 1)  # so that it needs a whole copy
        stores.south.tell("REPLICAOF", "127.0.0.1", stores.north.port)
    with pytest.raises(Refused, match="being filled"):
        await carried_out(promote_store, what)


async def test_what_only_the_old_primary_has_is_not_discarded_unasked(stores: Pair) -> None:
    before, _ = await carried_out(promote_store, promoting(stores))
    stores.north.tell("SET", "late", 1)
    lost = alone(await look(stores.store(stores.north)), await look(stores.store(stores.south)))
    assert lost
    with pytest.raises(Refused, match=rf"has written {lost} bytes .* would be discarded"):
        await carried_out(follow_store, follow(stores, stores.north, stores.south))
    assert stores.north.tell("GET", "late") == "1"
    agreed = follow(stores, stores.north, stores.south, discard=True)
    before, _ = await carried_out(follow_store, agreed)
    assert stores.north.tell("GET", "late") is None
    restarted(stores, stores.north)
    assert info(stores.north)["role"] == "slave"
    await carried_back(follow_store, agreed, before)
    restarted(stores, stores.north)
    assert info(stores.north)["role"] == "master"
    assert stores.north.tell("DBSIZE") == 3


async def test_keys_that_expire_behind_the_fence_are_in_nobodys_way(stores: Pair) -> None:
    stores.north.tell("SET", "session:short", 1, "PX", 4000)
    await carried_out(fence_store, spec(stores, stores.north))
    stores.south.tell("REPLICAOF", "NO", "ONE")
    deadline = time.monotonic() + 10
    while stores.north.tell("DBSIZE") != 3:  # the end of that one is more of its log
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    with pytest.raises(Refused, match=r"has written \d+ bytes .* would be discarded"):
        await carried_out(follow_store, follow(stores, stores.north, stores.south))
    proven = follow(stores, stores.north, stores.south, proven=True)
    stores.north.tell("CONFIG", "SET", "min-replicas-to-write", 0)
    with pytest.raises(Refused, match="would be discarded"):  # somebody has opened it: who knows what was written
        await carried_out(follow_store, proven)
    stores.north.tell("CONFIG", "SET", "min-replicas-to-write", CLOSED)
    await carried_out(follow_store, proven)
    assert info(stores.north)["master_link_status"] == "up"


async def test_another_history_is_not_discarded_unasked(stores: Pair) -> None:
    stores.south.tell("REPLICAOF", "NO", "ONE")
    stores.south.tell("CONFIG", "REWRITE")
    restarted(stores, stores.south)  # a primary that starts anew begins a history of its own
    restarted(stores, stores.north)
    assert alone(await look(stores.store(stores.north)), await look(stores.store(stores.south))) is None
    with pytest.raises(Refused, match=r"another history .* would be discarded"):
        await carried_out(follow_store, follow(stores, stores.north, stores.south))


async def test_replica_is_not_followed(stores: Pair) -> None:
    with pytest.raises(Refused, match="is no primary"):
        await carried_out(follow_store, follow(stores, stores.north, stores.south, discard=True))
    assert info(stores.north)["role"] == "master"


@pytest.mark.parametrize("how", ["no file", "nobody may read it", "includes another"])
async def test_store_whose_file_tells_nothing_is_changed_all_the_same(stores: Pair, how: str) -> None:
    match how:
        case "no file":
            stores.south.kill()
            stores.south.start(bare=True)
            stores.south.tell("REPLICAOF", "127.0.0.1", stores.north.port)
            stores.linked(stores.south)
        case "nobody may read it":
            stores.south.file.chmod(0)
        case _:
            (stores.south.folder / "more.conf").touch()
            with stores.south.file.open("a") as file:
                file.write(f"include {stores.south.folder}/more.conf\n")
    if how == "nobody may read it" and stores.host.user == "root":
        pytest.skip("root reads everything")
    what = spec(stores, stores.south)
    found = await look(what.store)
    assert found.lasting_role is (False if how == "no file" else None)
    before, after = await carried_out(promote_store, what)
    assert (before.lasting, after.role) == (None, "primary")
    await carried_back(promote_store, what, before)
    assert info(stores.south)["role"] == "slave"


async def test_store_that_is_down_is_tried_again(stores: Pair) -> None:
    stores.north.kill()
    with pytest.raises(Transient, match="cannot be reached; does it run"):
        await look(stores.store(stores.north))


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"secret": "/nowhere/secret"}, Fatal, "the password in /nowhere/secret cannot be read"),
        ({"secret": ""}, Refused, "does not let this login in"),
        ({"cli": "/nowhere/cli"}, Fatal, "cannot be run"),
        ({"cli": "/bin/true"}, Refused, "does not tell of itself"),
        ({"cli": "/bin/echo"}, Refused, "does not tell of itself"),
    ],
)
async def test_bad_store_is_told(stores: Pair, changes: dict[str, str], kind: type[RecoveryError], told: str) -> None:
    with pytest.raises(kind, match=told):
        await look(stores.store(stores.north, **changes))


async def test_wrong_password_is_refused_and_not_told(stores: Pair) -> None:
    stores.secret.write_text("a-wrong-one\n")
    with pytest.raises(Refused, match="does not let this login in") as failed:
        await carried_out(fence_store, spec(stores, stores.north), Gate())
    assert "a-wrong-one" not in str(failed.value)


async def test_hanging_store_ends_the_look(stores: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stores.north.process is not None
    monkeypatch.setattr(ssh, "LOOK_SECONDS", 1)
    stores.north.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(Transient):
            await ssh.look(stores.host, "store_state", stores.store(stores.north).values() | {"asked": "all"}, 1)
    finally:
        stores.north.process.send_signal(signal.SIGCONT)


async def test_clients_are_counted_without_who_looks_and_without_replication(stores: Pair) -> None:
    for which in (stores.north, stores.south):
        before = await look(stores.store(which))
        assert before.clients == 0
        with which.client() as first, which.client() as second:
            first.ping()
            second.ping()
            first.config_set("maxclients", 77)
            found = await look(stores.store(which))
        assert (found.clients, found.limit) == (2, 77)
