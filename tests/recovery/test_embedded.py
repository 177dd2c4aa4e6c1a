"""The embedded Temporal server: real processes, killed for real."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowExecutionStatus

from recovery import embedded, processes, server
from recovery.attributes import SEARCH_ATTRIBUTES
from recovery.embedded import Endpoint, Keeper
from recovery.errors import Fatal, Refused
from recovery.settings import Settings
from tests.running import settings_in

REPOSITORY = Path(__file__).parents[2]
OTHER = """
import asyncio
from recovery import embedded
from recovery.settings import Settings
settings = Settings.from_environment()
endpoint = asyncio.run(embedded.ensure(settings))
print(endpoint.address, embedded.status(settings).pid)
"""


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    settings = settings_in(tmp_path / "state")
    yield settings
    async with asyncio.timeout(60):
        await embedded.stop(settings)


def record(settings: Settings) -> Path:
    return settings.state / "temporal" / "server.json"


def pid(settings: Settings) -> int:
    found = embedded.status(settings).pid
    assert found is not None
    return found


def kill(settings: Settings) -> int:
    """Kill the server as a crash would, and return the pid that it had."""
    victim = processes.identify(pid(settings))
    assert victim
    processes.send(victim, signal.SIGKILL)
    while processes.alive(victim):
        pass
    return victim.pid


async def another_process(settings: Settings) -> tuple[str, int]:
    """Return the address and the server's pid as a fresh process finds them."""
    environ = {**os.environ, "RECOVERY_STATE": str(settings.state), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", OTHER]
    child = await asyncio.create_subprocess_exec(*command, env=environ, stdout=subprocess.PIPE)
    async with asyncio.timeout(20):
        output, _ = await child.communicate()
    address, found = output.decode().split()
    return address, int(found)


def serving_from(state: Path) -> list[str]:
    """Return every process of this machine whose command line names ``state``."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(state) in (entry / "cmdline").read_text():
                found.append(entry.name)
    return found


async def test_serves_with_attributes_and_retention(settings: Settings) -> None:
    async with asyncio.timeout(10):
        endpoint = await embedded.ensure(settings)
        client = await Client.connect(endpoint.address)
        about = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
        listed = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace="default"))
    assert about.config.workflow_execution_retention_ttl.ToTimedelta() == timedelta(days=90)
    assert set(SEARCH_ATTRIBUTES) <= set(listed.custom_attributes)


async def test_state_is_private_and_detached(settings: Settings) -> None:
    await embedded.ensure(settings)
    assert (settings.state.stat().st_mode & 0o777) == 0o700
    assert (record(settings).parent.stat().st_mode & 0o777) == 0o700
    assert os.getsid(pid(settings)) == pid(settings)


async def test_second_process_finds_it(settings: Settings) -> None:
    endpoint = await embedded.ensure(settings)
    assert await another_process(settings) == (endpoint.address, pid(settings))


async def test_racing_processes_start_one(settings: Settings) -> None:
    found = await asyncio.gather(*(another_process(settings) for _ in range(3)))
    assert len(set(found)) == 1
    assert len(serving_from(settings.state)) == 1


async def test_histories_survive_kill(settings: Settings) -> None:
    endpoint = await embedded.ensure(settings)
    client = await Client.connect(endpoint.address)
    await client.start_workflow("Nothing", id="kept", task_queue="nobody")
    kill(settings)
    async with asyncio.timeout(10):
        again = await embedded.ensure(settings)
        client = await Client.connect(again.address)
        described = await client.get_workflow_handle("kept").describe()
    assert again == endpoint
    assert described.status is WorkflowExecutionStatus.RUNNING


async def test_keeper_brings_it_back(settings: Settings) -> None:
    async with Keeper(settings) as endpoint:
        client = await Client.connect(endpoint.address)
        for _ in range(2):
            killed = kill(settings)
            async with asyncio.timeout(10):
                while embedded.status(settings).pid in (killed, None):
                    await asyncio.sleep(0.05)
                assert await embedded.ensure(settings) == endpoint
                assert await client.count_workflows() is not None


async def test_keeper_leaves_only_the_database(settings: Settings) -> None:
    async with Keeper(settings):
        assert embedded.status(settings).kept
    assert serving_from(settings.state) == []
    assert not record(settings).exists()
    assert embedded.status(settings).endpoint is None
    assert embedded.status(settings).database.exists()


async def test_last_keeper_stops_it(settings: Settings) -> None:
    async with Keeper(settings) as endpoint:
        async with Keeper(settings):
            pass
        assert await embedded.ensure(settings) == endpoint
        with pytest.raises(Refused, match="stop the worker"):
            await embedded.stop(settings)
    assert serving_from(settings.state) == []


async def test_cancelled_keeper_leaves_nothing(settings: Settings) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with Keeper(settings):
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    async with asyncio.timeout(10):
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert serving_from(settings.state) == []


@pytest.mark.parametrize("text", ["", '{"pid": 12', "[]", '{"pid": -1, "started": "", "port": 1, "ui_port": 2}'])
async def test_lost_record_finds_live_server(settings: Settings, text: str) -> None:
    endpoint = await embedded.ensure(settings)
    before = pid(settings)
    record(settings).write_text(text)
    assert await embedded.ensure(settings) == endpoint
    assert pid(settings) == before


async def test_stale_record_starts_server(settings: Settings) -> None:
    folder = settings.folder("temporal")
    (folder / "server.json").write_text("half a rec")
    async with asyncio.timeout(10):
        await embedded.ensure(settings)
    assert json.loads(record(settings).read_text())["pid"] == pid(settings)


async def test_recycled_pid_is_left_alone(settings: Settings) -> None:
    await embedded.ensure(settings)
    kill(settings)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        stale = {**json.loads(record(settings).read_text()), "pid": stranger.pid}
        record(settings).write_text(json.dumps(stale))
        assert embedded.status(settings).pid is None
        await embedded.stop(settings)
        assert stranger.poll() is None
        stranger.kill()


async def test_taken_port_is_named_at_restart(settings: Settings) -> None:
    folder = settings.folder("temporal")
    with socket.create_server(("127.0.0.1", 0)) as stranger, socket.create_server(("127.0.0.1", 0)) as other:
        port, ui_port = stranger.getsockname()[1], other.getsockname()[1]
        before = {"pid": 1, "started": "another-boot/1", "port": port, "ui_port": ui_port}
        (folder / "server.json").write_text(json.dumps(before))
        with pytest.raises(Fatal, match=f"port {port}.*server.json"):
            await embedded.ensure(settings)
    async with asyncio.timeout(10):
        assert await embedded.ensure(settings) == Endpoint(f"127.0.0.1:{port}", f"http://127.0.0.1:{ui_port}")


async def test_taken_port_is_passed_over_at_first(settings: Settings) -> None:
    with suppress(OSError), socket.create_server(("127.0.0.1", settings.port + 1000)):
        endpoint = await embedded.ensure(settings)
        assert endpoint.address != f"127.0.0.1:{settings.port}"


async def test_broken_database_is_told(settings: Settings) -> None:
    (settings.folder("temporal") / "temporal.db").write_text("this is no database, and it is long enough" * 50)
    with pytest.raises(Fatal, match=r"did not start: .+ \(see .*server.log\)"):
        await embedded.ensure(settings)
    assert serving_from(settings.state) == []
    assert not record(settings).exists()


async def test_stranger_on_port_is_not_trusted(settings: Settings) -> None:
    await embedded.ensure(settings)
    serving = server.serving(server.Files(settings.state / "temporal"))
    me = processes.identify(os.getpid())
    assert serving
    assert me
    claimed = serving.model_copy(update={"pid": me.pid, "started": me.started})
    assert not await server.answers(claimed)


def test_looking_changes_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "state")
    assert embedded.status(settings).endpoint is None
    assert not settings.state.exists()
