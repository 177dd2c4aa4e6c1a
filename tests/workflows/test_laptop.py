"""Temporal itself was in the lost site: a laptop with its own one takes over, and the old one is back too late."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import ledger
from lab.estate import Lab
from tests.running import Recovery, eventually, running
from tests.switches import activate, at_both_sites
from tests.workflows.test_take_over import decided, two  # noqa: F401  (a fixture)

pytestmark = pytest.mark.asyncio(loop_scope="function")


async def taken(lab: Lab, what: str) -> None:
    count = len(ledger.acknowledged(lab.place.load))
    await eventually(lambda: len(ledger.acknowledged(lab.place.load)) > count + 30, what, 30)


@pytest.mark.drawn
async def test_laptop_takes_over_and_the_lost_temporal_changes_nothing_when_it_is_back(
    two: Lab,  # noqa: F811
    tmp_path: Path,
) -> None:
    async with at_both_sites(two) as engine:
        await taken(two, "orders are taken at north")
        recovery = await activate(engine, "south")  # it is under way, about to act, when its Temporal is lost
        await recovery.until("gate: switch over")
        await recovery.handle.signal("hold", {"by": "bob", "reason": "wait for the storm"})
        await recovery.approve()
        await recovery.until("hold")
        engine.kill_worker()
        await asyncio.to_thread(two.break_, "north")
        outage = datetime.now(UTC)

    laptop = tmp_path / "laptop"
    laptop.mkdir()
    shutil.copy(two.state / "estate.env", laptop)
    async with running(two, RECOVERY_STATE=str(laptop), RECOVERY_SITE="south") as here:
        started = await activate(here, "south", runbook="lab/take-over-south", outage_started_at=outage.isoformat())
        report = await decided(started)
        assert (report.outcome, report.residual) == ("recovered", ()), report.failure
        assert two.director.site() == "south"
        await taken(two, "orders are taken at south")
        await asyncio.to_thread(two.heal)
        assert (await Recovery(here.client.get_workflow_handle("lab/fence-north")).ended(60)).outcome == "recovered"

        async with at_both_sites(two) as back:  # on its old state, with what it was about to do
            late = Recovery(back.client.get_workflow_handle(recovery.handle.id))
            await late.until("hold")
            await late.resolve("continue")
            hold = (await late.until("hold")).hold
            assert hold is not None
            assert ("Stale" in hold.why) or ("Drifted" in hold.why), hold.why
            await late.resolve("compensate")
            await late.until("hold")  # what was to be kept is not there any more: nothing can be put back
            await late.resolve("accept")
            ended = await late.ended()
            assert ended.outcome == "failed", ended.failure
            assert "changed" not in {line.state for line in ended.steps}
    assert two.director.site() == "south"
    assert (two.databases["south"].standby(), two.databases["north"].standby()) == (False, True)
    await taken(two, "orders are taken at south still")
