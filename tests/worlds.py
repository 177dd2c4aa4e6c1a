"""The world of a lab: all that a recovery may change, so exactly that what was undone can be told from what was not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab import processes
from lab.estate import Lab
from tests.copies import parent, postmasters, strangers

IN_FLIGHT = 20
"""Orders whose numbers were given away and that may still commit: far more than the load has writers."""

# A row is itself, not only its content: also where it lies, and the transaction that put it there.
ROWS = "select coalesce(md5(string_agg(concat_ws(' ', ctid, xmin, t), ',' order by ctid)), 'empty') from {} t {}"
SAID: Mapping[str, str] = {
    "tables": "select oid::regclass from pg_class where relkind in ('r', 'p', 'v', 'm') and relnamespace >= 2200"
    " and relnamespace <> 'information_schema'::regnamespace order by 1",
    "schemas": "select nspname, nspowner::regrole, nspacl from pg_namespace where nspname !~ '^pg_t' order by 1",
    "sequences": "select schemaname, sequencename, last_value from pg_sequences order by 1, 2",
    "roles": "select rolname, md5(a::text) from pg_authid a order by 1",
    "databases": "select oid, datname from pg_database order by 1",
    "settings": "select name, setting from pg_settings where name <> 'transaction_read_only' order by 1",
    "state": "select system_identifier, pg_is_in_recovery(), substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
    " from pg_control_system()",
}


@dataclass(frozen=True)
class World:
    """What a lab shows: ``parts`` must be the same again, files in ``archive`` may only become more.

    ``last`` is the number up to which orders are compared; those after it come in meanwhile.
    """

    last: int
    parts: Mapping[str, Any]
    archive: Mapping[str, str]

    @property
    def timeline(self) -> str:
        """The timeline on which the database writes, as files are named by it."""
        return str(self.parts["state"][0][2])

    @cached_property
    def digest(self) -> str:
        """What stands for all of it that must be the same again."""
        return hashlib.sha256(json.dumps(self.parts, sort_keys=True, default=str).encode()).hexdigest()

    def differs(self, now: World) -> dict[str, object]:
        """Return what is not as it was, by part: what it was, and what it is ``now``."""
        return {part: (was, now.parts[part]) for part, was in self.parts.items() if now.parts[part] != was}

    def damaged(self, now: World) -> list[str]:
        """Return the files of the archive that are not what they were."""
        return sorted(name for name, content in self.archive.items() if now.archive.get(name) != content)

    def added(self, now: World) -> list[str]:
        """Return the files of the archive that are new."""
        return sorted(now.archive.keys() - self.archive.keys())


def assert_as_before(before: World, now: World) -> None:
    """Compare two looks at a lab between which everything was undone."""
    assert before.differs(now) == {}
    assert now.digest == before.digest
    assert before.damaged(now) == []
    assert [name for name in before.added(now) if not name.startswith(before.timeline)] == []


def world(lab: Lab, last: int | None = None) -> World:
    """Look at ``lab``, under load or not; ``last`` is that of the look to compare with."""
    place = lab.place
    with lab.postgres.connect("orders") as connection:

        def ask(sql: str) -> list[list[str]]:
            return [[str(value) for value in row] for row in connection.execute(sql.encode()).fetchall()]

        last = last if last is not None else int(ask("select coalesce(max(number), 0) from orders")[0][0]) - IN_FLIGHT
        said: dict[str, Any] = {name: ask(sql) for name, sql in SAID.items()}
        rows = {
            table: ask(ROWS.format(table, f"where number <= {last}" if table == "orders" else ""))[0][0]
            for (table,) in said["tables"]
        }
    parts = {
        **said,
        "rows": rows,
        "identity": identity(place.data),
        "configuration": configuration(place.data),
        "processes": {**served(lab), "others": [said for said in strangers(lab) if said]},
        "listeners": listeners(lab),
        "folders": {folder.name: names(folder) for folder in (place.north, place.copies, place.jobs)},
        "backups": {path.name: digest(path / "backup_manifest") for path in sorted(place.backups.iterdir())},
    }
    return World(last, parts, archive(lab))


def backed_up_timeline(lab: Lab) -> int:
    """Return the timeline of the newest base backup."""
    label = (lab.place.backups / lab.postgres.backed_up()[-1] / "backup_label").read_text()
    return int(label.rpartition("START TIMELINE: ")[2])


def served(lab: Lab) -> dict[str, object]:
    """Return how many servers work in the data directory and where its one logs, and how many work in copies."""
    found = processes.postgres_in(lab.place.data)
    pids = {process.pid for process in found}
    first = [process.pid for process in found if parent(process.pid) not in pids]
    logs = [where for pid in first if (where := _logs(pid))]
    elsewhere = [p for p in processes.postgres_in(lab.place.north) if p.pid not in pids]
    return {"servers": len(logs), "log": logs, "of copies": len(postmasters(lab)), "elsewhere": len(elsewhere)}


def _logs(pid: int) -> str:
    """Return where a process logs, "" for one that has just ended: a session's, that was taken for a server."""
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/fd/1").readlink())
    return ""


def listeners(lab: Lab) -> list[str]:
    """Return by name the ports of the lab at which something listens."""
    lines = [line.split() for file in ("tcp", "tcp6") for line in Path("/proc/net", file).read_text().splitlines()[1:]]
    ports = {int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A"}
    return sorted(name for name, port in lab.ports.items() if port in ports)


def configuration(data: Path) -> dict[str, tuple[str, str, int]]:
    """Return every file of configuration in a data directory: its content, mode and owner."""
    files = [data / "postmaster.opts", *sorted(data.glob("*.conf")), *sorted(data.glob("*.signal"))]
    return {
        file.name: (digest(file), oct(file.stat().st_mode), file.stat().st_uid)
        for file in [data, *files]
        if file.exists()
    }


def archive(lab: Lab) -> dict[str, str]:
    """Return every file of the WAL archive that is whole, with its content."""
    return {p.name: digest(p) for p in sorted(lab.place.archive.iterdir()) if not p.name.startswith(".")}


def identity(folder: Path) -> tuple[int, int]:
    """Return what a folder is known by, wherever it is moved to."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def names(folder: Path) -> list[str]:
    """Return what lies in a folder; who had systems in hand is remembered for ever."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".hands")


def digest(file: Path) -> str:
    """Return what stands for the content of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no file"


def ended(lab: Lab, data: Path) -> str:
    """Return how the database in ``data``, which does not run, ended, and what of its log came after that."""
    said = lab.postgres.run("pg_controldata", "-D", data)
    told = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    redo, timeline = (told[f"Latest checkpoint's {what}"].strip() for what in ("REDO location", "TimeLineID"))
    done = subprocess.run(
        [lab.postgres.binaries / "pg_waldump", "-p", data / "pg_wal", "-t", timeline, "-s", redo],
        capture_output=True, text=True, check=False, **lab.postgres.who.drop(),
    )  # fmt: skip
    log = "; ".join(line.partition("desc: ")[2].split(" ")[0] for line in done.stdout.splitlines())
    return f"{told['Database cluster state'].strip()}: {log or done.stderr}"
