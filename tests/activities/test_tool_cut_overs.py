"""What follows a copy's installation, with Barman and pgBackRest: its log in their archive, and the next backup.

The job, or the tool itself, is killed in the middle: run again there is one backup, and undone there is what there was.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from activities import ssh
from activities.backups import backups
from activities.cut_over import CutAction, CutSpec, fence, install, promote
from activities.door import close, open_doors
from activities.postgres import place, ready, replay
from activities.redundancy import Archived, BackedUp, BackUp, archive, base_backup
from activities.replacing import Replacing
from activities.side_copy import SideCopy, assess
from activities.standing import Standing, cut_over_blockers, look_at_standing
from lab.estate import Lab
from recovery.actions import Action, Spec
from recovery.errors import Drifted, Transient
from recovery.models import Wire
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Database
from tests.branches import host
from tests.copies import command
from tests.repositories import Barman
from tests.running import SLOWER, eventually
from tests.tooled import ASYNC, KINDS, Tooled, tooled

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

S = TypeVar("S", bound=Spec)
T = TypeVar("T", bound=Wire)
VICTIMS = ("shell", "tool", "all")


def mostly(often: str) -> list[Any]:
    """Return all victims, of which one is not left to a soak."""
    return [pytest.param(one, marks=() if one == often else pytest.mark.soak) for one in VICTIMS]


@dataclass
class Stage:
    """A restored copy in the place of its database: it archives nothing yet, and nobody is let in."""

    found: Tooled
    replacing: Replacing
    standing: Standing
    port: int
    timeline: int

    @property
    def cut(self) -> CutSpec:
        """What most steps take."""
        return self.replacing.cut(self.port, self.standing)

    @property
    def backup(self) -> BackUp:
        """What the next backup is."""
        return self.replacing.base_backup(self.port, self.standing, datetime.now(UTC))

    def pids(self, job: str, victim: str) -> list[int]:
        """Return what runs of a job: its shells, the tool's processes, or all."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"RECOVERY_JOB={job}\0".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        words = {pid: command(pid) for pid in found}
        tool = {pid for pid, text in words.items() if "barman" in text or text.split(" ")[0].endswith("pgbackrest")}
        own = {pid for pid in found if words[pid].endswith("/body")}
        return sorted({"shell": own - tool, "tool": tool - own, "all": set(found)}[victim])

    async def killed(
        self, apply: Callable[[], Awaitable[None]], job: str, victim: str, seconds: float
    ) -> BaseException | None:
        """Begin, kill what is meant by ``victim`` after ``seconds``, and return how it ended."""
        running = asyncio.ensure_future(apply())
        await asyncio.sleep(seconds)
        with contextlib.suppress(AssertionError):
            await eventually(lambda: running.done() or self.pids(job, victim), f"{victim} runs", 5, pause=0.001)
        for pid in self.pids(job, victim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return (await asyncio.gather(running, return_exceptions=True))[0]


async def carried_out(action: Action[S, T], spec: S) -> T:
    """Apply ``action``, as often as it takes, and return what is then."""
    before = await action.observe(spec)
    await again(lambda: action.apply(spec, before))
    await action.halt(spec)
    return await action.observe(spec)


async def again(act: Callable[[], Awaitable[None]]) -> None:
    """Try as the engine does: what is told to pass is tried again."""
    async with asyncio.timeout(60 * SLOWER):
        while True:
            try:
                return await act()
            except Transient:
                await asyncio.sleep(0.2)


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[*KINDS, pytest.param(ASYNC, marks=pytest.mark.soak)]
)
async def stage(
    lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    with tooled(lab, request.param, tmp_path_factory.mktemp("catalogs")) as found:
        target = await found.final(await asyncio.to_thread(found.commit))
        await asyncio.to_thread(found.commit, 3)
        yield await installed(found, target)
        await ssh.close()


def copy_of(found: Tooled, target: datetime) -> SideCopy:
    """Return a copy of the database at a moment, that is to replace it."""
    wanted = Parameters.model_validate({"target_time": target, "cutover": "replace", "amcheck": False})
    return SideCopy(
        "orders", Database.model_validate(found.database), host(found.lab), wanted, "tools/orders", "0a1b2c3d"
    )


async def installed(found: Tooled, target: datetime) -> Stage:
    """Restore to ``target``, and put the copy in the place of the database."""
    copy = copy_of(found, target)
    assessed = assess(copy, await backups.observe(copy.find()), await ready.observe(copy.room()))
    assert assessed.choice is not None, assessed.blockers
    replacing = Replacing(copy)
    standing = await look_at_standing.observe(replacing.look())
    assert cut_over_blockers(standing, found.at.kind) == []
    await carried_out(place, copy.place(assessed.choice, assessed.port))
    await carried_out(replay, copy.replay(assessed.choice, assessed.port))
    made = Stage(found, replacing, standing, assessed.port, found.timeline() + 1)
    steps: tuple[CutAction[CutSpec, Any], ...] = (close, fence, promote, install)
    for step in steps:
        await carried_out(step, made.cut)
    return made


async def opened(stage: Stage) -> None:
    """Let it archive, and clients in, as a recovery has before the next backup is taken."""
    await carried_out(archive, stage.cut)
    await carried_out(open_doors, stage.cut)


async def test_copy_archives_nothing_before_it_is_told_to(stage: Stage) -> None:
    """Not in the tool's repository, where it would be in the way of the running database's own log."""
    with contextlib.suppress(Exception):
        stage.found.at.ask("checkpoint; select pg_switch_wal()")
    assert stage.found.archived(stage.timeline) == []
    assert await archive.observe(stage.cut) == Archived(settings="muted")


async def test_archive_is_filled_and_emptied_again(stage: Stage) -> None:
    found = stage.found
    full = await carried_out(archive, stage.cut)
    assert full == archive.desired(stage.cut, Archived(settings="muted"))
    names = found.archived(stage.timeline)
    assert names[0] == f"{stage.timeline:08X}.history" or names[-1] == f"{stage.timeline:08X}.history"
    assert len(names) >= 2
    before = Archived(settings="muted")
    await archive.undo(stage.cut, before)
    assert found.archived(stage.timeline) == []
    assert await archive.observe(stage.cut) == before


@pytest.mark.parametrize(
    "victim", [pytest.param(one, marks=() if one == "all" else pytest.mark.soak) for one in VICTIMS]
)
async def test_archiving_killed_anywhere_ends_right(stage: Stage, victim: str, chance: random.Random) -> None:
    before, job = await archive.observe(stage.cut), stage.cut.job("archive")
    assert before == Archived(settings="muted")
    for _ in range(2):
        await stage.killed(lambda: archive.apply(stage.cut, before), job, victim, chance.uniform(0, 1.5))
    assert await carried_out(archive, stage.cut) == archive.desired(stage.cut, before)
    for _ in range(2):
        await stage.killed(lambda: archive.undo(stage.cut, before), job, victim, chance.uniform(0, 1))
    await again(lambda: archive.undo(stage.cut, before))
    assert await archive.observe(stage.cut) == before
    assert stage.found.archived(stage.timeline) == []


async def test_foreign_log_of_its_timeline_stops_it(stage: Stage) -> None:
    """Another recovery was faster: what it archived stays as it is."""
    name = f"{stage.timeline:08X}.history"
    stage.found.at.keep_history(name, "1\t0/3000000\tsomebody else\n")
    try:
        with pytest.raises(Drifted, match=f"somebody else archived timeline {stage.timeline:08X}"):
            await archive.apply(stage.cut, Archived(settings="muted"))
        assert stage.found.archived(stage.timeline) == [name]
    finally:
        done = stage.found.at.shell(f"later() {{ echo \"$1\" >&2; exit 75; }}; forget_archived {stage.timeline:08X}",
                                    data=stage.found.at.place.data)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert stage.found.archived(stage.timeline) == []


async def test_backup_is_taken_once_and_only_it_is_removed(stage: Stage) -> None:
    """Also a second time: it is the same one. A foreign one stays, and so does one of another recovery."""
    found, spec = stage.found, stage.backup
    await opened(stage)
    before = await asyncio.to_thread(found.backups)
    assert await base_backup.observe(spec) == BackedUp()
    taken = await carried_out(base_backup, spec)
    assert (taken.label, taken.partial) == (spec.label, False)
    assert found.backups() == before | {str(taken.backup): spec.label}
    await base_backup.apply(spec, BackedUp())
    await base_backup.halt(spec)
    assert found.backups() == before | {str(taken.backup): spec.label}
    other = spec.model_copy(update={"owner": "tools/orders@another"})
    await base_backup.undo(other, BackedUp())
    assert found.backups() == before | {str(taken.backup): spec.label}
    await base_backup.undo(spec, BackedUp())
    assert found.backups() == before
    assert await base_backup.observe(spec) == BackedUp()


@pytest.mark.parametrize(
    "victim", [pytest.param(one, marks=() if one == "tool" else pytest.mark.soak) for one in VICTIMS]
)
async def test_backup_killed_anywhere_is_taken_once(stage: Stage, victim: str, chance: random.Random) -> None:
    found, spec = stage.found, stage.backup
    await opened(stage)
    before = await asyncio.to_thread(found.backups)
    for _ in range(2):
        await stage.killed(
            lambda: base_backup.apply(spec, BackedUp()), spec.job("base_backup"), victim, chance.uniform(0, 5)
        )
    taken = await carried_out(base_backup, spec)
    assert (taken.label, taken.partial) == (spec.label, False)
    assert found.backups() == before | {str(taken.backup): spec.label}
    copy, wrong = await asyncio.to_thread(found.at.lay_down, str(taken.backup), f"of-{victim}")
    assert wrong == ""
    assert (copy / "data/PG_VERSION").exists()
    await stage.killed(
        lambda: base_backup.undo(spec, BackedUp()), spec.job("base_backup"), victim, chance.uniform(0, 1)
    )
    await again(lambda: base_backup.undo(spec, BackedUp()))
    assert found.backups() == before


async def test_tool_that_would_take_no_backup_stands_in_the_way(stage: Stage) -> None:
    """It is named before anything is done, with what to do about it."""
    at = stage.found.at
    kept = at.configuration.read_text()
    wrong = {
        "streaming_conninfo = host=": "streaming_conninfo = host=/nowhere",
        "[global]\n": "[global]\nrepo1-host=away\n",
    }
    broken = kept
    for was, now in wrong.items():
        broken = broken.replace(was, now)
    at.configuration.write_text(broken)
    try:
        standing = await look_at_standing.observe(stage.replacing.look())
    finally:
        at.configuration.write_text(kept)
    said = [one for one in cut_over_blockers(standing, at.kind) if one.startswith("backups.")]
    if isinstance(at, Barman):
        assert said[0].startswith("backups.server: Barman would not take the next backup of orders: ")
        assert said[0].endswith("; see: barman check orders")
    else:
        assert len(said) == 1
        assert said[0].startswith("backups.repository: is on the host away, and pgBackRest takes backups only there")
