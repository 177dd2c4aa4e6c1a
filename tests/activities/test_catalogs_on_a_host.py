"""Two catalogs have a system of the same name on one host of a lab, with one folder of jobs."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from activities import ssh
from activities.ssh import HostAt
from lab.estate import Lab
from recovery.errors import Stale
from recovery.fencing import Hand, acting
from recovery.names import lease_id
from tests.branches import host

pytestmark = pytest.mark.asyncio(loop_scope="module")

SYSTEM = "twins"
JOB = "twins.fence"
NOW, LATER = 1795649999999, 1795650000000


@pytest_asyncio.fixture(loop_scope="module")
async def at(lab: Lab) -> AsyncIterator[HostAt]:
    """The host, which has never heard of the system."""
    yield HostAt.model_validate(host(lab).model_dump() | {"name": "north-db"})
    for left in lab.place.jobs.glob(f".hands/{SYSTEM}*"):
        left.unlink()
    shutil.rmtree(lab.place.jobs / JOB, ignore_errors=True)
    await ssh.close()


def of(catalog: str, epoch: int, order: int = 1, attempt: int = 1) -> Hand:
    return Hand(SYSTEM, epoch, order, attempt, lease_id(catalog, SYSTEM))


async def acts(at: HostAt, whose: Hand) -> None:
    """Run a job to its end, and remove it, as an action does."""
    with acting(whose):
        await ssh.job(at, JOB, "nothing", {})
        await ssh.end_job(at, JOB)


async def refused(at: HostAt, whose: Hand, said: str) -> None:
    with acting(whose):
        with pytest.raises(Stale, match=said):
            await ssh.job(at, JOB, "nothing", {})
        with pytest.raises(Stale, match=said):
            await ssh.end_job(at, JOB)


async def test_none_is_late_to_the_other(at: HostAt) -> None:
    await acts(at, of("one", LATER))
    await acts(at, of("other", NOW))
    await acts(at, of("one", LATER, attempt=2))
    await acts(at, of("other", NOW, order=2))


async def test_each_is_late_to_its_own(at: HostAt) -> None:
    await acts(at, of("one", LATER, order=3))
    await acts(at, of("other", NOW, order=3))
    await refused(at, of("one", LATER, order=2), rf"a later hand .order 3, attempt 1. has had {SYSTEM}@one since")
    await refused(at, of("other", NOW - 1, order=9), rf"a later hand .epoch {NOW}. has had {SYSTEM}@other since")
