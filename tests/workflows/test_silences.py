"""Activations that silence alerts in a real Alertmanager: while they last, and at no end any longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lab.estate import Lab
from recovery.names import UNDO
from recovery.report import Report
from tests.alertmanagers import Alertmanager, alertmanager, author
from tests.labs import lab_apart
from tests.matrix.relay import Relay, relay
from tests.running import Recovery, Running, eventually
from tests.switches import activate, at_each_site
from tests.workflows.test_take_over import decided

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]
SILENCING = "silence alerts at alerts"


@pytest.fixture(scope="module")
def alerts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    with alertmanager(tmp_path_factory.mktemp("alerts")) as found:
        yield found


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with lab_apart() as lab:
        lab.up(south=True, rate=20)
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers(
    two: Lab, alerts: Alertmanager, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Running, Running]]:
    catalogs = tmp_path_factory.mktemp("catalogs")
    author(catalogs / "lab", alerts.url)
    async with at_each_site(two, RECOVERY_CATALOGS=str(catalogs)) as found:
        yield found


@pytest.fixture(scope="module")
def engine(workers: tuple[Running, Running]) -> Running:
    return workers[0]


@pytest_asyncio.fixture(loop_scope="module")
async def between(engine: Running, alerts: Alertmanager) -> AsyncIterator[Relay]:
    """What Alertmanager is asked through, which may hang."""
    estate = Path(engine.environment["RECOVERY_CATALOGS"]) / "lab" / "estate.yaml"
    before = estate.read_text()
    async with relay(alerts.port) as found:
        estate.write_text(before.replace(alerts.url, f"http://127.0.0.1:{found.port}"))
        yield found
    estate.write_text(before)


@pytest.fixture
def theirs(alerts: Alertmanager) -> Iterator[str]:
    """Alerts that fire, and a silence of somebody's own."""
    alerts.fire("Down", site="north")
    found = alerts.silence(site="east")
    yield found
    assert [one["id"] for one in alerts.silences()] == [found], "nothing but theirs stands"
    alerts.lift(found)


async def silenced(alerts: Alertmanager) -> dict[str, Any]:
    """Wait until a recovery's silence stands, and return it."""

    def look() -> Any:
        return next((one for one in alerts.silences() if one["createdBy"].startswith("recovery ")), None)

    found: dict[str, Any] = await eventually(look, "alerts are silenced", 60, pause=0.02)
    return found


def other(two: Lab) -> str:
    """Return the site that does not serve."""
    return "south" if two.director.site() == "north" else "north"


async def at_hold(engine: Running, alerts: Alertmanager, two: Lab) -> Recovery:
    """Start an activation, and have it wait before the first action that follows the silence."""
    recovery = await activate(engine, other(two))
    await recovery.until("gate")
    await recovery.handle.signal("hold", {"by": "bob", "reason": "a test"})
    await recovery.approve()
    await recovery.resolve("step")
    await silenced(alerts)
    await recovery.until("hold: keep")
    return recovery


def line(report: Report, title: str = SILENCING) -> Any:
    """Return a step of the report."""
    return next(one for one in report.steps if one.title == title)


async def test_check_silences_nothing(engine: Running, alerts: Alertmanager, theirs: str, two: Lab) -> None:
    report = await (await activate(engine, other(two), "check")).ended(60)
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure
    assert line(report).state == "would change"
    shown = str(next(gate for gate in report.gates if gate.gate == "switch over").shown)
    assert 'alerts with site=~"(north|south)" are silenced at alerts until it is over' in shown.replace("\\", ""), shown


async def test_silenced_while_it_lasts(engine: Running, alerts: Alertmanager, theirs: str, two: Lab) -> None:
    site = other(two)
    recovery = await activate(engine, site)
    report = await recovery.until("gate")
    assert "those that fire now: 1 (Down)" in str(report.gates)
    assert len(alerts.silences()) == 1
    seen = asyncio.create_task(silenced(alerts))
    await recovery.approve()
    assert (await seen)["comment"].startswith("a move from ")
    assert two.director.site() != site
    report = await recovery.ended(120)
    assert (report.outcome, report.residual, report.behind) == ("recovered", (), ()), report.failure
    assert line(report).state == "undone"
    ended = {one.title: one.ended for one in report.steps}
    assert ended[SILENCING] > max(at for title, at in ended.items() if title.startswith("watch "))
    figures = {one.name: one.value for one in report.figures}
    assert figures["alerts at alerts that fire at the end"] == "1 (Down)"


async def test_compensated_lifts_it_last(engine: Running, alerts: Alertmanager, theirs: str, two: Lab) -> None:
    recovery = await at_hold(engine, alerts, two)
    await recovery.resolve("step")
    await recovery.until("hold: point")
    await recovery.resolve("compensate")
    report = await recovery.ended(60)
    assert (report.outcome, report.residual, report.behind) == ("compensated", (), ()), report.failure
    assert line(report).state == "undone"


async def test_cancelled_lifts_it(engine: Running, alerts: Alertmanager, theirs: str, two: Lab) -> None:
    recovery = await at_hold(engine, alerts, two)
    await recovery.handle.cancel()
    report = await recovery.ended(60)
    assert (report.outcome, report.residual, report.behind) == ("cancelled", (), ()), report.failure


async def test_terminated_it_is_lifted_by_undo(engine: Running, alerts: Alertmanager, theirs: str, two: Lab) -> None:
    recovery = await at_hold(engine, alerts, two)
    await recovery.handle.terminate()
    assert await silenced(alerts)
    undo = {"workflow": recovery.handle.id, "reason": "a test", "requested_by": "bob"}
    handle = await engine.client.start_workflow(UNDO, undo, id="undo/lab/orders", task_queue=engine.settings.task_queue)
    report = await Recovery(handle).ended(60)
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure


async def test_changed_by_people_it_is_left_and_named(engine: Running, alerts: Alertmanager, two: Lab) -> None:
    recovery = await at_hold(engine, alerts, two)
    one = await silenced(alerts)
    alerts.silence(**{key: one[key] for key in ("id", "matchers", "startsAt", "createdBy", "comment")})
    changed = alerts.silences()
    await recovery.resolve("compensate")
    report = await recovery.ended(60)
    left = alerts.silences()
    for one in left:
        alerts.lift(one["id"])
    assert left == changed
    assert (report.outcome, report.residual) == ("failed", ()), "nothing was undone, and nothing has to be"
    [behind] = report.behind
    assert "somebody else changed it" in behind
    assert "amtool" in behind


async def test_lifted_by_people_it_stays_so_and_is_told(
    engine: Running, alerts: Alertmanager, theirs: str, two: Lab
) -> None:
    recovery = await at_hold(engine, alerts, two)
    alerts.lift((await silenced(alerts))["id"])
    await recovery.resolve("continue")
    report = await recovery.ended(120)
    assert report.outcome == "recovered", report.failure
    assert "somebody lifted it" in report.delivered["silence at alerts"]


async def test_lost_by_an_alertmanager_that_was_killed_it_is_told(
    engine: Running, alerts: Alertmanager, two: Lab
) -> None:
    recovery = await at_hold(engine, alerts, two)
    one = await silenced(alerts)
    alerts.end()  # it has not written it down
    alerts.start()
    assert one["id"] not in {left["id"] for left in alerts.silences("active", "expired")}
    await recovery.resolve("continue")
    report = await recovery.ended(120)
    assert report.outcome == "recovered", report.failure
    assert "it is known there no more" in report.delivered["silence at alerts"]


async def test_dead_alertmanager_holds_nobody_up(engine: Running, alerts: Alertmanager, two: Lab) -> None:
    alerts.end(15)
    try:
        recovery = await activate(engine, other(two))
        report = await recovery.until("gate")
        assert "cannot be asked, and nothing is silenced there" in str(report.gates)
        await recovery.approve()
        report = await recovery.ended(120)
    finally:
        alerts.start()
    assert (report.outcome, report.holds, report.behind) == ("recovered", (), ()), report.failure
    assert "its alerts are heard: the Alertmanager alerts" in report.delivered["silence at alerts"]


async def test_alertmanager_that_hangs_all_the_time_holds_nobody_up(
    engine: Running, alerts: Alertmanager, theirs: str, two: Lab, between: Relay
) -> None:
    between.hush()
    recovery = await activate(engine, other(two))
    report = await recovery.until("gate")
    assert "cannot be asked, and nothing is silenced there" in str(report.gates)
    await recovery.approve()
    report = await recovery.ended(60)
    assert (report.outcome, report.holds, report.behind) == ("recovered", (), ()), report.failure
    assert "its alerts are heard: the Alertmanager alerts" in report.delivered["silence at alerts"]
    last = next(one.value for one in report.figures if one.name == "alerts at alerts that fire at the end")
    assert str(last).startswith("not known: the Alertmanager alerts")


async def test_silence_whose_making_was_answered_to_nobody_is_lifted_and_told(
    engine: Running, alerts: Alertmanager, theirs: str, two: Lab, between: Relay
) -> None:
    recovery = await activate(engine, other(two))
    await recovery.until("gate")
    between.hush(at=b"silenceID")
    await recovery.approve()
    assert await silenced(alerts)
    dark = await eventually(lambda: shut(recovery), "it goes on without", 100)
    assert (line(dark).state, dark.holds) == ("failed", ())
    between.speak()
    report = await recovery.ended(60)
    assert (report.outcome, report.behind) == ("recovered", ()), report.failure
    assert report.delivered["silence at alerts"] == "made, though nobody was told so; it stood until the end"


async def shut(recovery: Recovery) -> Report | None:
    """Return the report once clients are shut out."""
    report = await recovery.status()
    return report if report is not None and [one for one in report.steps if one.step.startswith("point ")] else None


async def at_the_lift(recovery: Recovery, between: Relay) -> None:
    """Wait until its silence is being lifted, where Alertmanager hangs."""

    async def look() -> bool:
        report = await recovery.status()
        return between.hushed and report is not None and line(report).state == "undoing"

    await eventually(look, "the silence is being lifted", 60)


async def test_alertmanager_that_hangs_when_it_is_lifted_is_asked_again(
    engine: Running, alerts: Alertmanager, theirs: str, two: Lab, between: Relay
) -> None:
    between.hush(at=b"DELETE")
    recovery = await activate(engine, other(two))
    await recovery.approve()
    await at_the_lift(recovery, between)
    asked = between.accepted
    await eventually(lambda: between.accepted > asked, "it is asked again", 20)
    between.speak()
    report = await recovery.ended(60)
    assert (report.outcome, report.holds, report.behind) == ("recovered", (), ()), report.failure
    assert line(report).state == "undone"


async def test_alertmanager_that_hangs_from_the_lift_on_is_told(
    engine: Running, alerts: Alertmanager, theirs: str, two: Lab, between: Relay
) -> None:
    between.hush(at=b"DELETE")
    recovery = await activate(engine, other(two))
    await recovery.approve()
    await at_the_lift(recovery, between)
    report = await recovery.ended(90)
    alerts.lift((await silenced(alerts))["id"])
    assert (report.outcome, report.holds, report.residual) == ("recovered", (), ()), report.failure
    assert line(report).state == "left behind"
    [behind] = report.behind
    assert "the Alertmanager alerts" in behind
    assert "amtool" in behind


async def kill_who_lifts(workers: tuple[Running, Running], recovery: Recovery) -> None:
    """Kill -9 the worker that lifts the silence, and start it anew."""
    pending = (await recovery.handle.describe()).raw_description.pending_activities
    (number,) = (int(one.last_worker_identity.partition("@")[0]) for one in pending)
    (engine,) = (one for one in workers if one.process is not None and one.process.pid == number)
    engine.kill_worker()
    engine.start_worker()


@pytest.mark.parametrize("how", ["killed", "cancelled again", "killed and cancelled again"])
@pytest.mark.parametrize("end", ["at the end", "on the way back"])
async def test_disturbed_while_it_is_lifted_it_is_lifted(
    workers: tuple[Running, Running], alerts: Alertmanager, theirs: str, two: Lab, between: Relay, end: str, how: str
) -> None:
    if end == "at the end":
        between.hush(at=b"DELETE")
        recovery = await activate(workers[0], other(two))
        await recovery.approve()
    else:
        recovery = await at_hold(workers[0], alerts, two)
        between.hush(at=b"DELETE")
        await recovery.handle.cancel()
    await at_the_lift(recovery, between)
    if "killed" in how:
        await kill_who_lifts(workers, recovery)
    if "cancelled" in how:
        await recovery.handle.cancel()
        await recovery.handle.cancel()
    between.speak()
    report = await recovery.ended(60)
    assert report.outcome == ("recovered" if (end, how) == ("at the end", "killed") else "cancelled"), report.failure
    assert (line(report).state, report.behind) == ("undone", ())
    if end == "on the way back":
        assert report.residual == ()
    await let_go(workers[0], report)


async def let_go(engine: Running, report: Report) -> None:
    """Have its systems free: what a recovery left undone is its own until somebody has looked."""
    for system in report.epochs:
        await engine.freed(f"lab/{system}")


async def test_cancelled_past_the_point_of_no_return_lifts_it(
    engine: Running, alerts: Alertmanager, theirs: str, two: Lab
) -> None:
    recovery = await activate(engine, other(two), parameters={"watch": "PT1H"})
    await recovery.approve()
    await eventually(lambda: committed(recovery), "clients are let in", 60)
    assert await silenced(alerts)
    await recovery.handle.cancel()
    report = await recovery.ended(60)
    assert report.outcome == "cancelled"
    assert (line(report).state, report.behind) == ("undone", ())
    await let_go(engine, report)


async def committed(recovery: Recovery) -> bool:
    """Tell whether it watches: it is past the point of no return, and does nothing any more."""
    report = await recovery.status()
    return report is not None and len([name for name in report.delivered if " of " in name]) == 2


async def test_take_over_silences_beside(engine: Running, alerts: Alertmanager, theirs: str, two: Lab) -> None:
    if two.director.site() != "north":
        back = await activate(engine, "north")
        await back.approve()
        await back.ended(120)
    outage = datetime.now(UTC)
    engine.kill_worker()
    await asyncio.to_thread(two.break_, "north")
    given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
    recovery = await activate(engine, "south", **given)
    seen = asyncio.create_task(silenced(alerts))
    report = await decided(recovery)
    assert (report.outcome, report.residual, report.behind) == ("recovered", (), ()), report.failure
    assert await seen
    assert line(report).state == "undone"
