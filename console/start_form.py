"""The link that opens the Temporal UI's start form, and the JSON to paste into it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlencode

import typer

from console.options import AsJson, By, Pairs, Runbook
from console.output import emit, say
from console.session import library, settings, ui, user

if TYPE_CHECKING:
    from runbooks.schema import Runbook as RunbookModel


def link(
    name: Runbook,
    by: By = "",
    pairs: Pairs = None,
    mode: Annotated[Literal["check", "drill", "live"], typer.Option(help="What it does.")] = "live",
    as_json: AsJson = False,
) -> None:
    """Print the address of the UI's start form for this runbook, and the JSON to paste."""
    from console.request import parameters
    from runbooks.library import workflow_id

    installation = settings()
    runbook = library(installation).read(name)
    given = parameters(pairs or [])
    body = form(name, runbook, given) | {"mode": mode, "requested_by": by or user()}
    workflow = workflow_id(name, runbook, mode)
    address = start_form(ui(installation), runbook.procedure, installation.task_queue, workflow)
    if as_json:
        emit({"link": address, "input": body, "workflow": workflow})
    else:
        say(address, "", "Paste as input, encoding json/plain, every placeholder replaced:", json.dumps(body, indent=2))


def start_form(ui: str, procedure: str, queue: str, workflow: str) -> str:
    """Return the address of the start form, prefilled (route and names are those of Temporal UI 2.54.1)."""
    query = urlencode({"workflowType": procedure, "taskQueue": queue, "workflowId": workflow})
    return f"{ui}/workflows/start-workflow?{query}"


def form(name: str, runbook: RunbookModel, given: dict[str, Any]) -> dict[str, Any]:
    """Return what to paste; reason and needed parameters are placeholders that validation refuses."""
    from console.inspection import needed

    asked = [row["name"] for row in needed(runbook) if row["from"] == "you" and row["name"] not in given]
    empty = {field: placeholder(runbook.procedure, field) for field in asked}
    return {"runbook": name, "reason": "", "parameters": {**empty, **given}}


def placeholder(procedure: str, field: str) -> str | None:
    """Return something that says what to write into ``field`` and is refused as long as it stands there."""
    from pydantic import ValidationError

    from runbooks.library import specification

    for text in (f"<{field.replace('_', ' ')}>", ""):
        try:
            specification(procedure).Parameters.model_validate({field: text})
        except ValidationError as error:
            if any(fault["loc"][:1] == (field,) for fault in error.errors()):
                return text
    return None
