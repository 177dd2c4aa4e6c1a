"""Toys on real files: a worker of the engine, and words to start toy recoveries."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.worker import Worker

from activities import history
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.fallback import SystemClaim, UnknownProcedure
from recovery.settings import Settings
from recovery.undoing import Undoing
from tests.recovery.box import Toys
from tests.recovery.putting import KEEP, LAY, PUT, READ, load
from tests.recovery.toys import Toy


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[500, 0], ids=["cached", "always replayed"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        settings = Settings.from_environment({"RECOVERY_STATE": folder})
        async with Keeper(settings) as endpoint:
            found = await connect(settings, endpoint)
            workflows = [Toy, Undoing, SystemClaim, UnknownProcedure]
            async with Worker(
                found,
                task_queue="toy",
                workflows=workflows,
                activities=[load, history.read, *(call for one in (PUT, LAY, KEEP, READ) for call in one.activities())],
                max_cached_workflows=request.param,
            ):
                yield found


@pytest.fixture
def toys(client: Client, tmp_path: Path) -> Toys:
    return Toys(client, tmp_path)
