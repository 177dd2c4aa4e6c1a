"""What the matrix shares: the stage for actions, one Temporal, and one undisturbed run of each procedure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from activities import ssh
from lab.estate import Lab
from tests.conftest import SEED, FreshLab
from tests.copies import end_jobs
from tests.drawing import draw
from tests.labs import lab_apart
from tests.matrix.disturbed import PROGRAM, Undisturbed, undisturbed
from tests.matrix.relay import relay
from tests.matrix.runs import RUNS
from tests.matrix.scenes import Stage
from tests.matrix.theatre import Theatre
from tests.running import Running, eventually, running
from tests.workflows.test_side_copy import restorable

DISASTERS = tuple(
    f"tests/matrix/test_{name}.py::"
    for name in ("activation", "answers", "cancels", "chaos", "damage", "disasters", "kills")
)
"""Whole recoveries, each with a disaster, of which a commit is tried with half."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(lab: Lab) -> AsyncIterator[Running]:
    """Temporal without a worker: each test starts its own."""
    async with running(lab, program=PROGRAM, worker=False) as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def calm(request: pytest.FixtureRequest, lab: Lab, engine: Running) -> AsyncIterator[Undisturbed]:
    """A procedure as it runs when nobody disturbs it; one that changes the running database has a lab of its own."""
    made = RUNS[request.param]
    if not made.apart:
        yield await undisturbed(made(lab, await restorable(lab)), engine)
        return
    with lab_apart() as own:
        own.up()
        async with running(own, program=PROGRAM, worker=False) as beside:
            yield await undisturbed(made(own, await restorable(own)), beside)


@pytest.hookimpl(tryfirst=True)  # before soak is deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave most of the trials of each action, and half of the disasters, to the soak: others with each commit."""

    def action(item: pytest.Item) -> str | None:
        tries = isinstance(item, pytest.Function) and "trial" in item.fixturenames
        return str(item.callspec.params["trial"]) if tries and isinstance(item, pytest.Function) else None

    draw(items, SEED, action, 1 / 27)
    draw(items, SEED, lambda item: "disasters" if item.nodeid.startswith(DISASTERS) else None, 1 / 2)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try every procedure, unless the test says which."""
    named = any("calm" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "calm" in metafunc.fixturenames and not named:
        metafunc.parametrize("calm", list(RUNS), indirect=True, scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The stage on which actions are tried without Temporal."""
    end_jobs(lab)  # the host may know the hand of a real recovery, to which that of a trial is late
    async with relay(lab.ports["ssh"]) as between:
        # From a chain of two: what is laid down is put together, by another program than copies one.
        await asyncio.to_thread(lab.postgres.summarize)
        full = await asyncio.to_thread(lab.base_backup)
        await asyncio.to_thread(lab.base_backup, full)
        taken = datetime.now(UTC)
        await eventually(lambda: datetime.now(UTC) > taken + timedelta(seconds=2), "the new backup is the nearest one")
        found = await Stage.built(lab, between, await restorable(lab), tmp_path_factory.mktemp("stage"))
        assert len(found.choice.backup.chain) == 2
        found.cluster = lambda: request.getfixturevalue("cluster")
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
