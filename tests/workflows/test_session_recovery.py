"""SessionRecovery on two real stores under load: reattached and promoted, and nothing lost that nobody was told of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from activities.store_roles import CLOSED
from lab.estate import Lab
from recovery.report import Report
from tests.activities.test_sessions import fill, written
from tests.matrix.disasters import decided
from tests.running import Recovery, Running, running
from tests.stores import Pair, Valkey, catalog, info, lab_host, pair, snapshot_of
from tests.workflows.test_session_check import figures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

MANY = 500
GATE = {"roles": ["dba"], "approvals": 1, "within": "PT1M", "valid": "PT1M"}
HOLD = {"roles": ["dba"], "within": "PT20S", "dark_within": "PT10S"}


def runbook(how: str, store: str) -> dict[str, object]:
    gate = "overwrite the store" if how == "reattach" else "promote the store"
    parameters = {"how": how, "store": f"sessions-{store}", "match": "session:*", "sample": 100, "lag": "PT2S"}
    return {"procedure": "SessionRecovery", "parameters": parameters, "gates": {gate: GATE}, "hold": HOLD}


@pytest.fixture
def stores(lab: Lab) -> Iterator[Pair]:
    with pair(lab_host(lab)) as found:
        copies = found.folder / "copies"
        copies.mkdir()
        copies.chmod(0o777)
        with found.north.client() as client:
            fill(client, MANY)
            assert client.wait(1, 5000) == 1
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def engine(lab: Lab, stores: Pair, tmp_path: Path) -> AsyncIterator[Running]:
    runbooks = {
        f"{how}-{store}": runbook(how, store) for how in ("reattach", "promote") for store in ("north", "south")
    }
    folder = catalog(tmp_path, stores, runbooks, copies=str(stores.folder / "copies"))
    async with running(lab, RECOVERY_CATALOGS=str(folder)) as found:
        yield found


async def start(engine: Running, name: str, mode: str = "live") -> Recovery:
    given = {"runbook": f"lab/{name}", "reason": "a test", "mode": mode, "requested_by": "alice"}
    handle = await engine.client.start_workflow(
        "SessionRecovery", given, id="lab/sessions-north", task_queue=engine.settings.task_queue
    )
    return Recovery(handle)


async def recovered(engine: Running, name: str) -> Report:
    report = await decided(await start(engine, name), by="bob")
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    return report


def settled(primary: Valkey, replica: Valkey) -> None:
    """Assert that one takes sessions, and the other one is its whole copy, both as at first."""
    assert (info(primary)["role"], info(replica)["role"]) == ("master", "slave")
    assert (info(replica)["master_link_status"], info(replica)["master_port"]) == ("up", primary.port)
    for store in (primary, replica):
        with store.client() as client:
            assert client.config_get("min-replicas-to-write") == {"min-replicas-to-write": "0"}
    with primary.client() as first, replica.client() as second:
        first.set("session:last", "1")
        assert first.wait(1, 5000) == 1
        assert set(first.keys()) == set(second.keys())


async def test_split_store_is_reattached_and_what_only_it_had_is_kept(
    engine: Running, stores: Pair, tmp_path: Path
) -> None:
    stores.south.tell("REPLICAOF", "NO", "ONE")
    for number in range(12):
        stores.south.tell("SET", f"session:only-south-{number}", number, "EX", 3600)
    stores.south.tell("SET", "session:1", "otherwise", "EX", 3600)
    with written(stores, 50) as count:
        report = await recovered(engine, "reattach-south")
        assert count[0] > 50
    assert figures(report)["sessions that only sessions-south has"] >= 12
    assert figures(report)["sessions that only sessions-south has"] < 12 + 60
    (shown,) = next(gate for gate in report.gates if gate.decisions).shown
    assert any(" lacks, and " in line for line in shown["in_words"]), shown
    (file,) = (stores.folder / "copies").glob("sessions-south.replaced-*/sessions.rdb")
    assert str(file.parent) in report.delivered["what sessions-south held"]
    with snapshot_of(file, tmp_path) as kept:
        assert [kept.get(f"session:only-south-{number}") for number in range(12)] == [str(n) for n in range(12)]
        assert kept.get("session:1") == "otherwise"
    settled(stores.north, stores.south)


async def test_replica_that_lost_its_way_is_reattached_without_asking(engine: Running, stores: Pair) -> None:
    stores.south.tell("REPLICAOF", "127.0.0.1", "9")
    report = await recovered(engine, "reattach-south")
    assert not any(gate.decisions for gate in report.gates)
    settled(stores.north, stores.south)


async def test_replica_is_promoted_with_everything_and_the_other_one_follows(engine: Running, stores: Pair) -> None:
    with stores.north.client() as client:
        before = {key: client.get(key) for key in client.keys("session:*[13579]")}
    report = await recovered(engine, "promote-south")
    settled(stores.south, stores.north)
    with stores.south.client() as client:
        assert {key: client.get(key) for key in before} == before
    assert report.committed is not None


async def test_replica_takes_over_from_a_lost_store(engine: Running, stores: Pair) -> None:
    stores.north.kill()
    report = await recovered(engine, "promote-south")
    assert info(stores.south)["role"] == "master"
    assert "reattached" in report.delivered["replica of sessions-south"]
    (shown,) = next(gate for gate in report.gates if gate.decisions).shown
    assert any("nobody has seen that it takes no sessions" in line for line in shown["in_words"])
    stores.north.start()  # as it was: a primary
    stores.north.tell("SET", "session:late", "1", "EX", 900)
    report = await recovered(engine, "reattach-north")
    settled(stores.south, stores.north)
    assert figures(report)["sessions that only sessions-north has"] == 1


async def test_rejected_reattachment_leaves_both_as_they_are_but_the_fence(engine: Running, stores: Pair) -> None:
    stores.south.tell("REPLICAOF", "NO", "ONE")
    recovery = await start(engine, "reattach-south")
    await recovery.approve("bob", "reject")
    report = await recovery.ended()
    assert report.outcome == "failed"
    assert (info(stores.north)["role"], info(stores.south)["role"]) == ("master", "master")
    assert stores.south.tell("CONFIG", "GET", "min-replicas-to-write")[1] == str(CLOSED)  # type: ignore[index]
    assert len(list((stores.folder / "copies").glob("*/sessions.rdb"))) == 1


@pytest.mark.parametrize(
    ("runbook", "spoil", "blocker"),
    [
        ("reattach-south", "well", "sessions-south: replicates sessions-north already"),
        ("reattach-north", "well", "sessions-south: is a replica itself"),
        ("promote-north", "well", "sessions-north: is a primary already"),
        ("reattach-south", "north down", "sessions-north: cannot be seen"),
        ("promote-south", "south down", "sessions-south: cannot be seen"),
        ("reattach-south", "password", "does not let this login in"),
    ],
)
async def test_what_stands_in_the_way_is_named_and_nothing_is_changed(
    engine: Running, stores: Pair, runbook: str, spoil: str, blocker: str
) -> None:
    if spoil == "password":
        stores.secret.write_text("wrong\n")
    if spoil.endswith("down"):
        (stores.north if spoil.startswith("north") else stores.south).kill()
    for mode in ("check", "live"):
        report = await (await start(engine, runbook, mode)).ended()
        assert report.outcome == ("checked" if mode == "check" else "failed")
        told = [*report.blockers, report.failure]
        assert any(blocker in line for line in told), told
        assert not [line for line in report.steps if line.state == "changed"]


async def test_check_shows_what_would_change_and_changes_nothing(engine: Running, stores: Pair) -> None:
    stores.south.tell("REPLICAOF", "NO", "ONE")
    stores.south.tell("SET", "session:own", "1", "EX", 900)
    report = await (await start(engine, "reattach-south", "check")).ended()
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure
    assert [line.step for line in report.steps if line.state == "would change"] == [
        "fence sessions-south", "keep what sessions-south holds", "let sessions-south replicate sessions-north",
    ]  # fmt: skip
    assert figures(report)["sessions that only sessions-south has"] == 1
    assert info(stores.south)["role"] == "master"
    assert not list((stores.folder / "copies").iterdir())


async def test_two_recoveries_at_once_wait_for_each_other(engine: Running, stores: Pair) -> None:
    stores.south.tell("REPLICAOF", "NO", "ONE")
    first = await start(engine, "reattach-south")
    await first.until("gate")
    given = {"runbook": "lab/promote-south", "reason": "a test", "requested_by": "alice"}
    handle = await engine.client.start_workflow(
        "SessionRecovery", given, id="lab/another", task_queue=engine.settings.task_queue
    )
    await Recovery(handle).until("waits for sessions-north, which lab/sessions-north has in hand")
    await handle.cancel()
    assert (await Recovery(handle).ended()).outcome == "cancelled"
    assert (await decided(first, by="bob")).outcome == "recovered"
    settled(stores.north, stores.south)
