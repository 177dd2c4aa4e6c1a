"""A site is lost, again and again: the other one takes over, and clients go home; each order is there, or listed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import pytest_asyncio
from temporalio.client import WorkflowHistory

from lab import ledger
from recovery.report import Report
from tests.lab.pairs import ask
from tests.matrix import two_sites
from tests.matrix.cells import recorded
from tests.matrix.disasters import KINDS, Field, Kind, Round, Visitors
from tests.matrix.furnished import FurnishedField
from tests.matrix.pitch import Crash
from tests.running import ROOT, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

KILLS, ROUNDS, RETURNS = 10, 50, 20
CRASHED = 41
"""Rounds in which workers are killed; each has so many kills that all have every one."""
TRIES = 8
"""Rounds until each was killed where that is left to chance: any worker may take the look at a lost site."""
POINTS = ("before", "within", "after")
ACTIVATION, WATCH, FAILBACK = "DataCenterActivation", "FenceWatch", "Failback"
HISTORIES = {ACTIVATION: "taken-over", WATCH: "fenced", FAILBACK: "home"}
STORIES = {Field: "recovered", FurnishedField: "recovered-furnished"}
FENCING = (
    "see-what-is-left-of-sessions.observe", "fence-orders.observe", "fence-orders.apply",
    "fence-sessions.observe", "fence-sessions.apply",
)  # fmt: skip
"""What only a takeover does whose lost site answers to somebody."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[Field, FurnishedField])
async def field(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    found: Field = request.param(tmp_path_factory.mktemp("field"), rate=20)
    if isinstance(found, FurnishedField):
        found.cluster = request.getfixturevalue("cluster")
    yield found
    await found.close()


async def lost_and_home(
    found: Round, kind: Kind, chance: random.Random, crashes: Sequence[Crash] = (), **parameters: str
) -> set[int]:
    """Lose the site, take over, have it back at some moment, and go home; workers may be killed on the way.

    Returns the orders that were lost, and are listed. A kill that was planned, and never came by, is an error.
    """

    def struck(procedure: str) -> None:
        if kind == "cut off":  # nothing is fenced in it unless it was the lost site's own worker that took the look
            return
        assert not (left := [str(one) for one in found.field.spared() if one.procedure == procedure]), f"spared: {left}"

    with found.pinned if kind != "cut off" else contextlib.nullcontext():
        await eventually(lambda: ledger.count(found.lab.place.load / "acknowledged.jsonl") > found.known + 20, "orders")
        await asyncio.sleep(chance.uniform(0, 0.5))
        found.field.hurt_all(crashes)
        outage = await asyncio.to_thread(found.lose, kind)
        taken_over = await found.take_over(outage, **parameters)
        assert (taken_over.outcome, taken_over.residual) == ("recovered", ()), failed(taken_over)
        struck(ACTIVATION)
        refused = ledger.refused_for(found.lab.place.load, outage)
        await asyncio.sleep(chance.uniform(0, 3))
        await found.come_back()
        assert (await found.fenced()).outcome == "recovered"
        struck(WATCH)
        home = await found.home()
        struck(FAILBACK)
    listed = await found.accounted(taken_over, home)
    print(f"{found.old} {kind}: no order was taken for {refused:.2f} s; {len(listed)} were lost, and are listed")
    return listed


def failed(report: Report) -> list[str]:
    """Return what went wrong, and in which steps."""
    return [report.failure, *(f"{line.step}: {line.failure}" for line in report.steps if line.failure)]


def ways(kind: type[Field]) -> Iterator[tuple[str, str, float]]:
    """Yield each activity of each procedure, with the seconds that it takes, as a recorded run has them."""
    for procedure, story in HISTORIES.items():
        name = f"{STORIES[kind]}-{story}"
        file = ROOT / "tests" / "histories" / f"{name}.json"
        for activity, seconds in recorded(WorkflowHistory.from_json(name, file.read_text())).items():
            yield procedure, activity, seconds


def batch(of: type[Field], number: int, chance: random.Random) -> tuple[Kind, list[Crash]]:
    """Return the kills of one round: all rounds together have each activity at each point, none twice in one round."""
    if number < len(POINTS):  # what cuts both sites off leaves the lost one to be fenced at once, by its own worker
        return "cut off", [Crash(ACTIVATION, name, POINTS[number], chance.uniform(0, 0.3)) for name in FENCING]
    cells = [(*one, point) for one in ways(of) for point in POINTS]
    mine = cells[number - len(POINTS) :: CRASHED - len(POINTS)]
    return "cut off, then killed", [Crash(how, name, point, chance.uniform(0, s)) for how, name, s, point in mine]


async def killed_on_the_way(field: Field, kind: Kind, crashes: Sequence[Crash], chance: random.Random) -> None:
    print(*crashes, sep="\n")
    left: list[Crash] = []
    for _ in range(TRIES if kind == "cut off" else 1):
        async with field.round() as found:
            found.patience += 30 * len(crashes)
            # What is cut off first has orders that the other site lacks: they are exported.
            await lost_and_home(found, kind, chance, crashes)
            left = field.spared()
        if not left:
            return
    raise AssertionError(f"spared: {[str(one) for one in left]}")


@pytest.mark.drawn
async def test_killed_worker_takes_over_and_goes_home_all_the_same(field: Field, chance: random.Random) -> None:
    kind, crashes = batch(type(field), chance.randrange(len(POINTS), CRASHED), chance)  # the others may take many tries
    await killed_on_the_way(field, kind, chance.sample(crashes, 2), chance)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(CRASHED))
async def test_worker_killed_anywhere_takes_over_and_goes_home_all_the_same(
    field: Field, chance: random.Random, number: int
) -> None:
    await killed_on_the_way(field, *batch(type(field), number, chance), chance)


@pytest.mark.parametrize("kind", STORIES)
async def test_rounds_kill_at_every_point_of_every_activity(kind: type[Field], chance: random.Random) -> None:
    rounds = [batch(kind, number, chance)[1] for number in range(CRASHED)]
    cells = {(crash.procedure, crash.activity, crash.point) for crashes in rounds for crash in crashes}
    known = {(how, name) for how, name, _ in ways(kind)} | {(ACTIVATION, name) for name in FENCING}
    assert cells == {(*one, point) for one in known for point in POINTS}
    assert all(len({crash[:2] for crash in crashes}) == len(crashes) <= 23 for crashes in rounds)
    assert sum(map(len, rounds)) == len(cells)


def keys(field: Field, site: str) -> set[str]:
    """Return the names of all that a site's store holds."""
    with two_sites.session_store(field.lab.sites[site]) as client:
        return {str(key) for key in client.scan_iter(count=1000)}


@pytest.mark.drawn
async def test_sessions_lost_with_a_site_are_counted_as_clients_were_told_of_them(
    field: Field, chance: random.Random
) -> None:
    stores = {"north": "sessions", "south": "sessions-south"}
    async with field.round() as found:
        with Visitors(found.lab, found.old, f"visitor:{field.rounds}") as visitors:
            await eventually(lambda: len(visitors.told) > 200, "sessions are written")
            await asyncio.to_thread(found.lab.break_, "partition")
            known = len(visitors.told) + chance.randrange(50, 300)
            await eventually(lambda: len(visitors.told) > known, "sessions that reach nobody else")
            outage = await asyncio.to_thread(found.lose, "killed")
        taken_over = await found.take_over(outage)
        assert (taken_over.outcome, taken_over.residual) == ("recovered", ()), taken_over.failure
        lost = visitors.told.keys() - keys(field, found.new)
        assert len(lost) >= 50
        least = next(one for one in taken_over.figures if one.name.startswith(f"sessions that {stores[found.new]} may"))
        assert float(least.value) >= (outage - min(visitors.told[key] for key in lost)).total_seconds()
        await found.come_back()
        assert (await found.fenced()).outcome == "recovered"
        only = keys(field, found.old) - keys(field, found.new)
        strays = {key for key in only if key.startswith("visitor:")}  # the last one was cut off before it was told
        assert (lost - strays, len(strays - lost) <= 1) == (set(), True), (
            "what clients were told is there to be counted"
        )
        home = await found.home()
        said = {one.name: one.value for one in home.figures}
        # Customers go on ordering at the other site, where the sessions of some begin anew meanwhile.
        assert len(strays) <= int(said[f"sessions that only {stores[found.old]} has"]) <= len(only), said
        await found.accounted(taken_over, home)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(KILLS))
async def test_ten_rounds_of_kill_activate_and_fail_back(field: Field, chance: random.Random, number: int) -> None:
    async with field.round() as found:
        await lost_and_home(found, "killed", chance)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(ROUNDS))
async def test_fifty_rounds_never_have_two_sites_written_to(field: Field, chance: random.Random, number: int) -> None:
    async with field.round() as found:
        await lost_and_home(found, chance.choice(KINDS[1:]), chance)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(KILLS))
async def test_synchronous_replication_loses_no_acknowledged_order(
    field: Field, chance: random.Random, number: int
) -> None:
    async with field.round() as found:
        database, log = found.lab.databases[found.old], found.lab.place.load
        ask(database, f"alter system set synchronous_standby_names = '{found.new}'")
        ask(database, "select pg_reload_conf()")
        waits = "select count(*) from pg_stat_replication where sync_state = 'sync'"
        await eventually(lambda: ask(database, waits) == "1", "every commit waits for the standby")
        kind: Kind = chance.choice(("killed", "cut off, then killed"))
        listed = await lost_and_home(found, kind, chance, replication="synchronous")
        assert not listed & ({row.number for row in ledger.acknowledged(log)} | set(found.pinned.taken))
        ask(database, "alter system reset synchronous_standby_names")
        ask(database, "select pg_reload_conf()")


@pytest.mark.soak
@pytest.mark.parametrize("number", range(RETURNS))
async def test_site_that_comes_back_at_any_moment_is_never_the_second(
    field: Field, chance: random.Random, number: int
) -> None:
    """It comes back while the other one takes over: that ends, and the lost one is fenced, or all is as it was."""
    async with field.round() as found:
        with found.pinned:
            outage = await asyncio.to_thread(found.lose, "killed")
            taking = asyncio.create_task(found.take_over(outage))
            await asyncio.sleep(chance.uniform(0, 5))
            async with two_sites.never_two(found.lab):
                await found.come_back()
                taken_over = await taking
                if taken_over.outcome == "recovered":
                    assert (await found.fenced()).outcome == "recovered"
        if taken_over.outcome == "recovered":
            await found.accounted(taken_over, await found.home())
        else:
            assert (taken_over.outcome, taken_over.residual) == ("compensated", ()), (
                taken_over.failure,
                taken_over.residual,
            )
            await found.come_back()  # its start-up had to refuse while clients were sent nowhere
            await found.stands()
            acknowledged = {row.number for row in ledger.acknowledged(found.lab.place.load)}
            assert acknowledged - field.lost <= set(two_sites.rows(found.lab, found.old))
