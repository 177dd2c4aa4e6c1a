"""DataCenterActivation, planned, with two real sites under load: nothing lost, nothing doubled, there and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from lab import ledger
from lab.estate import Lab
from recovery.report import Report
from tests.lab.pairs import ask
from tests.labs import lab_apart
from tests.running import Recovery, Running, eventually, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROCEDURE = "DataCenterActivation"


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with lab_apart() as lab:
        lab.up(south=True, rate=60)
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(two: Lab) -> AsyncIterator[Running]:
    """A worker at each site."""
    async with running(two, RECOVERY_SITE="north") as north:
        south = replace(north, process=None, environment={**north.environment, "RECOVERY_SITE": "south"})
        south.start_worker()
        try:
            yield north
        finally:
            south.kill_worker()


async def activate(engine: Running, site: str, mode: str = "live", **fields: Any) -> Recovery:
    start = {"runbook": f"lab/activate-{site}", "reason": "a test", "requested_by": "alice", "mode": mode}
    parameters = {"watch": "PT1S"} if mode == "live" else {}
    id = "lab/orders" + ("/check" if mode == "check" else "")
    handle = await engine.client.start_workflow(
        PROCEDURE, start | {"parameters": parameters} | fields, id=id, task_queue=engine.settings.task_queue
    )
    return Recovery(handle)


async def switched(engine: Running, site: str) -> Report:
    recovery = await activate(engine, site)
    await recovery.approve()
    return await recovery.ended(120)


def roles(lab: Lab) -> dict[str, str]:
    """Return what each site's database says that it is."""
    query = "select case when pg_is_in_recovery() then 'standby' else 'primary' end"
    return {site: ask(database, query) for site, database in lab.databases.items()}


async def settled(lab: Lab) -> set[int]:
    """Return the orders that were acknowledged so far, once some more have been since now."""
    count = len(ledger.acknowledged(lab.place.load))
    await eventually(lambda: len(ledger.acknowledged(lab.place.load)) > count + 20, "orders are taken", 30)
    return {row.number for row in ledger.acknowledged(lab.place.load)}


async def nothing_lost(lab: Lab) -> None:
    known = await settled(lab)
    primary = next(database for database in lab.databases.values() if not database.standby())
    rows = [int(number) for number in ask(primary, "select number from orders").split()]
    assert len(set(rows)) == len(rows)
    assert known - set(rows) == set()


async def test_check_says_that_nothing_stands_in_the_way(two: Lab, engine: Running) -> None:
    report = await (await activate(engine, "south", "check")).ended()
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure


async def test_there_and_back_under_load(two: Lab, engine: Running) -> None:
    for site, other in (("south", "north"), ("north", "south")):
        await settled(two)
        report = await switched(engine, site)
        assert report.outcome == "recovered", (report.failure, await asyncio.to_thread(engine.log))
        assert await asyncio.to_thread(roles, two) == {site: "primary", other: "standby"}
        await nothing_lost(two)
