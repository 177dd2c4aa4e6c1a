"""The embedded Temporal server: up, down, status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from console.failures import UNREACHABLE
from console.options import AsJson
from console.output import emit, say
from console.session import complete, settings

if TYPE_CHECKING:
    from recovery.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The Temporal server of this installation: up, down, status.")


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start the server, unless it runs; it stays until `server down`, or until its last worker ends."""
    from recovery.embedded import ensure

    installation = _own()
    complete(ensure(installation))
    _tell(installation, as_json)


@app.command()
def down(as_json: AsJson = False) -> None:
    """Stop the server; its database stays. Refused while a worker keeps it."""
    from recovery.embedded import stop

    installation = _own()
    complete(stop(installation))
    _tell(installation, as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Tell whether the server runs, and where; exit 4 when it does not."""
    if not _tell(_own(), as_json):
        raise typer.Exit(UNREACHABLE)


def _own() -> Settings:
    from recovery.errors import Invalid

    installation = settings()
    if not installation.is_embedded():
        names = ", ".join(sorted(installation.temporal))
        raise Invalid(f"{names}: name another Temporal, so there is no server of our own; unset them to have one")
    return installation


def _tell(installation: Settings, as_json: bool) -> bool:
    from recovery.embedded import status

    found = status(installation)
    where = found.endpoint
    facts = {
        "running": where is not None,
        "address": where.address if where else None,
        "ui": where.ui if where else None,
        "pid": found.pid,
        "kept_by_worker": found.kept,
        "database": str(found.database),
        "log": str(found.log),
    }
    if as_json:
        emit(facts)
    else:
        say("\n".join(f"{name.replace('_', ' '):<15} {value}" for name, value in facts.items()))
    return where is not None
