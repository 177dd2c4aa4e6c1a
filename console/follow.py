"""Follow a run to its end, through restarts of Temporal and of workers, and show what changes."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text
from temporalio.service import RPCError, RPCStatusCode

from console.changes import changes
from console.failures import DONE, UNSUCCESSFUL
from console.output import emit, say
from console.render import page
from console.reports import Seen, fetch
from console.runs import describe
from recovery.report import Report

if TYPE_CHECKING:
    from temporalio.client import Client

    from console.runs import Run

_EVERY = 0.25  # seconds
_FINAL = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED)
_LOST = "Temporal is not reachable, retrying"


class View(AbstractContextManager[Any], Protocol):
    """Where progress is shown; ``trouble`` is why nothing newer is known, "" if all is well."""

    def show(self, seen: Seen | None, trouble: str) -> None:
        """Show what is known now."""


async def follow(client: Client, run: Run, view: View) -> Seen:
    """Return the report of ``run`` once it has ended; until then show it four times a second."""
    seen: Seen | None = None
    with view:
        while True:
            try:
                run = await describe(client, run.workflow, run.run)
                seen = await fetch(client, run)
                view.show(seen, "")
                if not run.open:
                    return seen
            except RPCError as error:
                if error.status in _FINAL:
                    raise
                view.show(seen, _LOST)  # it comes back, or somebody ends this command; the recovery minds neither
            await asyncio.sleep(_EVERY)


def verdict(report: Report) -> int:
    """Return the exit code of an outcome: a check with blockers is no success."""
    done = report.outcome in ("recovered", "drilled", "verified")
    good = done or (report.outcome == "checked" and not report.blockers)
    return DONE if good else UNSUCCESSFUL


class Quiet:
    """Show nothing."""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, to: TracebackType | None) -> None:
        """End."""

    def show(self, seen: Seen | None, trouble: str) -> None:
        """Show nothing."""


class Lines(Quiet):
    """Print one line, or one JSON object, for each change."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._last: Report | None = None
        self._trouble = ""

    def show(self, seen: Seen | None, trouble: str) -> None:
        """Print what is new."""
        trouble = trouble or (seen.remark if seen else "")
        if trouble != self._trouble:
            self._told(trouble)
        self._trouble = trouble
        if seen is None or trouble:  # without a worker there is no news, and what is shown then has fewer steps
            return
        for change in changes(self._last, seen.report):
            if self._as_json:
                emit(change.plain())
            else:
                say(change.line())
        self._last = seen.report

    def _told(self, trouble: str) -> None:
        text = trouble or "connected again"
        if self._as_json:
            emit({"kind": "connection", "state": "lost" if trouble else "well", "text": text})
        else:
            say(f"! {text}")


class Screen(Quiet):
    """Show the whole report, refreshed in place."""

    def __init__(self, link: str) -> None:
        self._link = link
        self._content: RenderableType = Text("…")
        self._live = Live(
            get_renderable=lambda: self._content, console=Console(highlight=False, emoji=False), refresh_per_second=4
        )

    def __enter__(self) -> Self:
        """Take the screen."""
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, to: TracebackType | None) -> None:
        """Leave the last state standing."""
        self._live.__exit__(kind, error, to)

    def show(self, seen: Seen | None, trouble: str) -> None:
        """Show what is known now."""
        shown: list[RenderableType] = [page(seen, self._link)] if seen else []
        if trouble:
            shown.append(Text(f"! {trouble}", "bold yellow"))
        self._content = Group(*shown)


def view(as_json: bool, quiet: bool, link: str) -> View:
    """Return the view for this standard output; ``quiet`` is for a command that prints one object at its end."""
    if quiet:
        return Quiet()
    return Screen(link) if Console().is_terminal and not as_json else Lines(as_json)


def tell(seen: Seen, link: str) -> None:
    """Print the final report for people, unless a screen has left it standing."""
    if not Console().is_terminal:
        say(page(seen, link))
