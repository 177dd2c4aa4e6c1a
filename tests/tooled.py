"""A catalog whose one database has its backups in the repository of a tool, and recoveries of it through a worker."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import yaml

from lab.estate import Lab
from lab.ports import choose as free_ports
from tests.branches import host
from tests.repositories import PORT, SERVER, Barman, Repository, barman, pgbackrest
from tests.running import ROOT, Recovery, Running, eventually, running

KINDS = ("barman", "pgbackrest")
ASYNC = "pgbackrest that archives beside the database"
CATALOG = "tools"
RUNBOOK: dict[str, Any] = {
    "title": "Turn the orders back",
    "version": "1",
    "procedure": "DatabasePointInTimeRestore",
    "systems": ["orders"],
    "why": "A test.",
    "gates": {"cut over": {"roles": ["dba"], "approvals": 1, "within": "PT1H", "valid": "PT30M"}},
    "hold": {"roles": ["dba"], "within": "PT30M", "dark_within": "PT5M"},
    "parameters": {"cutover": "replace", "amcheck": False, "await_write": "PT1S"},
}


@dataclass
class Tooled:
    """A database with a tool's backups, on the host of a lab; ``number`` is the last row that was committed."""

    at: Repository
    lab: Lab
    catalogs: Path
    number: int = 0
    owners: list[str] = field(default_factory=list)

    @property
    def database(self) -> dict[str, Any]:
        """What an estate says of it."""
        site = self.at.place
        keeps = {"server": SERVER, "cli": str(self.at.cli), "configuration": str(self.at.configuration)}
        return {
            "host": "north-db", "tier": "gold", "bin": str(self.at.binaries), "data": str(site.data), "port": PORT,
            "sockets": str(site.sockets), "name": "postgres", "user": "postgres", "copies": str(site.copies),
            "backups": {"kind": self.at.kind, **keeps}, "copy_ports": list(free_ports(("a", "b")).values()),
            "drill": True,
        }  # fmt: skip

    def write(self) -> None:
        """Write the catalog."""
        lab = yaml.safe_load((ROOT / "runbooks/lab/estate.yaml").read_text())
        folder = self.catalogs / CATALOG
        folder.mkdir()
        estate = {
            "title": "A database with a tool's backups",
            "sites": {"north": {"title": "North"}},
            "hosts": {"north-db": host(self.lab).model_dump(mode="json")},
            "databases": {"orders": self.database},
            **{part: lab[part] for part in ("tiers", "people")},
        }
        (folder / "estate.yaml").write_text(yaml.safe_dump(estate))
        (folder / "replace-orders.yaml").write_text(yaml.safe_dump(RUNBOOK))
        beside = {"parameters": {"amcheck": False}, "gates": {"keep the copy": RUNBOOK["gates"]["cut over"]}}
        (folder / "restore-orders.yaml").write_text(yaml.safe_dump(RUNBOOK | beside))

    def commit(self, rows: int = 1) -> datetime:
        """Commit rows, one by one, and return a moment after them."""
        for _ in range(rows):
            self.number += 1
            self.at.ask(f"insert into rows values ({self.number}, '')")
        return datetime.fromisoformat(self.at.ask("select clock_timestamp()")[0])

    def behind(self) -> None:
        """Wait until what is committed is surely later than the last backup: tools know its end to the second."""
        time.sleep(2.1)

    def numbers(self, *where: str) -> list[int]:
        """Return the rows that are there; ``where`` are the arguments of psql that lead to another server."""
        sql = "select number from rows where number > 0 order by 1"
        psql = self.at.binaries / "psql"
        told = self.at.run(psql, "-XAtq", *where, "-c", sql).splitlines() if where else self.at.ask(sql)
        return [int(line) for line in told]

    def timeline(self) -> int:
        """Return that on which the database writes."""
        return int(self.at.ask("select pg_walfile_name(pg_current_wal_lsn())")[0][:8], 16)

    def backups(self) -> dict[str, str]:
        """Return what the tool lists: whose each backup is, "" if it is of no recovery; unfinished ones, too."""
        if isinstance(self.at, Barman):
            listed = json.loads(self.at.ask_tool("-f", "json", "list-backups", SERVER))[SERVER]
            return {
                one["backup_id"]: one.get("backup_name", "") + ("" if one["status"] == "DONE" else f" {one['status']}")
                for one in listed
            }
        told = json.loads(self.at.run(self.at.cli, f"--config={self.at.configuration}", "info", "--output=json"))[0]
        return {one["label"]: one.get("annotation", {}).get("label", "") for one in told["backup"]}

    def archived(self, timeline: int) -> list[str]:
        """Return what files the tool keeps of the log of a timeline."""
        if isinstance(self.at, Barman):
            folder = self.at.folder / "barman" / SERVER
            noted = (folder / "wals" / f"{SERVER}-xlog.db").read_text().split()
            names = [path.name for path in folder.rglob("*") if path.is_file()] + noted
        else:
            names = [path.name for path in (self.at.folder / "repository/archive").rglob("*") if path.is_file()]
        return sorted({name for name in names if re.match(rf"{timeline:08X}([0-9A-F]{{16}}|\.history)", name)})

    async def final(self, moment: datetime) -> datetime:
        """Wait until nothing is written any more that is as old as ``moment``."""
        await eventually(lambda: (datetime.now(UTC) - moment).total_seconds() > 1.5, "the moment is final")
        return moment

    async def start(self, engine: Running, target: datetime, runbook: str = "replace-orders") -> Recovery:
        """Begin to turn it back, or to restore it beside."""
        named = {"id": f"{CATALOG}/orders", "runbook": f"{CATALOG}/{runbook}"}
        return await engine.start("live", **named, target_time=target)

    def sweep(self) -> None:
        """Remove what recoveries have left beside the database."""
        for folder in (*self.at.place.copies.iterdir(), *self.at.place.data.parent.glob("data.fenced-*")):
            shutil.rmtree(folder)


@contextmanager
def tooled(lab: Lab, kind: str, catalogs: Path) -> Iterator[Tooled]:
    """Run such a database with a backup, and rows before and after it."""
    with barman(spaced=False) if kind == "barman" else pgbackrest(spaced=False) as at:
        if kind == ASYNC:
            at.configuration.write_text(
                at.configuration.read_text().replace("[global]\n", "[global]\narchive-async=y\n")
            )
        found = Tooled(at, lab, catalogs)
        at.ask("create role app login; grant all on rows to app")
        found.write()
        found.commit(2)
        at.back_up()
        found.behind()
        found.commit(2)
        yield found


@asynccontextmanager
async def served(found: Tooled, program: list[str] | None = None, worker: bool = True) -> AsyncIterator[Running]:
    """Run a worker for its catalog."""
    async with running(found.lab, program, worker, RECOVERY_CATALOGS=str(found.catalogs)) as engine:
        yield engine


@contextmanager
def clients(found: Tooled) -> Iterator[list[int]]:
    """Have a client write rows all the while; yields the numbers of those that were acknowledged."""
    said: list[int] = []
    ends = threading.Event()
    thread = threading.Thread(target=_write, args=(found, said, ends))
    thread.start()
    try:
        yield said
    finally:
        ends.set()
        thread.join(30)


def _write(found: Tooled, said: list[int], ends: threading.Event) -> None:
    where = f"host={found.at.place.sockets} port={PORT} dbname=postgres user=app connect_timeout=5"
    while not ends.is_set():
        try:
            with psycopg.connect(where, autocommit=True) as connection:
                while not ends.is_set():
                    found.number += 1
                    connection.execute("insert into rows values (%s, '')", (found.number,))
                    said.append(found.number)
                    ends.wait(0.02)
        except psycopg.Error:
            ends.wait(0.05)
