"""Random faults on a lab under load: they come and go, and afterwards the world is healed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from lab import processes
from lab.estate import Lab
from lab.place import LabError
from recovery import embedded
from recovery import processes as system
from tests.copies import postmasters
from tests.matrix.jobs import go_on
from tests.matrix.plans import Plan, Strike
from tests.matrix.relay import Relay
from tests.running import Running, eventually


class Faults:
    """Strike, note when, and heal. ``log`` says what struck, in seconds since ``began``."""

    def __init__(self, lab: Lab, engine: Running, relay: Relay) -> None:
        self.lab, self.engine, self.relay = lab, engine, relay
        self.log: list[str] = []
        self.began = time.monotonic()
        self._strikes = {
            "the worker is killed": self._worker_killed,
            "the worker stands still": self._worker_stopped,
            "Temporal is killed": self._temporal_killed,
            "the SSH server is killed": self._sshd_killed,
            "the running database is killed": self._database_killed,
            "the copy's server is killed": self._copy_killed,
            "the disk is full": self._disk_full,
            "the host hangs": self._host_hung,
            "connections are reset": self._reset,
            "connections are half-open": self._half_open,
        }

    def start(self) -> None:
        """Begin a new log."""
        self.log, self.began = [], time.monotonic()

    def note(self, what: str) -> None:
        """Write down that something happened now."""
        self.log.append(f"{time.monotonic() - self.began:6.1f} s  {what}")

    @contextlib.asynccontextmanager
    async def striking(self, plan: Plan) -> AsyncIterator[None]:
        """Have the faults of ``plan`` strike while the body runs; those that have begun are brought to their end."""
        began, begun = time.monotonic(), set[asyncio.Task[None]]()

        async def strike_all() -> None:
            for strike in plan.strikes:
                await asyncio.sleep(max(0.0, began + strike.at - time.monotonic()))
                begun.add(asyncio.create_task(self._strike(strike)))

        striking = asyncio.create_task(strike_all())
        try:
            yield
        finally:
            striking.cancel()
            await asyncio.gather(striking, *begun, return_exceptions=True)
            failed = [repr(task.exception()) for task in begun if not task.cancelled() and task.exception()]
            assert not failed, failed

    async def healed(self) -> None:
        """Have everything up again that a fault took down, but nothing that stands where a recovery put it."""
        self._ballast.unlink(missing_ok=True)
        await self._sshd_up()
        if self.engine.died() is not None:
            self.engine.start_worker()
        await self._database_up()
        await eventually(lambda: embedded.status(self.engine.settings).pid, "Temporal is back", 20)

    async def _strike(self, strike: Strike) -> None:
        self.note(f"{strike.fault} ({strike.seconds} s)")
        await self._strikes[strike.fault](strike.seconds)

    async def _worker_killed(self, seconds: float) -> None:
        await asyncio.to_thread(self.engine.kill_worker)
        await asyncio.sleep(seconds / 2)
        if self.engine.died() is not None:
            self.engine.start_worker()

    async def _worker_stopped(self, seconds: float) -> None:
        """Stop it for longer than its heartbeat, mostly; every other time another one takes over meanwhile."""
        sleeper = self.engine.process
        if sleeper is None or sleeper.poll() is not None:
            return
        sleeper.send_signal(signal.SIGSTOP)
        successor = int(seconds * 10) % 2 == 0
        if successor:
            self.engine.start_worker()
        try:
            await asyncio.sleep(seconds)
        finally:
            sleeper.send_signal(signal.SIGCONT)
            if successor:
                await asyncio.sleep(2)  # it is awake beside its successor
                sleeper.kill()
                await asyncio.to_thread(sleeper.wait)

    async def _temporal_killed(self, _: float) -> None:
        pid = embedded.status(self.engine.settings).pid
        if pid and (victim := system.identify(pid)):
            system.send(victim, signal.SIGKILL)

    async def _sshd_killed(self, seconds: float) -> None:
        with contextlib.suppress(LabError):  # it is dead already
            await asyncio.to_thread(self.lab.break_, "ssh")
        await asyncio.sleep(seconds / 2)
        await self._sshd_up()

    async def _sshd_up(self) -> None:
        def up() -> None:
            with self.lab.place.locked():
                self.lab._start_ssh()

        await asyncio.to_thread(up)

    async def _database_killed(self, seconds: float) -> None:
        server = self.lab.postgres.running()
        if server is None:
            return
        everything = processes.postgres_in(self.lab.place.data) if int(seconds * 10) % 2 else []
        for victim in (server, *everything):
            processes.send(victim, signal.SIGKILL)
        await asyncio.sleep(seconds)
        await self._database_up()

    async def _database_up(self) -> None:
        """Start what stands at the database's place, as people would who have looked that nothing is fenced."""
        place, postgres = self.lab.place, self.lab.postgres
        if postgres.fenced() or not place.data.exists() or postgres.running():
            return
        with contextlib.suppress(LabError):  # the recovery has just started it, or put it aside
            # With what a killed server left: a lock whose process nobody has buried yet bars the next one.
            await asyncio.to_thread(postgres.start)

    async def _copy_killed(self, _: float) -> None:
        for server in await asyncio.to_thread(postmasters, self.lab):
            processes.send(server, signal.SIGKILL)

    async def _disk_full(self, seconds: float) -> None:
        try:
            await asyncio.to_thread(self._fill)
            await asyncio.sleep(seconds / 2)
        finally:
            self._ballast.unlink(missing_ok=True)
        await self._database_up()  # one that cannot write its log ends itself

    def _fill(self) -> None:
        room = os.statvfs(self.lab.place.north)
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, room.f_bfree * room.f_frsize)
            while file.write(b"\0" * 4096):
                pass

    @property
    def _ballast(self) -> Path:
        return self.lab.place.north / "ballast"

    async def _host_hung(self, seconds: float) -> None:
        found = processes.recall(self.lab.place.run / "sshd.json")
        groups = [int(file.read_text()) for file in self.lab.place.jobs.glob("*/group") if file.read_text().strip()]
        if found is not None:
            processes.send(found[0], signal.SIGSTOP)
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            if found is not None:
                processes.send(found[0], signal.SIGCONT)
            for group in groups:
                go_on(group)

    async def _reset(self, _: float) -> None:
        self.relay.cut()

    async def _half_open(self, _: float) -> None:
        self.relay.silence()
