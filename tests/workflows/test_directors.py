"""An estate with four directors, Caddy, HAProxy, DNS and Azure, and a machine there: moved at once, or all go back."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from activities.serving import Request, serves
from lab import ledger
from lab.azure import GROUP, SUBSCRIPTION
from lab.estate import Lab
from lab.place import runner
from tests.azures import Cloud, cloud
from tests.haproxies import HAProxy, haproxy
from tests.knots import NOBODY, NORTH, SOUTH, Knot, Unbound, running
from tests.labs import lab_apart
from tests.running import ROOT, Running, eventually
from tests.switches import activate, at_both_sites
from tests.workflows.test_take_over import decided

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]
USUAL, LOWERED = 6, 1
"""Seconds for which the record is kept, outside of recoveries and while one lasts."""
RECORDS = {"north": NORTH, "south": SOUTH}


@dataclass
class Fronts:
    """A lab behind four directors."""

    lab: Lab
    edge: HAProxy
    knot: Knot
    cache: Unbound
    azure: Cloud
    catalogs: Path

    def points(self) -> dict[str, object]:
        """Return where each director points, as it shows itself, with the record's TTL."""
        return {
            "front": self.lab.director.site(),
            "edge": [name for name, bits in self.edge.servers().items() if not bits & 1],
            "kept": [name for name, bits in (self.edge.kept() or {}).items() if not bits & 1],
            "www": self.knot.records()["shop A"],
            "azure": [name for name, (status, _) in self.azure.shares().items() if status == "Enabled"],
        }

    def at(self, site: str) -> dict[str, object]:
        """Return the same for all at one site, once the TTL is restored."""
        www = [f"{USUAL} {RECORDS[site]}"]
        return {"front": site, "edge": [site], "kept": [site], "www": www, "azure": [site]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fronts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronts]:
    with lab_apart() as lab, tempfile.TemporaryDirectory(prefix="edge-") as folder:
        lab.up(south=True, rate=30)
        knot = Knot(tmp_path_factory.mktemp("knot"), ttl=USUAL)
        cache = Unbound(tmp_path_factory.mktemp("cache"), knot)
        at = {site: lab.sites[site].port("orders") for site in RECORDS}
        with haproxy(Path(folder), runner(), at) as edge, running(knot), running(cache):
            async with cloud(tmp_path_factory.mktemp("azure")) as azure:
                catalogs = tmp_path_factory.mktemp("catalogs")
                author(catalogs / "lab", lab, edge, knot, cache, azure)
                yield Fronts(lab, edge, knot, cache, azure, catalogs)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(fronts: Fronts) -> AsyncIterator[Running]:
    async with at_both_sites(fronts.lab, RECOVERY_CATALOGS=str(fronts.catalogs)) as found:
        yield found


def author(folder: Path, lab: Lab, edge: HAProxy, knot: Knot, cache: Unbound, azure: Cloud) -> None:
    """Write the lab's catalog with three directors more."""
    shutil.copytree(ROOT / "runbooks" / "lab", folder)
    estate = yaml.safe_load((folder / "estate.yaml").read_text())
    estate["directors"]["edge"] = {
        "kind": "haproxy", "host": "south-db", "socket": f"{edge.folder}/admin.sock", "backend": "orders",
        "sites": {site: site for site in RECORDS}, "state": str(edge.state),
        "configuration": f"{edge.folder}/haproxy.cfg", "url": edge.url,
    }  # fmt: skip
    estate["directors"]["www"] = {
        "kind": "dns", "server": knot.address, "zone": "example.test", "record": "shop.example.test",
        "sites": RECORDS, "nobody": NOBODY, "key": {"name": "recovery", "secret": f"{knot.folder}/recovery.key"},
        "ttl": LOWERED, "resolvers": [knot.address, cache.address], "url": lab.director.url,
    }  # fmt: skip
    estate["directors"]["azure"] = {
        "kind": "traffic-manager", "subscription": SUBSCRIPTION, "resource_group": GROUP, "endpoint": azure.endpoint,
        "ca": str(azure.ca), "profile": "front", "sites": {site: f"{site}-ep" for site in RECORDS},
        "url": lab.director.url,
    }  # fmt: skip
    estate["machines"] = {
        "vm": {
            "site": "south", "subscription": SUBSCRIPTION, "resource_group": GROUP, "endpoint": azure.endpoint,
            "ca": str(azure.ca), "name": "orders",
        }
    }  # fmt: skip
    estate["services"]["orders-app-south"]["after"] = ["vm"]
    estate["safety"] = estate.get("safety", {}) | {"trust_isolation": True}
    (folder / "estate.yaml").write_text(yaml.safe_dump(estate))
    for file in folder.glob("*.yaml"):
        runbook = yaml.safe_load(file.read_text())
        if "front" in runbook.get("systems", ()):
            runbook["systems"] += ["edge", "www", "azure", "vm"]
            file.write_text(yaml.safe_dump(runbook))


async def taken(lab: Lab) -> None:
    """Wait until orders are taken, wherever clients are sent."""
    count = len(ledger.acknowledged(lab.place.load))
    await eventually(lambda: len(ledger.acknowledged(lab.place.load)) > count + 20, "orders are taken", 30)


async def test_check_sees_all_of_them(fronts: Fronts, engine: Running) -> None:
    before = fronts.points(), fronts.knot.records()
    report = await (await activate(engine, "south", "check")).ended(60)
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure
    assert (fronts.points(), fronts.knot.records()) == before


async def test_check_names_each_that_points_elsewhere(fronts: Fronts, engine: Running) -> None:
    fronts.edge.tell("set server orders/south state ready")
    fronts.knot.tell("A", SOUTH, ttl=USUAL)
    try:
        report = await (await activate(engine, "south", "check")).ended(60)
    finally:
        fronts.edge.tell("set server orders/south state maint")
        fronts.knot.tell("A", NORTH, ttl=USUAL)
    assert any("edge: points at several, not at north" in one for one in report.blockers), report.blockers
    assert any("www: points at south, not at north" in one for one in report.blockers), report.blockers


async def test_all_go_back_where_one_cannot_be_moved(fronts: Fronts, engine: Running) -> None:
    fronts.cache.ask()
    recovery = await activate(engine, "south")
    await recovery.approve()
    await eventually(lambda: fronts.knot.mark(), "the TTL is lowered", 60)
    lowered = fronts.knot.mark()
    assert fronts.points()["www"] == [f"{LOWERED} {NORTH}"]
    await taken(fronts.lab)  # while what resolvers keep is waited for
    fronts.knot.tell("TXT", '"A broken"', name="_recovery.shop")
    held = await recovery.until("hold", 60)
    assert "not as a recovery wrote it" in str(held.hold)
    assert fronts.points() == {"front": "nowhere", "edge": [], "kept": [], "www": [f"{LOWERED} {NORTH}"], "azure": []}
    fronts.knot.tell("TXT", *(text.partition(" ")[2] for text in lowered or ()), name="_recovery.shop", ttl=0)
    await recovery.resolve("compensate")
    report = await recovery.ended(120)
    assert report.outcome == "compensated", (report.failure, report.residual)
    assert {**fronts.points(), "kept": None} == {**fronts.at("north"), "kept": None}
    assert fronts.edge.kept() is None  # as it was
    await taken(fronts.lab)


async def test_there_and_back(fronts: Fronts, engine: Running) -> None:
    for site in ("south", "north"):
        await taken(fronts.lab)
        fronts.cache.ask()
        recovery = await activate(engine, site)
        await recovery.approve()
        report = await recovery.ended(180)
        assert report.outcome == "recovered", (report.failure, await asyncio.to_thread(engine.log))
        assert fronts.points() == fronts.at(site)
        figures = {one.name: one.value for one in report.figures}
        assert figures["clients keep what www told them for"] == USUAL
        assert figures[f"resolvers of www that send clients to {site}"] == 2
        assert figures["resolvers of www that send clients to nobody"] == 2
        assert figures["requests through edge that were answered well"] == 20, figures
        assert figures[f"{site} as the monitor of azure sees it"] == "Online"
        assert (fronts.azure.orders.power, fronts.azure.orders.starts) == ("running", 1)
        assert fronts.cache.ask() == [RECORDS[site]]
        fronts.edge.kill()
        fronts.edge.start()
        asked = Request(system="edge", url=fronts.edge.url, path="/health", count=5)
        assert (await serves.observe(asked)).statuses == {"200": 5}
        assert fronts.points() == fronts.at(site)
        await taken(fronts.lab)


async def test_take_over_waits_until_nobody_is_told_of_the_lost_site(fronts: Fronts, engine: Running) -> None:
    await taken(fronts.lab)
    fronts.cache.ask()
    outage = datetime.now(UTC)
    engine.kill_worker()
    await asyncio.to_thread(fronts.lab.break_, "north")
    given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
    report = await decided(await activate(engine, "south", **given))
    assert report.outcome == "recovered", report.failure
    assert report.delivered["fence of north"].startswith("isolated")
    assert fronts.points() == fronts.at("south")
    ended = {line.title: line.ended for line in report.steps}
    assert (ended["promote orders-south"] - ended["point www at nobody"]).total_seconds() > USUAL
    await taken(fronts.lab)
