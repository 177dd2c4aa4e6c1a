"""A worker killed at any stage of a long operation at Azure: the operation was asked for exactly once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import Client

from activities.machines import MachineSpec, Powered, Way, run_machine
from lab.azure_resources import SIZE
from recovery.actions import Order
from recovery.connection import connect
from recovery.embedded import Keeper
from tests.activities.azure_worker import QUEUE, Carrying
from tests.azures import OTHER_SIZE, Cloud, cloud
from tests.running import ROOT, settings_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Ground:
    """The lab's Azure, Temporal, and a worker of its own that is killed."""

    cloud: Cloud
    client: Client
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker."""
        words = [sys.executable, "-m", "tests.activities.azure_worker"]
        self.process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **self.environment})

    def kill(self) -> None:
        """Kill the worker."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def killing(self) -> Callable[[], Awaitable[bool]]:
        """Return what kills the worker, and starts another one."""

        async def strike() -> bool:
            self.kill()
            self.start()
            return True

        return strike

    async def carried_out(self, part: str, spec: MachineSpec, before: Powered, number: int = 1) -> Powered:
        """Have the order carried out, and wait for the end of it."""
        soon = datetime.now(UTC) + timedelta(minutes=5)
        order = Order[MachineSpec, Powered](
            spec=spec, before=before, mode="live", not_after=soon, epoch=1, number=number
        )
        async with asyncio.timeout(60):
            return await self.client.execute_workflow(
                Carrying.run, args=[part, order], id=f"azure-{uuid.uuid4().hex}", task_queue=QUEUE
            )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="azure-") as folder:
        settings = settings_in(folder)
        async with Keeper(settings) as endpoint, cloud(Path(folder)) as found:
            ground = Ground(found, await connect(settings, endpoint), {"TEMPORAL_ADDRESS": endpoint.address})
            try:
                ground.start()
                yield ground
            finally:
                ground.kill()


@pytest.fixture
def ground(shared: Ground) -> Ground:
    shared.cloud.anew()
    return shared


STAGES: dict[str, tuple[str, str, str, int]] = {
    "before the first look": ("GET", "/orders", "before", 0),
    "as its mark is written": ("PATCH", "/orders", "after", 0),
    "as the request comes": ("POST", "{request}", "before", 0),
    "before the answer": ("POST", "{request}", "after", 0),
    "at the first look at the operation": ("GET", "{operation}", "before", 0),
    "at the third look at the operation": ("GET", "{operation}", "after", 2),
    "once it has ended": ("GET", "{operation}", "ended", 0),
}
OFTEN = ("before the answer", "at the third look at the operation")
stages = pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage in OFTEN else [pytest.mark.drawn]) for stage in STAGES]
)
rarely = pytest.mark.parametrize("stage", [pytest.param(stage, marks=[pytest.mark.drawn]) for stage in STAGES])


def struck(ground: Ground, stage: str, request: str) -> None:
    """Have the worker killed once at the stage of what ``request`` begins."""
    arm, kill = ground.cloud, ground.killing()
    method, end, when, skip = STAGES[stage]
    if end != "{operation}":
        return arm.strike(method, end.format(request=request), when, kill, skip)

    async def ended() -> bool:
        if arm.orders.provisioning == "Updating":
            arm.strike("GET", list(arm.operations)[-1], "after", ended)
        else:
            arm.strike("GET", "/orders", "before", kill)
        return False

    async def begun() -> bool:
        operation = list(arm.operations)[-1]
        if when == "ended":
            await ended()
        else:
            arm.strike("GET", operation, when, kill, skip)
        return False

    return arm.strike("POST", request, "after", begun)


@stages
async def test_killed_worker_starts_a_machine_once(ground: Ground, stage: str) -> None:
    spec = ground.cloud.run()
    before = await run_machine.observe(spec)
    ground.cloud.seconds = 1.0
    struck(ground, stage, "/start")
    assert (await ground.carried_out("apply", spec, before)).running
    assert not ground.cloud.strikes, "the worker was not killed"
    assert (ground.cloud.orders.power, ground.cloud.orders.starts) == ("running", 1)


@rarely
async def test_killed_worker_asks_for_each_size_once(ground: Ground, stage: str) -> None:
    spec = ground.cloud.run("running", Way(size=OTHER_SIZE))
    before = await run_machine.observe(spec)
    ground.cloud.seconds, ground.cloud.full = 0.5, {SIZE}
    struck(ground, stage, "/start")
    assert (await ground.carried_out("apply", spec, before)).running
    assert not ground.cloud.strikes, "the worker was not killed"
    assert (ground.cloud.orders.size, ground.cloud.orders.starts) == (OTHER_SIZE, 2)


@rarely
async def test_killed_undo_deallocates_once(ground: Ground, stage: str) -> None:
    spec = ground.cloud.run()
    before = await run_machine.observe(spec)
    await ground.carried_out("apply", spec, before)
    ground.cloud.seconds = 0.5
    ground.cloud.requests.clear()
    struck(ground, stage, "/deallocate")
    assert await ground.carried_out("undo", spec, before, number=2) == before
    assert not ground.cloud.strikes, "the worker was not killed"
    assert (ground.cloud.orders.power, ground.cloud.count("POST", "/deallocate")) == ("deallocated", 1)
