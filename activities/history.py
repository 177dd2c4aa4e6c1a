"""Temporal's own history, as the record of what a recovery did."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from recovery.errors import Fatal, Refused
from recovery.past import Fold, Past, Which, resets


@activity.defn(name="history.read")
async def read(which: Which) -> Past:
    """Return what the recovery did, over all runs that it was reset from, once none of those acts any more.

    An attempt whose run was terminated stops by itself when no heartbeat of it is confirmed: that time is waited
    out, so that nothing is undone beside it. Raises Refused when there is no such run.
    """
    client, fold = activity.client(), Fold(_plain)
    events = await _events(client, which.workflow, which.run)
    run = which.run or await _newest(client, which.workflow)
    for one, part in await _chain(client, which.workflow, run, events):
        fold.take(part)
        fold.runs.append(one)
        await _wait_out(fold)
    return fold.past(which.workflow, run)


def _plain(payload: Payload) -> Any:
    try:
        return json.loads(payload.data)
    except ValueError:  # skipped, an order would never be undone
        raise Fatal(
            "history: what it holds is no JSON (it was sent by hand, or is encrypted); nothing was undone"
        ) from None


async def _chain(
    client: Client, workflow: str, run: str, events: list[HistoryEvent]
) -> list[tuple[str, list[HistoryEvent]]]:
    """Return every run of the recovery with its own events, in the order in which they acted.

    Not only those that led to ``run``: where a run was reset twice, the run that the first reset made acted as well.
    """
    parts = [(run, events)]
    while found := resets(parts[-1][1]):
        base = found[-1].base_run_id
        parts.append((base, await _events(client, workflow, base)))
    known, first = {one for one, _ in parts}, _first(events)
    async for other in client.list_workflows(f"WorkflowId = {json.dumps(workflow, ensure_ascii=False)}"):
        activity.heartbeat()  # of other recoveries of this id there may be hundreds
        if other.run_id not in known and await _began_with(client, workflow, other.run_id) == first:
            parts.append((other.run_id, await _events(client, workflow, other.run_id)))
    own = [(one, _own(found)) for one, found in parts]
    return sorted(own, key=lambda part: part[1][0].event_time.ToNanoseconds())


async def _began_with(client: Client, workflow: str, run: str) -> str:
    try:
        return _first(await _events(client, workflow, run, 1))
    except Refused:  # its retention is over, but it is listed yet: it was long before
        return ""


def _first(events: list[HistoryEvent]) -> str:
    """Return the run with which the chain of runs began; a reset copies that."""
    return events[0].workflow_execution_started_event_attributes.first_execution_run_id


def _own(events: list[HistoryEvent]) -> list[HistoryEvent]:
    """Return the events that were not copied from the run before; there is always a task that begins."""
    found = resets(events)
    return [event for event in events if not found or event.event_id > found[-1].copied]


async def _wait_out(fold: Fold) -> None:
    if not fold.closed or fold.closed_at is None or not fold.in_flight:
        return
    over = fold.closed_at.replace(tzinfo=UTC) + timedelta(seconds=max(fold.in_flight.values()))
    while datetime.now(UTC) < over:
        activity.heartbeat()
        await asyncio.sleep(0.2)


async def _events(client: Client, workflow: str, run: str | None, most: int = 0) -> list[HistoryEvent]:
    handle = client.get_workflow_handle(workflow, run_id=run)
    try:
        plain: list[HistoryEvent] = []
        async for event in handle.fetch_history_events():
            plain.append(event)
            if len(plain) == most:
                break
            if len(plain) % 500 == 0:
                activity.heartbeat()
    except RPCError as error:
        if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
            raise
        raise Refused("workflow: Temporal knows no such recovery (its retention may be over)") from None
    return plain


async def _newest(client: Client, workflow: str) -> str:
    return (await client.get_workflow_handle(workflow).describe()).run_id
