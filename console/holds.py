"""Answer at a hold, hold a recovery, write a note, undo one from its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.options import AsJson, By, Id, RunId
from console.output import emit, say
from console.session import complete, user

if TYPE_CHECKING:
    from temporalio.client import Client

    from console.reports import Seen
    from console.runs import Run
    from recovery.models import Resolved
    from recovery.report import HoldLine, Report

Answer = Annotated[str, typer.Argument(metavar="ANSWER", help="One of those that the hold offers.", show_default=False)]
Token = Annotated[
    str, typer.Option("--hold", help="Token of the hold that you read; the open one if left out.", show_default=False)
]
Why = Annotated[str, typer.Option("--reason", help="Why; kept in the record.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Answer the hold that is open now, without a question.")]
Words = Annotated[str, typer.Argument(metavar="TEXT", help="What to write.", show_default=False)]
Completed = Annotated[bool, typer.Option("--completed", help="Also one that ended well: take away what it left.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")]


def resolve(
    name: Id, answer: Answer, hold: Token = "", by: By = "", reason: Why = "", yes: Yes = False, run: RunId = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Answer at the open hold. Exit 3, with the reason, if the recovery does not count it."""
    found, told = complete(_resolve(name, run, {"hold": hold, "by": by or user(), "answer": answer, "reason": reason},
                                    yes, as_json))  # fmt: skip
    if as_json:
        return emit({"workflow": found.workflow, "run": found.run, **told.model_dump(mode="json")})
    return say(f"{told.answer} by {told.by} (identity {told.identity})")


async def _resolve(name: str, run: str, said: dict[str, str], yes: bool, as_json: bool) -> tuple[Run, Resolved]:
    from console.decisions import update
    from console.watching import find
    from recovery.errors import Refused
    from recovery.models import Resolution, Resolved

    client, found, _ = await find(name, run)
    if not found.open:
        raise Refused(f"{found.workflow}: has ended already ({found.state}); there is nothing to answer")
    checked(Resolution, said | {"hold": said["hold"] or "the open one"})  # before anybody is asked to confirm it
    if not said["hold"]:
        said |= {"hold": await _read(client, found, said, yes, as_json)}
    resolution = checked(Resolution, said)
    answered: Resolved = await update(client, found, "resolve_step", resolution, Resolved)
    return found, answered


async def _read(client: Client, found: Run, said: dict[str, str], yes: bool, as_json: bool) -> str:
    """Return the token of the open hold, once the person has seen what it says."""
    from console.render import held
    from console.reports import fetch
    from recovery.errors import Invalid, Refused, Transient

    seen = await fetch(client, found)
    if seen.remark:
        raise Transient(f"{found.workflow}: {seen.remark}; what is held cannot be shown")
    report: Report = seen.report
    hold: HoldLine | None = report.hold
    if hold is None:
        raise Refused(f"hold: nothing is held just now; see `starter.py status {found.workflow}`")
    if yes:
        return hold.token
    if as_json:
        raise Invalid("yes: with --json nobody is asked; name --hold as you read it, or add --yes")
    say(*held(report, hold))
    typer.confirm(f"{said['answer']} as {said['by']}?", abort=True)
    return hold.token


def hold(name: Id, reason: Why, by: By = "", run: RunId = "", as_json: AsJson = False) -> None:
    """Have a recovery hold before its next action."""
    from recovery.models import Pause

    _signal(name, run, "hold", Pause, {"by": by or user(), "reason": reason}, as_json)


def note(name: Id, text: Words, by: By = "", run: RunId = "", as_json: AsJson = False) -> None:
    """Write something into the record of a recovery."""
    from recovery.models import Note

    _signal(name, run, "note", Note, {"by": by or user(), "text": text}, as_json)


def _signal(name: str, run: str, signal: str, model: Any, said: dict[str, str], as_json: bool) -> None:
    async def send() -> Run:
        from console.watching import find
        from recovery.errors import Refused

        body = checked(model, said)
        client, found, _ = await find(name, run)
        if not found.open:
            raise Refused(f"{found.workflow}: has ended already ({found.state}); nothing was sent")
        await client.get_workflow_handle(found.workflow, run_id=found.run).signal(signal, body)
        return found

    found = complete(send())
    if as_json:
        return emit({"workflow": found.workflow, "run": found.run, "sent": signal})
    return say(f"{found.workflow}: {signal} was sent; what is wrong with it is shown by `starter.py status`")


def undo(
    name: Id, reason: Why, by: By = "", run: RunId = "", completed: Completed = False, wait: Wait = True,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Undo, from its history, a recovery that was terminated or ended with something not undone."""
    from console.failures import REFUSED, UNSUCCESSFUL

    begun, seen, link = complete(_undo(name, run, (reason, by or user(), completed), wait, as_json))
    if as_json:
        report = {"report": seen.report.model_dump(mode="json")} if seen else {}
        emit({"workflow": begun.workflow, "run": begun.run, "ui": link, **report})
    elif seen is None:
        say(f"{begun.workflow}  run {begun.run}\n{link}")
    else:
        from console.follow import tell

        tell(seen, link)
    if seen and seen.report.outcome != "compensated":
        raise typer.Exit(REFUSED if seen.report.kind == "Refused" else UNSUCCESSFUL)


async def _undo(
    name: str, run: str, said: tuple[str, str, bool], wait: bool, as_json: bool
) -> tuple[Run, Seen | None, str]:  # fmt: skip
    from temporalio.common import WorkflowIDConflictPolicy
    from temporalio.exceptions import WorkflowAlreadyStartedError

    from console.follow import follow, view
    from console.runs import describe
    from console.session import run_link, settings
    from console.watching import find
    from recovery.errors import Refused
    from recovery.models import Undo
    from recovery.names import UNDO, undo_id

    client, found, _ = await find(name, run)
    if found.open:
        raise Refused(f"{found.workflow}: is still running; `starter.py cancel` has it undo what it did")
    reason, by, completed = said
    asked = {"workflow": found.workflow, "run": found.run, "reason": reason, "requested_by": by, "completed": completed}
    ask = checked(Undo, asked)
    try:
        handle = await client.start_workflow(
            UNDO, ask, id=undo_id(found.workflow), task_queue=settings().task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL, static_summary=f"undo {found.workflow}: {reason}"[:200],
        )  # fmt: skip
    except WorkflowAlreadyStartedError as error:
        raise Refused(f"{found.workflow}: is being undone already, run {error.run_id}") from None
    begun = await describe(client, handle.id, handle.first_execution_run_id or "")
    link = run_link(settings(), begun.workflow, begun.run)
    return begun, await follow(client, begun, view(as_json, as_json, link)) if wait else None, link


def checked(model: Any, said: Mapping[str, object]) -> Any:
    """Return ``said`` as ``model``; raises Invalid naming the field."""
    from pydantic import ValidationError

    from recovery.errors import Invalid, fields

    try:
        return model.model_validate(said)
    except ValidationError as error:
        raise Invalid(fields(error)) from None
