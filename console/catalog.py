"""The commands that only read files: runbooks, show, validate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.failures import BAD_INPUT
from console.options import AsJson, Runbook
from console.output import emit, say, span
from console.session import library, settings

if TYPE_CHECKING:
    from runbooks.schema import Runbook as RunbookModel

Names = Annotated[list[str] | None, typer.Argument(metavar="[RUNBOOK]...", help="All, if left out.")]


def runbooks(as_json: AsJson = False) -> None:
    """List the runbooks."""
    from console.inspection import row

    catalogs = library(settings())
    rows = [row(catalogs, name) for name in catalogs.names()]
    if as_json:
        return emit(rows)
    from rich.table import Table
    from rich.text import Text

    table = Table("runbook", "title", "procedure", "version", "systems", box=None, pad_edge=False)
    for line in rows:
        title = line["title"] or f"FAULT {line['fault']}"
        table.add_row(*map(Text, (line["name"], title, line["procedure"], line["version"], ", ".join(line["systems"]))))
    return say(table)


def show(name: Runbook, as_json: AsJson = False) -> None:
    """Show one runbook: why, on what, with which parameters, who decides, which objectives."""
    from console.inspection import needed, objectives

    catalogs = library(settings())
    runbook = catalogs.read(name)
    wanted, aims = needed(runbook), objectives(catalogs, name, runbook)
    if as_json:
        return emit({"name": name, **runbook.model_dump(mode="json"), "needs": wanted, "objectives": aims})
    return say(_page(name, runbook, wanted, aims))


def validate(names: Names = None, as_json: AsJson = False) -> None:
    """Validate the named runbooks, or all; every fault is listed with its file and field."""
    from console.inspection import faults, unreachable

    installation = settings()
    catalogs = library(installation)
    chosen = names or catalogs.names()
    found = [fault for name in chosen for fault in faults(catalogs, name)]
    if installation.notify:
        found += [fault for name in chosen for fault in unreachable(installation, catalogs, name)]
    unique = list({tuple(fault.values()): fault for fault in found}.values())
    if as_json:
        emit({"runbooks": chosen, "faults": unique})
    else:
        rows = [f"{fault['file']}: {fault['field']}: {fault['message']}" for fault in unique]
        say("\n".join(rows) if rows else f"{len(chosen)} valid: {', '.join(chosen)}")
    if unique:
        raise typer.Exit(BAD_INPUT)


def _page(name: str, runbook: RunbookModel, wanted: list[dict[str, Any]], aims: dict[str, Any]) -> str:
    lines = [f"{runbook.title}", f"{name}, version {runbook.version}, {runbook.procedure}", "", runbook.why, ""]
    lines += [f"Systems     {', '.join(runbook.systems)}"]
    lines += [f"Objectives  {aims.get('fault') or 'tier {tier}: RTO {rto}, RPO {rpo}'.format(**aims)}"]
    lines += [f"Valid for   {span(runbook.not_after)} after an instruction was given"]
    lines += [f"Told        {', '.join(runbook.notify) or 'nobody'}", "", "Parameters"]
    lines += [f"  {row['name']:<14} {_origin(row)}" for row in wanted]
    lines += ["", "Gates" if runbook.gates else "Gates: none, nobody is asked"]
    for gate, policy in runbook.gates.items():
        own = "" if policy.starter_may_approve else "; who starts it does not approve it"
        drill = "asked in a drill, too" if policy.in_drill == "ask" else "passed in a drill"
        who = f"{policy.approvals} × {' or '.join(policy.roles)} within {span(policy.within)}"
        lines.append(f"  {gate}: {who}, else rejected{own}; {drill}")
    return "\n".join(lines)


def _origin(row: dict[str, Any]) -> str:
    if row["from"] == "runbook":
        return f"set by the runbook: {row['value']}"
    return "needed" if row["from"] == "you" else f"may be given, else {row['value']}"
