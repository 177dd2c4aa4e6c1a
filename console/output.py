"""What leaves on standard output: one JSON value, or text without control characters."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_UNWRAPPED = 4000  # columns: what a program reads keeps its lines, and its addresses whole
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def emit(value: Any) -> None:
    """Print ``value`` as JSON on one line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def clean(text: str) -> str:
    """Return ``text`` without control characters: what hosts and people wrote must not steer this terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(*parts: RenderableType) -> None:
    """Print text (without rich's markup: brackets stay) and tables for people."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=all(isinstance(p, str) for p in parts))
    if not console.is_terminal:
        console.width = _UNWRAPPED
    for part in parts:
        console.print(clean(part) if isinstance(part, str) else part)


def utc(at: datetime | None) -> str:
    """Return ``at`` in UTC to the second, "" for None."""
    from datetime import UTC

    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if at else ""


def duration(seconds: float) -> str:
    """Return ``seconds`` as people say it: 4.2 s, 3 min 5 s, 2 h 1 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def span(length: timedelta) -> str:
    """Return ``length`` as people say it."""
    return duration(length.total_seconds()).replace(".0 s", " s").removesuffix(" 0 s").removesuffix(" 0 min")
