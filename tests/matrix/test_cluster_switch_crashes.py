"""A worker is killed in whatever a switch does on clusters: workloads and nodes stand as they have to, nothing twice.

Both sites share one control plane: no site is lost.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from lab.kubernetes import Kubernetes
from recovery.report import Report
from tests.conftest import SEED
from tests.labs import lab_apart
from tests.matrix.cells import Cell
from tests.matrix.disturbed import PROGRAM
from tests.matrix.turns import Turns
from tests.running import Recovery, Running, running
from tests.switches import activate
from tests.workloads import DOWN, UP, At, author, deployed_at

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]
PARTS = 2
"""Of the whole: each takes some minutes by itself."""


@dataclass
class Way:
    """The way to south, disturbed, from where everything was brought home before."""

    engine: Running
    webs: dict[str, At]
    root: Path
    active: str = "north"
    written: dict[str, int] = field(default_factory=dict)

    async def conducted(self, cells: Sequence[Cell]) -> tuple[Report, Recovery]:
        """Go south, with workers killed at ``cells``."""
        if self.active == "south":
            report, _ = await self._switched("north", ())
            assert (report.outcome, report.residual) == ("recovered", ()), report.failure
        self.written = {site: at.live()["metadata"]["generation"] for site, at in self.webs.items()}
        return await self._switched("south", cells)

    async def _switched(self, site: str, cells: Sequence[Cell]) -> tuple[Report, Recovery]:
        turns = Turns(self.engine, self.root)
        found = await turns.conducted(lambda: activate(self.engine, site), cells, 240)
        self.active = site
        return found

    def stands(self) -> None:
        """Assert that south serves and north stands still, each written once."""
        assert {site: at.stands() for site, at in self.webs.items()} == {"north": DOWN, "south": UP}
        now = {site: at.live()["metadata"]["generation"] for site, at in self.webs.items()}
        assert {site: now[site] - self.written[site] for site in now} == {"north": 1, "south": 1}

    async def crash(self, chance: random.Random, subtests: pytest.Subtests, share: slice) -> None:
        """Kill workers at a share of the cells."""
        await Turns(self.engine, self.root).crash(
            self.conducted, self.stands, "recovered", chance, subtests, share,
            lambda step: "web-" in step or "nodes" in step,
        )  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def way(cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Way]:
    with lab_apart() as lab, deployed_at({"north": cluster, "south": cluster}) as webs:
        lab.up(south=True, rate=20)
        catalogs = tmp_path_factory.mktemp("catalogs")
        author(catalogs / "lab", webs, queued=False)
        async with running(lab, PROGRAM, worker=False, RECOVERY_CATALOGS=str(catalogs)) as engine:
            yield Way(engine, webs, catalogs)


async def test_killed_worker_switches_workloads_all_the_same(
    way: Way, chance: random.Random, subtests: pytest.Subtests
) -> None:
    await way.crash(chance, subtests, slice(1))


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
async def test_worker_killed_anywhere_switches_workloads_all_the_same(
    way: Way, part: int, subtests: pytest.Subtests
) -> None:
    await way.crash(random.Random(f"{SEED}/switch"), subtests, slice(part, None, PARTS))
