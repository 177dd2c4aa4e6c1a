"""Measure, as ratios against a bare equivalent in the same run. ``make bench``"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from bench import restore, steps


def main() -> None:
    """Run every measurement and print one JSON object of them."""
    names = sys.argv[1:] or ["steps", "restore"]
    found: dict[str, dict[str, float]] = {}
    if "steps" in names:
        found["steps"] = asyncio.run(steps.measure())
    if "restore" in names:
        found["restore"] = asyncio.run(restore.measure())
    print(json.dumps(found, indent=2), flush=True)
    os._exit(0)  # the SDK's threads may abort an interpreter that shuts down in the ordinary way


if __name__ == "__main__":
    main()
