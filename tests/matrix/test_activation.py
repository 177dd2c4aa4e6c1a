"""A switch disturbed at any step: killed, failed, cancelled; there and back under load, and nothing lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio
from temporalio.service import RPCError

from lab import ledger
from lab.place import SITES
from tests.conftest import SEED
from tests.matrix.answers import Recorded, cells, held, through
from tests.matrix.cells import POINTS
from tests.matrix.furnished import Furnished
from tests.matrix.pitch import PATIENCE, Pitch, decided, same_way, steps

pytestmark = pytest.mark.asyncio(loop_scope="module")

SKIPPABLE = re.compile(
    r"validate-|see-the-last-(request|session)-|see-.*-ready[-.]|see-resolvers-|see-(north|south)-well-at-"
    r"|see-which-nodes-|drain-the-nodes-.*\.apply"
)
BESIDE = re.compile(r"silence-alerts-|see-which-alerts-|open-the-nodes-.*\.apply")
"""Steps that hold nobody up, whatever becomes of them; and one without which pods find no node, if it is left out."""
POINTED = re.compile(r"point-(\w+)-at-nobody\.apply")
SAMPLE = 1
PARTS = 8
"""Of a matrix: each takes some minutes by itself."""
SWITCHES = 10


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[Pitch, Furnished])
async def pitch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pitch]:
    found: Pitch = request.param(tmp_path_factory.mktemp("pitch"))
    if isinstance(found, Furnished):
        found.cluster = request.getfixturevalue("cluster")
    yield found
    await found.close()


@dataclass(frozen=True)
class Usual:
    """What a switch does that nobody disturbs, by the site that it activates."""

    ways: Mapping[str, Mapping[str, float]]

    def recorded(self, new: str) -> Recorded:
        """Return its steps for who is told of failures."""
        held = (name for name in self.ways[new] if not BESIDE.match(name))
        names = tuple(name for name in held if name.endswith((".observe", ".apply")))
        skippable = tuple(name for name in names if SKIPPABLE.match(name))
        first = self.first(new)  # of several directors
        return Recorded("activate", names, f"point {first} at {new}", f"point {first} at nobody", skippable)

    def first(self, new: str) -> str:
        """Return the director that is pointed first."""
        pointed = (POINTED.fullmatch(name) for name in self.ways[new])
        return next(found[1] for found in pointed if found)

    def seconds(self) -> float:
        """Return how long the steps took together that come before the point of no return."""
        way = list(self.ways["south"].items())
        commits = f"point-{self.first('south')}-at-south.apply"
        commit = next(at for at, (name, _) in enumerate(way) if name == commits)
        return sum(seconds for _, seconds in way[:commit])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def usual(pitch: Pitch) -> Usual:
    """Switch there and back, with nobody in the way."""
    ways: dict[str, Mapping[str, float]] = {}
    for _ in SITES:
        async with pitch.scene() as match:
            recovery = await match.start()
            await match.switched(await decided(recovery))
            ways[match.new] = await steps(recovery)
    assert sorted(map(same_way, ways["south"])) == sorted(map(same_way, ways["north"]))
    return Usual({"south": ways["south"], "north": in_order(ways["north"], ways["south"])})


def in_order(way: Mapping[str, float], like: Mapping[str, float]) -> dict[str, float]:
    """Return a way in the order of the other one: of what runs side by side now this comes first, now that."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(like):
        places.setdefault(same_way(name), []).append(place)
    placed = {name: places[same_way(name)].pop(0) for name in way}
    return {name: way[name] for name in sorted(way, key=placed.__getitem__)}


# --- killed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crash:
    """A worker killed at ``point`` of the activity with this number, ``share`` of its time into it."""

    number: int
    point: str
    share: float


def matrix(usual: Usual, chance: random.Random) -> list[Crash]:
    """Return every crash, in an order left to chance."""
    found = [Crash(number, point, chance.random()) for number in range(len(usual.ways["south"])) for point in POINTS]
    chance.shuffle(found)
    return found


async def crashed(pitch: Pitch, usual: Usual, crash: Crash) -> None:
    """Switch, with one worker killed, and compare what is left with a switch that nobody disturbed."""
    async with pitch.scene() as match:
        activity, seconds = list(usual.ways[match.new].items())[crash.number]
        pitch.hurt(activity, crash.point, crash.share * seconds)
        report = await decided(await match.start())
        assert pitch.struck()
        await match.switched(report)


async def test_killed_worker_switches_all_the_same(
    pitch: Pitch, usual: Usual, chance: random.Random, subtests: pytest.Subtests
) -> None:
    await crash_all(pitch, usual, matrix(usual, chance)[:SAMPLE], subtests)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
async def test_worker_killed_anywhere_switches_all_the_same(
    pitch: Pitch, usual: Usual, part: int, subtests: pytest.Subtests
) -> None:
    await crash_all(pitch, usual, matrix(usual, random.Random(f"{SEED}/switches"))[part::PARTS], subtests)


async def crash_all(pitch: Pitch, usual: Usual, crashes: Sequence[Crash], subtests: pytest.Subtests) -> None:
    for crash in crashes:
        with subtests.test(f"{list(usual.ways['south'])[crash.number]} {crash.point}"):
            await crashed(pitch, usual, crash)


# --- failed for good ---------------------------------------------------------------------------------------


async def failed(pitch: Pitch, usual: Usual, number: int) -> None:
    """Play the cell of this number, whichever way it goes, and compare outcome, report and world."""
    async with pitch.scene() as match:
        cell = cells(usual.recorded(match.new))[number]
        pitch.fail(cell.activity, cell.point)
        recovery = await match.start("silent-" if cell.answer == "silence" else "")
        report = await through(recovery, cell, PATIENCE)
        assert (report.outcome, report.residual) == (cell.outcome(), ()), (cell, report.failure, report.kind)
        held(cell, report)
        if cell.goes_on:
            await match.switched(report)
        else:
            assert (report.committed, report.delivered) == (None, {})
            await match.unchanged()


async def fail_all(pitch: Pitch, usual: Usual, numbers: Sequence[int], subtests: pytest.Subtests) -> None:
    named = cells(usual.recorded("south"))
    for number in numbers:
        with subtests.test(str(named[number])):
            await failed(pitch, usual, number)


async def test_failed_step_and_its_answer_agree_with_both_sites(
    pitch: Pitch, usual: Usual, chance: random.Random, subtests: pytest.Subtests
) -> None:
    await fail_all(pitch, usual, chance.sample(range(len(cells(usual.recorded("south")))), SAMPLE), subtests)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
async def test_every_failed_step_and_every_answer_agree_with_both_sites(
    pitch: Pitch, usual: Usual, part: int, subtests: pytest.Subtests
) -> None:
    await fail_all(pitch, usual, range(len(cells(usual.recorded("south"))))[part::PARTS], subtests)


# --- cancelled ---------------------------------------------------------------------------------------------


async def cancelled(pitch: Pitch, usual: Usual, chance: random.Random, times: int) -> None:
    """Cancel so many times before the point of no return; where it was passed all the same, nothing is undone."""
    async with pitch.scene() as match:
        recovery = await match.start()
        end = asyncio.create_task(decided(recovery))
        for _ in range(times):
            await asyncio.sleep(chance.uniform(0, usual.seconds() / times))
            with contextlib.suppress(RPCError):  # it is over
                await recovery.handle.cancel()
        report = await end
        if report.outcome == "recovered":
            await match.switched(report)
        elif report.committed:
            assert report.residual[0].startswith("past the point of no return (")
            assert not [line for line in report.steps if line.state == "undone"]
            await pitch.close()  # people would bring the old site back
        else:
            assert (report.outcome, report.residual) == ("cancelled", ()), report.failure
            await match.unchanged()


async def test_cancelled_switch_leaves_both_sites_as_they_were(
    pitch: Pitch, usual: Usual, chance: random.Random
) -> None:
    await cancelled(pitch, usual, chance, chance.choice([1, 2, 3]))


@pytest.mark.soak
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_switch_cancelled_at_any_time_leaves_the_sites_as_they_were(
    pitch: Pitch, usual: Usual, chance: random.Random, times: int, number: int
) -> None:
    await cancelled(pitch, usual, chance, times)


# --- there and back ----------------------------------------------------------------------------------------


async def switches(pitch: Pitch, times: int) -> list[float]:
    """Switch so many times, and return for how many seconds clients were refused in each."""
    found = []
    for _ in range(times):
        async with pitch.scene() as match:
            recovery = await match.start()
            await match.switched(await decided(recovery))
            found.append(round(ledger.refused_for(match.lab.place.load, match.began), 2))
            print(f"to {match.new}: clients refused for {found[-1]} s")
    return found


@pytest.mark.soak
async def test_ten_switches_lose_nothing(pitch: Pitch, usual: Usual) -> None:
    found = await switches(pitch, SWITCHES)
    print(f"{SWITCHES} switches, clients refused for {found} s, {sorted(found)[len(found) // 2]} s in the middle")
