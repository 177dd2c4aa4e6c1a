"""Know a process beyond its number, so that a recycled pid is never trusted and never killed (Linux)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process for as long as this machine is up: its pid, and its start as boot id and clock ticks."""

    pid: int
    started: str


def identify(pid: int) -> Process | None:
    """Return the process that has ``pid`` now, or None when there is none or it is only a zombie."""
    if pid <= 0:
        return None
    try:
        # The command name in parentheses may hold anything: fields count from the last parenthesis.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        return None
    return None if fields[0] in "ZX" else Process(pid, f"{boot}/{fields[19]}")


def alive(process: Process) -> bool:
    """Return whether exactly this process still runs."""
    return identify(process.pid) == process


def reap(process: Process) -> None:
    """Collect the exit status of a child that nobody waits for; do nothing when it is not a child."""
    try:
        os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        return


def send(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process, never a successor of its pid; return False when it is gone.

    Raises PermissionError when it belongs to another user.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is taken before the check: from here on it cannot come to mean another process.
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


async def stop(process: Process, patience: float) -> None:
    """End the process with SIGTERM, and with SIGKILL after ``patience`` seconds; return when it is gone."""
    send(process, signal.SIGTERM)
    if not await _gone(process, patience):
        send(process, signal.SIGKILL)
        await _gone(process, patience)


async def _gone(process: Process, patience: float) -> bool:
    deadline = asyncio.get_running_loop().time() + patience
    while alive(process):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.02)
    reap(process)
    return True


def arguments(process: Process) -> list[str]:
    """Return the command line of the process; empty when it is gone or unreadable."""
    try:
        text = (_PROC / str(process.pid) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.split("\0")[:-1]


def holder(path: Path, descriptor: int) -> Process | None:
    """Return a process that has ``path`` open under the number ``descriptor``, or None."""
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and _same(entry / "fd" / str(descriptor), path):
            return identify(int(entry.name))
    return None


def _same(link: Path, path: Path) -> bool:
    try:
        return link.samefile(path)
    except OSError:
        return False


def listens(process: Process, port: int) -> bool:
    """Return whether the process itself listens on TCP ``port`` (so no stranger answers in its place)."""
    return not _sockets(process).isdisjoint(_listeners(port))


def _sockets(process: Process) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in (_PROC / str(process.pid) / "fd").iterdir():
            with suppress(OSError):  # closed since it was listed
                found.add(str(entry.readlink()))
    return found


def _listeners(port: int) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        if not (_PROC / table).exists():
            continue
        for line in (_PROC / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"
