"""A site that has too little: a planned move does not begin, people decide about taking over; real servers."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from lab import ledger
from lab.azure import GROUP, SUBSCRIPTION
from lab.estate import Lab
from recovery.report import Report
from tests.azures import Cloud, cloud
from tests.labs import lab_apart
from tests.matrix.two_sites import session_store
from tests.running import ROOT, Recovery, Running, eventually
from tests.switches import activate, at_both_sites
from tests.workflows.test_data_center_activation import untouched

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Place:
    """A lab, Azure beside it, and the catalog of both."""

    lab: Lab
    azure: Cloud
    catalogs: Path

    @contextlib.contextmanager
    def saying(self, kind: str, name: str, **more: Any) -> Iterator[None]:
        """Have the estate say more of a system."""
        file = self.catalogs / "lab" / "estate.yaml"
        before = file.read_text()
        estate = yaml.safe_load(before)
        estate[kind][name] |= more
        file.write_text(yaml.safe_dump(estate))
        yield
        file.write_text(before)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    with lab_apart() as lab:
        lab.up(south=True, rate=30)
        async with cloud(tmp_path_factory.mktemp("azure")) as azure:
            catalogs = tmp_path_factory.mktemp("catalogs")
            author(catalogs / "lab", azure)
            yield Place(lab, azure, catalogs)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(place: Place) -> AsyncIterator[Running]:
    async with at_both_sites(place.lab, RECOVERY_CATALOGS=str(place.catalogs)) as found:
        yield found


def author(folder: Path, azure: Cloud) -> None:
    """Write the lab's catalog with a machine at south, that what serves there needs."""
    shutil.copytree(ROOT / "runbooks" / "lab", folder)
    estate = yaml.safe_load((folder / "estate.yaml").read_text())
    estate["machines"] = {
        "vm": {
            "site": "south", "subscription": SUBSCRIPTION, "resource_group": GROUP, "endpoint": azure.endpoint,
            "ca": str(azure.ca), "name": "orders",
        }
    }  # fmt: skip
    estate["services"]["orders-app-south"]["after"] = ["vm"]
    (folder / "estate.yaml").write_text(yaml.safe_dump(estate))
    for file in folder.glob("*.yaml"):
        runbook = yaml.safe_load(file.read_text())
        if "front" in runbook.get("systems", ()):
            runbook["systems"] += ["vm"]
            file.write_text(yaml.safe_dump(runbook))


async def refused(place: Place, engine: Running, mode: str = "live") -> Report:
    """Return how a move that is not begun ended; nothing has changed."""
    place.azure.requests.clear()
    before = untouched(place.lab)
    report = await (await activate(engine, "south", mode)).ended(60)
    assert report.outcome == ("checked" if mode == "check" else "failed"), report.failure
    assert untouched(place.lab) == before
    assert {one.method for one in place.azure.requests} <= {"GET"}
    assert not [gate for gate in report.gates if gate.decisions]
    return report


@pytest.mark.parametrize("mode", ["live", "check"])
async def test_standby_that_takes_fewer_connections_is_not_promoted(place: Place, engine: Running, mode: str) -> None:
    """PostgreSQL itself sees to it that a standby has as many as its primary; not to who may have them."""
    south = place.lab.databases["south"]
    settings = south.place.data / "postgresql.auto.conf"
    before = settings.read_bytes()
    with settings.open("a") as file:
        file.write("superuser_reserved_connections = 38\nreserved_connections = 1\n")
    await asyncio.to_thread(south.stop, quick=False)
    await asyncio.to_thread(south.start)
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(place.lab.databases["north"].connect("orders"))
            await eventually(lambda: streams(place.lab), "south replicates again", 30)
            report = await refused(place, engine, mode)
    finally:
        await asyncio.to_thread(south.stop, quick=False)
        settings.write_bytes(before)
        await asyncio.to_thread(south.start)
        await eventually(lambda: streams(place.lab), "south replicates again", 30)
    (said,) = [one for one in report.blockers if one.startswith("orders-south: connections")]
    assert "there 1 (max_connections 40, reserved 39, in use 0)" in said
    figures = {one.name: one for one in report.figures}
    assert int(figures["connections that orders-south needs"].value) >= 5
    there = figures["connections that are there for orders-south"]
    assert (there.value, there.met) == (1, False)


def streams(lab: Lab) -> bool:
    with lab.databases["north"].connect("orders") as connection:
        row = connection.execute("select count(*) from pg_stat_replication where state = 'streaming'").fetchone()
    return row == (1,)


async def test_peak_that_the_estate_says_is_not_there(place: Place, engine: Running) -> None:
    with place.saying("databases", "orders", connections=38):
        report = await refused(place, engine)
    assert "orders-south: connections: needed 38 (the estate says so), there 37 (" in str(report.blockers)


async def test_store_that_takes_fewer_clients_is_not_promoted(place: Place, engine: Running) -> None:
    with session_store(place.lab.sites["south"]) as store:
        before = store.config_get("maxclients")["maxclients"]
        store.config_set("maxclients", 30)
        try:
            with place.saying("stores", "sessions", connections=30):
                report = await refused(place, engine)
        finally:
            store.config_set("maxclients", before)
    (said,) = report.blockers
    assert "sessions-south: connections: needed 30 (the estate says so), there " in said
    assert "(maxclients 30, in use " in said


async def test_machine_for_which_nothing_is_granted_is_not_started(place: Place, engine: Running) -> None:
    place.azure.granted = {"standardDSv5Family": 3}
    try:
        report = await refused(place, engine)
    finally:
        place.azure.granted = {}
    (said,) = report.blockers
    assert said.startswith(
        "vm: vCPUs of standardDSv5Family in westeurope: needed 2 (to be started), there 1 (granted 3"
    )
    assert (place.azure.orders.power, place.azure.orders.starts) == ("deallocated", 0)


async def test_check_with_enough_of_everything_tells_the_figures(place: Place, engine: Running) -> None:
    report = await refused(place, engine, "check")
    assert report.blockers == ()
    met = {one.name: one.met for one in report.figures if " that are there for " in one.name}
    assert met == {
        "connections that are there for orders-south": True,
        "connections that are there for sessions-south": True,
        "vCPUs of standardDSv5Family in westeurope that are there for vm": True,
        "vCPUs of all families in westeurope that are there for vm": True,
    }


async def test_people_decide_whether_a_site_with_too_little_takes_over(place: Place, engine: Running) -> None:
    place.azure.granted = {"standardESv5Family": 0}  # of another family: nothing to people
    await eventually(lambda: len(ledger.acknowledged(place.lab.place.load)) > 50, "orders are taken", 30)
    outage = datetime.now(UTC)
    engine.kill_worker()
    await asyncio.to_thread(place.lab.break_, "north")
    given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
    with place.saying("databases", "orders-south", connections=60):
        recovery = await activate(engine, "south", **given)
        plan = await eventually(lambda: plan_of(recovery), "the plan is known", 60)
        await recovery.handle.signal("approve", {"gate": "accept the shortage", "by": "carol", "plan": plan})
        report = await recovery.until("gate: accept the shortage", 60)
        assert "early decision: evidence: " in report.refusals[-1]
        assert not [one for one in report.gates if one.decisions]
    assert place.lab.databases["south"].standby()
    shown = str(next(gate for gate in report.gates if gate.gate == "accept the shortage").shown)
    assert "some of them will not get it: 37 of 60 connections for orders-south." in shown
    assert "orders-south: connections: needed 60 (the estate says so), there 37 (" in shown
    assert "sessions-south: connections: needed not known (sessions cannot be asked" in shown
    await recovery.approve("carol")
    await recovery.until("gate: answer for the fence", 60)
    await recovery.approve("carol")
    report = await recovery.ended(120)
    assert report.outcome == "recovered", report.failure
    assert {gate.gate for gate in report.gates if gate.decisions} == {"accept the shortage", "answer for the fence"}
    figures = {one.name: one for one in report.figures}
    for name, needed, met in (("orders-south", 60, False), ("sessions-south", "not known", None)):
        assert figures[f"connections that {name} needs"].value == needed
        assert figures[f"connections that are there for {name}"].met is met
    assert place.azure.orders.power == "running"


async def plan_of(recovery: Recovery) -> str:
    """Return the digest of the plan, "" until it is loaded."""
    report = await recovery.status()
    return report.plan if report is not None else ""
