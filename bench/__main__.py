"""Measure, as ratios against a bare equivalent in the same run. ``make bench``, or ``python -m bench NAME…``.

A number among the names is the size for ``kinds``, in MB, and the seconds for ``sessions``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from bench import boot, cut_over, kinds, loss, restore, rollback, sessions, steps, switch

USUAL: dict[str, Callable[[], Coroutine[Any, Any, Mapping[str, object]]]] = {
    "steps": steps.measure, "restore": restore.measure, "cut_over": cut_over.measure, "switch": switch.measure,
    "loss": loss.measure, "sessions": sessions.measure, "rollback": rollback.measure, "boot": boot.measure,
}  # fmt: skip


def run(words: list[str]) -> dict[str, Mapping[str, object]]:
    """Run the named measurements, or the usual ones, with the number among the words."""
    sizes = [int(word) for word in words if word.isdigit()]
    known = USUAL | {"kinds": partial(kinds.measure, *sizes), "sessions": partial(sessions.measure, *sizes)}
    names = [word for word in words if not word.isdigit()] or [*USUAL]
    if unknown := set(names) - set(known):
        raise SystemExit(f"no measurement {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return {name: asyncio.run(known[name]()) for name in known if name in names}


def main() -> None:
    """Run every measurement and print one JSON object of them."""
    print(json.dumps(run(sys.argv[1:]), indent=2), flush=True)
    os._exit(0)  # the SDK's threads may abort an interpreter that shuts down in the ordinary way


if __name__ == "__main__":
    main()
