"""Notices beside real recoveries: delivered once, never in the way, and nothing secret in any history."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.errors import sentence
from recovery.names import notice_id
from recovery.report import Report
from recovery.settings import Settings
from tests.activities.receivers import Webhook, free_port, mailbox, silent, webhook
from tests.recovery.telling_worker import QUEUE, worker
from tests.running import ROOT, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "hunter2"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory(prefix="notices-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOVERY_STATE", folder)
        patch.setenv("RECOVERY_NOTIFY", f"{folder}/notify.conf")
        settings = Settings.from_environment()
        async with Keeper(settings) as endpoint:
            yield await connect(settings, endpoint)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as found:
        yield found


def addresses(*lines: str) -> None:
    Path(os.environ["RECOVERY_NOTIFY"]).write_text("\n".join(lines))


async def started(client: Client, id: str, *channels: str, **fields: Any) -> WorkflowHandle[Any, Report]:
    parameters = {"notify": channels, "system": id} | fields.pop("parameters", {})
    start = {"runbook": "toy", "reason": "a test", "parameters": parameters} | fields
    return await client.start_workflow("Telling", start, id=id, task_queue=QUEUE, result_type=Report)


async def notice(client: Client, handle: WorkflowHandle[Any, Any], number: int) -> WorkflowHandle[Any, Any]:
    run = (await handle.describe()).run_id
    return client.get_workflow_handle(notice_id(run, number))


async def end(handle: WorkflowHandle[Any, Any]) -> Any:
    async with asyncio.timeout(60):
        return await handle.result()


async def failure(handle: WorkflowHandle[Any, Any]) -> str:
    with pytest.raises(WorkflowFailureError) as raised:
        await end(handle)
    assert isinstance(raised.value.cause, ApplicationError)
    return sentence(raised.value.cause)


@pytest.mark.parametrize("cached", [500, 0], ids=["cached", "always replayed"])
async def test_people_are_told_what_waits_and_what_ended_how(client: Client, hook: Webhook, cached: int) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    async with worker(client, cached):
        handle = await started(client, f"told-{cached}", "ops")
        assert (await end(handle)).outcome == "recovered"
        for number in (1, 2):
            await end(await notice(client, handle, number))
    run = (await handle.describe()).run_id
    assert {(body["id"], body["kind"]) for body in hook.bodies} == {(f"{run}/1", "waits"), (f"{run}/2", "ended")}
    ending = next(body for body in hook.bodies if body["kind"] == "ended")
    assert ending["title"] == f"told-{cached}: recovered"
    assert ending["link"].endswith(f"/workflows/told-{cached}/{run}/user-metadata")
    assert "127.0.0.1" in ending["link"]


async def test_failed_recovery_is_told_as_well(client: Client, hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    async with worker(client):
        handle = await started(client, "fails", "ops", parameters={"fails": True})
        assert await failure(handle) == "failed: told to fail"
        await end(await notice(client, handle, 2))
    ending = next(body for body in hook.bodies if body["kind"] == "ended")
    assert (ending["title"], ending["type"]) == ("fails: failed", "failure")
    assert "Refused: told to fail" in ending["message"]


async def test_cancelled_recovery_is_told_and_stays_cancelled(client: Client, hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    async with worker(client):
        handle = await started(client, "cancelled", "ops", parameters={"waits": True})
        await eventually(lambda: hook.got, "the first notice")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await end(handle)
        assert (await handle.describe()).status == WorkflowExecutionStatus.CANCELED
        await end(await notice(client, handle, 2))
    assert [body["title"] for body in hook.bodies if body["kind"] == "ended"] == ["cancelled: cancelled"]


async def test_recovery_without_channels_tells_nobody(client: Client) -> None:
    async with worker(client):
        handle = await started(client, "quiet")
        await end(handle)
    types = {event.start_child_workflow_execution_initiated_event_attributes.workflow_type.name
             for event in (await handle.fetch_history()).events}  # fmt: skip
    assert "Notification" not in types


async def test_dead_targets_do_not_delay_the_end(client: Client) -> None:
    took = {}
    with silent() as port:
        addresses(f"dead=json://127.0.0.1:{port}/in?rto=15", f"dead=json://127.0.0.1:{free_port()}/in")
        async with worker(client):
            for name, channels in (("free", ()), ("hindered", ("dead", "nobody"))):
                began = time.monotonic()
                handle = await started(client, name, *channels)
                assert (await end(handle)).outcome == "recovered"
                took[name] = time.monotonic() - began
            for told in [await notice(client, handle, number) for number in (1, 2)]:
                assert (await told.describe()).status == WorkflowExecutionStatus.RUNNING
                await told.terminate()
    print(f"end of a recovery: {took['free']:.3f} s alone, {took['hindered']:.3f} s with dead targets")
    assert took["hindered"] < took["free"] + 2


async def test_dead_target_neither_stops_nor_repeats_another(client: Client, hook: Webhook) -> None:
    port = free_port()
    with mailbox() as (box, smtp):
        addresses(
            f"ops=json://127.0.0.1:{port}/late", f"ops=json://127.0.0.1:{hook.port}/in",
            f"mail=mailto://127.0.0.1:{smtp}/bob@example.org?from=r@example.org&mode=insecure",
        )  # fmt: skip
        hook.answers, box.answers = [500], ["451 try later"]
        async with worker(client):
            handle = await started(client, "one-dead", "ops", "mail")
            await end(handle)
            await eventually(lambda: len(hook.got) >= 3 and len(box.got) >= 2, "the living targets")
            with webhook(port) as late:
                for number in (1, 2):
                    await end(await notice(client, handle, number))
    run = (await handle.describe()).run_id
    ids = [f"{run}/1", f"{run}/2"]
    assert sorted(body["id"] for body in late.bodies) == ids
    assert sorted({body["id"] for body in hook.bodies}) == ids
    assert len(hook.got) == 3  # the one that it refused, and one for each notice
    assert sorted(message["X-Recovery-Notice"] for message in box.got) == ids


async def test_unknown_channel_fails_its_delivery_only(client: Client, hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    async with worker(client):
        handle = await started(client, "unknown", "nobody", "ops")
        assert (await end(handle)).outcome == "recovered"
        for number in (1, 2):
            said = await failure(await notice(client, handle, number))
            assert said.startswith("not delivered: channel nobody: RECOVERY_NOTIFY: its file tags no usable address")
    assert len(hook.got) == 2


async def test_missing_file_fails_the_delivery_only(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_NOTIFY", "/nowhere")
    async with worker(client):
        handle = await started(client, "missing", "ops")
        assert (await end(handle)).outcome == "recovered"
        said = await failure(await notice(client, handle, 2))
    assert said == "not delivered: RECOVERY_NOTIFY: its file cannot be read (No such file or directory)"


async def test_no_secret_in_any_history(client: Client, hook: Webhook) -> None:
    hook.answers = [500]
    addresses(
        f"ops=json://me:{SECRET}@127.0.0.1:{hook.port}/{SECRET}?+Authorization={SECRET}", f"ops=nosuch://{SECRET}",
        f"ops=json://me:{SECRET}@127.0.0.1:{hook.port}/{SECRET}?:password={SECRET}",
    )  # fmt: skip
    async with worker(client):
        handle = await started(client, "secret", "ops")
        await end(handle)
        told = await notice(client, handle, 1)
        assert await failure(told)
        histories = [(await one.fetch_history()).to_json() for one in (handle, told)]
    assert SECRET in str(hook.got)
    assert "it refused with 500" in "".join(histories) or len(hook.got) > 2
    assert [history for history in histories if SECRET in history] == []


async def test_reset_recovery_replays_its_notices(client: Client, hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    async with worker(client):
        handle = await started(client, "reset", "ops")
        await end(handle)
        first = (await handle.describe()).run_id
        second = [
            event.start_child_workflow_execution_initiated_event_attributes
            for event in (await handle.fetch_history()).events
            if event.start_child_workflow_execution_initiated_event_attributes.workflow_id == notice_id(first, 2)
        ]
        for number in (1, 2):
            await end(await notice(client, handle, number))
        answer = await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=client.namespace,
                workflow_execution=WorkflowExecution(workflow_id="reset", run_id=first),
                workflow_task_finish_event_id=second[0].workflow_task_completed_event_id,
                request_id="reset",
            )
        )
        again = client.get_workflow_handle("reset", run_id=answer.run_id, result_type=Report)
        assert (await end(again)).outcome == "recovered"
        await eventually(lambda: len(hook.got) == 3, "the end of the reset run")
    assert [body["run"] for body in hook.bodies] == [first, first, answer.run_id]


async def test_killed_worker_costs_one_marked_repeat(client: Client, hook: Webhook) -> None:
    addresses(f"ops=json://127.0.0.1:{hook.port}/in")
    hook.answers = ["hang", "hang"]
    command = [sys.executable, "-m", "tests.recovery.telling_worker"]
    with contextlib.ExitStack() as stack:
        victim = subprocess.Popen(command, cwd=ROOT)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        handle = await started(client, "killed", "ops")
        assert (await end(handle)).outcome == "recovered"
        await eventually(lambda: len(hook.got) == 2, "both messages")
    async with worker(client):
        for number in (1, 2):
            await end(await notice(client, handle, number))
    run = (await handle.describe()).run_id
    for number in (1, 2):
        assert [body["repeat"] for body in hook.bodies if body["id"] == f"{run}/{number}"] == [False, True]
