"""What the matrix shares: the stage for actions, one Temporal, and one undisturbed run of each procedure."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from activities import ssh
from lab.estate import Lab
from tests.conftest import FreshLab
from tests.matrix.disturbed import PROGRAM, Undisturbed, undisturbed
from tests.matrix.relay import relay
from tests.matrix.restores import RUNS
from tests.matrix.scenes import Stage
from tests.matrix.theatre import Theatre
from tests.running import Running, running
from tests.workflows.test_side_copy import restorable


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(lab: Lab) -> AsyncIterator[Running]:
    """Temporal without a worker: each test starts its own."""
    async with running(lab, program=PROGRAM, worker=False) as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=list(RUNS))
async def calm(request: pytest.FixtureRequest, lab: Lab, engine: Running) -> Undisturbed:
    """Every procedure that has a scene, as it runs when nobody disturbs it."""
    found = await undisturbed(RUNS[request.param](lab, await restorable(lab)), engine)
    assert found.shown["approve"]["copies"]
    assert found.shown["reject"] == {**found.shown["approve"], "copies": [], "servers": 0, "jobs": []}
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """The stage on which actions are tried without Temporal."""
    async with relay(lab.ports["ssh"]) as between:
        found = await Stage.built(lab, between, await restorable(lab), tmp_path_factory.mktemp("stage"))
        async with found.ends:
            yield found
        await ssh.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theatre(
    stage: Stage, fresh_labs: FreshLab, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Theatre]:
    """The stages of all scenes."""
    found = Theatre(stage, fresh_labs, tmp_path_factory.mktemp("theatre"))
    yield found
    await found.close()
