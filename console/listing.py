"""The list of recoveries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.options import AsJson
from console.output import duration, emit, say
from console.session import complete, connect, run_link, settings

if TYPE_CHECKING:
    from console.runs import Run

All = Annotated[bool, typer.Option("--all", help="Also those that have ended, for as long as Temporal keeps them.")]


def list_(everything: All = False, as_json: AsJson = False) -> None:
    """List the recoveries that run, with what they wait for."""
    installation = settings()

    async def look() -> list[Run]:
        from console.runs import listing

        return [run async for run in listing(await connect(installation), everything)]

    rows = [_row(run) | {"ui": run_link(installation, run.workflow, run.run)} for run in complete(look())]
    if as_json:
        return emit(rows)
    if not rows:
        return say("no recovery runs" if not everything else "there is no recovery")
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "runbook", "mode", "phase", "waits for", "age", "run", box=None, pad_edge=False)
    for row in rows:
        age = duration(row["age_seconds"])
        cells = (row["workflow"], row["runbook"], row["mode"], row["phase"], row["needs"], age, row["run"])
        table.add_row(*map(Text, cells))
    return say(table)


def _row(run: Run) -> dict[str, Any]:
    phase = run.attribute("RecoveryPhase", "not started")
    if run.state in ("paused", "terminated", "timed_out"):  # of these the recovery itself knows nothing
        phase = run.state.replace("_", " ")
    return {
        "workflow": run.workflow,
        "run": run.run,
        "runbook": run.attribute("RecoveryRunbook"),
        "mode": run.attribute("RecoveryMode"),
        "phase": phase,
        "needs": run.attribute("RecoveryNeeds") if run.open else "",
        "state": run.state,
        "started_at": run.started_at.isoformat(),
        "age_seconds": round(((run.closed_at or datetime.now(UTC)) - run.started_at).total_seconds(), 1),
    }
