"""A process that has imported the worker, and forks one whenever it is asked: one that was killed is soon back.

It reads the environment of each as a line of JSON, with the ``LOG`` that it writes to, and tells of ``began PID`` and
``ended PID STATUS``. They end with it, and it with whoever asks.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.running import ROOT, Running

PR_SET_PDEATHSIG = 1
PAUSE = 0.05


@dataclass
class Nursery:
    """The process, as seen by who asks it; ``ended`` are the statuses of its workers, by pid."""

    process: subprocess.Popen[bytes]
    ended: dict[int, int] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def opened(cls) -> Nursery:
        """Start it."""
        words = [sys.executable, "-m", "tests.matrix.nursery"]
        return cls(subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    def close(self) -> None:
        """End it, and with it every worker that it has begun."""
        with self.process:
            self.process.kill()

    def begin(self, environment: Mapping[str, str]) -> Nursling:
        """Begin a worker."""
        with self._turn:
            os.write(self._into, json.dumps(dict(environment)).encode() + b"\n")
            while (told := self._told())[0] != "began":
                pass
        return Nursling(self, int(told[1]))

    def look(self) -> None:
        """Take note of what has ended."""
        with self._turn:
            while select.select([self._out], [], [], 0)[0]:
                self._told()

    def _told(self) -> list[str]:
        line = _line(self._out)
        assert line, "the nursery has ended"
        words = line.split()
        if words[0] == "ended":
            self.ended[int(words[1])] = int(words[2])
        return words

    @property
    def _into(self) -> int:
        assert self.process.stdin is not None
        return self.process.stdin.fileno()

    @property
    def _out(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()


def _line(file: int) -> str:
    """Return a line, and read nothing after it, so that whoever waits sees whether there is more; "" at the end."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(file, 1)):
            return ""
        line += byte
    return line.decode()


@dataclass
class Nursling:
    """A worker that a nursery has begun."""

    nursery: Nursery
    pid: int

    def poll(self) -> int | None:
        """Return how it ended, as ``Popen`` does; None while it runs."""
        self.nursery.look()
        return self.nursery.ended.get(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises TimeoutExpired."""
        began = time.monotonic()
        while (status := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(PAUSE)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


@dataclass
class Nursed(Running):
    """A worker that comes from a nursery."""

    nursery: Nursery = field(default_factory=Nursery.opened)

    def start_worker(self, **environment: str) -> None:
        """Start the worker; its output goes to the state folder."""
        log = str(self.settings.state / "worker.log")
        self.process = self.nursery.begin({**os.environ, **self.environment, **environment, "LOG": log})


def main() -> None:
    """Fork as asked, and tell of every end, until nobody can ask any more."""
    import tests.matrix.struck_worker  # noqa: F401  before anything forks: this is what takes its time

    while True:
        if select.select([0], [], [], PAUSE)[0]:
            if not (asked := _line(0)):
                return
            _tell(f"began {_fork(json.loads(asked))}")
        _bury()


def _bury() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _tell(f"ended {pid} {os.waitstatus_to_exitcode(status)}")


def _tell(what: str) -> None:
    os.write(1, what.encode() + b"\n")


def _fork(environment: dict[str, str]) -> int:
    if pid := os.fork():
        return pid
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(environment.pop("LOG"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for now, then in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(now, then)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    try:
        asyncio.run(_work())
    finally:
        os._exit(1)


async def _work() -> None:
    from tests.matrix import struck_worker

    await struck_worker.run()
    os._exit(0)


if __name__ == "__main__":
    main()
