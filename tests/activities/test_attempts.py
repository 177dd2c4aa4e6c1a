"""Attempts at a cut-over and its ways back on a lab: cut anywhere, at servers that died, hang or come up for long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities import ssh
from activities.cut_over import CutAction, CutSpec, Fenced, Installed, Promoted, fence, install, promote
from lab import processes
from lab.processes import Process
from recovery.actions import Order
from recovery.errors import Drifted, Transient
from recovery.models import Wire
from tests.conftest import FreshLab
from tests.copies import ask_copy, postmasters
from tests.matrix import jobs
from tests.matrix.relay import relay
from tests.matrix.scenes_cut_over import Fallen, carried_out
from tests.matrix.theatre import written
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(fresh_labs: FreshLab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fallen]:
    """A promoted copy beside the place of a database that was fenced."""
    lab = fresh_labs()
    await asyncio.to_thread(lab.up, load=False)
    target = await asyncio.to_thread(written, lab)
    async with relay(lab.ports["ssh"]) as between:
        found = await Fallen.built(lab, between, target, tmp_path_factory.mktemp("stage"))
        await found.prepare()
        yield found
        await ssh.close()


@pytest.fixture
def beside(stage: Fallen) -> Path:
    """Where the copy's data is beside the place of the running database."""
    return Path(stage.cut.copy_dir, "data")


def order(action: CutAction[CutSpec, Any], spec: CutSpec, before: Wire) -> Order[CutSpec, Any]:
    """Return what an activity would be told."""
    wire = Order[action.spec_type, action.state_type]  # type: ignore[name-defined]
    return wire(spec=spec, before=before, mode="live", not_after=datetime.now(UTC) + timedelta(minutes=5))


async def cut(stage: Fallen, name: str, work: Any, begun: Callable[[], bool]) -> asyncio.Task[Any]:
    """Begin ``work`` and stop its job on the host once ``begun`` holds: its worker is lost."""
    task = asyncio.create_task(work)
    await jobs.held(stage.lab.place.jobs, stage.cut.job(name), begun)
    return task


async def lost(task: asyncio.Task[Any]) -> None:
    """Wait for the end of an attempt whose job was ended beneath it."""
    found = (await asyncio.gather(task, return_exceptions=True))[0]
    assert isinstance(found, Transient), repr(found)


MOMENTS: dict[str, Callable[[Fallen, Path], bool]] = {
    "stopped at home": lambda stage, beside: stage.lab.place.data.exists() and not stage.lab.postgres.running(),
    "moved": lambda stage, beside: beside.exists(),
    "as it was": lambda stage, beside: beside.exists() and not Path(stage.cut.copy_dir, "kept/settings").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_going_back_is_cut_and_begun_again(stage: Fallen, beside: Path, moment: str) -> None:
    await stage.installed(False)
    before = await install.observe(stage.cut)
    assert before == Installed(at="copy", serving=True)
    back = order(install, stage.cut, before)
    await carried_out(install, stage.cut)
    first = await cut(stage, "install", install.carry_back(back), lambda: MOMENTS[moment](stage, beside))
    assert await install.carry_back(back) == before
    await lost(first)
    assert ask_copy(stage.lab, "select pg_is_in_recovery(), max(number) from orders") == ["f|1000"]
    assert not stage.lab.place.data.exists()


async def test_restored_database_that_died_is_put_back(stage: Fallen, beside: Path) -> None:
    await stage.installed(False)
    before = await install.observe(stage.cut)
    await carried_out(install, stage.cut)
    killed(stage.lab.place.data)
    assert await install.carry_back(order(install, stage.cut, before)) == before
    assert ask_copy(stage.lab, "select max(number) from orders") == ["1000"]


async def test_copy_that_died_beside_is_started(stage: Fallen, beside: Path) -> None:
    await stage.installed(False)
    before = await install.observe(stage.cut)
    killed(beside)
    assert await install.carry_back(order(install, stage.cut, before)) == before
    assert len(postmasters(stage.lab, beside)) == 1


async def test_copy_that_was_dead_stays_dead(stage: Fallen, beside: Path) -> None:
    await stage.installed(False)
    killed(beside)
    before = await install.observe(stage.cut)
    assert before == Installed(at="copy", serving=False)
    try:
        await carried_out(install, stage.cut)
        assert await install.carry_back(order(install, stage.cut, before)) == before
        assert beside.exists()
        assert processes.postgres_in(beside) == []
    finally:
        await install.undo(stage.cut, Installed(at="copy", serving=True))
        await install.halt(stage.cut)


async def test_folder_of_another_is_not_taken_for_the_copy(stage: Fallen, beside: Path) -> None:
    await stage.installed(True)
    back, elsewhere = order(install, stage.cut, Installed(at="copy", serving=True)), stage.lab.place.north / "moved"
    killed(stage.lab.place.data)
    stage.lab.place.data.rename(elsewhere)
    beside.mkdir()
    try:
        with pytest.raises(Drifted, match="somebody else"):
            await install.carry_back(back)
        assert list(beside.iterdir()) == []
    finally:
        shutil.rmtree(beside)
        elsewhere.rename(stage.lab.place.data)
    assert await install.carry_back(back) == back.before


async def test_attempt_waits_for_the_server_that_the_one_before_it_started(stage: Fallen, beside: Path) -> None:
    await stage.installed(False)
    before = await install.observe(stage.cut)
    await carried_out(install, stage.cut)
    server = await waited_for(stage, install, before, beside)
    assert postmasters(stage.lab, beside) == [server]
    assert await install.observe(stage.cut) == before
    assert ask_copy(stage.lab, "select max(number) from orders") == ["1000"]


async def test_attempt_waits_for_the_running_database_to_come_up(stage: Fallen) -> None:
    await stage.installed(False)
    home = Fenced(at="home", serving=True, listening=True)
    try:
        server = await waited_for(stage, fence, home, stage.lab.place.data)
        assert postmasters(stage.lab, stage.lab.place.data) == [server]
        assert await fence.observe(stage.cut) == home
    finally:
        await fence.halt(stage.cut)
        await carried_out(fence, stage.cut)


async def waited_for(stage: Fallen, action: CutAction[CutSpec, Any], before: Wire, data: Path) -> Process:
    """Take ``action`` back twice while the server of ``data`` takes its time; return that server."""

    def coming_up() -> bool:
        for server in (found := postmasters(stage.lab, data)):
            processes.send(server, signal.SIGSTOP)
        return bool(found)

    back, name = order(action, stage.cut, before), action.name.removeprefix("postgres.")
    async with asyncio.timeout(90):
        first = await cut(stage, name, action.carry_back(back), coming_up)
        (server,) = postmasters(stage.lab, data)
        second = asyncio.create_task(action.carry_back(back))
        try:
            await lost(first)
            await eventually(
                lambda: at_work(stage.lab.place.jobs / stage.cut.job(name)), "the second attempt is at work"
            )
        finally:
            processes.send(server, signal.SIGCONT)
        assert await second == before
    return server


async def test_timeline_that_the_first_attempt_did_not_note_is_noted(stage: Fallen) -> None:
    await stage.installed(False)
    file = Path(stage.cut.copy_dir, "kept/timeline")
    noted = file.read_text()
    file.unlink()  # as after an attempt that was cut once the copy was promoted
    after = await promote.carry_out(order(promote, stage.cut, Promoted(role="standby")))
    assert after == Promoted(role="primary", clients="refused", timeline=2)
    assert file.read_text() == noted == "00000002\n"


async def test_copy_that_hangs_is_asked_again(stage: Fallen, beside: Path) -> None:
    await stage.installed(False)
    (server,) = postmasters(stage.lab, beside)
    processes.send(server, signal.SIGSTOP)
    try:
        with pytest.raises(Transient, match="does not answer"):
            await promote.observe(stage.cut)
    finally:
        processes.send(server, signal.SIGCONT)
    assert (await promote.observe(stage.cut)).role == "primary"


def at_work(job: Path) -> bool:
    """Tell whether the script of a job runs."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):  # not there yet
        return jobs.body(int((job / "group").read_text())) is not None
    return False


def killed(data: Path) -> None:
    """Kill the server that works in ``data`` with everything that it started."""
    found = processes.postgres_in(data)
    assert found
    for one in found:
        os.kill(one.pid, signal.SIGKILL)
    assert processes.gone(found, 10)
