"""The lab's own long-running programs: started once, written down, found again."""

import signal
import sys

from lab import processes
from lab.place import REPOSITORY, Place, environment
from lab.processes import Process


def start(place: Place, name: str, module: str, *arguments: str) -> None:
    """Start `python -m lab.MODULE ROOT ARGUMENTS` under a name, unless it runs with the same arguments.

    One that runs with others is stopped first. Raises LabError when it ends at once.
    """
    argv = [sys.executable, "-m", f"lab.{module}", str(place.root), *arguments]
    record = place.run / f"{name}.json"
    if found := processes.recall(record):
        if found[1] == argv:
            return
        processes.stop([found[0]], signal.SIGTERM, 2)
    env = environment(place, {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"})
    processes.remember(record, processes.spawn(argv, env, place.logs / f"{name}.log"), argv)


def running(place: Place, name: str) -> Process | None:
    """Return the process that was started under a name, if it still runs."""
    found = processes.recall(place.run / f"{name}.json")
    return found[0] if found else None
