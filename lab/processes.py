"""Processes by pid and start time, so that a pid that was given to somebody else is never killed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.place import MEMBER, MEMBER_OF, LabError, Place, Runner, write_private


@dataclass(frozen=True)
class Process:
    """One process, and not another one that got the same pid later."""

    pid: int
    started: str  # boot id and clock ticks since that boot


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def look(pid: int) -> Process | None:
    """Return the process that has this pid now; None when there is none or it is a zombie."""
    try:
        # The name is in parentheses and may hold anything: what counts begins after the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else Process(pid, f"{_boot()}:{fields[19]}")


def alive(process: Process) -> bool:
    """Say whether exactly this process runs; reaps it when it was a child of ours."""
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return look(process.pid) == process


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to exactly this process; one that is gone is no error."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The handle pins whoever has the pid; identity is checked after it was taken, so no race is left.
        if look(process.pid) == process:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def gone(processes: Iterable[Process], seconds: float) -> bool:
    """Wait until all of them have ended; False when one still runs after that many seconds."""
    left, deadline = list(processes), time.monotonic() + seconds
    while left := [process for process in left if alive(process)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def stop(processes: Iterable[Process], number: signal.Signals, seconds: float) -> None:
    """Ask them to end, and kill those that have not after that many seconds.

    Raises LabError when one survives even SIGKILL (it hangs in the kernel).
    """
    wanted = list(processes)
    for process in wanted:
        send(process, number)
    if gone(wanted, seconds):
        return
    for process in wanted:
        send(process, signal.SIGKILL)
    if not gone(wanted, 5):
        raise LabError(f"cannot be killed: {[process.pid for process in wanted if alive(process)]}")


def spawn(argv: list[str], env: Mapping[str, str], log: Path) -> Process:
    """Start a program that outlives us, in its own session, with its output added to a log.

    Raises LabError when it ended at once.
    """
    # posix_spawn and not Popen: nothing here waits for a daemon, and a Popen warns about just that.
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
    ]
    pid = os.posix_spawn(argv[0], argv, env, file_actions=[*files, (os.POSIX_SPAWN_DUP2, 1, 2)], setsid=True)
    if found := look(pid):
        return found
    raise LabError(f"{argv[0]} ended at once, see {log}")


def remember(path: Path, process: Process, argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Write down which process runs a program, and with which arguments and environment, for its owner only."""
    record = {"pid": process.pid, "started": process.started, "argv": list(argv), "env": dict(env)}
    write_private(path, json.dumps(record))


def recall(path: Path) -> tuple[Process, list[str]] | None:
    """Return the process written down, if exactly that one still runs, and its arguments."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    process = Process(record["pid"], record["started"])
    return (process, record["argv"]) if alive(process) else None


def _reads(path: str) -> bytes:
    # A process that ended meanwhile, or that belongs to somebody else, has nothing to say.
    with suppress(OSError):
        return Path(path).read_bytes()
    return b""


def _leads(path: str) -> str:
    with suppress(OSError):
        return os.readlink(path)  # noqa: PTH115  of every process there is, all the time: a Path costs more than this
    return "/nowhere"


def environ(process: Process) -> dict[str, str]:
    """Return the environment with which a process was started; empty when it is gone or somebody else's."""
    lines = _reads(f"/proc/{process.pid}/environ").decode(errors="replace").split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def postgres_in(folder: Path) -> list[Process]:
    """Return every PostgreSQL process whose data directory is this folder or one below it."""
    return _those(lambda pid: _works_in(pid, folder, "postgres"))


def valkey_in(folder: Path) -> list[Process]:
    """Return every Valkey server whose data lie in this folder or below it."""
    return _those(lambda pid: _works_in(pid, folder, "valkey-server"))


def members(root: Path) -> list[Process]:
    """Return every process of the lab, whoever started it: a remote command's children too."""
    return _marked({MEMBER: str(root)}, root)


def members_of(place: Place) -> list[Process]:
    """Return every process at one site of the lab, whoever started it."""
    return _marked({MEMBER: str(place.root), MEMBER_OF: place.site}, place.folder)


def _marked(marks: dict[str, str], folder: Path) -> list[Process]:
    lines = {f"{name}={value}".encode() for name, value in marks.items()}
    # Servers that write their title over their environment never leave the folder of their data.
    return _those(
        lambda pid: (
            lines <= set(_reads(f"/proc/{pid}/environ").split(b"\0"))
            or _works_in(pid, folder, "postgres", "valkey-server")
        )
    )


def _works_in(pid: int, folder: Path, *programs: str) -> bool:
    program = _leads(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    ours = program.rpartition("/")[2] in programs
    return ours and Path(_leads(f"/proc/{pid}/cwd")).is_relative_to(folder)


def _those(wanted: Callable[[int], bool]) -> list[Process]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  as below
    # Few are wanted, so who it is comes second; and then again, for the pid may be somebody else's by now.
    return [p for pid in pids if pid != os.getpid() and wanted(pid) and (p := look(pid)) and wanted(pid)]


def can_enter(folder: Path, who: Runner) -> bool:
    """Say whether that user can make a file in a folder: a folder above it may be closed to others."""
    test = f"test -w '{folder}' && test -x '{folder}'"
    return subprocess.run(["/bin/sh", "-c", test], cwd="/", **who.drop()).returncode == 0
