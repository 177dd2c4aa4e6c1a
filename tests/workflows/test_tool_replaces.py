"""A database whose backups Barman or pgBackRest keeps is replaced as a whole, and its tool takes the next backup."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from activities import ssh
from activities.ssh import HostAt
from lab import processes
from lab.estate import Lab
from recovery.fencing import Hand, acting
from recovery.names import lease_id
from tests.branches import host
from tests.matrix.disasters import decided
from tests.running import Running, eventually
from tests.tooled import KINDS, Tooled, clients, served, tooled

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def found(
    lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tooled]:
    with tooled(lab, request.param, tmp_path_factory.mktemp("catalogs")) as database:
        yield database


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(found: Tooled) -> AsyncIterator[Running]:
    async with served(found) as running:
        yield running


async def of_another_catalog(found: Tooled) -> None:
    """Have the host know a hand of another catalog on a system of this name, later than any of this one."""
    at = HostAt.model_validate(host(found.lab).model_dump())
    with acting(Hand("orders", 10**15, 1, 1, lease_id("another", "orders"))):
        await ssh.job(at, "another", "nothing", {})
        await ssh.end_job(at, "another")
    await ssh.close()


async def test_replaced_database_has_a_backup_of_its_tool(found: Tooled, engine: Running) -> None:
    """Its rows are those before the moment; what clients wrote since is exported; the tool restores what came after.

    What another catalog has in hand on the same host does not matter.
    """
    await of_another_catalog(found)
    before, timeline = found.backups(), found.timeline()
    with clients(found) as said:
        await eventually(lambda: len(said) > 20, "clients write")
        target = await found.final(await asyncio.to_thread(found.commit))
        turned = found.number
        recovery = await found.start(engine, target)
        report = await decided(recovery, by="bob")
        assert report.outcome == "recovered", report.failure
        await eventually(lambda: max(said) > turned, "clients write again")
    there = set(found.numbers())
    exported = {
        int(line.split(",")[0].strip('"'))
        for file in found.at.place.copies.glob("*.salvage/public.rows.csv")
        for line in file.read_text().splitlines()[1:]
    }
    assert set(said) - there - exported == set()
    assert there & exported == set()
    assert found.timeline() == timeline + 1
    new = {name: whose for name, whose in found.backups().items() if name not in before}
    assert list(new.values()) == [f"recovery tools/orders@{recovery.handle.result_run_id}"]
    assert report.delivered["redundancy"] == f"base backup {next(iter(new))}; it runs without a standby"
    assert {name: found.backups()[name] for name in before} == before
    await asyncio.to_thread(found.behind)
    later = await found.final(await asyncio.to_thread(found.commit))
    wanted = found.numbers()
    await asyncio.to_thread(found.commit)
    report = await decided(await found.start(engine, later, "restore-orders"), by="bob")
    assert report.outcome == "recovered", report.failure
    assert f"lay down backup {next(iter(new))}" in [step.title for step in report.steps]
    _, *where = report.delivered["copy"].split()
    copy = Path(where[1]).parent
    try:
        assert found.numbers(*where) == wanted
    finally:
        processes.stop(processes.postgres_in(copy), signal.SIGKILL, 10)
