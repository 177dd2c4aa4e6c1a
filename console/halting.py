"""The kill switch of this installation, put and taken away: without Temporal, and for the workers beside it alone."""

from __future__ import annotations

from typing import Annotated

import typer

from console.options import AsJson, By
from console.output import emit, say
from console.session import user

Why = Annotated[str, typer.Option("--reason", help="Why; told wherever it refuses something.", show_default=False)]


def halt(reason: Why, by: By = "", as_json: AsJson = False) -> None:
    """Have the workers of this installation refuse every action, forward and back, until `go`."""
    from datetime import UTC, datetime

    from recovery import kill_switch

    kill_switch.engage(f"{by or user()}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z: {reason}")
    _tell(as_json, kill_switch.engaged(), "what runs comes to its end, nothing else begins; take it away with `go`")


def go(by: By = "", as_json: AsJson = False) -> None:
    """Take the kill switch away. What it refused is held: answer there."""
    from recovery import kill_switch

    _tell(as_json, kill_switch.release(), f"taken away by {by or user()}; what was refused is held: answer there")


def _tell(as_json: bool, switch: str, then: str) -> None:
    if as_json:
        return emit({"switch": switch, "then": then})
    return say(switch, then)
