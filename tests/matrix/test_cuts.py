"""The SSH connection cut in the middle of a command: the job goes on on its host, and the next attempt finds it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from lab import processes
from lab.estate import Lab
from tests.copies import command
from tests.matrix import jobs
from tests.matrix.disturbed import Undisturbed, deciding, worked
from tests.matrix.relay import Relay, relay
from tests.running import eventually

pytestmark = [
    pytest.mark.drawn,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("calm", ["restore"], indirect=True, scope="session"),
]

JOBS = ("place", pytest.param("replay", marks=pytest.mark.soak))
NOTICED = 15.0  # seconds; keepalive asks three times, three seconds apart


@pytest_asyncio.fixture(loop_scope="session")
async def between(calm: Undisturbed) -> AsyncIterator[Relay]:
    async with relay(calm.lab.ports["ssh"]) as found:
        yield found


def through(found: Relay, lab: Lab, folder: Path) -> dict[str, str]:
    """Return the environment of a worker whose way to the host is ``found``."""
    known = folder / "known_hosts"
    known.write_text((lab.place.ssh / "known_hosts").read_text().replace(str(lab.ports["ssh"]), str(found.port)))
    return {"LAB_NORTH_SSH_PORT": str(found.port), "LAB_KNOWN_HOSTS": str(known)}


def attached(lab: Lab, folder: Path) -> set[int]:
    """Return the processes that wait for the end of the job of ``folder``."""
    waiting = f" job {folder.parent} {folder.name} "
    words = {found.pid: command(found.pid) for found in processes.members(lab.place.root)}
    return {pid for pid, said in words.items() if said.startswith("sh -c ") and waiting in said}


@asynccontextmanager
async def cut(calm: Undisturbed, job: str, **environment: str) -> AsyncIterator[None]:
    """Hold the job ``job`` of a recovery while the body cuts it off; it must be found again, not started again."""
    async with worked(calm.run, calm.engine, **environment), deciding(await calm.start(), "approve") as end:
        folder, group = await jobs.held(calm.lab.place.jobs, f"*.{job}")
        before = await eventually(lambda: attached(calm.lab, folder), "the worker waits for the job", 5)
        yield
        assert processes.look(group), "the job must outlive its connection"
        await eventually(
            lambda: attached(calm.lab, folder) - before, "the next attempt waits for the same job", NOTICED
        )
        assert int((folder / "group").read_text()) == group
        jobs.go_on(group)
        await calm.same("approve", await end)


@pytest.mark.parametrize("job", JOBS)
async def test_killed_ssh_server_changes_nothing(calm: Undisturbed, job: str) -> None:
    async with cut(calm, job):
        await asyncio.to_thread(calm.lab.break_, "ssh")
        await asyncio.to_thread(calm.lab.up)


@pytest.mark.parametrize("job", JOBS)
async def test_reset_connection_changes_nothing(calm: Undisturbed, between: Relay, job: str, tmp_path: Path) -> None:
    async with cut(calm, job, **through(between, calm.lab, tmp_path)):
        between.cut()


@pytest.mark.parametrize("job", JOBS)
async def test_stopped_worker_leaves_the_job_to_the_next(calm: Undisturbed, job: str) -> None:
    async with cut(calm, job):
        stopping = calm.engine.process
        assert stopping is not None
        stopping.terminate()
        calm.engine.start_worker()
        assert await asyncio.to_thread(stopping.wait, 20) == 0


async def test_silent_connection_is_noticed(calm: Undisturbed, between: Relay, tmp_path: Path) -> None:
    async with cut(calm, "place", **through(between, calm.lab, tmp_path)):
        between.silence()


async def test_connection_reset_at_random_changes_nothing(
    calm: Undisturbed, between: Relay, chance: random.Random, tmp_path: Path
) -> None:
    environment = through(between, calm.lab, tmp_path)
    async with worked(calm.run, calm.engine, **environment), deciding(await calm.start(), "reject") as end:
        await eventually(lambda: between.accepted, "the worker has connected", 20)
        for _ in range(chance.randint(3, 9)):  # not for ever: who is cut off at each attempt is right to give up
            await asyncio.sleep(chance.uniform(0, calm.seconds("reject") / 3))
            between.cut()
        await calm.same("reject", await end)
