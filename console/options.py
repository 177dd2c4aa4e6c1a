"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Runbook = Annotated[str, typer.Argument(metavar="RUNBOOK", help="The runbook as CATALOG/NAME.", show_default=False)]
Id = Annotated[
    str, typer.Argument(metavar="ID", help="The workflow id, or the name of its runbook.", show_default=False)
]
RunId = Annotated[str, typer.Option("--run-id", help="One run of this id; the newest if left out.", show_default=False)]
By = Annotated[
    str, typer.Option("--by", help="Who you are in the estate; RECOVERY_USER, else your login.", show_default=False)
]
Pairs = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", metavar="KEY=VALUE", help="A parameter; may be repeated.", show_default=False),
]
Parameters = Annotated[
    str, typer.Option("--parameters", metavar="JSON", help="Parameters as one JSON object.", show_default=False)
]
