"""Look at restored copies with the database's own programs, not with the code under test."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from lab import processes
from lab.estate import Lab
from lab.processes import Process


def in_copies(lab: Lab) -> list[str]:
    """Return what lies in the folder of copies and in the folder of jobs."""
    return sorted(str(found) for folder in (lab.place.copies, lab.place.jobs) for found in folder.iterdir())


def copies(lab: Lab) -> list[Path]:
    """Return the folders of whole copies."""
    return sorted(p for p in lab.place.copies.iterdir() if p.suffix != ".partial")


def ask_copy(lab: Lab, sql: str, copy: Path | None = None) -> list[str]:
    """Return the lines that psql prints for ``sql`` on the only (or the given) copy."""
    copy = copy or copies(lab)[-1]
    port = (copy / "data" / "postmaster.pid").read_text().splitlines()[3]
    arguments = ["-XAtq", "-h", copy / "run", "-p", port, "-U", "postgres", "-d", "orders", "-c", sql]
    return lab.postgres.run("psql", *arguments).splitlines()


def orders_in_copy(lab: Lab, copy: Path | None = None) -> set[int]:
    """Return the numbers of the orders in the copy."""
    return {int(line) for line in ask_copy(lab, "select number from orders", copy)}


def servers_of_copies(lab: Lab) -> list[Process]:
    """Return every PostgreSQL process that runs in a copy, also in one that has been deleted."""
    return processes.postgres_in(lab.place.copies)


def drop_all(lab: Lab) -> None:
    """Stop and remove every copy."""
    processes.stop(servers_of_copies(lab), signal.SIGQUIT, 5)
    for found in lab.place.copies.iterdir():
        shutil.rmtree(found)
