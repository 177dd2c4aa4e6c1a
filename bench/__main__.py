"""Measure, as ratios against a bare equivalent in the same run. ``make bench``"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping

from bench import cut_over, loss, restore, rollback, sessions, steps, switch


def main() -> None:
    """Run every measurement and print one JSON object of them."""
    names = sys.argv[1:] or ["steps", "restore", "cut_over", "switch", "loss", "sessions", "rollback"]
    found: dict[str, Mapping[str, object]] = {}
    if "steps" in names:
        found["steps"] = asyncio.run(steps.measure())
    if "restore" in names:
        found["restore"] = asyncio.run(restore.measure())
    if "cut_over" in names:
        found["cut_over"] = asyncio.run(cut_over.measure())
    if "switch" in names:
        found["switch"] = asyncio.run(switch.measure())
    if "loss" in names:
        found["loss"] = asyncio.run(loss.measure())
    if "sessions" in names:
        found["sessions"] = asyncio.run(sessions.measure())
    if "rollback" in names:
        found["rollback"] = asyncio.run(rollback.measure())
    print(json.dumps(found, indent=2), flush=True)
    os._exit(0)  # the SDK's threads may abort an interpreter that shuts down in the ordinary way


if __name__ == "__main__":
    main()
