"""When a restore last worked, by Temporal's own list of runs: also where the runs since then have failed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from recovery.actions import Probe, Spec
from recovery.attributes import BREACHES, PROVEN_AT, RUNBOOK, SYSTEMS, VERDICT
from recovery.errors import Transient
from recovery.models import Wire

PROCEDURE = "RestoreVerification"
RUNS = 50
"""How many of the newest runs are looked at: each carries on what it knew, so that one that ended well is enough."""


class AskLast(Spec):
    """Ask for the earlier runs of ``runbook``."""

    runbook: str


class Last(Wire):
    """When a restore was last proven, and what the newest verdict was, "" if there is none."""

    proven_at: datetime | None = None
    verdict: str = ""


class LastProven(Probe[AskLast, Last]):
    """Look up when a restore last worked."""

    name = "verification.last"
    limit = timedelta(seconds=15)

    def title(self, spec: AskLast) -> str:
        """Say what is looked up."""
        return f"look up when a restore of {spec.system} last worked"

    async def observe(self, spec: AskLast) -> Last:
        """Ask Temporal for the newest runs of the runbook; two lists."""
        own = activity.info().workflow_run_id
        try:
            known = [one.typed_search_attributes.get(PROVEN_AT) async for one in _runs(spec, PROVEN_AT.name)]
            said = [one async for one in _runs(spec, VERDICT.name) if one.run_id != own]
        except RPCError as error:
            raise Transient(f"Temporal does not list the earlier runs ({error.message})") from None
        verdict = said[0].typed_search_attributes.get(VERDICT) if said else None
        return Last(proven_at=max((at for at in known if at), default=None), verdict=verdict or "")


last_proven = LastProven()


class Standing(Wire):
    """How the restore of a system stands, by the newest run of a runbook that has come to a verdict."""

    runbook: str
    system: str
    proven_at: datetime | None
    breaches: int


async def standings(client: Client) -> list[Standing]:
    """Return how each runbook's restore stands; raises RPCError."""
    found: dict[str, Standing] = {}
    async for run in client.list_workflows(_query(VERDICT.name), limit=1000):
        said = run.typed_search_attributes
        runbook = said.get(RUNBOOK)
        if runbook and runbook not in found:  # the newest run comes first
            found[runbook] = Standing(
                runbook=runbook,
                system=next(iter(said.get(SYSTEMS) or ()), ""),
                proven_at=said.get(PROVEN_AT),
                breaches=said.get(BREACHES) or 0,
            )
    return list(found.values())


def _runs(spec: AskLast, having: str) -> AsyncIterator[WorkflowExecution]:
    query = f"{_query(having)} AND {RUNBOOK.name} = {json.dumps(spec.runbook)}"
    return activity.client().list_workflows(query, limit=RUNS)


def _query(having: str) -> str:
    return f"WorkflowType = '{PROCEDURE}' AND {having} IS NOT NULL"
