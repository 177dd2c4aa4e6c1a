"""What a cancel leaves on a host, however early it comes: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from pathlib import Path

import pytest

from activities import ssh
from lab import processes
from tests.copies import postmasters
from tests.matrix import jobs
from tests.matrix.scenes import Stage, quiet
from tests.matrix.trial import Trial, retried
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

EARLY = [number / 1000 for number in range(0, 40, 2)]  # seconds


async def test_cancelled_look_leaves_no_shell(stage: Stage) -> None:
    host = stage.copy.find().host
    for seconds in EARLY:
        looking = asyncio.create_task(ssh.look(host, "nothing", {}))
        await asyncio.sleep(seconds / 4)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await quiet(stage.lab)


async def test_cancelled_job_is_gone_at_once(stage: Stage) -> None:
    trial = await Trial.of("postgres.place", stage)
    for seconds in EARLY:
        await trial.cancelled_after(seconds)
        assert trial.shows()["jobs"] == [], seconds
        await retried(trial.undo)
    await trial.end()


async def test_job_whose_text_is_still_on_its_way_is_not_begun_after_its_end(stage: Stage, tmp_path: Path) -> None:
    host, mark = stage.copy.find().host, stage.lab.place.jobs / "mark"
    body = f"touch {mark}"
    command = ["sh", "-c", f"exec {ssh.beginning(host, 'late', body)}"]
    begins = subprocess.Popen(command, stdin=subprocess.PIPE, **stage.lab.postgres.who.drop())
    environment = Path(f"/proc/{begins.pid}/environ")
    await eventually(lambda: b"RECOVERY_STARTS=late" in environment.read_bytes(), "it waits for its text", 5)
    await ssh.end_job(host, "late")
    assert begins.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        begins.stdin.write(body.encode())
        begins.stdin.close()
    assert await asyncio.to_thread(begins.wait, 10) == -signal.SIGKILL
    assert not mark.exists()
    assert not (stage.lab.place.jobs / "late").exists()


async def test_server_that_is_being_born_is_stopped(stage: Stage) -> None:
    for _ in range(10):
        trial = await Trial.of("postgres.replay", stage)
        data = f"{trial.spec.copy_dir}/data"
        applying = asyncio.create_task(trial.apply())
        server = await asyncio.to_thread(jobs.caught, "postgres", data)
        unborn = not Path(data, "postmaster.pid").exists()
        trial.environment.cancel()
        await asyncio.gather(applying, return_exceptions=True)
        undoing = asyncio.create_task(retried(trial.undo))
        await asyncio.wait([undoing], timeout=0.3)  # it must not say that nothing runs
        too_early = undoing.done()
        processes.send(server, signal.SIGCONT)
        assert await undoing == trial.before
        assert postmasters(stage.lab) == []
        await trial.end()
        if unborn:
            assert not too_early
            return
    raise AssertionError("no server was caught before it had its pid file")
