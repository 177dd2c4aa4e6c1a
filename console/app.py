"""Every command by name, and the edge at which a failure becomes a sentence and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from console import (
    begin,
    by_hand,
    catalog,
    decisions,
    estate,
    halting,
    holds,
    listing,
    server,
    start_form,
    systems,
    watching,
)
from console.failures import explain
from console.output import emit

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # a third faster
    help="Start, watch and decide recoveries."
    " Exit codes: 0 done, 1 recovery not successful, 2 bad input, 3 refused, 4 Temporal not reachable.",
)
app.command("runbooks")(catalog.runbooks)
app.command("show")(catalog.show)
app.command("print")(by_hand.print_)
app.command("validate")(catalog.validate)
app.command("check")(begin.check)
app.command("start")(begin.start)
app.command("list")(listing.list_)
app.command("status")(watching.status)
app.command("watch")(watching.watch)
app.command("approve")(decisions.approve)
app.command("reject")(decisions.reject)
app.command("resolve")(holds.resolve)
app.command("hold")(holds.hold)
app.command("note")(holds.note)
app.command("cancel")(watching.cancel)
app.command("undo")(holds.undo)
app.command("halt")(halting.halt)
app.command("go")(halting.go)
app.command("leases")(systems.leases)
app.command("free")(systems.free)
app.command("link")(start_form.link)
app.add_typer(server.app, name="server")
app.command("lab", context_settings=estate.PASSED_ON, add_help_option=False)(estate.lab)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = typer.main.get_command(app).main(words, prog_name="starter.py", standalone_mode=False)
    except Exception as error:  # the edge: whatever is known becomes a sentence, a bug keeps its traceback
        told = explain(error)
        if told is None:
            raise
        if "--json" in words:
            emit({"error": {"kind": told.kind, "message": told.message}})
        else:
            print(told.message if told.kind == "Usage" else f"{told.kind}: {told.message}", file=sys.stderr)
        return told.code
    return code if isinstance(code, int) else 0


def leave(code: int) -> NoReturn:
    """End this process with ``code``, without the interpreter's own end.

    Threads of Temporal's client outlive it and abort the process there, which turns any exit code into 134
    (temporalio/sdk-python issue 300).
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)
