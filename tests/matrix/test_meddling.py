"""Two recoveries on one database, and an operator beside one: nothing is overwritten, and what follows is right."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from recovery.report import HoldLine, Report
from tests.copies import ask_copy
from tests.matrix.ground import Ground, Scene, admitted, servers, world
from tests.matrix.scenes import digest, folder_of_another
from tests.running import Recovery, eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

EXPORT, FENCE = "export what the copy of orders lacks", "fence the running orders"
PROMOTE, INSTALL = "promote the copy of orders", "put the copy in the place of orders"
ARCHIVE, OPEN = "write into the restored orders, and archive its log", "let clients into the restored orders"
REPLAY = "replay the log into the copy of orders"
CLOSE = "refuse clients at the running orders"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    found = Ground(tmp_path_factory.mktemp("meddling"))
    yield found
    await found.close()


@pytest.mark.parametrize("second", ["replace-orders", "extract-orders"])
async def test_second_recovery_waits_for_its_turn(ground: Ground, second: str) -> None:
    async with ground.scene() as scene:
        first = await stopped(scene, EXPORT)
        before = world(scene.lab)
        beside = await scene.start(second, id="typed by hand into the form")
        report = await beside.until("waits for orders, which lab/orders has in hand", 30)
        assert [line.state for line in report.steps] == []
        assert world(scene.lab) == before
        await beside.handle.cancel()
        assert (await beside.ended()).outcome == "cancelled"
        assert world(scene.lab) == before
        await first.resolve("compensate")
        assert (await first.ended(90)).outcome == "compensated"
        await scene.unchanged()


async def stopped(scene: Scene, step: str) -> Recovery:
    """Have a recovery that goes step by step, and waits before ``step``: what that acts on was looked at."""
    recovery = await scene.start("replace-orders")
    await recovery.until("gate", 60)
    await recovery.handle.signal("hold", {"by": "alice", "reason": "one at a time"})
    await recovery.approve()
    while (hold := await asked(recovery)).step != step:
        await recovery.resolve("step")
        await eventually(lambda: closed(recovery, hold), f"it goes on after {hold.step}", 60)
    return recovery


async def asked(recovery: Recovery) -> HoldLine:
    """Wait for a hold."""
    report = await recovery.until("hold", 60)
    assert report.hold is not None
    return report.hold


async def closed(recovery: Recovery, hold: HoldLine) -> bool:
    report = await recovery.status()
    return bool(report and next(one for one in report.holds if one.token == hold.token).closed)


async def again(recovery: Recovery, answer: str, cause: str) -> HoldLine:
    """Answer, and wait for the next hold, which has to be there because of ``cause``."""
    before = await asked(recovery)
    await recovery.resolve(answer)

    async def next_one() -> HoldLine | None:
        found = await recovery.status()
        return found.hold if found and found.hold and found.hold.token != before.token else None

    hold: HoldLine = await eventually(next_one, "it holds again", 60)
    assert hold.cause == cause, hold
    return hold


async def concluded(recovery: Recovery) -> Report:
    """Wait for the end, which nobody may have to be asked for any more."""

    async def look() -> Report | None:
        found = await recovery.status()
        return found if found and (found.outcome != "running" or (found.hold and found.hold.cause != "asked")) else None

    report: Report = await eventually(look, "the end", 120)
    assert report.hold is None, report.hold
    return await recovery.ended(90)


async def compensated(scene: Scene, recovery: Recovery, answer: str) -> None:
    await left(recovery, answer)
    report = await concluded(recovery)
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    await scene.unchanged()


async def left(recovery: Recovery, answer: str) -> None:
    """Answer at the hold, and see that it is left."""
    hold = await asked(recovery)
    await recovery.resolve(answer)
    await eventually(lambda: closed(recovery, hold), "the hold is left", 60)


async def recovered(recovery: Recovery, answer: str) -> Report:
    await left(recovery, answer)
    report = await concluded(recovery)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    return report


@dataclass
class Edited:
    """A file that somebody else has changed, and how to put it back."""

    file: Path

    def __post_init__(self) -> None:
        """Add a line, in place."""
        self._text = self.file.read_bytes()
        with self.file.open("ab") as file:
            file.write(b"# somebody else was here\n")
        self._changed = digest(self.file)

    def kept(self) -> bool:
        """Tell whether it is as somebody else left it."""
        return digest(self.file) == self._changed

    def mend(self) -> None:
        """Put it back."""
        assert self.kept(), "what somebody else wrote was overwritten"
        self.file.write_bytes(self._text)


async def test_edited_rules_are_not_overwritten(ground: Ground) -> None:
    async with ground.scene() as scene:
        recovery = await stopped(scene, FENCE)
        edited = Edited(scene.lab.place.data / "pg_hba.conf")
        hold = await again(recovery, "continue", "failure")
        assert (hold.step, hold.why.partition(":")[0]) == (FENCE, "Drifted")
        hold = await again(recovery, "compensate", "residual")
        assert hold.step == CLOSE
        assert (admitted(scene.lab), len(servers(scene.lab.place.data))) == (False, 1)
        edited.mend()
        await compensated(scene, recovery, "retry")


async def test_fenced_database_that_was_started_bars_the_copy(ground: Ground) -> None:
    async with ground.scene() as scene:
        recovery = await stopped(scene, INSTALL)
        started_by_hand(scene)
        hold = await again(recovery, "continue", "failure")
        assert (hold.step, hold.why.partition(":")[0]) == (INSTALL, "Drifted")
        assert "somebody else has started the fenced database" in hold.why
        assert (scene.lab.place.data.exists(), admitted(scene.lab)) == (False, False)
        await compensated(scene, recovery, "compensate")


async def test_fenced_database_that_was_started_and_stopped_is_not_taken_for_the_copy(ground: Ground) -> None:
    async with ground.scene() as scene:
        recovery = await stopped(scene, INSTALL)
        aside = started_by_hand(scene)  # its server notes with which options, and in which folder, it was started
        scene.lab.postgres.run("pg_ctl", "stop", "-w", "-D", aside)
        await recovered(recovery, "continue")
        assert (len(servers(aside)), len(servers(scene.lab.place.data)), admitted(scene.lab)) == (0, 1, True)


def started_by_hand(scene: Scene) -> Path:
    """Start the fenced database where it lies."""
    (aside,) = scene.lab.place.north.glob("data.fenced-*")
    scene.lab.postgres.run("pg_ctl", "start", "-w", "-D", aside, "-l", scene.lab.place.north / "by-hand.log")
    return aside


async def test_copy_that_was_promoted_by_hand_is_not_taken(ground: Ground) -> None:
    async with ground.scene() as scene:
        recovery = await stopped(scene, PROMOTE)
        promoted_by_hand(scene)
        hold = await again(recovery, "continue", "failure")
        assert (hold.step, hold.why.partition(":")[0]) == (PROMOTE, "Drifted")
        await leaves_the_copy(scene, recovery)


async def leaves_the_copy(scene: Scene, recovery: Recovery) -> None:
    """Go back: the running database serves again, and what somebody else has made of the copy is left to them."""
    hold = await again(recovery, "compensate", "residual")
    assert hold.step == REPLAY
    assert (admitted(scene.lab), len(servers(scene.lab.place.data)), scene.lost()) == (True, 1, frozenset())
    await left(recovery, "accept")
    report = await concluded(recovery)
    assert (report.outcome, [line.partition(":")[0].split()[0] for line in report.residual]) == (
        "failed", ["lay", "replay"],
    )  # fmt: skip
    assert len(servers(scene.lab.place.copies)) == 1


async def test_copy_that_was_promoted_at_the_gate_is_not_taken(ground: Ground) -> None:
    async with ground.scene() as scene:
        recovery = await scene.start("replace-orders")
        await recovery.until("gate", 60)
        promoted_by_hand(scene)
        await recovery.approve()
        hold = await asked(recovery)
        assert (hold.step, hold.why.partition(":")[0]) == (PROMOTE, "Drifted")
        await leaves_the_copy(scene, recovery)


def promoted_by_hand(scene: Scene) -> None:
    copy = next(path for path in scene.lab.place.copies.iterdir() if (path / "data").exists())
    ask_copy(scene.lab, "select pg_promote(wait => true)", copy)


@pytest.mark.parametrize("answer", ["retry", "compensate"])
async def test_folder_of_another_stays(ground: Ground, answer: str) -> None:
    async with ground.scene() as scene:
        recovery = await stopped(scene, INSTALL)
        folder_of_another(scene.lab, scene.lab.place.data)
        inode = scene.lab.place.data.stat().st_ino
        hold = await again(recovery, "continue", "failure")
        assert (hold.step, hold.why.partition(":")[0]) == (INSTALL, "Drifted")
        if answer == "compensate":
            hold = await again(recovery, "compensate", "residual")
            assert hold.step == INSTALL  # it stands in the way of the running database, too
            assert (admitted(scene.lab), len(list(scene.lab.place.north.glob("data.fenced-*")))) == (False, 1)
        assert (scene.lab.place.data.stat().st_ino, (scene.lab.place.data / "owner").read_text()) == (
            inode, "somebody else",
        )  # fmt: skip
        shutil.rmtree(scene.lab.place.data)
        if answer == "compensate":
            await compensated(scene, recovery, "retry")
        else:
            await recovered(recovery, "retry")


async def test_changed_archive_command_is_not_overwritten(ground: Ground) -> None:
    async with ground.scene() as scene:
        recovery = await stopped(scene, ARCHIVE)
        edited = Edited(scene.lab.place.data / "postgresql.auto.conf")
        hold = await again(recovery, "continue", "failure")
        assert (hold.step, hold.why.partition(":")[0]) == (ARCHIVE, "Drifted")
        hold = await again(recovery, "compensate", "residual")
        assert hold.step == ARCHIVE
        assert (admitted(scene.lab), len(servers(scene.lab.place.data))) == (False, 1)
        edited.mend()
        await compensated(scene, recovery, "retry")


Meddle = Callable[[Path], object]
EXPORTS: dict[str, Meddle] = {
    "dropped": shutil.rmtree,
    "cut short": lambda export: (export / "public.orders.csv").write_text("number\n"),
}


@pytest.mark.parametrize("how", EXPORTS)
async def test_export_that_is_gone_stops_the_way_forward(ground: Ground, how: str) -> None:
    async with ground.scene() as scene:
        recovery = await stopped(scene, ARCHIVE)
        (export,) = scene.lab.place.copies.glob("*.salvage")
        EXPORTS[how](export)
        await recovery.resolve("continue")
        if how == "cut short":
            hold = await asked(recovery)
            assert (hold.cause, hold.step) == ("residual", EXPORT)
            assert admitted(scene.lab)
            shutil.rmtree(export)
            await compensated(scene, recovery, "retry")
            return
        report = await concluded(recovery)
        assert (report.outcome, report.residual, report.committed) == ("compensated", (), None), report.failure
        assert "somebody else changed or removed the export" in report.failure
        await scene.unchanged()
