"""The commands on one recovery that exists: status, watch, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from console.failures import UNSUCCESSFUL
from console.options import AsJson, Id, RunId
from console.output import emit, say
from console.session import complete, connect, library, run_link, settings

if TYPE_CHECKING:
    from temporalio.client import Client

    from console.reports import Seen
    from console.runs import Run

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")]


def status(name: Id, run: RunId = "", as_json: AsJson = False) -> None:
    """Show one recovery as it is now, or as it ended."""

    async def look() -> tuple[Seen, str]:
        from console.reports import fetch

        client, found, link = await find(name, run)
        return await fetch(client, found), link

    seen, link = complete(look())
    if as_json:
        return emit(seen.report.model_dump(mode="json") | {"remark": seen.remark, "ui": link})
    from console.render import page

    return say(page(seen, link))


def watch(name: Id, run: RunId = "", as_json: AsJson = False) -> None:
    """Follow one recovery to its end, and end with its outcome."""

    async def stay() -> tuple[Seen, str]:
        from console.follow import follow, view

        client, found, link = await find(name, run)
        return await follow(client, found, view(as_json, False, link)), link

    seen, link = complete(stay())
    _end(seen, link, as_json)


def cancel(name: Id, run: RunId = "", wait: Wait = False, as_json: AsJson = False) -> None:
    """Cancel one recovery: it undoes what it did, then ends. With --wait, exit 1 unless that is how it ended."""

    async def ask() -> tuple[Run, Seen | None, str]:
        from console.follow import follow, view
        from recovery.errors import Refused

        client, found, link = await find(name, run)
        if not found.open:
            raise Refused(f"{found.workflow}: has ended already ({found.state}); nothing was sent")
        await client.get_workflow_handle(found.workflow, run_id=found.run).cancel()
        return found, await follow(client, found, view(as_json, as_json, link)) if wait else None, link

    found, seen, link = complete(ask())
    if as_json:
        report = seen.report.model_dump(mode="json") if seen else None
        emit({"workflow": found.workflow, "run": found.run, "asked": True, "ui": link, "report": report})
    elif seen is None:
        say(f"{found.workflow}: asked to cancel; it undoes what it did first\n{link}")
    else:
        _tell(seen, link)
    if seen and (seen.report.outcome != "cancelled" or seen.report.residual):
        raise typer.Exit(UNSUCCESSFUL)


async def find(name: str, run: str = "") -> tuple[Client, Run, str]:
    """Return a client, the run that ``name`` means (workflow id or runbook), and its address in the UI."""
    from console.runs import describe, target

    installation = settings()
    workflow = target(library(installation), name)
    client = await connect(installation)
    found = await describe(client, workflow, run)
    return client, found, run_link(installation, found.workflow, found.run)


def _end(seen: Seen, link: str, as_json: bool) -> None:
    from console.follow import verdict

    if as_json:
        emit(seen.report.model_dump(mode="json") | {"remark": seen.remark, "ui": link})
    else:
        _tell(seen, link)
    if code := verdict(seen.report):
        raise typer.Exit(code)


def _tell(seen: Seen, link: str) -> None:
    from console.follow import tell

    tell(seen, link)
