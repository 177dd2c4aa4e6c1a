"""A worker is killed while Barman or pgBackRest lays down, replays, archives and backs up: the recovery ends right."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from lab.estate import Lab
from recovery.report import Report
from tests.conftest import SEED
from tests.matrix.cells import Cell
from tests.matrix.disturbed import PROGRAM
from tests.matrix.turns import Turns
from tests.running import Recovery
from tests.tooled import KINDS, Tooled, served, tooled
from tests.worlds import names

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

PARTS = 4
"""Of all cells: each part takes some minutes by itself."""
STEPS = re.compile(
    "find-the-backups|look-at-the-running|lay-down|replay-the|write-into-the-restored|take-a-base-backup"
)
"""The steps that ask the tool for something."""


@dataclass
class Replaced:
    """One database, turned back again and again."""

    found: Tooled
    turns: Turns
    before: dict[str, str] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)
    timeline: int = 0
    rows: tuple[int, ...] = ()
    run: str = ""

    async def conducted(self, cells: Sequence[Cell]) -> tuple[Report, Recovery]:
        """Turn it back past its last rows."""
        found = self.found
        await asyncio.to_thread(found.sweep)
        await asyncio.to_thread(found.behind)
        target = await found.final(await asyncio.to_thread(found.commit))
        self.rows = tuple(found.numbers())
        await asyncio.to_thread(found.commit, 2)
        self.jobs = names(found.lab.place.jobs)
        self.before, self.timeline = await asyncio.to_thread(found.backups), found.timeline()
        report, recovery = await self.turns.conducted(lambda: found.start(self.turns.engine, target), cells, 240)
        self.run = str(recovery.handle.result_run_id)
        return report, recovery

    def stands(self) -> None:
        """Look at rows, timeline, the tool's backups and archive, and for what was left."""
        found = self.found
        assert tuple(found.numbers()) == self.rows
        assert found.timeline() == self.timeline + 1
        now = found.backups()
        assert {name: now.pop(name, None) for name in self.before} == self.before
        assert list(now.values()) == [f"recovery tools/orders@{self.run}"]
        assert f"{self.timeline + 1:08X}.history" in found.archived(self.timeline + 1)
        assert names(found.lab.place.jobs) == self.jobs


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def replaced(
    lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Replaced]:
    with tooled(lab, request.param, tmp_path_factory.mktemp("catalogs")) as found:
        async with served(found, PROGRAM, worker=False) as engine:
            yield Replaced(found, Turns(engine, tmp_path_factory.mktemp("struck")))


async def crash(replaced: Replaced, chance: random.Random, subtests: pytest.Subtests, share: slice) -> None:
    conduct, stands = replaced.conducted, replaced.stands
    await replaced.turns.crash(
        conduct, stands, "recovered", chance, subtests, share, lambda step: bool(STEPS.match(step))
    )


async def test_killed_worker_leaves_one_backup_of_the_tool(
    replaced: Replaced, chance: random.Random, subtests: pytest.Subtests
) -> None:
    await crash(replaced, chance, subtests, slice(2))


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
async def test_worker_killed_anywhere_leaves_one_backup_of_the_tool(
    replaced: Replaced, part: int, subtests: pytest.Subtests
) -> None:
    await crash(replaced, random.Random(f"{SEED}/tools"), subtests, slice(part, None, PARTS))
