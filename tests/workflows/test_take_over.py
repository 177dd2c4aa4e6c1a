"""DataCenterActivation, unplanned: everything at the active site is killed; the other one takes over, and only that."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import yaml
from valkey.exceptions import ValkeyError

from lab import ledger
from lab.estate import Lab
from recovery.report import Report
from tests.conftest import FreshLab
from tests.lab.pairs import ask
from tests.matrix import jobs
from tests.matrix.two_sites import session_store
from tests.running import ROOT, Recovery, Running, eventually
from tests.switches import activate, at_both_sites

pytestmark = pytest.mark.asyncio(loop_scope="function")

INSERT = "insert into orders (number, customer, amount) values (-1, 'pinned', 1)"


@pytest.fixture
def two(fresh_lab: FreshLab) -> Lab:
    lab = fresh_lab()
    lab.up(south=True, rate=60)
    return lab


@pytest_asyncio.fixture
async def engine(two: Lab, tmp_path: Path) -> AsyncIterator[Running]:
    """Workers at both sites; while clients are shut out people are asked at once."""
    shutil.copytree(ROOT / "runbooks" / "lab", tmp_path / "lab")
    planned = tmp_path / "lab" / "activate-south.yaml"
    planned.write_text(planned.read_text().replace("dark_within: PT5M", "dark_within: PT10S"))
    async with at_both_sites(two, RECOVERY_CATALOGS=str(tmp_path)) as found:
        yield found


async def lost(two: Lab, engine: Running) -> datetime:
    """Kill everything at north, its worker, too; return when."""
    await eventually(lambda: len(ledger.acknowledged(two.place.load)) > 50, "orders are taken", 30)
    at = datetime.now(UTC)
    engine.kill_worker()
    await asyncio.to_thread(two.break_, "north")
    return at


async def taken_over(engine: Running, outage: datetime, **fields: Any) -> Report:
    given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat(), **fields}
    recovery = await activate(engine, "south", **given)
    return await decided(recovery)


async def decided(recovery: Recovery) -> Report:
    """Approve whatever is asked, as one who may, and wait for the end; nothing may be held."""
    report = None
    try:
        async with asyncio.timeout(40):
            while (report := await recovery.status()) is None or report.outcome == "running":
                assert report is None or report.hold is None, report.hold
                if report and report.phase.startswith("gate"):
                    await recovery.approve("carol")
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(report) from None
    return await recovery.ended()


async def test_other_site_takes_orders_and_the_lost_one_is_fenced_when_it_is_back(two: Lab, engine: Running) -> None:
    outage = await lost(two, engine)
    known = {row.number: row.acknowledged_at for row in ledger.acknowledged(two.place.load)}
    report = await taken_over(engine, outage)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert report.delivered["fence of north"].startswith("isolated")
    assert two.director.site() == "south"
    count = len(ledger.acknowledged(two.place.load))
    await eventually(lambda: len(ledger.acknowledged(two.place.load)) > count + 50, "orders are taken at south", 30)
    now = {row.number for row in ledger.acknowledged(two.place.load)}  # first: orders are taken all the time
    taken = {int(number) for number in ask(two.databases["south"], "select number from orders").split()}
    assert now - set(known) <= taken  # what was acknowledged since is there
    missing = next(one.value for one in report.figures if one.name.startswith("commits that orders-south may lack"))
    for number in set(known) - taken:
        assert (outage - known[number]).total_seconds() <= float(missing) + 0.5, number
    assert [gate.gate for gate in report.gates if gate.decisions] == ["answer for the fence"]
    watch = Recovery(engine.client.get_workflow_handle("lab/fence-north"))
    assert (await watch.until("assessing")).outcome == "running"

    await asyncio.to_thread(two.heal)
    assert (await watch.ended(60)).outcome == "recovered"
    north = two.databases["north"]
    assert north.standby()
    assert north.running() is None
    await asyncio.to_thread(north.start)  # somebody starts it all the same
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), north.connect("orders") as connection:
        connection.execute(INSERT)


@pytest.mark.soak  # the way home begins with that, too
async def test_site_that_comes_back_by_itself_is_stopped(two: Lab, engine: Running) -> None:
    report = await taken_over(engine, await lost(two, engine))
    assert report.outcome == "recovered", report.failure
    north = two.databases["north"]
    await asyncio.to_thread(north.start)  # with its old configuration, and asking nobody
    two.sites["north"].start_ssh()
    await eventually(lambda: north.running() is None, "the database of north is stopped", 60)
    await asyncio.to_thread(two.sites["north"].valkey.start)  # later than its host, and as a primary
    watch = Recovery(engine.client.get_workflow_handle("lab/fence-north"))
    assert (await watch.ended(60)).outcome == "recovered"
    with session_store(two.sites["north"]) as store, pytest.raises(ValkeyError, match="NOREPLICAS"):
        store.set("session:late", "1")
    assert north.standby()
    assert two.director.site() == "south"


async def watching(engine: Running, *changed: str) -> Recovery:
    """Wait until the fence watch of north has changed that, and return it."""
    watch = Recovery(engine.client.get_workflow_handle("lab/fence-north"))

    async def look() -> bool:
        report = await watch.status()
        return report is not None and set(changed) <= {one.title for one in report.steps if one.state == "changed"}

    await eventually(look, f"{changed} are fenced", 60)
    return watch


async def cancelled_twice(watch: Recovery) -> None:
    """Cancel a fence watch, and once more; assert that it ends, and undoes nothing of what it has fenced."""
    for _ in range(2):
        await watch.handle.cancel()
    report = await watch.ended(30)
    assert (report.outcome, report.residual, report.holds) == ("cancelled", (), ()), report
    assert not {one.title for one in report.steps if one.state.startswith("und")}


async def fenced_again(engine: Running) -> Report:
    """Have people fence north by hand, and wait for the end."""
    start = {"runbook": "lab/fence-north", "reason": "a test", "requested_by": "bob"}
    handle = await engine.client.start_workflow(
        "FenceWatch", start, id="lab/fence-north", task_queue=engine.settings.task_queue
    )
    return await Recovery(handle).ended(60)


async def test_fence_watch_that_is_cancelled_again_leaves_fenced_what_it_fenced(
    two: Lab, engine: Running, tmp_path: Path
) -> None:
    """It waits for a cluster, while all that runs on hosts is fenced."""
    before = with_a_cluster_that_is_gone(tmp_path)
    assert (await taken_over(engine, await lost(two, engine))).outcome == "recovered"
    north = two.databases["north"]
    await asyncio.to_thread(north.start)
    await asyncio.to_thread(two.sites["north"].valkey.start)
    two.sites["north"].service.start()
    two.sites["north"].start_ssh()
    fenced = "fence orders", "fence sessions", "stop orders-app-north"
    await cancelled_twice(await watching(engine, *fenced))
    assert (north.running(), north.standby(), two.sites["north"].service.running()) == (None, True, None)
    with session_store(two.sites["north"]) as store, pytest.raises(ValkeyError, match="NOREPLICAS"):
        store.set("session:late", "1")
    for name, text in before.items():
        (tmp_path / "lab" / name).write_text(text)
    report = await fenced_again(engine)
    assert report.outcome == "recovered", report.failure
    states = {one.title: one.state for one in report.steps}
    assert states["fence sessions"] == states["stop orders-app-north"] == "unchanged"
    assert (north.running(), north.standby()) == (None, True)
    assert two.director.site() == "south"


def with_a_cluster_that_is_gone(folder: Path) -> dict[str, str]:
    """Have the fence watch of north wait for a cluster as well; return the files as they were."""
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "x", "user": {"token": "x"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    files = {name: (folder / "lab" / name).read_text() for name in ("estate.yaml", "fence-north.yaml")}
    estate, watch = map(yaml.safe_load, files.values())
    estate.setdefault("clusters", {})["gone"] = {"site": "north", "kubeconfig": str(folder / "kubeconfig")}
    estate["workloads"] = {"web-north": {"cluster": "gone", "namespace": "x", "name": "web", "replicas": 1}}
    watch["systems"].append("web-north")
    for name, changed in zip(files, (estate, watch), strict=True):
        (folder / "lab" / name).write_text(yaml.safe_dump(changed))
    return files


async def test_fence_watch_that_is_cancelled_again_while_it_fences_is_begun_anew(two: Lab, engine: Running) -> None:
    assert (await taken_over(engine, await lost(two, engine))).outcome == "recovered"
    north = two.databases["north"]
    await asyncio.to_thread(north.start)
    await asyncio.to_thread(two.sites["north"].valkey.start)
    holding = asyncio.create_task(jobs.held(two.place.at("north").jobs, "*retire*"))
    two.sites["north"].start_ssh()
    _, group = await holding
    watch = await watching(engine)
    for _ in range(2):
        await watch.handle.cancel()
    jobs.go_on(group)
    await cancelled_twice(watch)
    report = await fenced_again(engine)
    assert report.outcome == "recovered", report.failure
    assert (north.running(), north.standby()) == (None, True)
    assert [path.name for path in two.place.at("north").jobs.glob("[!.]*")] == []


async def test_check_of_taking_over_changes_nothing(two: Lab, engine: Running) -> None:
    report = await (await activate(engine, "south", "check", runbook="lab/take-over-south")).ended(60)
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure
    assert two.director.site() == "north"
    assert two.databases["south"].standby()
    assert not [run async for run in engine.client.list_workflows("WorkflowType = 'FenceWatch'")]


async def test_cancelled_at_the_gate_leaves_all_as_it_is(two: Lab, engine: Running) -> None:
    outage = await lost(two, engine)
    recovery = await activate(engine, "south", runbook="lab/take-over-south", outage_started_at=outage.isoformat())
    await recovery.until("gate: answer for the fence")
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("cancelled", ())
    assert two.databases["south"].standby()
    assert two.director.site() == "north"


async def test_planned_switch_turns_to_taking_over_when_the_old_site_dies_on_the_way(two: Lab, engine: Running) -> None:
    recovery = await activate(engine, "south")
    await recovery.until("gate: switch over")
    await lost(two, engine)
    await recovery.approve("bob")
    hold = (await recovery.until("hold")).hold
    assert hold is not None
    assert "take over" in hold.answers
    await recovery.resolve("take over", reason="north is gone")
    report = await decided(recovery)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert two.director.site() == "south"
    known = {one.name: one.value for one in report.figures}
    assert int(known["connections that orders-south needs"]) > 0, "as counted while north was there"
    assert "not known (" not in str(next(one.shown for one in report.gates if one.gate == "answer for the fence"))
    count = len(ledger.acknowledged(two.place.load))
    await eventually(lambda: len(ledger.acknowledged(two.place.load)) > count + 50, "orders are taken at south", 30)
    assert (await Recovery(engine.client.get_workflow_handle("lab/fence-north")).status()) is not None
