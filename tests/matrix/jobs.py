"""Reach into the named jobs of a host, as an accident would."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lab import processes
from lab.processes import Process
from tests.copies import parent
from tests.running import eventually


async def held(folder: Path) -> int:
    """Stop the job of ``folder`` in its middle as soon as it runs, and return its process group."""

    def stopped() -> int:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):  # not there yet
            group = int((folder / "group").read_text())
            os.killpg(group, signal.SIGSTOP)
            return group
        return 0

    group: int = await eventually(stopped, f"the job {folder.name} runs", 10, pause=0.001)
    assert not (folder / "rc").exists(), f"the job {folder.name} ended before it could be stopped"
    return group


def go_on(group: int) -> None:
    """Let a job that was stopped go on."""
    os.killpg(group, signal.SIGCONT)


def body(group: int) -> Process:
    """Return the shell that runs the job's script, below the one that waits for it."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and parent(int(path.name)) == group and (found := processes.look(int(path.name))):
            return found
    raise AssertionError(f"nothing runs below {group}")
