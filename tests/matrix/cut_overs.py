"""How a cut-over, and rows that go back, are run on labs of their own, under load; what then has to be so."""

from __future__ import annotations

import asyncio
import csv
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import psycopg

from lab import ledger
from lab.estate import Lab
from recovery.report import Report
from tests.copies import sweep
from tests.matrix.restores import Run
from tests.running import Recovery, Running
from tests.workflows.test_side_copy import restorable
from tests.worlds import IN_FLIGHT, World, backed_up_timeline, ended, identity, names, world

WITHIN = 10.0  # seconds; an order is written down after its commit
UNTOUCHED: Mapping[str, object] = {
    "unlike before": [],
    "timelines": 0,
    "fenced": [],
    "histories": [],
    "foreign": [],
    "damaged": [],
    "backups": [],
    "copies": [],
    "jobs": [],
    "orders": {"lost": [], "in both": [], "of nobody": [], "not named": [], "exported": False},
}
"""What is shown where nothing is left of a run."""


class Apart(Run):
    """A procedure that changes the running database: what it shows is told against the world before this very run."""

    apart = True
    runbook: ClassVar[str]
    after: ClassVar[frozenset[str]] = frozenset()
    """What follows the point of no return: it may be missing where nothing was undone."""
    before: World
    differs: Mapping[str, object]
    run: str

    async def start(self, engine: Running) -> Recovery:
        """Start it from what stands now."""
        await self.prepare()
        recovery = await engine.start("live", runbook=self.runbook, target_time=self.target)
        self.run = str(recovery.handle.result_run_id)  # what a reset run makes has this name, too
        return recovery

    async def prepare(self) -> None:
        """Bring the lab to where a run begins, and look at it."""
        raise NotImplementedError

    async def check(self, engine: Running) -> Recovery:
        """Start it as a check, which has an id of its own."""
        return await engine.start("check", id="lab/orders/check", runbook=self.runbook, target_time=self.target)

    def shows(self, report: Report) -> Mapping[str, object]:
        """Return what is not as it was, in words that are the same for two runs that did the same."""
        now = world(self.lab, self.before.last)
        self.differs = self.before.differs(now)
        return {"unlike before": sorted(self.differs), **self._more(now, report)}

    def seen(self) -> object:
        """Return what is not as before."""
        return self.differs

    def _more(self, now: World, report: Report) -> Mapping[str, object]:
        ours, own = f"{report.workflow}@{self.run}", self.run[-8:]
        place, added = self.lab.place, self.before.added(now)
        old, new = int(self.before.timeline, 16), int(now.timeline, 16)
        fenced = [place.north / name for name in names(place.north) if name.startswith("data.")]
        return {
            "timelines": new - old,
            "fenced": [(f.name == f"data.fenced-{own}", self._put_aside(f)) for f in fenced],
            "histories": [name == f"{now.timeline}.history" for name in added if name.endswith(".history")],
            "foreign": [name for name in added if not name.startswith((self.before.timeline, now.timeline))],
            "damaged": self.before.damaged(now),
            "backups": [_label(place.backups / name, ours) for name in self._backups()],
            "copies": [(name.partition(own)[2] or "whole") if own in name else name for name in names(place.copies)],
            "jobs": names(place.jobs),
            "orders": orders(self.lab, self.before.last, report),
        }

    def stays(self, approved: Mapping[str, object], told: Report, last: Report) -> None:
        """Compare the systems with an approved run, but for what follows the point of no return."""
        shown, home = self.shows(told), last.committed.home if last.committed else ()
        assert {k: (v, approved[k]) for k, v in shown.items() if v != approved[k] and k not in self.after} == {}
        if last.kind == "Refused":
            assert "passed its point of no return" in last.failure
            assert f"the way home, by hand or by a failback: {', '.join(home)}" in last.failure
        else:
            assert last.outcome == "cancelled"
            assert last.residual[0].startswith("past the point of no return (")
            assert last.residual[0].endswith("): nothing was undone")
        assert [step.step for step in last.steps if step.state == "undone"] == []

    def _put_aside(self, folder: Path) -> str:
        """Return how the database ended that stood there: in order, with nothing written after that."""
        return ended(self.lab, folder) if identity(folder) == self.before.parts["identity"] else "another database"

    def _backups(self) -> list[str]:
        return [name for name in names(self.lab.place.backups) if name not in self.before.parts["backups"]]

    def clear(self) -> None:
        """Drop what was left beside the database; a lab whose database is not whole is made anew."""
        sweep(self.lab)
        for folder in self.lab.place.north.glob("data.*"):
            shutil.rmtree(folder)
        newest = self.lab.postgres.backed_up()[-1:]
        for backup in [*self.lab.place.backups.iterdir()]:
            if backup.name not in newest:  # an older one, or half of one
                shutil.rmtree(backup)
        if not self._whole():
            self._anew()

    def _anew(self) -> None:
        """Make another lab in its place."""
        self.lab.down()
        self.lab.up()

    def _whole(self) -> bool:
        rules = self.lab.place.data / "pg_hba.conf"
        try:
            with self.lab.postgres.connect("orders") as connection:
                connection.execute("select 1 from orders limit 1")
        except psycopg.Error:
            return False
        return "A recovery" not in rules.read_text()


class Replace(Apart):
    """The orders database turned back as a whole, to another moment in every run."""

    name = "replace"
    runbook = "lab/replace-orders"
    after = frozenset({"unlike before", "backups", "jobs"})
    proper = {
        "approve": {
            "unlike before": ["backups", "folders", "identity", "state"],
            "timelines": 1,
            "fenced": [(True, "shut down: CHECKPOINT_SHUTDOWN")],
            "histories": [True],
            "foreign": [],
            "damaged": [],
            "backups": ["of this run"],
            "copies": ["whole", ".salvage"],
            "jobs": [],
            "orders": {"lost": [], "in both": [], "of nobody": [], "not named": [], "exported": True},
        },
        "reject": UNTOUCHED,
    }

    async def prepare(self) -> None:
        """Look at the lab, and take a moment after that."""
        self.before = world(self.lab)
        if backed_up_timeline(self.lab) != int(self.before.timeline, 16):  # what came before ended past its commit
            await asyncio.to_thread(self.lab.base_backup)
            self.before = world(self.lab)
        self.target = await restorable(self.lab)


class Extract(Apart):
    """Orders that were deleted put back, and no other touched; the same ones in every run."""

    name = "extract"
    runbook = "lab/extract-orders"
    _last = 0
    _right = ""
    proper = {
        "approve": {
            **UNTOUCHED,
            "unlike before": ["folders", "listeners", "processes", "rows"],
            "copies": ["whole"],
            "rows": {"right": True, "transactions": 1},
        },
        "reject": {**UNTOUCHED, "rows": {"right": False, "transactions": 0}},
    }

    async def prepare(self) -> None:
        """Delete every seventh of the first orders; others were changed since, and stay as they are."""
        if not self._right:
            self.target = await restorable(self.lab)
        with self.lab.postgres.connect("orders") as connection:
            if not self._right:
                found = connection.execute("select max(number) from orders where placed_at < %s", (self.target,))
                self._last = int(str((found.fetchone() or [0])[0])) - IN_FLIGHT
                connection.execute(
                    "update orders set amount = 0 where number <= %s and number %% 7 > 0 and number %% 11 = 0",
                    (self._last,),
                )
                self._right = self._rows(connection)
            connection.execute("delete from orders where number <= %s and number %% 7 = 0", (self._last,))
        self.before = world(self.lab)

    def _more(self, now: World, report: Report) -> Mapping[str, object]:
        with self.lab.postgres.connect("orders") as connection:
            count = "select count(distinct xmin::text) from orders where number <= %s and number %% 7 = 0"
            transactions = (connection.execute(count, (self._last,)).fetchone() or [0])[0]
            rows = {"right": self._rows(connection) == self._right, "transactions": transactions}
        return {**super()._more(now, report), "rows": rows}

    def _rows(self, connection: psycopg.Connection[tuple[object, ...]]) -> str:
        sql = "select md5(string_agg(o::text, ',' order by number)) from orders o where number <= %s"
        return str((connection.execute(sql, (self._last,)).fetchone() or [""])[0])

    def _anew(self) -> None:
        super()._anew()
        self._right = ""


def orders(lab: Lab, since: int, report: Report) -> dict[str, object]:
    """Return what became of the orders after ``since``: each is in the database, or in the export, and named there."""
    exports = list(lab.place.copies.glob("*.salvage/public.orders.csv"))
    named = {int(row["number"]) for export in exports for row in csv.DictReader(export.read_text().splitlines())}
    said = {row.number for row in ledger.acknowledged(lab.place.load) if row.number > since}
    with lab.postgres.connect("orders") as connection:
        rows = connection.execute("select number from orders where number > %s", (since,)).fetchall()
    there = {int(str(row[0])) for row in rows}
    return {
        "lost": sorted(said - there - named),
        "in both": sorted(there & named),
        "of nobody": _of_nobody(lab, there | named),
        "not named": sorted(named ^ _told(report)) if exports else [],
        "exported": bool(named),
    }


def _of_nobody(lab: Lab, found: set[int]) -> list[int]:
    """Return the orders that no client was told of, nor lost its connection over; they are written down late."""
    deadline = time.monotonic() + WITHIN
    while True:
        unsure = {row.number for row in ledger.refused(lab.place.load) if row.error == ledger.UNKNOWN}
        left = found - {row.number for row in ledger.acknowledged(lab.place.load)} - unsure
        if not left or time.monotonic() > deadline:
            return sorted(left)
        time.sleep(0.05)


def _told(report: Report) -> set[int]:
    """Return the orders that the statement of loss names, as a person reads it: 1001-1512, 1600."""
    tables = [table for step in report.steps for table in step.shows.get("tables") or () if "keys" in table]
    keys = [keys for table in tables if table["table"] == "public.orders" for keys in table["keys"].split(", ")]
    bounds = [(key.partition("-")[0], key.rpartition("-")[2]) for key in keys if key]
    return {number for first, last in bounds for number in range(int(first), int(last) + 1)}


def _label(backup: Path, owner: str) -> str:
    """Return whose base backup it is."""
    found = (backup / "backup_label").read_text() if (backup / "backup_label").exists() else ""
    return "of this run" if f"LABEL: recovery {owner}\n" in found else found
