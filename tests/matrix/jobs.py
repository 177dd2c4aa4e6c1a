"""Reach into the named jobs of a host, as an accident would."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from lab import processes
from lab.processes import Process
from tests.copies import command
from tests.running import eventually


async def held(jobs: Path, name: str, begun: Callable[[], bool] = lambda: True) -> tuple[Path, int]:
    """Stop the job ``name`` (a pattern) once its script runs and ``begun`` holds; return its folder and group."""

    def stopped() -> tuple[Path, int] | None:
        for folder in jobs.glob(name):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):  # not there yet
                group = int((folder / "group").read_text())
                if body(group) and begun():
                    os.killpg(group, signal.SIGSTOP)
                    return folder, group
        return None

    found: tuple[Path, int] = await eventually(stopped, f"the job {name} can be stopped in its middle", 90, pause=0.001)
    return found


def go_on(group: int) -> None:
    """Let a job that was stopped go on, if anything of it still lives."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGCONT)


def body(group: int) -> Process | None:
    """Return the shell that runs the job's script, below the one that waits for it."""
    children = Path(f"/proc/{group}/task/{group}/children").read_text().split()
    found = processes.look(int(children[0])) if children else None
    return found if found and command(found.pid).endswith("/body") else None


def caught(program: str, argument: str, seconds: float = 10) -> Process:
    """Stop a process that runs ``program`` with ``argument`` at its birth, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        newest = int(Path("/proc/loadavg").read_text().split()[-1])
        for pid in range(newest, newest - 40, -1):
            words = command(pid).split()
            if words and words[0].endswith(f"/{program}") and argument in words and (found := processes.look(pid)):
                processes.send(found, signal.SIGSTOP)
                return found
    raise AssertionError(f"{program} {argument} was not started within {seconds} s")
