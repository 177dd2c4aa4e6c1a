"""Look at restored copies with the database's own programs, not with the code under test."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

from lab import processes
from lab.estate import Lab
from lab.processes import Process


def in_copies(lab: Lab) -> list[str]:
    """Return what lies in the folder of copies and in the folder of jobs."""
    return sorted(str(found) for folder in (lab.place.copies, lab.place.jobs) for found in folder.glob("[!.]*"))


def copies(lab: Lab) -> list[Path]:
    """Return the folders of whole copies."""
    return sorted(p for p in lab.place.copies.iterdir() if p.suffix not in (".partial", ".salvage"))


def ask_copy(lab: Lab, sql: str, copy: Path | None = None) -> list[str]:
    """Return the lines that psql prints for ``sql`` on the only (or the given) copy."""
    copy = copy or copies(lab)[-1]
    port = (copy / "data" / "postmaster.pid").read_text().splitlines()[3]
    arguments: list[str | Path] = ["-XAtq", "-h", copy / "run", "-p", port, "-U", "postgres", "-d", "orders", "-c", sql]
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


def contents(lab: Lab, copy: Path) -> dict[str, str]:
    """Return a digest of the rows of every table in ``copy``."""
    tables = ask_copy(lab, "select oid::regclass from pg_class where relkind = 'r' and relnamespace = 2200", copy)
    rows = "select coalesce(md5(string_agg(t::text, ',' order by t::text)), 'empty') from {} t"
    return {table: ask_copy(lab, rows.format(table), copy)[0] for table in tables}


def postmasters(lab: Lab, copy: Path | None = None) -> list[Process]:
    """Return the servers of copies (or of the given one), one process each."""
    found = processes.postgres_in(copy or lab.place.copies)
    pids = {process.pid for process in found}
    return [process for process in found if parent(process.pid) not in pids]


def sweep(lab: Lab) -> None:
    """End every remote command, drop every copy, and remove every job."""
    end_jobs(lab)
    drop_all(lab)


def end_jobs(lab: Lab) -> None:
    """End every remote command, and remove every job."""
    processes.stop(_strangers(lab), signal.SIGKILL, 5)
    for site in lab.sites:
        for found in lab.place.at(site).jobs.iterdir():
            shutil.rmtree(found)


def strangers(lab: Lab) -> list[str]:
    """Return the command lines of processes of the lab that are neither its own programs nor a copy's server."""
    return sorted(command(process.pid) for process in _strangers(lab))


def _strangers(lab: Lab) -> list[Process]:
    found = processes.members(lab.place.root)  # first: a session that begins later must not be taken for a stranger
    own = [processes.recall(file) for file in lab.place.run.glob("*.json")]
    known = {*(program[0] for program in own if program), *servers_of_copies(lab)}
    for site in lab.sites.values():
        known |= {*processes.postgres_in(site.place.data), *processes.valkey_in(site.place.valkey)}
        known |= {service} if (service := site.service.running()) else set()
    return [process for process in found if process not in known]


def parent(pid: int) -> int:
    """Return the pid of the parent of ``pid``; 0 when there is no such process."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def command(pid: int) -> str:
    """Return the command line of ``pid``; empty when there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
