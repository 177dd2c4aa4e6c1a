"""The command line of the lab: up, status, break, heal, down. Exit codes: 0 done, 1 failed, 2 bad input."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lab.kinds import Kind

if TYPE_CHECKING:
    from lab.models import Status

app = typer.Typer(no_args_is_help=True, help="An embedded estate of real servers, to be broken on purpose.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Result = TypeVar("Result")


@app.command()
def up(
    load: Annotated[bool, typer.Option(help="Place orders all the time.")] = True,
    rate: Annotated[float, typer.Option(min=0.1, help="Orders per second, of all writers together.")] = 100,
    writers: Annotated[int, typer.Option(min=1, max=20)] = 2,
    mixed: Annotated[bool, typer.Option(help="Also change amounts and names of customers.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="The first site only, without a standby.")] = False,
    cluster: Annotated[bool, typer.Option("--cluster", help="A Kubernetes cluster, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the lab, or start what does not run."""
    from lab.estate import Lab

    _show(_try(lambda: Lab().up(load, rate, writers, mixed, south=not alone, cluster=cluster), as_json), as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what runs and what was counted; exit 1 when something does not run."""
    from lab.estate import Lab

    found = _try(lambda: Lab().status(), as_json)
    _show(found, as_json)
    if not found.healthy:
        raise typer.Exit(1)


@app.command("break")
def break_(
    kind: Annotated[Kind | None, typer.Argument(help="What is killed or destroyed; a site as a whole, too.")] = None,
    partition: Annotated[bool, typer.Option("--partition", help="Cut the link between the sites.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cause an accident."""
    from lab.estate import Lab

    if (kind is None) != partition:
        raise typer.BadParameter("name what to break, or give --partition")
    accident = _try(lambda: Lab().break_(kind or Kind.PARTITION), as_json)
    if as_json:
        typer.echo(accident.model_dump_json())
    else:
        rows = f" ({accident.rows} rows)" if accident.rows is not None else ""
        where = f" on {accident.site}" if accident.site else ""
        typer.echo(f"{accident.kind}{where} at {accident.happened_at.isoformat()}{rows}")
        typer.echo(f"the last moment before it: {accident.before.isoformat()}")


@app.command()
def heal(as_json: AsJson = False) -> None:
    """Mend the link, and start what was killed as it was; what was stopped on purpose stays stopped."""
    from lab.estate import Lab

    _show(_try(lambda: Lab().heal(), as_json), as_json)


@app.command()
def down(purge: Annotated[bool, typer.Option(help="Delete every file, too.")] = True, as_json: AsJson = False) -> None:
    """Stop everything and delete it."""
    from lab.estate import Lab

    lab = Lab()
    _try(lambda: lab.down(purge), as_json)
    answer = {"root": str(lab.place.root), "purged": purge}
    typer.echo(json.dumps(answer) if as_json else f"stopped{' and deleted' if purge else ''}: {answer['root']}")


def _try(work: Callable[[], Result], as_json: bool) -> Result:
    from lab.place import BadPlace, LabError

    try:
        return work()
    except (LabError, OSError) as error:
        told = json.dumps({"error": {"kind": type(error).__name__, "message": str(error)}}) if as_json else str(error)
        typer.echo(told, err=not as_json)
        raise typer.Exit(2 if isinstance(error, BadPlace) else 1) from error


def _show(found: "Status", as_json: bool) -> None:
    if as_json:
        typer.echo(found.model_dump_json())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("site", "program", "", "pid", "address", title=f"lab in {found.root}", title_justify="left")
    for program in found.programs:
        told = program.site or "", program.name, program.state or ""
        table.add_row(
            *told, str(program.pid or ("does not run" if program.wanted else "stopped")), program.address or ""
        )
    facts = Table(show_header=False)
    for name, value in found.model_dump(mode="json", exclude={"root", "programs"}).items():
        facts.add_row(name.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value))
    Console().print(table, facts)


if __name__ == "__main__":
    app()
