"""What is so on a lab, before a recovery and after it; and what must never be so while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from lab import ledger, processes
from lab.estate import Lab
from tests.copies import ask_copy, drop_all, postmasters, strangers
from tests.matrix.scenes import digest
from tests.running import eventually
from tests.worlds import backed_up_timeline

Rows = Mapping[int, str]
CUSTOMERS = """
create table customers (id bigint primary key, name text not null);
insert into customers select id, 'customer ' || id from generate_series(1, 200) as id;
grant select, insert, update on customers to app;
"""


@dataclass(frozen=True)
class Damage:
    """An accident: the moment before it, and the rows that it destroyed, as they were."""

    target: datetime
    rows: Rows
    whole: Rows
    """Every order as it was just before."""


@dataclass(frozen=True)
class Before:
    """The world when a recovery begins: rows, and by subject everything else."""

    orders: Rows
    customers: tuple[str, ...] | None
    missing: frozenset[int]
    """Orders that were acknowledged and are not there: accidents took them."""
    archived: tuple[str, ...]
    shown: Mapping[str, object]


class World:
    """A lab under load, as it shows itself."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.place = lab, lab.place
        self.told: set[int] = set()
        self.first_customers = self.customers()

    # --- rows ----------------------------------------------------------------------------------------------

    def orders(self) -> Rows:
        """Return every order, whole."""
        with self.lab.postgres.connect("orders") as connection:
            return {row[0]: row[1] for row in connection.execute("select number, o::text from orders o")}  # type: ignore[misc]

    def customers(self) -> tuple[str, ...] | None:
        """Return every customer, whole, and who may do what with them; None where there is no such table."""
        try:
            with self.lab.postgres.connect("orders") as connection:
                rows = connection.execute("select c::text from customers c order by id").fetchall()
                rights = connection.execute("select relacl::text from pg_class where relname = 'customers'").fetchall()
        except psycopg.errors.UndefinedTable:
            return None
        return tuple(str(row[0]) for row in [*rows, *rights])

    def acknowledged(self) -> set[int]:
        """Return the numbers of all orders that a client was told are there."""
        return {row.number for row in ledger.acknowledged(self.place.load)}

    async def damaged(self, kind: str, share: float) -> Damage:
        """Cause an accident, and wait until the moment before it can be restored."""
        whole = await asyncio.to_thread(self.orders)
        await asyncio.sleep(0.1)  # so that no order lies on both sides
        target = datetime.now(UTC)
        await eventually(lambda: (datetime.now(UTC) - target).total_seconds() > 1.2, "a moment is final a second later")
        numbers = sorted(whole)
        first = int(len(numbers) * 0.8 * share)
        hit = {number: whole[number] for number in numbers[first : first + len(numbers) // 5 + 1]}
        sql = {
            "rows deleted": "delete from orders where number = any(%s)",
            "rows rewritten": "update orders set amount = 0 where number = any(%s)",
            "a table dropped": "drop table customers",
        }[kind]
        with self.lab.postgres.connect("orders") as connection:
            connection.execute(sql.encode(), (list(hit),) if "%s" in sql else None)
        return Damage(target, hit if kind == "rows deleted" else {}, whole)

    def mend(self) -> None:
        """Put a dropped table back by hand, where no recovery has."""
        if self.customers() is None:
            with self.lab.postgres.connect("orders") as connection:
                connection.execute(CUSTOMERS.encode())

    # --- everything else -----------------------------------------------------------------------------------

    def before(self) -> Before:
        """Return what is so now."""
        told = self.acknowledged()
        orders, archived = self.orders(), self.lab.postgres.archived()
        missing = frozenset(told - orders.keys())
        return Before(orders, self.customers(), missing, archived, self.shown(archived))

    def shown(self, archived: tuple[str, ...]) -> dict[str, object]:
        """Return by subject what must be as before when nothing was to be changed."""
        place = self.place
        data = [path for path in place.north.glob("data*") if path.is_dir()]
        return {
            "data": sorted((path.name, path.stat().st_ino) for path in data),
            "settings": {file.name: digest(file) for file in sorted(place.data.glob("*.conf"))},
            "copies": sorted(path.name for path in place.copies.iterdir()),
            "jobs": sorted(path.name for path in place.jobs.glob("[!.]*")),
            "backups": {path.name: digest(path / "backup_manifest") for path in sorted(place.backups.iterdir())},
            "archive": {name: digest(place.archive / name) for name in archived},
            "timelines": sorted({path.name[:8] for path in place.archive.iterdir() if path.name[:1] != "."}),
            "servers": sorted(str(folder) for folder in self.served()),
            "listening": sorted(name for name, port in self.lab.ports.items() if listens(port)),
        }

    def servers(self) -> list[processes.Process]:
        """Return every PostgreSQL server of the lab, one process each."""
        return postmasters(self.lab, self.place.north)

    def rows_of_copy(self) -> Rows:
        """Return every order in the copy, whole."""
        lines = ask_copy(self.lab, "select number || '|' || o::text from orders o")
        return {int(number): row for number, _, row in (line.partition("|") for line in lines)}

    def served(self) -> list[Path]:
        """Return the data directories in which servers work."""
        found = []
        for server in self.servers():
            with contextlib.suppress(OSError):  # it has just ended
                found.append(Path(f"/proc/{server.pid}/cwd").readlink())
        return found

    def exported(self) -> Rows:
        """Return the orders in the export of a cut-over."""
        found: dict[int, str] = {}
        for manifest in self.place.copies.glob("*.salvage/manifest.tsv"):
            for row in (line.split("\t") for line in manifest.read_text().splitlines()):
                if row[:2] == ["table", "public.orders"]:
                    with (manifest.parent / row[3]).open(newline="") as text:
                        found |= {int(line["number"]): str(line) for line in csv.DictReader(text)}
        return found

    async def quiet(self) -> None:
        """Wait until nothing runs but the lab's own programs and copies' servers."""
        await eventually(lambda: not strangers(self.lab), f"nothing is left, but {strangers(self.lab)}", 20)

    async def clear(self) -> None:
        """Take away, as people would after some weeks, what a recovery has put aside; have a base backup."""
        await asyncio.to_thread(drop_all, self.lab)
        for folder in [*self.lab.postgres.fenced(), *self.place.jobs.glob("[!.]*")]:
            shutil.rmtree(folder)
        await asyncio.to_thread(self.lab.up, rate=40)
        if self.newest_backup_timeline() != self.timeline():
            await asyncio.to_thread(self.lab.base_backup)
        for name in self.lab.postgres.backed_up()[:-2]:
            shutil.rmtree(self.place.backups / name)

    def timeline(self) -> int:
        """Return the timeline on which the running database writes."""
        with self.lab.postgres.connect("orders") as connection:
            row = connection.execute(
                "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
            )
            return int(str((row.fetchone() or (0,))[0]))

    def newest_backup_timeline(self) -> int:
        """Return the timeline of the newest base backup."""
        return backed_up_timeline(self.lab)


def listens(port: int) -> bool:
    """Tell whether somebody listens on the TCP port."""
    wanted = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[3] == "0A" and row[1].endswith(wanted) for row in rows)


class Watch:
    """Look all the time whether clients get into two databases, or into one that was put aside."""

    def __init__(self, world: World) -> None:
        self.world, self.lab = world, world.lab
        self.looks, self.broken = 0, list[str]()

    @contextlib.asynccontextmanager
    async def always(self) -> AsyncIterator[None]:
        """Look while the body runs."""
        task = asyncio.create_task(self._look_always())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _look_always(self) -> None:
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(0.1)

    def _look(self) -> None:
        self.looks += 1
        folders = self.world.served()
        aside = [folder for folder in folders if ".fenced-" in folder.name and self._takes(folder)]
        self.broken += [f"{datetime.now(UTC)}: a client writes into {folder}, which is fenced" for folder in aside]
        if len(folders) > 1:
            first = [folder for folder in folders if self._takes(folder)]
            # Seen one after the other: only what still holds when all were asked held at the same time.
            both = [folder for folder in first if self._takes(folder)] if len(first) > 1 else []
            if len(both) > 1:
                self.broken.append(f"{datetime.now(UTC)}: clients write into {both}")

    def _takes(self, data: Path) -> bool:
        """Tell whether an application could write there, without writing."""
        with contextlib.suppress(OSError, IndexError, ValueError, psycopg.Error):
            lines = (data / "postmaster.pid").read_text().splitlines()
            with self._client(int(lines[3]), lines[4], lines[5]) as connection:
                row = connection.execute("select pg_is_in_recovery() or current_setting('transaction_read_only')::bool")
                return row.fetchone() == (False,)
        return False

    def _client(self, port: int, sockets: str, listening: str) -> psycopg.Connection[tuple[Any, ...]]:
        where = {"host": "127.0.0.1", "password": self.lab.passwords["app"]} if listening else {"host": sockets}
        return psycopg.connect(port=port, dbname="orders", user="app", connect_timeout=2, **where)  # type: ignore[arg-type]
