"""An estate with four directors, Caddy, HAProxy, DNS and Azure, and a machine there: moved at once, or all go back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
import yaml

from activities.serving import Request, serves
from lab import ledger
from lab.estate import Lab
from tests.fronts import LOWERED, MACHINES, RECORDS, Fronts
from tests.fronts import fronts as before
from tests.knots import NORTH, SOUTH
from tests.labs import lab_apart
from tests.running import Running, eventually
from tests.switches import activate, at_both_sites
from tests.workflows.test_take_over import decided

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]
USUAL = 6
"""Seconds for which the record is kept outside of recoveries."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fronts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronts]:
    with lab_apart() as lab:
        lab.up(south=True, rate=30)
        async with before(lab, tmp_path_factory.mktemp("fronts"), USUAL) as found:
            yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(fronts: Fronts, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    catalogs = tmp_path_factory.mktemp("catalogs")
    fronts.author(catalogs / "lab")
    file = catalogs / "lab" / "estate.yaml"
    estate = yaml.safe_load(file.read_text())
    estate["safety"] = estate.get("safety", {}) | {"trust_isolation": True}
    file.write_text(yaml.safe_dump(estate))
    async with at_both_sites(fronts.lab, RECOVERY_CATALOGS=str(catalogs)) as found:
        yield found


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
    assert fronts.points() == {"front": "nowhere", "edge": [], "kept": [], "www": [f"{LOWERED} {NORTH}"], "azure": {}}
    fronts.knot.tell("TXT", *(text.partition(" ")[2] for text in lowered or ()), name="_recovery.shop", ttl=0)
    await recovery.resolve("compensate")
    report = await recovery.ended(120)
    assert report.outcome == "compensated", (report.failure, report.residual)
    assert fronts.points() == fronts.at("north")
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
        machine = fronts.azure.machines[MACHINES[site]]
        assert (machine.power, machine.starts) == ("running", 1)
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
