"""The lab's own command line, reached through this one and loaded only then."""

from __future__ import annotations

import typer

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def lab(ctx: typer.Context) -> None:
    """Bring the embedded estate up, look at it, break it, take it down."""
    from lab.cli import app

    code = typer.main.get_command(app).main(ctx.args, prog_name="starter.py lab", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)
