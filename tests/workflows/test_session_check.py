"""SessionReplicationCheck on two real stores under load: what is wrong is named, what is well is never accused."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleState,
)

from lab.estate import Lab
from recovery.report import Report
from tests.activities.test_sessions import fill, written
from tests.running import Recovery, Running, eventually, running
from tests.stores import Pair, catalog, lab_host, pair
from workflows.session_replication_check import LOOKS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

MANY = 2000
CHECK = {
    "procedure": "SessionReplicationCheck",
    "parameters": {"match": "session:*", "sample": 200, "lag": "PT2S"},
    "notify": ["ops"],
}


@pytest.fixture(scope="module")
def stores(lab: Lab) -> Iterator[Pair]:
    with pair(lab_host(lab)) as found:
        with found.north.client() as client:
            fill(client, MANY)
            assert client.wait(1, 5000) == 1
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, stores: Pair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    commands = [
        {"name": "erlmcp", "host": "north-host", "run": "cat status", "replicated": "^active", "lagging": "^behind"}
    ]
    folder = catalog(
        tmp_path_factory.mktemp("catalogs"),
        stores,
        {
            "check": CHECK,
            "again": {**CHECK, "parameters": {**CHECK["parameters"], "every": "PT1S"}},  # type: ignore[dict-item]
            "others": {
                **CHECK,
                "parameters": {
                    "commands": [{**commands[0], "run": f"cat {stores.folder}/status"}],
                    "urls": [{"name": "portal", "url": "http://127.0.0.1:9/replication", "replicated": "ok"}],
                },
            },
        },
    )
    catalog(folder, stores, {"check": CHECK}, name="away", queue="nobody-is-here")
    async with running(lab, RECOVERY_CATALOGS=str(folder)) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def _whole(stores: Pair) -> AsyncIterator[None]:
    """Have south be a copy of north again, whatever a test did."""
    yield
    for store in (stores.north, stores.south):
        if store.process is None:
            store.start()
        assert store.process is not None
        store.process.send_signal(signal.SIGCONT)
        store.tell("CONFIG", "SET", "min-replicas-to-write", 0)
        store.tell("CONFIG", "SET", "primaryauth", stores.password)
    stores.north.tell("REPLICAOF", "NO", "ONE")
    stores.south.tell("CONFIG", "SET", "replica-read-only", "yes")
    stores.south.tell("REPLICAOF", "NO", "ONE")
    stores.south.tell("REPLICAOF", *stores.north.at.split(":"))
    await eventually(lambda: b"up" in repr(stores.south.tell("INFO", "replication")).encode(), "south follows", 15)
    stores.linked(stores.south, 15)


async def start(engine: Running, runbook: str = "check", mode: str = "live", **parameters: object) -> Recovery:
    runbook = runbook if "/" in runbook else f"lab/{runbook}"
    given = {"runbook": runbook, "reason": "a test", "mode": mode, "parameters": parameters}
    handle = await engine.client.start_workflow(
        "SessionReplicationCheck", given, id=runbook, task_queue=engine.settings.task_queue
    )
    return Recovery(handle)


async def checked(engine: Running, runbook: str = "check", mode: str = "live") -> tuple[str, Report]:
    """Check once; return the verdict, and all of it."""
    report = await (await start(engine, runbook, mode)).ended()
    assert (report.outcome, report.residual) == ("checked", ()), report.failure
    return str(figures(report)["verdict"]), report


def figures(report: Report) -> dict[str, Any]:
    return {figure.name: figure.value for figure in report.figures}


def cut(stores: Pair) -> None:
    """Cut the link: south does not know north's password any more."""
    stores.south.tell("CONFIG", "SET", "primaryauth", "another")
    stores.south.tell("CLIENT", "KILL", "TYPE", "master")


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 100))])
async def test_healthy_pair_under_load_is_replicated(engine: Running, stores: Pair, number: int) -> None:
    with written(stores, MANY, number) as count:
        verdict, report = await checked(engine)
        assert count[0] > 20
    assert (verdict, report.blockers) == ("replicated", ())
    assert figures(report)["sessions that sessions-south would lose now"] == 0
    assert figures(report)["sessions-south is behind"] < 2


def marks(stores: Pair) -> set[object]:
    """Return the keys of the primary that are the engine's own."""
    with stores.north.client() as client:
        return set(client.keys("recovery:*"))


async def test_check_of_a_check_writes_nothing(engine: Running, stores: Pair) -> None:
    stores.north.tell("DEL", *(f"recovery:canary:{name}" for name in ("a", "b")))
    before = marks(stores)
    verdict, report = await checked(engine, mode="check")
    assert verdict == "replicated"
    assert marks(stores) <= before  # those of other tests go by themselves
    assert not any("arrive" in line.step for line in report.steps)


async def test_cut_link_is_broken_and_what_would_be_lost_is_counted(engine: Running, stores: Pair) -> None:
    cut(stores)
    for number in range(30):
        stores.north.tell("SET", f"session:lost-{number}", "x", "EX", 900)
    stores.north.tell("SET", "session:1", "another", "EX", 900)
    verdict, report = await checked(engine)
    assert verdict == "broken"
    assert any("no link to sessions-north" in line for line in report.blockers), report.blockers
    assert figures(report)["sessions that sessions-south would lose now"] == 31
    assert any("30 missing" in line for line in report.blockers) or figures(report)["sessions-south is behind"] >= 0


async def test_replica_that_stands_still_is_broken(engine: Running, stores: Pair) -> None:
    assert stores.south.process is not None
    stores.south.process.send_signal(signal.SIGSTOP)
    verdict, report = await checked(engine)
    assert verdict == "broken"
    assert any(line.startswith("sessions-south cannot be seen") for line in report.blockers), report.blockers


async def test_two_primaries_are_split(engine: Running, stores: Pair) -> None:
    stores.south.tell("REPLICAOF", "NO", "ONE")
    verdict, report = await checked(engine)
    assert verdict == "split"
    assert "sessions-north" in report.blockers[0]
    assert "sessions-south" in report.blockers[0]


async def test_difference_is_broken_and_named(engine: Running, stores: Pair) -> None:
    stores.south.tell("CONFIG", "SET", "replica-read-only", "no")
    stores.south.tell("DEL", "session:1200")
    verdict, report = await checked(engine)
    assert verdict == "broken"
    assert "session:1200: missing" in report.blockers[0]


async def test_replica_of_nobody_we_know_is_broken(engine: Running, stores: Pair) -> None:
    stores.south.tell("REPLICAOF", "127.0.0.1", "9")
    verdict, report = await checked(engine)
    assert verdict == "broken"
    assert "which is not sessions-north" in report.blockers[0]


async def test_gone_primary_is_broken(engine: Running, stores: Pair) -> None:
    stores.north.kill()
    verdict, report = await checked(engine)
    assert verdict == "broken"
    assert any("sessions-north cannot be seen" in line for line in report.blockers), report.blockers


async def test_wrong_password_is_told(engine: Running, stores: Pair) -> None:
    stores.secret.write_text("wrong\n")
    try:
        verdict, report = await checked(engine)
    finally:
        stores.secret.write_text(f"{stores.password}\n")
    assert verdict == "broken"
    assert all("does not let this login in" in line for line in report.blockers)
    assert len(report.blockers) == 2
    assert stores.password not in report.model_dump_json()


async def test_other_systems_say_how_they_are(engine: Running, stores: Pair) -> None:
    status = stores.folder / "status"
    for said, verdict in (("active 3 of 3", "broken"), ("behind 7 s", "broken")):
        status.write_text(said)
        status.chmod(0o644)
        found, report = await checked(engine, "others")
        assert found == verdict
        assert any(line.startswith("portal says: no answer") for line in report.blockers)
        assert any(line == f"erlmcp says: {said}" for line in report.blockers) == said.startswith("behind")


async def test_who_starts_it_cannot_have_hosts_run_what_they_like(engine: Running, stores: Pair) -> None:
    mark = stores.folder / "mark"
    command = {"name": "x", "host": "north-host", "run": f"touch {mark}", "replicated": "."}
    report = await (await start(engine, commands=[command])).ended()
    assert (report.outcome, report.kind) == ("failed", "Invalid")
    assert "parameters.commands: only the runbook may say that" in report.failure
    assert not mark.exists()


async def test_store_is_seen_from_elsewhere_where_no_worker_is_at_its_site(engine: Running, stores: Pair) -> None:
    verdict, report = await checked(engine, "away/check")
    assert verdict == "replicated"
    assert [line.step for line in report.steps if line.state == "failed"] == ["see sessions-north from north"]
    assert [line.step for line in report.steps if line.step == "see sessions-north"]


async def notices(client: Client, workflow: str) -> int:
    """Return how often people were told of a workflow, however often it ran."""
    runs = [run.run_id async for run in client.list_workflows(f"WorkflowId = '{workflow}'")]
    told = [one.id async for one in client.list_workflows("WorkflowType = 'Notification'")]
    return len([id for id in told if any(run in id for run in runs)])


async def test_changed_verdict_is_told_once_while_it_looks_again_and_again(engine: Running, stores: Pair) -> None:
    recovery = await start(engine, "again")

    async def verdicts() -> list[str]:
        report = await recovery.status()
        found = report.figures if report else ()
        return [str(figure.value) for figure in found if figure.name.startswith("verdict")]

    async def seen(wanted: str) -> bool:
        return (await verdicts())[-2:] == [wanted, wanted]

    await eventually(lambda: seen("replicated"), "it is well, twice", 30)
    cut(stores)
    await eventually(lambda: seen("broken"), "it is broken, twice", 30)
    stores.south.tell("CONFIG", "SET", "primaryauth", stores.password)
    await eventually(lambda: seen("replicated"), "it is well again, twice", 60)
    run = recovery.handle.first_execution_run_id or ""
    told = [one.id async for one in engine.client.list_workflows("WorkflowType = 'Notification'") if run in one.id]
    assert len(told) == 2, told
    await recovery.handle.cancel()
    assert (await recovery.ended()).outcome == "cancelled"


async def test_run_that_goes_on_in_a_new_one_knows_what_was_told(engine: Running, stores: Pair) -> None:
    cut(stores)
    recovery = await start(engine, "again")
    first = recovery.handle.first_execution_run_id
    latest = engine.client.get_workflow_handle("lab/again")

    async def goes_on() -> bool:
        return (await latest.describe()).run_id != first

    async def looked_twice() -> bool:
        report = await Recovery(latest).status()
        return report is not None and sum(figure.name.startswith("verdict") for figure in report.figures) > 1

    await eventually(goes_on, f"it has looked {LOOKS} times", 240, pause=1)
    await eventually(looked_twice, "the new run has looked, too", 30)
    run = (await latest.describe()).run_id
    told = [one.id async for one in engine.client.list_workflows("WorkflowType = 'Notification'")]
    assert len([one for one in told if f"{first}" in one or run in one]) == 1, told
    await latest.cancel()
    assert (await Recovery(latest).ended()).outcome == "cancelled"


async def test_changed_verdict_is_told_once_on_a_schedule(engine: Running, stores: Pair) -> None:
    given = {"runbook": "lab/check", "reason": "a schedule", "requested_by": "the schedule"}
    action = ScheduleActionStartWorkflow(
        "SessionReplicationCheck", given, id="lab/check", task_queue=engine.settings.task_queue
    )
    spec = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=1))])
    schedule = await engine.client.create_schedule(
        "check-sessions", Schedule(action=action, spec=spec, state=ScheduleState(paused=True))
    )

    async def once(turn: int) -> str:
        await schedule.trigger()

        async def ended() -> Report | None:
            found = (await schedule.describe()).info.recent_actions
            if len(found) < turn:
                return None
            ran = found[-1].action
            handle = engine.client.get_workflow_handle(ran.workflow_id, run_id=ran.first_execution_run_id)  # type: ignore[attr-defined]
            runs.add(ran.first_execution_run_id)  # type: ignore[attr-defined]
            return await Recovery(handle).ended()

        return str(figures(await eventually(ended, "the check ends", 60))["verdict"])

    runs: set[str] = set()
    try:
        assert await once(1) == "replicated"
        cut(stores)
        assert [await once(turn) for turn in (2, 3)] == ["broken", "broken"]
        stores.south.tell("CONFIG", "SET", "primaryauth", stores.password)
        await asyncio.to_thread(stores.linked, stores.south, 30)
        assert [await once(turn) for turn in (4, 5)] == ["replicated", "replicated"]
    finally:
        await schedule.delete()
    told = [one.id async for one in engine.client.list_workflows("WorkflowType = 'Notification'")]
    assert len([one for one in told if any(run in one for run in runs)]) == 2, told
