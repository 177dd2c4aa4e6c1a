"""What booting 100 systems in five layers takes, beside the critical path of their boot times, by the engine's report.

The systems are scripts on the host of the lab's second site, which start at once and are ready after a time of their
own, drawn with a seed; each needs three of the layer before it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from bench.restore import worker
from bench.switch import activated, lab_apart
from lab.estate import Lab
from lab.place import SITES, write_private
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.settings import Settings

SYSTEMS, LAYERS, NEEDS, SEED = 100, 5, 3, 20261129
SECONDS = (3.0, 9.0)
"""Between which boot times lie."""
SCRIPT = """#!/bin/sh
# start NAME SECONDS | stop NAME | status NAME | ready NAME
cd "${0%/*}" || exit 1
case $1 in
    start) : >"$2.started" && date -d "+$3 seconds" +%s%N >"$2.until" ;;
    stop) rm -f "$2.started" "$2.until" ;;
    status) [ -e "$2.started" ] ;;
    ready) [ "$(date +%s%N)" -ge "$(cat "$2.until")" ] ;;
esac
"""
ROOT = Path(__file__).resolve().parent.parent


async def measure() -> dict[str, object]:
    """Return the seconds from the first start to the last system that is ready, and those of the critical path."""
    times, needs = drawn()
    with lab_apart() as lab, ExitStack() as stack:
        catalogs = _catalogs(lab, times, needs)
        variables = {"RECOVERY_STATE": str(lab.state), "RECOVERY_CATALOGS": str(catalogs)}
        settings = Settings.from_environment({**os.environ, **variables})
        async with Keeper(settings) as endpoint:
            client = await connect(settings, endpoint)
            for site in SITES:
                working = worker({**variables, "RECOVERY_SITE": site})
                stack.callback(working.wait)
                stack.callback(working.terminate)
            report = await activated(client, SITES[1])
    lines = [line for line in report.steps if line.title.split(" ")[1].startswith("system-")]
    took = (max(line.ended for line in lines) - min(line.began for line in lines)).total_seconds()
    path = critical(times, needs)
    return {
        "systems": len(times),
        "critical path of their boot times, s": round(path, 2),
        "from the first start until all are ready, s": round(took, 2),
        "ratio (goal: at most 1.15)": round(took / path, 3),
        "one after the other it would be, s": round(sum(times.values()), 1),
    }


def drawn() -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return for each system how long it boots, in seconds, and which ones it needs."""
    chance = random.Random(SEED)
    each = SYSTEMS // LAYERS
    layers = [[f"system-{layer}-{number:02}" for number in range(each)] for layer in range(1, LAYERS + 1)]
    times = {name: round(chance.uniform(*SECONDS), 1) for layer in layers for name in layer}
    needs = {
        name: sorted(chance.sample(layers[at - 1], NEEDS)) if at else [] for at in range(LAYERS) for name in layers[at]
    }
    return times, needs


def critical(times: Mapping[str, float], needs: Mapping[str, list[str]]) -> float:
    """Return the seconds of the longest chain; each system comes after what it needs."""
    done: dict[str, float] = {}
    for name, took in times.items():
        done[name] = took + max((done[one] for one in needs[name]), default=0)
    return max(done.values())


def _catalogs(lab: Lab, times: Mapping[str, float], needs: Mapping[str, list[str]]) -> Path:
    """Write the lab's catalog with these systems at the second site."""
    folder = lab.place.at(SITES[1]).folder / "boot"
    folder.mkdir(mode=0o700)
    script = folder / "system"
    write_private(script, SCRIPT, 0o700)
    for path in (folder, script):
        lab.sites[SITES[1]].who.own(path)
    catalogs = lab.state / "catalogs"
    shutil.copytree(ROOT / "runbooks" / "lab", catalogs / "lab")
    file = catalogs / "lab" / "estate.yaml"
    estate: dict[str, Any] = yaml.safe_load(file.read_text())
    for name, took in times.items():
        words = {word: f"{script} {word} {name}" for word in ("start", "stop", "status", "ready")}
        words["start"] += f" {took}"
        estate["services"][name] = {"host": "south-db", "after": needs[name] or ["orders-south"], **words}
    file.write_text(yaml.safe_dump(estate))
    file = catalogs / "lab" / "activate-south.yaml"
    runbook: dict[str, Any] = yaml.safe_load(file.read_text())
    runbook["systems"] += list(times)
    file.write_text(yaml.safe_dump(runbook))
    return catalogs
