"""A worker for each site: the repository's worker, with a task queue that only the workers of its site poll."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from lab import daemons
from lab.addresses import of
from lab.place import REPOSITORY, LabError, Place
from lab.processes import Process

PREFIXES = ("TEMPORAL_", "RECOVERY_", "OTEL_")
NEEDED = ("PATH", "HOME", "LANG", "TMPDIR")
POLLING = b"polling"  # what it prints once it does


def name(site: str) -> str:
    """Return under which name the worker of a site is kept."""
    return of(site, "worker")


def start(place: Place, state: Path, site: str, extra: Mapping[str, str], seconds: float) -> Process:
    """Start the worker of a site unless it runs, and wait until it polls.

    It works on `state`, with the settings of the caller's environment (RECOVERY_*, TEMPORAL_*), and `extra` on top.
    It carries no mark of the lab: a Temporal server that it starts belongs to no site, and outlives a lost one.
    Raises LabError when it ends, or does not poll within that many seconds.
    """
    if found := daemons.running(place, name(site)):
        return found
    kept = {key: value for key, value in os.environ.items() if key in NEEDED or key.startswith(PREFIXES)}
    own = {"RECOVERY_STATE": str(state), "RECOVERY_SITE": site}
    log = daemons.log(place, name(site))
    told = log.stat().st_size if log.exists() else 0
    daemons.begin(place, name(site), [sys.executable, str(REPOSITORY / "worker.py")], kept | own | dict(extra))
    return wait(place, site, told, seconds)


def revive(place: Place, site: str, seconds: float) -> None:
    """Start the worker of a site as it was started last, if it ever was and does not run. Raises LabError."""
    if daemons.known(place, name(site)) and daemons.running(place, name(site)) is None:
        told = daemons.log(place, name(site)).stat().st_size
        daemons.revive(place, name(site))
        wait(place, site, told, seconds)


def wait(place: Place, site: str, told: int, seconds: float) -> Process:
    """Wait until a worker polls that was just started; `told` is how long its log was before. Raises LabError."""
    log, deadline = daemons.log(place, name(site)), time.monotonic() + seconds
    while POLLING not in log.read_bytes()[told:]:
        if daemons.running(place, name(site)) is None or time.monotonic() > deadline:
            raise LabError(f"the worker of {site} does not poll: {log.read_text()[-500:].strip()}")
        time.sleep(0.05)
    if found := daemons.running(place, name(site)):
        return found
    raise LabError(f"the worker of {site} has ended, see {log}")
