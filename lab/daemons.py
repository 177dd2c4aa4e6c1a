"""The lab's own long-running programs: started once, written down, found again."""

import json
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab import processes
from lab.place import MEMBER_OF, REPOSITORY, Place, environment
from lab.processes import Process


def start(place: Place, name: str, module: str, *arguments: str, site: str | None = None) -> None:
    """Start `python -m lab.MODULE ROOT ARGUMENTS` under a name, unless it runs with the same arguments.

    It is a program of that site, and lost with it, or of none. One that runs with other arguments is stopped first.
    Raises LabError when it ends at once.
    """
    argv = [sys.executable, "-m", f"lab.{module}", str(place.root), *arguments]
    if found := processes.recall(_record(place, name)):
        if found[1] == argv:
            return
        processes.stop([found[0]], signal.SIGTERM, 2)
    extra = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    begin(place, name, argv, environment(place.at(site), extra) if site else of_no_site(place, extra))


def of_no_site(place: Place, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of what is a member of the lab and stands at none of its sites."""
    return environment(place, {MEMBER_OF: "", **extra})


def begin(place: Place, name: str, argv: list[str], env: Mapping[str, str]) -> None:
    """Start a program under a name and write it down. Raises LabError, FileNotFoundError."""
    record = _record(place, name)
    processes.remember(record, processes.spawn(argv, env, log(place, name)), argv, env)


def revive(place: Place, name: str) -> None:
    """Start a program as it was started last, if it ever was and does not run. Raises LabError."""
    record = _record(place, name)
    if record.exists() and processes.recall(record) is None:
        last = json.loads(record.read_text())
        begin(place, name, last["argv"], last["env"])


def known(place: Place, name: str) -> bool:
    """Say whether a program was ever started under a name, and not forgotten since."""
    return _record(place, name).exists()


def forget(place: Place, name: str) -> None:
    """Forget a program, so that it is not started again."""
    _record(place, name).unlink(missing_ok=True)


def running(place: Place, name: str) -> Process | None:
    """Return the process that was started under a name, if it still runs."""
    found = processes.recall(_record(place, name))
    return found[0] if found else None


def stop(place: Place, names: Iterable[str], seconds: float = 2) -> None:
    """Stop programs by their names, all at once; one that does not end in that time is killed."""
    found = [running(place, name) for name in names]
    processes.stop([process for process in found if process], signal.SIGTERM, seconds)


def log(place: Place, name: str) -> Path:
    """Return the file to which a program's output is added."""
    return place.logs / f"{name}.log"


def _record(place: Place, name: str) -> Path:
    return place.run / f"{name}.json"
