"""What a restore costs beside the same restore as a bare shell script: the printed runbook, on the same data."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from temporalio.client import Client

from lab import processes
from lab.estate import Lab
from lab.place import environment, runner
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.models import Start
from recovery.report import Report
from recovery.settings import Settings

MEGABYTES = 300
ROUNDS = 3
ROOT = Path(__file__).resolve().parent.parent
RUNBOOK = "lab/restore-orders"


async def measure() -> dict[str, float]:
    """Return the seconds of both, interleaved, without people; and what the engine adds to 1.05 times the script."""
    with lab_apart() as lab:
        target = _fill(lab)
        text = printed(lab, RUNBOOK, target)
        variables = {"RECOVERY_STATE": str(lab.state)}
        settings = Settings.from_environment({**os.environ, **variables})
        async with Keeper(settings) as endpoint:
            client = await connect(settings, endpoint)
            working = worker(variables)
            try:
                engine, bare = [], []
                for turn in range(ROUNDS + 1):
                    times = await _engine(client, lab, target), _bare(lab, text)
                    if turn:  # the first round warms the page cache
                        engine.append(times[0])
                        bare.append(times[1])
            finally:
                working.terminate()
                working.wait()
    return {
        "size of the backup, MB": MEGABYTES + 30,
        "bare script, s": round(median(bare), 2),
        "recovery to its gate, s": round(median(engine), 2),
        "ratio": round(median(engine) / median(bare), 3),
        "seconds beyond 1.05 times the script (goal: at most 2)": round(median(engine) - 1.05 * median(bare), 2),
    }


def worker(variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the worker of this checkout."""
    return subprocess.Popen(
        [sys.executable, "worker.py"], cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.PIPE
    )


def begun(working: subprocess.Popen[bytes]) -> None:
    """Wait until a worker polls; before that it replays what is open. Raises RuntimeError if it ends instead."""
    if working.stdout is None or not working.stdout.readline().startswith(b"worker: polling"):
        raise RuntimeError("a worker has ended")


@contextmanager
def lab_apart(load: bool = True) -> Iterator[Lab]:
    """Have a lab of one's own, under load unless that is not wanted."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    folder.chmod(0o755)  # the lab's servers run as another user under root
    lab = Lab(folder / "lab", folder / "state")
    try:
        lab.up(load)
        yield lab
    finally:
        lab.down()
        shutil.rmtree(folder)


def _fill(lab: Lab) -> datetime:
    """Make the database large, back it up, and return a moment a few seconds of orders later."""
    with lab.postgres.connect("orders") as connection:
        connection.execute("create table filler (i bigint, text text)")
        rows = "insert into filler select i, repeat(md5(i::text), 30) from generate_series(1, %s) i"
        connection.execute(rows, (MEGABYTES * 1000,))
    lab.base_backup()
    time.sleep(5)  # the load of five seconds is what is to be replayed
    target = datetime.now(UTC)
    time.sleep(1.5)  # a moment is final a second later
    return target


def printed(lab: Lab, runbook: str, target: datetime) -> str:
    """Return the shell of ``runbook`` as `starter.py print` gives it."""
    words = ["print", runbook, "-p", f"target_time={target.isoformat()}", "--shell"]
    variables = {**os.environ, "RECOVERY_STATE": str(lab.state)}
    command = [sys.executable, "starter.py", *words]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True).stdout


def _bare(lab: Lab, text: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        ["sh", "-s"], input=text, text=True, cwd="/", env=environment(lab.place), check=True, capture_output=True,
        **runner().drop(),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    processes.stop(processes.postgres_in(lab.place.copies), signal.SIGQUIT, 10)
    for copy in lab.place.copies.iterdir():
        shutil.rmtree(copy)
    return seconds


async def _engine(client: Client, lab: Lab, target: datetime) -> float:
    """Return the seconds from asking for the recovery to its open gate; then it is cancelled, and the copy dropped."""
    start = Start(runbook=RUNBOOK, reason="bench", parameters={"target_time": target.isoformat()})
    began = time.perf_counter()
    handle = await client.start_workflow("DatabasePointInTimeRestore", start, id="lab/orders", task_queue="recovery")
    while True:
        report: Report = await handle.query("status", result_type=Report)
        if report.phase.startswith("gate"):
            break
        if report.outcome != "running":
            raise RuntimeError(report.failure)
        await asyncio.sleep(0.05)  # each question costs the worker time
    seconds = time.perf_counter() - began
    await handle.cancel()
    while (await handle.describe()).close_time is None:
        await asyncio.sleep(0.05)
    return seconds
