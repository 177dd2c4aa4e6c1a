"""A database that is turned back has a standby: that is built anew, and until then people are told there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from lab.estate import Lab
from tests.lab.pairs import ask, replayed
from tests.labs import lab_apart
from tests.running import Running, eventually, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with lab_apart() as lab:
        lab.up(south=True, rate=40)
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(two: Lab) -> AsyncIterator[Running]:
    async with running(two) as found:
        yield found


async def test_standby_is_built_anew(two: Lab, engine: Running) -> None:
    north, south = two.databases["north"], two.databases["south"]
    await eventually(lambda: ask(north, "select count(*) > 100 from orders") == "t", "some orders")
    target = datetime.now(UTC)
    await eventually(lambda: (datetime.now(UTC) - target).total_seconds() > 2, "the target is final")
    recovery = await engine.start("live", runbook="lab/replace-orders", target_time=target)
    gate = (await recovery.until("gate")).gates[-1]
    assert "its standby orders-south is built anew" in str(gate.shown)
    assert ask(south, "select pg_is_in_recovery()") == "t"
    await recovery.approve()
    report = await recovery.ended(120)
    assert report.outcome == "recovered", report.failure
    assert report.delivered["redundancy"].endswith("standby orders-south")
    assert [figure for figure in report.figures if figure.name == "without the standby orders-south"]
    await eventually(replayed(north, south), "the standby has everything", 20)
    rows = "select count(*), md5(string_agg(number::text, ',' order by number)) from orders where number <= {}"
    last = ask(north, "select max(number) from orders")
    assert ask(south, rows.format(last)) == ask(north, rows.format(last))
    assert await asyncio.to_thread(ask, south, "select pg_is_in_recovery()") == "t"
    assert not list(south.place.data.parent.glob(f"{south.place.data.name}.*"))
