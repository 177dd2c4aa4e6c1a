"""Every step failed for good, every answer at its hold: outcome, report and world agree, and nobody is let in twice."""

from __future__ import annotations

import csv
import fnmatch
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from lab import ledger
from recovery.names import activity_id
from recovery.report import Report
from tests.matrix.answers import Cell, Recorded, cells, held, silent, through
from tests.matrix.cells import recorded
from tests.matrix.ground import Ground, Scene, admitted, figures, missing, servers, world, writes
from tests.running import Recovery, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SKIPPABLE = (
    "export-what-the-copy-of-orders-lacks.apply",
    "take-a-base-backup-of-orders.apply",
    "see-the-first-write-into-the-restored-orders.observe",
)
COMMITS = {"replace": "let clients into the restored orders", "extract": "put rows of public.orders back into orders"}
DARK = "refuse clients at the running orders"
SAMPLE = 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    found = Ground(tmp_path_factory.mktemp("answers"))
    yield found
    await found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["replace", "extract"])
async def recorded_run(request: pytest.FixtureRequest, ground: Ground) -> Recorded:
    """What a recovery does that nobody disturbs."""
    async with ground.scene() as scene:
        recovery = await scene.start(f"{request.param}-orders")
        report = await through(recovery, None)
        assert report.outcome == "recovered", report.failure
        await recovered(scene, request.param, report)
        steps = recorded(await recovery.handle.fetch_history())
    names = (re.sub(r"\d{8}t\d{6}-\d+z", "*", name) for name in steps if name.endswith((".observe", ".apply")))
    kind = request.param
    shuts, skippable = (DARK, SKIPPABLE) if kind == "replace" else ("", ())
    return Recorded(kind, tuple(names), COMMITS[kind], shuts, skippable)


async def tried(ground: Ground, cell: Cell) -> None:
    """Play one cell, and compare outcome, report and world."""
    async with ground.scene() as scene:
        ground.fail(cell.activity, cell.point)
        prefix = "silent-" if silent(cell) else ""
        recovery = await scene.start(f"{prefix}{cell.recorded.kind}-orders")
        report = await through(recovery, cell)
        assert (report.outcome, report.residual) == (cell.outcome(), ()), (report.failure, report.kind)
        held(cell, report)
        if cell.goes_on:
            await recovered(scene, cell.recorded.kind, report, skipped=cell.activity if cell.answer == "skip" else "")
        else:
            assert (report.committed, report.delivered) == (None, {})
            await scene.unchanged()


async def recovered(scene: Scene, kind: str, report: Report, skipped: str = "") -> None:
    """Compare what is delivered with the world."""
    await writes(scene.lab)
    if kind == "extract":
        assert scene.lost() == frozenset()
        assert not scene.deleted & missing(scene.lab)
        now = world(scene.lab)
        assert {key: now[key] for key in ALIKE} == {key: scene.world[key] for key in ALIKE}
        assert report.delivered.keys() == {"copy"}
        return
    opened = next(line for line in report.steps if line.step == COMMITS[kind])
    assert report.committed is not None
    replaced(scene, report)
    exported(scene, report, skipped == SKIPPABLE[0], opened.began.timestamp())
    backed_up(scene, report, skipped == SKIPPABLE[1])


ALIKE = ("settings", "backups", "timelines", "histories", "strangers", "admitted", "jobs")


def replaced(scene: Scene, report: Report) -> None:
    """The restored database stands where the running one stood, alone, with its configuration and clients."""
    now, before = world(scene.lab), scene.world
    assert {key: now[key] for key in ("settings", "jobs", "strangers")} == {
        key: before[key] for key in ("settings", "jobs", "strangers")
    }
    assert (now["admitted"], now["servers"]) == (True, {str(scene.lab.place.data): 1, str(scene.lab.place.copies): 0})
    aside = Path(report.delivered["the database that was replaced"].partition(" (keep")[0])
    assert (aside.stat().st_ino, servers(aside)) == (before["data"], [])
    assert now["data"] != before["data"]
    assert not scene.deleted & missing(scene.lab)


def exported(scene: Scene, report: Report, skipped: bool, opened: float) -> None:
    """Every acknowledged order that is gone was acknowledged before clients came in again, and is where it is said."""
    said, lost = report.delivered["rows written after the target"], scene.lost()
    when = {row.number: row.acknowledged_at.timestamp() for row in ledger.acknowledged(scene.lab.place.load)}
    assert all(scene.target.timestamp() <= when[number] < opened for number in lost)
    folder = Path(f"{_copy(report)}.salvage")
    if said.startswith("not exported"):
        assert skipped
        assert report.delivered["the database that was replaced"].partition(" ")[0] in said
        assert "rows exported that the restored database lacks" not in figures(report)
        assert not folder.exists()
        return
    assert said.startswith(str(folder))
    with (folder / "public.orders.csv").open() as file:
        assert lost <= {int(row["number"]) for row in csv.DictReader(file)}
    assert int(str(figures(report)["rows exported that the restored database lacks"])) >= len(lost)


def backed_up(scene: Scene, report: Report, skipped: bool) -> None:
    """The backup that is said stands, whole; where none is said none does."""
    said = report.delivered["redundancy"]
    new = {path.name for path in scene.lab.place.backups.iterdir()} - set(cast(dict[str, str], scene.world["backups"]))
    if said.startswith("none"):
        assert (skipped, new) == (True, set())
        assert "no base backup on the new timeline until somebody takes one" in said
    else:
        assert said == f"base backup {next(iter(new))}; it runs without a standby"
        scene.lab.postgres.run("pg_verifybackup", "-n", "-q", scene.lab.place.backups / next(iter(new)))


def _copy(report: Report) -> str:
    """Return the folder of the copy, which the export lies beside."""
    aside = report.delivered["the database that was replaced"].partition(" (keep")[0]
    run = aside.rpartition("-")[2]
    return str(next(Path(aside).parent.glob(f"copies/*-{run}")))


UNDONE = {
    "replace": (DARK, "export what the copy of orders lacks", "fence the running orders",
                "put the copy in the place of orders", "write into the restored orders, and archive its log",
                "lay down backup *", "replay the log into the copy of orders"),
    "extract": ("lay down backup *", "replay the log into the copy of orders"),
}  # fmt: skip


@dataclass(frozen=True)
class Stuck:
    """An undo that fails for good, before or after it acts, in a recovery that goes back at its last moment."""

    recorded: Recorded
    undo: str
    point: str

    def __str__(self) -> str:
        return f"{self.recorded.kind}: undo of {self.undo} {self.point}"

    def guarded(self, report: Report) -> set[str]:
        """Return the steps beneath it, which must not be undone."""
        order = [line.step for line in report.steps if line.state in ("undone", "undo failed", "undo blocked")]
        if self.undo.startswith("export"):
            return set()  # an export that is left behind keeps nobody shut out
        return set(order[: order.index(next(step for step in order if fnmatch.fnmatch(step, self.undo)))])


def stuck(found: Recorded) -> list[Stuck]:
    """Return every undo, and when it fails."""
    return [Stuck(found, undo, point) for undo in UNDONE[found.kind] for point in ("before", "after")]


async def went_back(scene: Scene, cell: Stuck) -> tuple[Recovery, Report]:
    """Bring a recovery to the step that commits, have it go back from there, and wait until an undo has failed."""
    scene.ground.fail(activity_id(COMMITS[cell.recorded.kind], "apply"))
    recovery = await scene.start(f"{cell.recorded.kind}-orders")
    await recovery.until("gate", 60)
    await recovery.approve()
    await recovery.until(f"hold: {COMMITS[cell.recorded.kind]}", 60)
    scene.ground.fail(pattern(cell.undo), cell.point)
    await recovery.resolve("withdraw", reason="nobody was let in yet")

    async def failed() -> Report | None:
        found = await recovery.status()
        return found if found and found.hold and found.hold.cause == "residual" else None

    report: Report = await eventually(failed, "the undo has failed, and people are asked", 60)
    return recovery, report


def pattern(undo: str) -> str:
    return activity_id(undo.replace("*", "0"), "undo").replace("-0.", "-*.")


def shows_guarded(scene: Scene, cell: Stuck) -> None:
    """What stands as it has to where the undo failed: nobody let in, nothing started that must stay down."""
    place, before = scene.lab.place, scene.world["data"]
    asides = {path.stat().st_ino: path for path in place.north.glob("data.fenced-*")}
    home, after = place.data.stat().st_ino if place.data.exists() else None, cell.point == "after"
    name = cell.undo.split()[0]
    opened = name in ("lay", "replay", "export") or cell.recorded.kind == "extract" or (name == "refuse" and after)
    assert admitted(scene.lab) is opened
    if opened or name == "refuse" or (name == "fence" and after):
        assert (home, len(servers(place.data)), asides) == (before, 1, {})
        return
    assert servers(asides[before]) == []  # type: ignore[index]
    copy_is_home = name == "write" or (name == "put" and not after)
    assert (home is not None, len(servers(place.data))) == (copy_is_home, int(copy_is_home))


async def guards(ground: Ground, cell: Stuck) -> None:
    """Play one failed undo: what it guards stays as it is, until the undo was tried again."""
    async with ground.scene() as scene:
        recovery, report = await went_back(scene, cell)
        assert report.hold is not None
        assert report.hold.answers == ("retry", "accept")
        states = {line.step: line.state for line in report.steps}
        assert {states[step] for step in cell.guarded(report)} <= {"undo blocked"}
        assert [line.step for line in report.steps if fnmatch.fnmatch(line.step, cell.undo)] == [report.hold.step]
        shows_guarded(scene, cell)
        await recovery.resolve("retry", reason="it is mended")
        report = await recovery.ended(90)
        assert (report.outcome, report.residual, report.delivered) == ("compensated", (), {}), report.failure
        await scene.unchanged()


async def test_failed_step_and_its_answer_agree_with_the_world(
    recorded_run: Recorded, ground: Ground, chance: random.Random, subtests: pytest.Subtests
) -> None:
    skipped = [cell for cell in cells(recorded_run) if cell.answer == "skip"]
    others = [cell for cell in cells(recorded_run) if cell.answer != "skip"]
    for cell in (*chance.sample(others, SAMPLE - bool(skipped)), *chance.sample(skipped, bool(skipped))):
        with subtests.test(str(cell)):
            await tried(ground, cell)


@pytest.mark.soak
async def test_every_failed_step_and_every_answer_agree_with_the_world(
    recorded_run: Recorded, ground: Ground, subtests: pytest.Subtests
) -> None:
    for cell in cells(recorded_run):
        with subtests.test(str(cell)):
            await tried(ground, cell)


async def test_failed_undo_guards_what_is_beneath(
    recorded_run: Recorded, ground: Ground, chance: random.Random, subtests: pytest.Subtests
) -> None:
    cell = chance.choice(stuck(recorded_run))
    with subtests.test(str(cell)):
        await guards(ground, cell)


@pytest.mark.soak
async def test_every_failed_undo_guards_what_is_beneath(
    recorded_run: Recorded, ground: Ground, subtests: pytest.Subtests
) -> None:
    for cell in stuck(recorded_run):
        with subtests.test(str(cell)):
            await guards(ground, cell)
