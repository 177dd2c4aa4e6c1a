"""A worker is killed in whatever a rollback does on a cluster: that, a host and the repository agree all the same."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from lab.estate import Lab
from lab.kubernetes import Kubernetes
from recovery.report import Report
from tests.clusters import config_map, service
from tests.conftest import SEED
from tests.matrix.cells import Cell
from tests.matrix.disturbed import PROGRAM
from tests.matrix.turns import Turns
from tests.running import Recovery
from tests.workflows.test_cluster_rollback import Estate, estate_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

GOOD = (config_map("settings", {"limit": "100"}), service("shop"), config_map("old", {"only": "before"}))
BAD = (config_map("settings", {"limit": "0"}), service("shop"), config_map("new", {"only": "after"}))
WELL, WORSE = "works well\n", "works\nnot on two\n"
OUTCOMES = {WELL: "recovered", WORSE: "compensated"}
PARTS = 2
"""Of one way: each takes some minutes by itself."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def estate(lab: Lab, cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Estate]:
    work = tmp_path_factory.mktemp("clustered")
    async with estate_of(lab, cluster, work, PROGRAM, worker=False) as found:
        yield found


async def conducted(estate: Estate, text: str, cells: Sequence[Cell]) -> tuple[Report, Recovery]:
    """Roll back once, from what a bad deployment has left; the cluster comes first where that ends badly."""
    estate.anew()
    first = "cluster" if text == WORSE else "on-one"
    estate.have(GOOD, BAD, text, canary=[first], watch="PT0S")
    turns = Turns(estate.engine, estate.root)
    return await turns.conducted(lambda: estate.start(prune=True), cells)


def stands(estate: Estate, text: str) -> None:
    """Assert that all of it is rolled back, or that nothing is."""
    objects, files = (GOOD, text) if text == WELL else (BAD, "works badly\n")
    data = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    assert {name: estate.data(name) for name in ("settings", "old", "new")} == {"old": None, "new": None, **data}
    for machine in estate.machines.values():
        assert (machine.has(), machine.loaded) == ({"app.conf": files}, files)
    bad = estate.bad
    assert estate.remote.tree() == estate.remote.tree(estate.good if text == WELL else bad)
    assert len(estate.remote.git("rev-list", f"{bad}..main").split()) == (1 if text == WELL else 2)


async def crash(estate: Estate, text: str, chance: random.Random, subtests: pytest.Subtests, share: slice) -> None:
    await Turns(estate.engine, estate.root).crash(
        lambda cells: conducted(estate, text, cells), lambda: stands(estate, text), OUTCOMES[text], chance, subtests,
        share, lambda step: "cluster" in step,
    )  # fmt: skip


@pytest.mark.parametrize("text", OUTCOMES, ids=OUTCOMES.values())
async def test_killed_worker_rolls_a_cluster_back_all_the_same(
    estate: Estate, text: str, chance: random.Random, subtests: pytest.Subtests
) -> None:
    await crash(estate, text, chance, subtests, slice(1))


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("text", OUTCOMES, ids=OUTCOMES.values())
async def test_worker_killed_anywhere_rolls_a_cluster_back_all_the_same(
    estate: Estate, text: str, part: int, subtests: pytest.Subtests
) -> None:
    await crash(estate, text, random.Random(f"{SEED}/{text}"), subtests, slice(part, None, PARTS))
