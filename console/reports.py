"""Get the report of a run: from its worker, from how it ended, or from what Temporal alone knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from temporalio.client import WorkflowFailureError, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from recovery.attributes import INCIDENT, MODE, NEEDS, PHASE, RUNBOOK, SYSTEMS, TIER
from recovery.clock import Clock
from recovery.report import Report, moved

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from console.runs import Run

_ANSWER = timedelta(seconds=5)
_ENDED = {"terminated": "Terminated", "timed_out": "TimedOut", "canceled": "Cancelled"}
NO_WORKER = "no worker answers; this is what Temporal knows without one"

PAUSED = "paused in Temporal: it does nothing and answers nothing; unpause it there"


@dataclass(frozen=True)
class Seen:
    """A report, and a remark about how it was come by ("" if nothing is remarkable)."""

    report: Report
    remark: str = ""


async def fetch(client: Client, run: Run) -> Seen:
    """Return the report of ``run`` as good as it can be had now; raises RPCError when Temporal does not answer."""
    handle: WorkflowHandle[Any, Report] = client.get_workflow_handle(run.workflow, run_id=run.run, result_type=Report)
    if run.open:
        asked = await _ask(handle)
        if run.state == "paused":
            return Seen(asked or _bare(run), PAUSED)
        return Seen(_moved(asked, run)) if asked else Seen(_bare(run), NO_WORKER)
    try:
        return Seen(await handle.result(follow_runs=False, rpc_timeout=_ANSWER))
    except WorkflowFailureError as failure:
        return await _ended(handle, run, failure.cause)


def _moved(report: Report, run: Run) -> Report:
    """Return ``report`` with the figures that activities beat with: a run itself hears of few of them."""
    steps = report.steps
    for one in run.underway:
        steps = moved(steps, one.activity, one.progress)
    return report if steps is report.steps else report.model_copy(update={"steps": steps})


async def _ended(handle: WorkflowHandle[Any, Report], run: Run, cause: BaseException) -> Seen:
    if isinstance(cause, ApplicationError) and (report := _detail(cause)):
        return Seen(report)
    report = await _ask(handle)
    if report is not None and report.outcome != "running":
        return Seen(report)
    said = getattr(cause, "message", "") or str(cause)
    kind = cause.type if isinstance(cause, ApplicationError) and cause.type else _ENDED.get(run.state, "Fatal")
    how = {
        "outcome": "cancelled" if run.state == "canceled" else "failed", "phase": run.state.replace("_", " "),
        "needs": "", "kind": kind, "failure": said, "ended_at": run.closed_at,
    }  # fmt: skip
    remark = "" if report else NO_WORKER
    if run.state in ("terminated", "timed_out"):
        remark = "ended from outside: nothing was undone"
    return Seen((report or _bare(run)).model_copy(update=how), remark)


def _detail(cause: ApplicationError) -> Report | None:
    try:
        return Report.model_validate(cause.details[0]) if cause.details else None
    except ValidationError:
        return None


async def _ask(handle: WorkflowHandle[Any, Report]) -> Report | None:
    try:
        answer: Report = await handle.query("status", result_type=Report, rpc_timeout=_ANSWER)
        return answer
    except (WorkflowQueryFailedError, WorkflowQueryRejectedError):
        return None
    except RPCError as error:
        if error.status == RPCStatusCode.UNAVAILABLE:
            raise
        return None


def _bare(run: Run) -> Report:
    total = ((run.closed_at or datetime.now(UTC)) - run.started_at).total_seconds()
    return Report(
        workflow=run.workflow,
        run=run.run,
        procedure=run.procedure,
        runbook=run.attribute(RUNBOOK.name, "not known"),
        mode=_mode(run),
        reason="not known without a worker",
        incident=run.attribute(INCIDENT.name) or None,
        systems=tuple(run.attributes.get(SYSTEMS.name, ())),
        tier=run.attribute(TIER.name),
        phase=run.attribute(PHASE.name, "starting"),
        needs=run.attribute(NEEDS.name),
        started_at=run.started_at,
        clock=Clock(since="start", total=round(total, 3)),
    )


def _mode(run: Run) -> Any:
    return run.attribute(MODE.name, "live")
