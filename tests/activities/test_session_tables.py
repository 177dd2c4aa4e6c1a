"""Sessions in tables of two real databases: what is replayed, what differs, and what clients are just writing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from activities import ssh
from activities.comparing import Compared
from activities.session_tables import (
    PairOfDatabases,
    TableComparison,
    TablesSpec,
    compare_tables,
    see_database,
    write_message,
)
from activities.tables import TableAt
from lab.estate import Lab
from tests.conftest import FreshLab
from tests.tables import at, replayed, two_sites, written

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 100_000
SESSIONS = TableAt(table="public.sessions", key="id", expires="ends")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


@pytest.fixture(scope="module")
def sites(fresh_labs: FreshLab) -> Lab:
    """Both sites, with sessions at north that south replays."""
    lab = fresh_labs()
    two_sites(lab, MANY)
    return lab


def given(sites: Lab) -> dict[str, object]:
    return {"system": "orders-south", "primary": at(sites, "north"), "standby": at(sites, "south"), "seconds": 5}


async def comparing(sites: Lab, table: TableAt = SESSIONS, **more: object) -> Compared:
    seen = (await see_database.observe(TablesSpec(system="x", database=at(sites, "north"), tables=(table,)))).seen
    spec = {**given(sites), "table": table, "seen": seen.tables[table.table], **more}
    return await compare_tables.observe(TableComparison.model_validate(spec))


async def test_healthy_pair_is_the_same(sites: Lab) -> None:
    await replayed(sites)
    for site in ("north", "south"):
        found = await see_database.observe(TablesSpec(system=site, database=at(sites, site), tables=(SESSIONS,)))
        print(found)
        assert found.answered
        assert found.seen.tables["public.sessions"].sessions == MANY
    for whole in (False, True):
        began = time.monotonic()
        found_ = await comparing(sites, whole=whole)
        print(found_, time.monotonic() - began)
        assert not found_.differences, found_
        assert found_.compared == MANY if whole else found_.compared > 900
        assert not found_.undecided
    seen = await write_message.observe(PairOfDatabases.model_validate({**given(sites), "writes": True}))
    print(seen)
    assert seen.arrived
    assert 0 < seen.seconds < 2


@pytest.mark.parametrize("number", range(4))
async def test_healthy_pair_under_load_is_never_accused(sites: Lab, number: int) -> None:
    with written(sites.databases["north"], MANY, number) as count:
        began = time.monotonic()
        found = await comparing(sites, whole=number % 2 == 0)
        print(found, count, time.monotonic() - began)
        assert sum(count) > 50
    assert not found.differences, found
    assert found.compared > 900
