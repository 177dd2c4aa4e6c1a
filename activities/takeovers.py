"""What a recovery that took over from a lost site did, as its history has it: the way home begins there."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from temporalio import activity

from activities.history import read
from recovery.actions import Probe, Spec
from recovery.errors import Refused
from recovery.models import Wire, digest
from recovery.past import Past, Which

PROCEDURE = "DataCenterActivation"


class Recorded(Spec):
    """Which recovery is to be read: the newest of this workflow id that ended well, or the one of ``run``."""

    workflow: str
    run: str | None = None


class TakenOver(Wire):
    """What was done when a site was lost, from the undo stack of the recovery that did it.

    ``databases`` are those that were promoted, each with the one that was lost; ``owner`` tells that recovery's files
    on hosts. ``fenced`` are the settings of stores that it fenced before the site was lost: least replicas, lag.
    ``commits`` is what it opened, ``ended`` when it ended.
    """

    run: str
    owner: str
    databases: dict[str, str] = {}
    fenced: dict[str, tuple[int, int]] = {}
    commits: str = ""
    ended: datetime | None = None


class ReadRecord(Probe[Recorded, TakenOver]):
    """Read the history of a recovery that took over from a lost site."""

    name = "recovery.record"
    limit = timedelta(minutes=2)

    def title(self, spec: Recorded) -> str:
        """Say what is read."""
        return f"read what {spec.workflow} did"

    async def observe(self, spec: Recorded) -> TakenOver:
        """Read it. Raises Refused when there is no such recovery, or it took over from no site."""
        client = activity.client()
        run = spec.run or await _newest(spec.workflow)
        past = await read(Which(workflow=spec.workflow, run=run))
        about = await client.get_workflow_handle(spec.workflow, run_id=run).describe()
        first = about.raw_description.workflow_execution_info.first_run_id or run
        return taken_over(past, digest(first)[:8]).model_copy(update={"ended": about.close_time})


async def _newest(workflow: str) -> str:
    query = (
        f"WorkflowId = {json.dumps(workflow, ensure_ascii=False)} AND WorkflowType = '{PROCEDURE}'"
        " AND ExecutionStatus = 'Completed'"
    )
    async for found in activity.client().list_workflows(query):  # the newest comes first
        return found.run_id
    raise Refused(
        f"parameters.recovery: Temporal knows no activation {workflow} that ended well (its retention may be over, or"
        " another Temporal conducted it); name the recovery that took over, or make the site a replica by hand"
    )


def taken_over(past: Past, owner: str) -> TakenOver:
    """Return what ``past`` did when a site was lost; pure. Raises Refused if it took over from none."""
    promoted = [one.order["spec"] for one in past.done if one.action == "postgres.promote_standby"]
    taken = {spec["system"]: spec["other"]["name"] for spec in promoted if spec.get("lost")}
    if not past.completed or not past.commits or not taken:
        raise Refused(
            f"parameters.recovery: {past.workflow} (run {past.run}) took over from no lost site, or did not end well;"
            " the way home from a planned activation is the runbook of the other site"
        )
    fenced: dict[str, Any] = {
        one.order["spec"]["system"]: (one.order["before"]["least"], one.order["before"]["lag"])
        for one in past.done
        if one.action == "valkey.fence"
    }
    return TakenOver(run=past.run, owner=owner, databases=taken, fenced=fenced, commits=past.commits)


read_record = ReadRecord()
