"""What a restore needs is damaged or missing: a named outcome, everything put back, and a sentence that helps."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.estate import Lab
from tests.copies import in_copies
from tests.matrix import jobs
from tests.matrix.disturbed import worked
from tests.matrix.mounts import fill, mounted, mounts
from tests.matrix.restores import Restore, quiet
from tests.running import Recovery, Running, eventually
from tests.workflows.test_side_copy import restorable

pytestmark = pytest.mark.asyncio(loop_scope="session")


def flip(file: Path, at: int = 0) -> None:
    """Change one bit of ``file``, in its middle or at ``at``."""
    with file.open("r+b") as opened:
        opened.seek(at or file.stat().st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 1]))


def largest(backup: Path) -> Path:
    """Return the largest file with rows in ``backup``."""
    return max((file for file in backup.glob("base/*/*") if file.is_file()), key=lambda file: file.stat().st_size)


def add(backup: Path, owner: Path) -> None:
    """Add a file that the backup did not have, of the owner of ``owner``."""
    added = backup / "base" / "1" / "99999999"
    added.touch(mode=0o600)
    os.chown(added, owner.stat().st_uid, owner.stat().st_gid)


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "a flipped bit": lambda backup: flip(largest(backup)),
    "a missing file": lambda backup: largest(backup).unlink(),
    "a file that does not belong": lambda backup: add(backup, backup),
    "a closed folder": lambda backup: (backup / "base" / "1").chmod(0),
    "a flipped bit in its manifest": lambda backup: flip(backup / "backup_manifest"),
}
QUICK = ("a flipped bit", "a closed folder")


@pytest.mark.parametrize("damage", [pytest.param(d, marks=() if d in QUICK else pytest.mark.soak) for d in DAMAGES])
async def test_damaged_backup_is_named(lab: Lab, engine: Running, damage: str) -> None:
    backup = await asyncio.to_thread(lab.base_backup)
    try:
        DAMAGES[damage](backup)
        taken = datetime.now(UTC)
        await eventually(lambda: datetime.now(UTC) > taken + timedelta(seconds=2), "the new backup is the nearest one")
        async with restored(lab, engine) as recovery:
            report = await recovery.ended()
        assert (report.outcome, report.kind) == ("compensated", "Fatal"), report.failure
        assert backup.name in report.failure
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", backup], check=True, timeout=10)
        shutil.rmtree(backup)


@pytest.mark.soak
async def test_damaged_log_is_named(lab: Lab, engine: Running) -> None:
    segment = await asyncio.to_thread(archived_after_the_last_backup, lab)
    whole = segment.read_bytes()
    try:
        flip(segment, 1000)
        async with restored(lab, engine) as recovery:
            report = await recovery.ended(240)
        assert (report.outcome, report.kind) == ("compensated", "Fatal"), report.failure
        assert "the log is missing or damaged" in report.failure
        assert "checksum" in report.failure
    finally:
        segment.write_bytes(whole)


def archived_after_the_last_backup(lab: Lab) -> Path:
    """Have the segment archived that is being written now, and return it."""
    with lab.postgres.connect("orders") as connection:
        row = connection.execute("select pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
        connection.execute("select pg_switch_wal()")
    assert row is not None
    segment = lab.place.archive / str(row[0])
    deadline = time.monotonic() + 30
    while not segment.exists():
        assert time.monotonic() < deadline, f"{segment} is not archived within 30 s"
        time.sleep(0.05)
    return segment


if mounts():  # only root can have a disk that is really full

    @pytest.fixture
    def small(lab: Lab) -> Iterator[Path]:
        """A file system of its own for copies and jobs, with room enough for now."""
        folder = lab.place.north / "small"
        folder.mkdir()
        with mounted(folder, 1024):
            for name in ("copies", "jobs"):
                (folder / name).mkdir(mode=0o700)
                lab.postgres.who.own(folder / name)
            yield folder
        folder.rmdir()

    async def test_disk_that_fills_up_is_named(lab: Lab, engine: Running, small: Path) -> None:
        async with restored(lab, engine, **on(small)) as recovery:
            _, group = await jobs.held(small / "jobs", "*.place", lambda: any(small.glob("copies/*/data")))
            fill(small)
            jobs.go_on(group)
            report = await recovery.ended()
        assert (report.outcome, report.kind) == ("compensated", "Fatal"), report.failure
        assert f"the disk is full; free room under {small}/copies" in report.failure
        assert [path.name for path in small.glob("*/[!.]*")] == []

    @pytest.mark.soak
    async def test_disk_that_fills_up_later_is_named(lab: Lab, engine: Running, small: Path) -> None:
        async with restored(lab, engine, **on(small)) as recovery:
            _, group = await jobs.held(small / "jobs", "*.replay")
            fill(small)
            jobs.go_on(group)
            report = await recovery.ended(240)
        assert (report.outcome, report.kind) == ("compensated", "Fatal"), report.failure
        assert "No space left" in report.failure
        assert [path.name for path in small.glob("*/[!.]*")] == []

    async def test_disk_without_room_is_refused(lab: Lab, engine: Running, small: Path) -> None:
        fill(small)
        async with restored(lab, engine, **on(small)) as recovery:
            report = await recovery.ended()
        assert (report.outcome, report.kind) == ("failed", "Refused"), report.failure
        assert "free room" in report.failure


def on(folder: Path) -> dict[str, str]:
    """Return the environment of a worker whose copies and jobs are in ``folder``."""
    return {"LAB_NORTH_COPIES": str(folder / "copies"), "LAB_NORTH_JOBS": str(folder / "jobs")}


@asynccontextmanager
async def restored(lab: Lab, engine: Running, **environment: str) -> AsyncIterator[Recovery]:
    """Restore to the present; nothing may be left of it."""
    run = Restore(lab, await restorable(lab))
    async with worked(run, engine, **environment):
        recovery = await run.start(engine)
        yield recovery
        await quiet(lab, engine)
        assert in_copies(lab) == []
        assert (await recovery.ended()).residual == ()
