"""Toys on real files: a worker of the engine, and words to start toy recoveries."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.worker import Worker

from activities import history, leases
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.fallback import UnknownProcedure
from recovery.leasing import SystemLease
from recovery.undoing import Undoing
from tests.conftest import SEED
from tests.drawing import draw
from tests.recovery.box import Toys
from tests.recovery.putting import KEEP, LAY, PASS, PUT, READ, load
from tests.recovery.toys import Passing, Toy
from tests.running import settings_in


@pytest.hookimpl(tryfirst=True)  # before soak is deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave one half of each test to the soak: with a cache of workflows or without, as the seed says."""

    def either(item: pytest.Item) -> str | None:
        both = isinstance(item, pytest.Function) and hasattr(item, "callspec") and "client" in item.callspec.params
        return re.sub("cached|always replayed", "", item.nodeid) if both else None

    draw(items, SEED, either, 1 / 2)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[500, 0], ids=["cached", "always replayed"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        settings = settings_in(folder)
        async with Keeper(settings) as endpoint:
            found = await connect(settings, endpoint)
            workflows = [Toy, Passing, Undoing, SystemLease, UnknownProcedure]
            async with Worker(
                found,
                task_queue="toy",
                workflows=workflows,
                activities=[
                    load,
                    history.read,
                    *leases.ALL,
                    *(call for one in (PUT, LAY, KEEP, PASS, READ) for call in one.activities()),
                ],
                max_cached_workflows=request.param,
            ):
                yield found


@pytest.fixture
def toys(client: Client, tmp_path: Path) -> Toys:
    return Toys(client, tmp_path)
