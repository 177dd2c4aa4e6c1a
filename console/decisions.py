"""Approve or reject at a gate, on exactly what was shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.options import AsJson, By, Id, RunId
from console.output import emit, say
from console.session import complete, user

if TYPE_CHECKING:
    from temporalio.client import Client

    from console.runs import Run
    from recovery.models import Answer, Decision, Verdict
    from recovery.report import GateLine, Report

Gate = Annotated[str, typer.Option("--gate", help="Which; needed if several are open.", show_default=False)]
Why = Annotated[str, typer.Option("--reason", help="Why; kept in the record.", show_default=False)]
WhyNot = Annotated[str, typer.Option("--reason", help="Why not; kept in the record.", show_default=False)]
Plan = Annotated[str, typer.Option("--plan", help="Digest of the plan that you read.", show_default=False)]
Evidence = Annotated[str, typer.Option("--evidence", help="Digest of the evidence that you read.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Decide on what is shown now, without a question.")]

_ANSWER = timedelta(seconds=10)


def approve(
    name: Id,
    gate: Gate = "",
    by: By = "",
    reason: Why = "",
    plan: Plan = "",
    evidence: Evidence = "",
    yes: Yes = False,
    run: RunId = "",
    as_json: AsJson = False,
) -> None:
    """Approve at a gate. Exit 3, with the reason, if the recovery does not count it."""
    _decide("approve", name, run, _Ask(gate, by or user(), reason, plan, evidence, yes, as_json))


def reject(
    name: Id,
    reason: WhyNot,
    gate: Gate = "",
    by: By = "",
    plan: Plan = "",
    evidence: Evidence = "",
    yes: Yes = False,
    run: RunId = "",
    as_json: AsJson = False,
) -> None:
    """Reject at a gate: the recovery undoes what it did. Exit 3, with the reason, if it does not count."""
    _decide("reject", name, run, _Ask(gate, by or user(), reason, plan, evidence, yes, as_json))


@dataclass(frozen=True)
class _Ask:
    """What was typed."""

    gate: str
    by: str
    reason: str
    plan: str
    evidence: str
    yes: bool
    as_json: bool


def _decide(verdict: Verdict, name: str, run: str, ask: _Ask) -> None:
    found, answer = complete(_carry(verdict, name, run, ask))
    if ask.as_json:
        return emit({"workflow": found.workflow, "run": found.run, **answer.model_dump(mode="json")})
    said = {"approve": "approved", "reject": "rejected"}[answer.verdict]
    left = f"; {answer.needed} more needed" if answer.needed and answer.verdict == "approve" else ""
    return say(f"{said} at “{answer.gate}” by {answer.by} (identity {answer.identity}){left}")


async def _carry(verdict: Verdict, name: str, run: str, ask: _Ask) -> tuple[Run, Answer]:
    from console.reports import fetch
    from console.watching import find
    from recovery.errors import Refused, Transient

    client, found, _ = await find(name, run)
    if not found.open:
        raise Refused(f"{found.workflow}: has ended already ({found.state}); there is nothing to decide")
    named = bool(ask.plan or ask.evidence)
    if named and ask.gate:  # also a decision that comes early, at a gate that will show no evidence
        return found, await _send(client, found, _decision(verdict, ask, ask.gate, ask.plan, ask.evidence))
    seen = await fetch(client, found)
    if seen.remark:
        raise Transient(f"{found.workflow}: {seen.remark}; what is to be decided cannot be shown")
    gate = chosen(seen.report, ask.gate)
    if named:
        return found, await _send(client, found, _decision(verdict, ask, gate.gate, ask.plan, ask.evidence))
    _confirm(verdict, seen.report, gate, ask)
    return found, await _send(client, found, _decision(verdict, ask, gate.gate, gate.plan, gate.evidence))


def chosen(report: Report, name: str) -> GateLine:
    """Return the gate to decide at: the one named, or the only open one."""
    from recovery.errors import Invalid, Refused

    waiting = [gate for gate in report.gates if gate.plan and not gate.closed and name in ("", gate.gate)]
    if len(waiting) > 1:
        raise Invalid(f"gate: several are open, name one: {', '.join(gate.gate for gate in waiting)}")
    if not waiting:
        which = "this one is not" if name else "none is"
        raise Refused(f"gate: {which} open now; see `starter.py status {report.workflow}`")
    return waiting[0]


def _confirm(verdict: Verdict, report: Report, gate: GateLine, ask: _Ask) -> None:
    from console.render import evidence
    from recovery.errors import Invalid

    if ask.yes:
        return
    if ask.as_json:
        raise Invalid("yes: with --json nobody is asked; name --plan and --evidence as you read them, or add --yes")
    say(*evidence(report, gate))
    typer.confirm(f"{verdict} “{gate.gate}” as {ask.by}?", abort=True)


def _decision(verdict: Verdict, ask: _Ask, gate: str, plan: str, evidence: str) -> Decision:
    from pydantic import ValidationError

    from recovery.errors import Invalid, fields
    from recovery.models import Decision

    try:
        return Decision(gate=gate, by=ask.by, plan=plan, evidence=evidence, reason=ask.reason, verdict=verdict)
    except ValidationError as error:
        raise Invalid(fields(error)) from None


async def _send(client: Client, found: Run, decision: Decision) -> Answer:
    from recovery.models import Answer

    answer: Answer = await update(client, found, "decide", decision, Answer)
    return answer


async def update(client: Client, found: Run, name: str, said: Any, gives: type[Any]) -> Any:
    """Send the update to the very run that was shown; raises what the recovery answers."""
    from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
    from temporalio.exceptions import ApplicationError

    from recovery.errors import Invalid, Refused, Transient

    handle = client.get_workflow_handle(found.workflow, run_id=found.run)
    try:
        return await handle.execute_update(name, said, result_type=gives, rpc_timeout=_ANSWER)
    except WorkflowUpdateFailedError as failure:
        cause = failure.cause
        said = cause.message if isinstance(cause, ApplicationError) else str(cause)
        kind = Invalid if isinstance(cause, ApplicationError) and cause.type == "Invalid" else Refused
        raise kind(said) from None
    except WorkflowUpdateRPCTimeoutOrCancelledError:
        raise Transient(
            f"no worker took it within {_ANSWER.seconds} s; look at the status before you send it again"
        ) from None
