"""The Temporal server of this installation: SQLite on disk, shared by processes, back after a crash.

Everything lives in ``<state>/temporal``:

    temporal.db    the histories; they outlive every server
    server.json    who serves now, and on which ports; a restart uses the same ones
    server.lock    held by the server itself for as long as it lives: two never open one database
    keepers.lock   held, shared, by each worker; the last one to let go stops the server
    server.log     what the server says
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from recovery import locks, server
from recovery.attributes import SEARCH_ATTRIBUTES
from recovery.errors import RecoveryError, Refused, Transient
from recovery.server import Endpoint, Files
from recovery.settings import Settings

__all__ = ["Endpoint", "Keeper", "Status", "ensure", "status", "stop"]

_START_LIMIT = 30.0  # seconds
_WATCH_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Status:
    """What is known about the server without asking it; ``pid`` and ``endpoint`` are None when it is down."""

    endpoint: Endpoint | None
    pid: int | None
    kept: bool  # a worker watches over it
    database: Path
    log: Path


async def ensure(settings: Settings, attributes: Mapping[str, str] = SEARCH_ATTRIBUTES) -> Endpoint:
    """Return where the server answers; start it first when it does not run.

    Raises Fatal when it cannot start (the message names port or log), Transient when a server that
    another process started does not answer within 30 s.
    """
    files = Files(settings.folder("temporal"))
    deadline = asyncio.get_running_loop().time() + _START_LIMIT
    while asyncio.get_running_loop().time() < deadline:
        record = server.serving(files)
        if record and await server.answers(record):
            return record.endpoint
        lock = locks.grab(files.lock, fcntl.LOCK_EX)
        if lock is None:  # it runs, or somebody is starting it
            await asyncio.sleep(0.05)
            continue
        try:
            return await server.start(files, attributes, lock, settings.port)
        finally:
            os.close(lock)  # the server has its own hold on it
    raise Transient(f"the embedded Temporal server does not answer; see {files.log}, then try again")


async def stop(settings: Settings) -> None:
    """Stop the server and wait until it is gone; the database stays.

    Raises Refused while a worker keeps the server: it would start it again at once.
    """
    files = Files(settings.folder("temporal"))
    lock = locks.grab(files.keepers, fcntl.LOCK_EX)
    if lock is None:
        raise Refused("a worker keeps the embedded Temporal server; stop the worker and the server goes with it")
    try:
        await server.stop(files)
    finally:
        os.close(lock)


def status(settings: Settings) -> Status:
    """Return what is known about the server; starts and changes nothing."""
    files = Files(settings.state / "temporal")
    record = server.serving(files) if files.folder.is_dir() else None
    return Status(
        endpoint=record.endpoint if record else None,
        pid=record.pid if record else None,
        kept=_is_kept(files),
        database=files.database,
        log=files.log,
    )


class Keeper:
    """Keep the server up while a worker runs: ``async with Keeper(settings) as endpoint``.

    A server that dies is back on the same ports within about a second. The last keeper to leave stops it.
    """

    def __init__(self, settings: Settings, attributes: Mapping[str, str] = SEARCH_ATTRIBUTES) -> None:
        self._settings = settings
        self._attributes = attributes
        self._hold = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Endpoint:
        """Ensure the server, then watch it; raises what ``ensure`` raises."""
        async with contextlib.AsyncExitStack() as hold:
            await hold.enter_async_context(_kept(Files(self._settings.folder("temporal"))))
            endpoint = await ensure(self._settings, self._attributes)
            await hold.enter_async_context(_background(self._watch()))
            self._hold = hold.pop_all()
        return endpoint

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; stop the server when no other worker needs it."""
        await self._hold.aclose()

    async def _watch(self) -> None:
        """Bring the server back whenever it is gone; what stands in the way is told to people once."""
        told = ""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            if server.serving(Files(self._settings.state / "temporal")):
                continue
            try:
                await ensure(self._settings, self._attributes)
                told = ""
            except (RecoveryError, OSError) as error:
                if str(error) != told:
                    print(f"embedded Temporal: {error}", file=sys.stderr)
                told = str(error)


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def _kept(files: Files) -> AsyncIterator[None]:
    """Hold keepers.lock; on the way out stop the server when nobody else holds it."""
    while (lock := locks.grab(files.keepers, fcntl.LOCK_SH)) is None:
        await asyncio.sleep(0.05)  # the last keeper is just stopping the server
    try:
        yield
    finally:
        try:
            if await _is_last(lock):
                await server.stop(files)
        finally:
            os.close(lock)


async def _is_last(lock: int) -> bool:
    """Return whether nobody else holds keepers.lock; ``status`` may take it for an instant, so ask again."""
    for _ in range(3):
        if locks.take(lock, fcntl.LOCK_EX):
            return True
        await asyncio.sleep(0.02)
    return False


def _is_kept(files: Files) -> bool:
    if not files.keepers.exists():
        return False
    lock = locks.grab(files.keepers, fcntl.LOCK_EX)
    if lock is not None:
        os.close(lock)
    return lock is None
