"""When a restore last worked, by Temporal's own list of runs: also where the runs since then have failed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from recovery.actions import Probe, Spec
from recovery.attributes import BREACHES, PROVEN_AT, RUNBOOK, SYSTEMS, VERDICT
from recovery.errors import Transient
from recovery.models import Wire
from recovery.telemetry import Gauge, Reading, measuring

PROCEDURE = "RestoreVerification"
EVERY = timedelta(seconds=30)
"""How often the metrics are brought up to date, from what Temporal lists."""
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


@contextlib.asynccontextmanager
async def published(client: Client, environ: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """Have the metrics tell how each restore stands, in the body: what Temporal knows, whichever worker found it out.

    A worker that was just started tells it, too, and one whose last verification is long past tells nothing old.
    """
    known: list[Standing] = []
    worked = Gauge(
        "recovery.restore.last_proven",
        "s",
        "When a restore was last proven to work, in seconds since 1970",
        lambda: [Reading(one.proven_at.timestamp(), _of(one)) for one in known if one.proven_at],
    )
    breaches = Gauge(
        "recovery.restore.breaches",
        "{breach}",
        "How many breaches of its backup policy the last verification found",
        lambda: [Reading(one.breaches, _of(one)) for one in known],
    )
    with measuring([worked, breaches], os.environ if environ is None else environ) as wanted:
        watching = asyncio.create_task(_watch(client, known)) if wanted else None
        try:
            yield
        finally:
            if watching is not None:
                watching.cancel()


async def _watch(client: Client, known: list[Standing]) -> None:
    while True:
        with contextlib.suppress(RPCError):  # what was known stays: it says itself how old it is
            known[:] = await standings(client)
        await asyncio.sleep(EVERY.total_seconds())


def _of(one: Standing) -> dict[str, str]:
    return {"recovery.system": one.system, "recovery.runbook": one.runbook}


def _runs(spec: AskLast, having: str) -> AsyncIterator[WorkflowExecution]:
    query = f"{_query(having)} AND {RUNBOOK.name} = {json.dumps(spec.runbook)}"
    return activity.client().list_workflows(query, limit=RUNS)


def _query(having: str) -> str:
    return f"WorkflowType = '{PROCEDURE}' AND {having} IS NOT NULL"
