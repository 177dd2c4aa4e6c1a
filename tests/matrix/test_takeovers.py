"""A worker that stands still past its heartbeat while another takes over, and then wakes up, changes nothing more."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from recovery import embedded
from recovery.models import Verdict
from tests.matrix.disturbed import OUTCOMES, Undisturbed, decided, deciding, worked
from tests.matrix.relay import relay
from tests.running import Process, eventually

pytestmark = [
    pytest.mark.drawn,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("calm", ["restore"], indirect=True, scope="session"),
]

POINTS = ("before", "within", "after")


@dataclass(frozen=True)
class Sleeper:
    """A worker that will stand still, and how to wait until it does and another one is there."""

    process: Process
    replaced: Callable[[], Awaitable[None]]

    def wake(self) -> None:
        """Let it go on where it stood still."""
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def falling_asleep(
    calm: Undisturbed, chance: random.Random, activity: str, point: str, folder: Path
) -> AsyncIterator[Sleeper]:
    """Have a worker that stands still at ``point`` of ``activity``."""
    seconds = str(chance.uniform(0, calm.steps["approve"][activity]))
    hurt = {"HURT_ACTIVITY": activity, "HURT_POINT": point, "HURT_SECONDS": seconds, "HURT_SIGNAL": "STOP"}
    temporal = embedded.status(calm.engine.settings).endpoint
    assert temporal is not None
    async with relay(int(temporal.address.rpartition(":")[2])) as between:
        hurt |= {"HURT_ONCE": str(folder / "struck"), "TEMPORAL_ADDRESS": f"127.0.0.1:{between.port}"}

        async def replaced() -> None:
            await eventually((folder / "struck").exists, f"a worker stands still {point} {activity}", 90)
            between.cut()  # else Temporal gives it tasks for as long as its polls are open
            calm.engine.start_worker()

        async with worked(calm.run, calm.engine, **hurt):
            process = calm.engine.process
            assert process is not None
            try:
                yield Sleeper(process, replaced)
            finally:
                process.kill()
                process.wait()


async def woken_at_the_gate(calm: Undisturbed, chance: random.Random, activity: str, point: str, folder: Path) -> None:
    async with falling_asleep(calm, chance, activity, point, folder) as sleeper:
        recovery = await calm.start()
        await sleeper.replaced()
        await recovery.until("gate")
        sleeper.wake()
        await calm.same("approve", await decided(recovery, "approve"))


async def woken_at_the_end(
    calm: Undisturbed, chance: random.Random, activity: str, point: str, verdict: Verdict, folder: Path
) -> None:
    async with (
        falling_asleep(calm, chance, activity, point, folder) as sleeper,
        deciding(await calm.start(), verdict) as end,  # what stands still may come after the gate
    ):
        await sleeper.replaced()
        report = await end
        calm.engine.kill_worker()
        sleeper.wake()
        # It has nobody beside it now: what it answers proves that it is awake, and through with what it had begun.
        checked = await (await calm.run.check(calm.engine)).ended()
        assert checked.outcome == "checked", checked.failure
        await calm.same(verdict, report)


@pytest.mark.parametrize("point", ["before", "within"])
async def test_worker_that_wakes_after_the_end_changes_nothing(
    calm: Undisturbed, chance: random.Random, tmp_path: Path, point: str
) -> None:
    await woken_at_the_end(calm, chance, calm.applies()[0], point, "reject", tmp_path)


async def test_worker_that_wakes_at_the_gate_changes_nothing(
    calm: Undisturbed, chance: random.Random, tmp_path: Path
) -> None:
    await woken_at_the_gate(calm, chance, chance.choice(calm.applies()), chance.choice(POINTS), tmp_path)


@pytest.mark.soak
async def test_worker_that_wakes_anywhere_changes_nothing(
    calm: Undisturbed, chance: random.Random, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for activity in calm.applies():
        for point in POINTS:
            (folder := tmp_path / f"{activity} {point}").mkdir()
            for verdict in OUTCOMES:
                with subtests.test(f"{verdict}: {activity} {point}, woken at the end"):
                    (own := folder / verdict).mkdir()
                    await woken_at_the_end(calm, chance, activity, point, verdict, own)
            with subtests.test(f"{activity} {point}, woken at the gate"):
                await woken_at_the_gate(calm, chance, activity, point, folder)
