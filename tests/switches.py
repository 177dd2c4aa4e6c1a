"""Switches between the sites of a lab, as tests start them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from lab.estate import Lab
from recovery.names import recovery_id
from tests.running import Recovery, Running, running

PROCEDURE = "DataCenterActivation"


@asynccontextmanager
async def at_both_sites(lab: Lab, **environment: str) -> AsyncIterator[Running]:
    """Run a worker at each site; yields north's."""
    async with at_each_site(lab, **environment) as (north, _):
        yield north


@asynccontextmanager
async def at_each_site(lab: Lab, **environment: str) -> AsyncIterator[tuple[Running, Running]]:
    """Run a worker at each site; yields north's and south's."""
    async with running(lab, None, True, **environment, RECOVERY_SITE="north") as north:
        south = replace(north, process=None, environment={**north.environment, "RECOVERY_SITE": "south"})
        south.start_worker()
        try:
            yield north, south
        finally:
            south.kill_worker()


async def activate(engine: Running, site: str, mode: str = "live", **fields: Any) -> Recovery:
    """Start the activation of ``site``; it is watched for a second."""
    start = {"runbook": f"lab/activate-{site}", "reason": "a test", "requested_by": "alice", "mode": mode}
    parameters = {"watch": "PT1S"} if mode == "live" else {}
    handle = await engine.client.start_workflow(
        PROCEDURE,
        start | {"parameters": parameters} | fields,
        id=recovery_id("lab", "orders", mode),
        task_queue=engine.settings.task_queue,
    )
    return Recovery(handle)
