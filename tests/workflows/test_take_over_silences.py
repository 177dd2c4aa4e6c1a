"""A take-over whose Alertmanager hangs, from the beginning or from some moment on: clients do not wait for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lab.estate import Lab
from recovery.report import Report
from tests.alertmanagers import Alertmanager, alertmanager, author
from tests.conftest import FreshLab
from tests.matrix.relay import Relay, relay
from tests.running import Recovery, Running, eventually
from tests.switches import activate, at_both_sites
from tests.workflows.test_silences import line, silenced
from tests.workflows.test_take_over import lost

pytestmark = pytest.mark.asyncio(loop_scope="function")


@pytest.fixture
def two(fresh_lab: FreshLab) -> Lab:
    lab = fresh_lab()
    lab.up(south=True, rate=60)
    return lab


@pytest_asyncio.fixture
async def between(tmp_path: Path) -> AsyncIterator[tuple[Alertmanager, Relay]]:
    """An Alertmanager, and what it is asked through, which may hang."""
    with alertmanager(tmp_path) as alerts:
        async with relay(alerts.port) as found:
            yield alerts, found


@pytest_asyncio.fixture
async def engine(two: Lab, tmp_path: Path, between: tuple[Alertmanager, Relay]) -> AsyncIterator[Running]:
    author(tmp_path / "catalogs" / "lab", f"http://127.0.0.1:{between[1].port}")
    async with at_both_sites(two, RECOVERY_CATALOGS=str(tmp_path / "catalogs")) as found:
        yield found


async def begun(two: Lab, engine: Running, watch: str = "PT1S") -> Recovery:
    """Lose north, and have south take over from it, as far as the gate."""
    outage = await lost(two, engine)
    given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
    recovery = await activate(engine, "south", **given, parameters={"watch": watch})
    await recovery.until("gate: answer for the fence")
    return recovery


async def served(two: Lab, recovery: Recovery) -> Report:
    """Approve, and wait until clients are in at south, and it was watched; return what is told then."""
    await recovery.approve("carol")

    async def look() -> Report | None:
        report = await recovery.status()
        return report if report is not None and "active site" in report.delivered else None

    report: Report = await eventually(look, "south serves, and was watched", 30)
    assert two.director.site() == "south"
    return report


async def test_alertmanager_that_hangs_all_the_time_holds_no_take_over_up(
    two: Lab, engine: Running, between: tuple[Alertmanager, Relay]
) -> None:
    between[1].hush()
    recovery = await begun(two, engine)
    report = await served(two, recovery)
    seen = line(report, "see which alerts fire at alerts")
    assert (seen.ended - seen.began).total_seconds() < 6, "people are asked as soon as a lost host is given up"
    assert "cannot be asked, and nothing is silenced there" in str(report.gates)
    report = await recovery.ended()
    assert (report.outcome, report.holds, report.residual, report.behind) == ("recovered", (), (), ()), report.failure
    assert line(report, "point front at south").ended < line(report).ended
    assert "its alerts are heard: the Alertmanager alerts" in report.delivered["silence at alerts"]
    last = next(one.value for one in report.figures if one.name == "alerts at alerts that fire at the end")
    assert str(last).startswith("not known: the Alertmanager alerts")


async def test_silence_whose_making_is_answered_to_nobody_holds_no_take_over_up(
    two: Lab, engine: Running, between: tuple[Alertmanager, Relay]
) -> None:
    alerts, front = between
    recovery = await begun(two, engine)
    front.hush(at=b"silenceID")
    report = await served(two, recovery)
    assert (line(report).state, report.holds) == ("changing", ())
    assert await silenced(alerts)
    front.speak()
    report = await recovery.ended()
    assert (report.outcome, report.residual, report.behind) == ("recovered", (), ()), report.failure
    assert line(report).state == "undone"
    assert not alerts.silences()


@pytest.mark.soak  # it is asked for a minute, and once more for half of one
async def test_silence_that_may_stand_is_not_told_to_be_none(
    two: Lab, engine: Running, between: tuple[Alertmanager, Relay]
) -> None:
    alerts, front = between
    recovery = await begun(two, engine)
    front.hush(at=b"silenceID")
    await served(two, recovery)
    report = await recovery.ended(180)
    assert (report.outcome, report.holds, report.residual) == ("recovered", (), ()), report.failure
    assert alerts.silences(), "it stands"
    assert report.delivered["silence at alerts"].startswith("not known whether it was made: the Alertmanager alerts")
    [behind] = report.behind
    assert "may stand on" in behind
    assert "amtool" in behind


@pytest.mark.soak  # it is asked for a minute
async def test_silence_that_was_never_asked_for_is_told_to_be_none(
    two: Lab, engine: Running, between: tuple[Alertmanager, Relay]
) -> None:
    """What nobody knew while it was asked for is seen at the end."""
    recovery = await begun(two, engine, watch="PT80S")
    between[1].hush(at=b"POST /api/v2/silences")
    await recovery.approve("carol")

    async def look() -> str:
        report = await recovery.status()
        return report.delivered.get("silence at alerts", "") if report is not None else ""

    told = await eventually(look, "it goes on without", 100)
    assert told.startswith("not known whether it was made: the Alertmanager alerts"), told
    between[1].speak()
    report = await recovery.ended(180)
    assert (report.outcome, report.residual, report.behind) == ("recovered", (), ()), report.failure
    assert report.delivered["silence at alerts"].startswith("none, its alerts are heard: the Alertmanager alerts")
