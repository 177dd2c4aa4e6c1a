"""The embedded Temporal server as one process: its files, its command, its ports, its start and its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel, ConfigDict, ValidationError
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.service import ConnectConfig, RPCError, ServiceClient

from recovery import locks, processes
from recovery.errors import Fatal, Invalid
from recovery.processes import Process

RETENTION = timedelta(days=90)
"""How long closed recoveries stay; the server's own default is one day, too short for any review."""

_LOOPBACK = "127.0.0.1"
_UI_OFFSET = 1000
_LOCK_DESCRIPTOR = 19  # under which the server holds server.lock; any number that a fresh process leaves free
_START_LIMIT = 30.0  # seconds
_STOP_LIMIT = 10.0  # seconds
_LINGER_LIMIT = 2.0  # seconds
_LOG_LIMIT = 10 * 1024 * 1024  # bytes
# Measured on two cores: without these a sequential activity takes two to four times as long.
_TUNING = (
    "--sqlite-pragma=journal_mode=wal",
    "--sqlite-pragma=synchronous=2",  # 1 is faster and may lose the last commits on power loss
    "--dynamic-config-value=history.transferProcessorMaxPollRPS=2000",
    "--dynamic-config-value=history.timerProcessorMaxPollRPS=2000",
    "--dynamic-config-value=matching.numTaskqueueReadPartitions=1",
    "--dynamic-config-value=matching.numTaskqueueWritePartitions=1",
)


@dataclass(frozen=True)
class Endpoint:
    """Where the server answers: ``address`` as host:port for clients, ``ui`` as a URL for people."""

    address: str
    ui: str


class Record(BaseModel):
    """The content of server.json."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: str
    port: int
    ui_port: int

    @property
    def process(self) -> Process:
        return Process(self.pid, self.started)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"{_LOOPBACK}:{self.port}", f"http://{_LOOPBACK}:{self.ui_port}")


@dataclass(frozen=True)
class Files:
    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "temporal.db"

    @property
    def record(self) -> Path:
        return self.folder / "server.json"

    @property
    def lock(self) -> Path:
        return self.folder / "server.lock"

    @property
    def keepers(self) -> Path:
        return self.folder / "keepers.lock"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"


async def start(files: Files, attributes: Mapping[str, str], lock: int, first: int) -> Endpoint:
    """Start the server while this process holds its lock; on ports of its own choice, from ``first``, only once."""
    before = _read(files)
    for port in await _ports(before, files, first):
        process = _spawn(files, _command(files, port, attributes), lock)
        record = Record(pid=process.pid, started=process.started, port=port[0], ui_port=port[1])
        _write(files, record)
        try:
            if await _comes_up(record):
                return record.endpoint
        except BaseException:
            # Nobody may find a server that is half set up; cancelled counts as well.
            await processes.stop(process, _STOP_LIMIT)
            raise
        await processes.stop(process, _STOP_LIMIT)
        if all(map(_is_free, port)):  # it was not the ports: others would fail as well
            break
    if before is None:
        files.record.unlink(missing_ok=True)
    else:
        _write(files, before)
    raise Fatal(f"the embedded Temporal server did not start: {_last_line(files)} (see {files.log})")


async def _ports(before: Record | None, files: Files, first: int) -> list[tuple[int, int]]:
    """Return the pairs to try. Clients, bookmarks and links hold the old ports: a restart gets no others."""
    if before is None:
        # Below the range from which the kernel takes outgoing ports, so that they are free at a restart.
        pairs = ((port, port + _UI_OFFSET) for port in range(first, first + 500))
        free = [pair for pair in pairs if all(map(_is_free, pair))]
        if not free:
            raise Fatal(f"no port from {first} on is free together with the one {_UI_OFFSET} above it")
        return free[:5]
    for port in (before.port, before.ui_port):
        if not await _becomes_free(port):
            raise Fatal(
                f"port {port} of the embedded Temporal server is taken by another program: end that program,"
                f" or delete {files.record} to let the server choose new ports"
            )
    return [(before.port, before.ui_port)]


async def _becomes_free(port: int) -> bool:
    """Wait a moment: the threads of a killed server may hold its sockets a little longer than its pid."""
    deadline = asyncio.get_running_loop().time() + _LINGER_LIMIT
    while not _is_free(port):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does it: connections of its predecessor that still linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def _command(files: Files, ports: tuple[int, int], attributes: Mapping[str, str]) -> list[str]:
    return [
        _binary(),
        "server",
        "start-dev",
        f"--ip={_LOOPBACK}",
        f"--port={ports[0]}",
        f"--ui-port={ports[1]}",
        f"--db-filename={files.database}",
        "--ui-disable-news-fetch",
        "--log-level=warn",
        *_TUNING,
        *(f"--search-attribute={name}={kind}" for name, kind in attributes.items()),
    ]


def _binary() -> str:
    """Return the ``temporal`` of the venv that runs, else the one on PATH."""
    beside = Path(sys.executable).parent / "temporal"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("temporal")
    if found is None:
        raise Invalid("the `temporal` program is neither beside this Python nor on PATH; run `make setup`")
    return found


def _spawn(files: Files, command: list[str], lock: int) -> Process:
    """Start the server in a session of its own, so that Ctrl-C at a worker does not reach it."""
    if files.log.exists() and files.log.stat().st_size > _LOG_LIMIT:
        files.log.replace(files.log.with_suffix(".log.1"))
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # TEMPORAL_* would be read by the program as its own flags.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}
    pid = os.posix_spawn(
        command[0],
        command,
        environ,
        setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(files.log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, lock, _LOCK_DESCRIPTOR),
        ],
    )
    process = processes.identify(pid)
    if process is None:
        processes.reap(Process(pid, ""))
        raise Fatal(f"the embedded Temporal server ended at once: {_last_line(files)} (see {files.log})")
    return process


def _last_line(files: Files) -> str:
    """Return what the server said last."""
    lines = files.log.read_text(errors="replace").split("\n") if files.log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


async def _comes_up(record: Record) -> bool:
    deadline = asyncio.get_running_loop().time() + _START_LIMIT
    while processes.alive(record.process) and asyncio.get_running_loop().time() < deadline:
        if await answers(record) and await _retains(record):
            return True
        await asyncio.sleep(0.05)
    return False


async def answers(record: Record) -> bool:
    """Return whether this very server, and not a stranger on its port, is ready for clients."""
    if not processes.listens(record.process, record.port):
        return False
    try:
        service = await ServiceClient.connect(ConnectConfig(target_host=record.endpoint.address))
        request = DescribeNamespaceRequest(namespace="default")
        await service.workflow_service.describe_namespace(request, timeout=timedelta(seconds=2))
    except (RPCError, RuntimeError):  # the bridge reports a refused connection as RuntimeError
        return False
    return True


async def _retains(record: Record) -> bool:
    """Keep closed recoveries for 90 days; there is no flag for it. False when the server is gone already."""
    period = Duration()
    period.FromTimedelta(RETENTION)
    config = NamespaceConfig(workflow_execution_retention_ttl=period)
    request = UpdateNamespaceRequest(namespace="default", config=config)
    try:
        service = await ServiceClient.connect(ConnectConfig(target_host=record.endpoint.address))
        await service.workflow_service.update_namespace(request, timeout=timedelta(seconds=5))
    except (RPCError, RuntimeError):
        return False
    return True


async def stop(files: Files) -> None:
    """End the server and forget its ports; return when it is gone, or when somebody has started it again."""
    record = serving(files)
    if record:
        await processes.stop(record.process, _STOP_LIMIT)
    while serving(files) is None:
        lock = locks.grab(files.lock, fcntl.LOCK_EX)
        if lock is not None:
            files.record.unlink(missing_ok=True)
            os.close(lock)
            return
        await asyncio.sleep(0.02)


def serving(files: Files) -> Record | None:
    """Return the server that runs: as server.json says, or else found by the lock that it holds."""
    record = _read(files)
    if record and processes.alive(record.process):
        return record
    process = processes.holder(files.lock, _LOCK_DESCRIPTOR)
    return _adopt(process) if process else None


def _adopt(process: Process) -> Record | None:
    """Describe a server that server.json has lost, from its command line."""
    words = (word.partition("=") for word in processes.arguments(process))
    given = {name: value for name, _, value in words}
    if "--port" not in given or "--ui-port" not in given:
        return None  # between fork and exec
    port, ui_port = int(given["--port"]), int(given["--ui-port"])
    return Record(pid=process.pid, started=process.started, port=port, ui_port=ui_port)


def _read(files: Files) -> Record | None:
    try:
        return Record.model_validate_json(files.record.read_bytes())
    except (OSError, ValidationError):  # absent, half-written or somebody else's: it stops nothing
        return None


def _write(files: Files, record: Record) -> None:
    fresh = files.record.with_suffix(".new")
    fresh.write_text(record.model_dump_json())
    fresh.replace(files.record)
