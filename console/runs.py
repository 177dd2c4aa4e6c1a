"""Runs of recoveries as Temporal lists them. Read from the raw answers: the SDK cannot name a paused run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import TaskQueueType, WorkflowExecutionStatus
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo, WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeWorkflowExecutionRequest,
    ListWorkflowExecutionsRequest,
)
from temporalio.service import RPCError, RPCStatusCode

from recovery.attributes import RUNBOOK
from recovery.errors import Invalid
from recovery.progress import Underway

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from temporalio.client import Client

    from runbooks.library import Library

_ANSWER = timedelta(seconds=5)
_POLL_SECONDS = 75
"""A worker asks for work at least this often; one that was killed stays listed for longer."""


@dataclass(frozen=True)
class Run:
    """One run; ``state`` is Temporal's ("running", "paused", "completed", …), ``attributes`` its search attributes.

    ``underway`` is what its activities have beaten with, where the run was looked at alone.
    """

    workflow: str
    run: str
    procedure: str
    state: str
    started_at: datetime
    closed_at: datetime | None
    attributes: dict[str, Any]
    underway: tuple[Underway, ...] = ()

    @property
    def open(self) -> bool:
        """Tell whether it has not ended."""
        return self.state in ("running", "paused")

    def attribute(self, name: str, default: str = "") -> str:
        """Return the search attribute ``name`` as text."""
        return str(self.attributes.get(name, default))


def target(library: Library, name: str) -> str:
    """Return the workflow id that ``name`` means: itself, or that of the recovery of the runbook ``name``."""
    from runbooks.library import workflow_id

    if name not in library.names():
        return name
    return workflow_id(name, library.read(name), "live")


async def describe(client: Client, workflow: str, run: str = "") -> Run:
    """Return one run, the newest if none is named; raises Invalid when there is none."""
    request = DescribeWorkflowExecutionRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow, run_id=run)
    )
    try:
        found = await client.workflow_service.describe_workflow_execution(request, timeout=_ANSWER)
    except RPCError as error:
        if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            raise
        which = "with this run id" if run else "of this id"
        raise Invalid(f"ID: there is no recovery {which}; `starter.py list --all` shows them") from None
    return replace(parse(found.workflow_execution_info), underway=await _underway(client, found.pending_activities))


async def _underway(client: Client, pending: Iterable[PendingActivityInfo]) -> tuple[Underway, ...]:
    """Return how far the activities are that tell it; what another build beats with is left out."""
    found: list[Underway] = []
    for one in pending:
        if one.heartbeat_details.payloads:
            with contextlib.suppress(ValidationError):
                found += await client.data_converter.decode(one.heartbeat_details.payloads[:1], [Underway])
    return tuple(one for one in found if isinstance(one, Underway))  # what tells nothing beats with None there


async def listing(client: Client, closed: bool) -> AsyncIterator[Run]:
    """Yield the recoveries, newest first; also those that have ended if ``closed``."""
    query = f"{RUNBOOK.name} IS NOT NULL" + ("" if closed else " AND CloseTime IS NULL")
    token = b""
    while True:
        request = ListWorkflowExecutionsRequest(namespace=client.namespace, query=query, next_page_token=token)
        page = await client.workflow_service.list_workflow_executions(request, retry=True)
        for info in page.executions:
            yield parse(info)
        if not (token := page.next_page_token):
            return


async def polled(client: Client, queue: str) -> bool:
    """Tell whether a worker has asked this queue for work a moment ago."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    found = await client.workflow_service.describe_task_queue(request, retry=True)
    now = datetime.now(UTC)
    return any((now - _time(poller.last_access_time)).total_seconds() < _POLL_SECONDS for poller in found.pollers)


def parse(info: WorkflowExecutionInfo) -> Run:
    """Return what Temporal tells of a run."""
    name = WorkflowExecutionStatus.Name(info.status) if info.status in WorkflowExecutionStatus.values() else "unknown"
    return Run(
        workflow=info.execution.workflow_id,
        run=info.execution.run_id,
        procedure=info.type.name,
        state=name.removeprefix("WORKFLOW_EXECUTION_STATUS_").lower(),
        started_at=_time(info.start_time),
        closed_at=_time(info.close_time) if info.HasField("close_time") else None,
        attributes={name: json.loads(field.data) for name, field in info.search_attributes.indexed_fields.items()},
    )


def _time(at: Timestamp) -> datetime:
    return at.ToDatetime(tzinfo=UTC)
