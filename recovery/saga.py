"""What was changed and in which order it is undone; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Entry:
    """One registered undo: the step, its action's name, the order that apply was given, and the state's type.

    ``guards`` tells whether nothing beneath it may be undone where its own undo failed. ``passing`` is what it leaves
    where its undo fails, of what was to stand only for as long as the recovery lasts: nobody is asked about that.
    An entry that was read from a history holds plain JSON.
    """

    step: str
    action: str
    order: Any
    gives: type[Any] = dict
    guards: bool = True
    passing: str = ""


Fate = Literal["undone", "failed", "blocked", "left"]


def following(stack: Sequence[Entry], fates: Callable[[Entry], Fate | None]) -> tuple[Entry, Fate | None] | None:
    """Return the next entry to deal with, last first, and "blocked" if it must not be tried.

    An undo that failed guards every entry beneath it, unless it leaves nothing that could stand in their way:
    undoing those anyway has made two databases writable. What is passing stands in nobody's way, and waits for nobody.
    Returns None when every entry has met its fate.
    """
    guarded = False
    for entry in reversed(stack):
        fate = fates(entry)
        if fate is None:
            return entry, "blocked" if guarded and not entry.passing else None
        guarded = guarded or (entry.guards and fate in ("failed", "blocked"))
    return None
