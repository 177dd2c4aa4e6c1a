"""Start a recovery, or a check of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from console.options import AsJson, By, Pairs, Parameters, Runbook
from console.output import emit, say
from console.session import complete, connect, library, run_link, settings, user

if TYPE_CHECKING:
    from temporalio.client import Client

    from console.reports import Seen
    from console.runs import Run
    from recovery.models import Frozen, Start
    from recovery.settings import Settings

Reason = Annotated[str, typer.Option("--reason", help="Why; people will read it.", show_default=False)]
Mode = Annotated[Literal["live", "drill"], typer.Option(help="live keeps what it did, drill puts everything back.")]
Incident = Annotated[str, typer.Option(help="The incident that this belongs to.", show_default=False)]
Outage = Annotated[str, typer.Option(help="When the outage began, with time zone.", show_default=False)]
Detected = Annotated[str, typer.Option(help="When it was noticed, with time zone.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")]


def start(
    name: Runbook,
    reason: Reason,
    pairs: Pairs = None,
    text: Parameters = "",
    mode: Mode = "live",
    incident: Incident = "",
    outage_started_at: Outage = "",
    detected_at: Detected = "",
    by: By = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Start a recovery. Exit 3 if one of the same system runs already."""
    from console.request import parameters, request

    wanted = request(
        runbook=name,
        reason=reason,
        parameters=parameters(pairs or [], text),
        mode=mode,
        incident=incident,
        outage_started_at=outage_started_at,
        detected_at=detected_at,
        requested_by=by or user(),
    )
    _begin(wanted, wait, as_json)


def check(
    name: Runbook,
    reason: Reason = "a check",
    pairs: Pairs = None,
    text: Parameters = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Show what a recovery would do and what stands in its way, and change nothing; exit 1 if anything does."""
    from console.request import parameters, request

    given = parameters(pairs or [], text)
    _begin(
        request(runbook=name, reason=reason, parameters=given, mode="check", requested_by=by or user()), True, as_json
    )


@dataclass(frozen=True)
class _Begun:
    run: Run
    worker: bool
    link: str

    def plain(self) -> dict[str, Any]:
        return {"workflow": self.run.workflow, "run": self.run.run, "ui": self.link, "worker": self.worker}


def _begin(wanted: Start, wait: bool, as_json: bool) -> None:
    from recovery.clock import misdated
    from recovery.errors import Invalid

    installation = settings()
    catalogs = library(installation)
    if wrong := misdated(wanted.outage_started_at, wanted.detected_at, datetime.now(UTC)):
        raise Invalid(wrong)
    frozen = catalogs.freeze(wanted, catalogs.read(wanted.runbook).procedure)
    begun, seen = complete(_run(installation, wanted, frozen, wait, as_json))
    if as_json:
        report = {"report": seen.report.model_dump(mode="json")} if seen else {}
        emit(begun.plain() | report)
    if seen is None:
        return
    from console.follow import tell, verdict

    if not as_json:
        tell(seen, begun.link)
    if code := verdict(seen.report):
        raise typer.Exit(code)


async def _run(
    installation: Settings, wanted: Start, frozen: Frozen, wait: bool, as_json: bool
) -> tuple[_Begun, Seen | None]:
    from console.follow import follow, view
    from console.runs import describe, polled

    client = await connect(installation)
    workflow, run = await _start(client, installation, wanted, frozen)
    found = await describe(client, workflow, run)
    worker = await polled(client, installation.task_queue)
    begun = _Begun(found, worker, run_link(installation, workflow, run))
    if not as_json:
        say(f"{workflow}  run {run}\n{begun.link}")
        if not worker:
            say(f"! no worker asks the queue {installation.task_queue} for work: start worker.py, then it begins")
    return begun, await follow(client, found, view(as_json, as_json, begun.link)) if wait else None


async def _start(client: Client, installation: Settings, wanted: Start, frozen: Frozen) -> tuple[str, str]:
    from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
    from temporalio.common import WorkflowIDReusePolicy as Reuse
    from temporalio.exceptions import WorkflowAlreadyStartedError

    from recovery import attributes
    from recovery.errors import Refused
    from runbooks.library import workflow_id

    # Known to Temporal from the first moment, so that it is listed even while no worker runs.
    known = [(attributes.RUNBOOK, wanted.runbook), (attributes.MODE, wanted.mode)]
    try:
        handle = await client.start_workflow(
            frozen.procedure,
            wanted,
            id=workflow_id(wanted.runbook, frozen, wanted.mode),
            task_queue=installation.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            id_reuse_policy=Reuse.ALLOW_DUPLICATE,
            search_attributes=TypedSearchAttributes([SearchAttributePair(key, value) for key, value in known]),
            static_summary=summary(frozen, wanted),
            static_details=details(frozen, wanted),
        )
    except WorkflowAlreadyStartedError as error:
        link = run_link(installation, error.workflow_id, error.run_id or "")
        raise Refused(
            f"{error.workflow_id}: a recovery of it runs already, run {error.run_id}; wait for its end, or cancel it:"
            f" {link}"
        ) from None
    return handle.id, handle.first_execution_run_id or ""


def summary(frozen: Frozen, wanted: Start) -> str:
    """Return what a person would call this run; Temporal takes 400 bytes."""
    return f"{wanted.mode}: {frozen.title}: {wanted.reason}".encode()[:400].decode(errors="ignore")


def details(frozen: Frozen, wanted: Start) -> str:
    """Return what was asked for and by whom, as Markdown; values of parameters are left to the input."""
    rows = [
        f"**{frozen.title}** (`{frozen.runbook}`, version {frozen.version}), {wanted.mode}",
        f"on {', '.join(frozen.systems)}, tier {frozen.tier}: RTO {frozen.objectives.rto}, RPO {frozen.objectives.rpo}",
        f"started by {wanted.requested_by}" + (f" for incident {wanted.incident}" if wanted.incident else ""),
        wanted.reason,
    ]
    return "\n\n".join(rows)
