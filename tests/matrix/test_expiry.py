"""Instructions, approvals and answers that come too late, because the worker was away: nothing late is done."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from recovery.names import activity_id
from recovery.report import GateLine, HoldLine, Report
from tests.matrix.ground import SILENT, Ground, Scene, admitted, servers, world
from tests.running import Recovery, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

CLOSE, EXPORT, FENCE = (
    "refuse clients at the running orders",
    "export what the copy of orders lacks",
    "fence the running orders",
)
GATE = {"roles": ["dba"], "valid": "PT15S"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    valid = {"gates": {"cut over": GATE}}
    found = Ground(
        tmp_path_factory.mktemp("expiry"),
        {"replace_soon": {"not_after": "PT6S"}, "replace_valid": valid, "replace_unheard": valid | {"hold": SILENT}},
    )
    yield found
    await found.close()


async def away(scene: Scene, recovery: Recovery, activity: str) -> None:
    """Approve, and have the worker die before it begins with ``activity``."""
    scene.ground.fail(activity, "gone")
    await recovery.until("gate", 60)
    await recovery.approve()
    await eventually(lambda: scene.ground.engine.died() == -signal.SIGKILL, f"the worker died before {activity}", 60)


async def back(scene: Scene, moment: datetime) -> None:
    """Have a worker again once ``moment`` has passed."""
    await eventually(lambda: datetime.now(UTC) > moment, f"{moment} has passed", 60)
    scene.ground.engine.start_worker()


async def held(recovery: Recovery, step: str) -> HoldLine:
    hold = (await recovery.until(f"hold: {step}", 60)).hold
    assert hold is not None
    return hold


@pytest.mark.parametrize(("step", "answer"), [(CLOSE, "retry"), (FENCE, "compensate")])
async def test_late_order_is_not_carried_out(ground: Ground, step: str, answer: str) -> None:
    async with ground.scene() as scene:
        recovery = await scene.start("soon-replace-orders")
        await away(scene, recovery, activity_id(step, "apply"))
        before = world(scene.lab)
        await back(scene, datetime.now(UTC) + timedelta(seconds=6))
        hold = await held(recovery, step)
        assert hold.why.startswith("Stale: the instruction was valid until")
        assert "compensate" in hold.answers
        assert world(scene.lab) == before
        await recovery.resolve(answer)
        report = await recovery.ended(90)
        if answer == "compensate":
            assert (report.outcome, report.residual) == ("compensated", ())
            await scene.unchanged()
        else:
            assert (report.outcome, report.residual) == ("recovered", ()), report.failure


async def asked_again(scene: Scene, recovery: Recovery) -> GateLine:
    """Let the approval lapse while the worker is away, in the dark."""
    await away(scene, recovery, activity_id(EXPORT, "observe"))
    await back(scene, datetime.now(UTC) + timedelta(seconds=15))

    async def again() -> Report | None:
        found = await recovery.status()
        return found if found and "asked_again" in str(found.gates[0].shown) else None

    report: Report = await eventually(again, "people are asked again", 60)
    assert (report.committed, report.dark, admitted(scene.lab)) == (None, True, False)
    assert len(servers(scene.lab.place.data)) == 1
    return report.gates[0]


async def test_lapsed_approval_is_asked_for_again(ground: Ground) -> None:
    async with ground.scene() as scene:
        recovery = await scene.start("valid-replace-orders")
        gate = await asked_again(scene, recovery)
        assert gate.until is not None
        assert gate.opened is not None
        assert gate.until - gate.opened == timedelta(minutes=3)
        await recovery.approve("carol", "reject")
        report = await recovery.ended(90)
        assert (report.outcome, report.residual) == ("compensated", ()), report.failure
        assert "rejected by carol" in report.failure
        await scene.unchanged()


async def test_nobody_asked_again_brings_the_old_database_back(ground: Ground) -> None:
    async with ground.scene() as scene:
        recovery = await scene.start("unheard-replace-orders")
        await asked_again(scene, recovery)
        report = await recovery.ended(90)
        assert (report.outcome, report.residual) == ("compensated", ()), report.failure
        assert report.failure == "gate cut over: nobody decided within 0:00:03"
        await scene.unchanged()


async def test_deadline_passes_while_the_worker_is_away(ground: Ground) -> None:
    async with ground.scene() as scene:
        ground.fail(activity_id(FENCE, "apply"))
        recovery = await scene.start("silent-replace-orders")
        await recovery.until("gate", 60)
        await recovery.approve()
        hold = await held(recovery, FENCE)
        assert hold.until - hold.opened == timedelta(seconds=3)
        ground.engine.kill_worker()
        assert not admitted(scene.lab)
        await back(scene, hold.until)
        report = await recovery.ended(90)
        assert (report.outcome, report.residual) == ("compensated", ()), report.failure
        assert report.holds[0].closed == "nobody answered in time"
        await scene.unchanged()
