"""Who has which system in hand, and letting go of one whose recovery is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.options import AsJson, By
from console.output import emit, say
from console.session import complete, connect, settings, user

if TYPE_CHECKING:
    from temporalio.client import Client

    from recovery.leases import Lease

System = Annotated[str, typer.Argument(metavar="CATALOG/SYSTEM", help="As `leases` lists it.", show_default=False)]
Why = Annotated[str, typer.Option("--reason", help="What you looked at; kept in the record.", show_default=False)]


def leases(as_json: AsJson = False) -> None:
    """List the systems that recoveries have, or had, in hand."""
    rows = complete(_leases())
    if as_json:
        return emit(rows)
    if not rows:
        return say("no recovery has ever had a system in hand here")
    from rich.table import Table
    from rich.text import Text

    table = Table("system", "state", "held by", "epoch", "waiting", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in ("system", "state", "holder", "epoch", "waiting")))
    return say(table)


def free(system: System, reason: Why, by: By = "", as_json: AsJson = False) -> None:
    """Let go of a system that a recovery left without releasing it. Better: `undo` that recovery."""
    from console.holds import checked
    from recovery.models import Freed

    lease = complete(_free(system, checked(Freed, {"by": by or user(), "reason": reason})))
    if as_json:
        return emit(_row(system, lease))
    return say(f"{system}: free, after epoch {lease.epoch}")


async def _leases() -> list[dict[str, Any]]:
    from recovery.names import LEASE

    client, rows = await connect(settings()), []
    async for run in client.list_workflows(f'WorkflowType = "{LEASE}" AND ExecutionStatus = "Running"'):
        lease: Lease = await _ask(client, run.id)
        rows.append(_row(run.id.partition("/")[2], lease))
    return sorted(rows, key=lambda row: str(row["system"]))


async def _ask(client: Client, lease: str) -> Lease:
    from datetime import timedelta

    from temporalio.service import RPCError

    from recovery.errors import Transient
    from recovery.leases import Lease

    try:
        found: Lease = await client.get_workflow_handle(lease).query(
            "lease", result_type=Lease, rpc_timeout=timedelta(seconds=10)
        )
    except RPCError as error:
        raise Transient(f"{lease}: no worker answers ({error.status.name.lower()}); start one") from None
    return found


async def _free(system: str, freed: object) -> Lease:
    from temporalio.client import WorkflowUpdateFailedError
    from temporalio.service import RPCError, RPCStatusCode

    from recovery.errors import Refused, sentence
    from recovery.leases import Lease
    from recovery.names import lease_id

    handle = (await connect(settings())).get_workflow_handle(lease_id(*_parts(system)))
    try:
        lease: Lease = await handle.execute_update("free", freed, result_type=Lease)
    except WorkflowUpdateFailedError as error:
        raise Refused(f"{system}: {sentence(error.cause or error)}") from None
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        raise Refused(f"{system}: no recovery has ever had it in hand; see `starter.py leases`") from None
    return lease


def _parts(system: str) -> tuple[str, str]:
    from recovery.errors import Invalid

    catalog, slash, name = system.partition("/")
    if not (catalog and slash and name):
        raise Invalid("system: name it as CATALOG/SYSTEM, as `starter.py leases` lists it")
    return catalog, name


def _row(system: str, lease: Lease) -> dict[str, Any]:
    holder = lease.holder.workflow if lease.holder else ""
    state = "free" if lease.holder is None else f"orphaned ({lease.orphaned})" if lease.orphaned else "held"
    waiting = ", ".join(one.workflow for one in lease.queue)
    return {"system": system, "state": state, "holder": holder, "epoch": lease.epoch, "waiting": waiting}
