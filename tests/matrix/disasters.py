"""Rounds of a site that is lost, or cut off: the other one takes over, the lost one comes back, and clients go home."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import psycopg
import yaml
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError
from valkey.exceptions import ValkeyError

from lab import addresses, ledger
from lab.addresses import of
from lab.estate import Lab
from lab.place import SITES, LabError
from recovery.report import Report
from tests.matrix import two_sites
from tests.matrix.ground import PATIENT
from tests.matrix.pitch import PATIENCE, Pitch
from tests.running import ROOT, Recovery, Running, eventually

Kind = Literal["killed", "cut off", "cut off, then killed"]
KINDS: tuple[Kind, ...] = ("killed", "cut off", "cut off, then killed")
RUNBOOKS = ("take-over", "fail-back", "fence")


def catalog(folder: Path) -> Path:
    """Write the lab's catalog; people are asked soon, and nothing is watched for long."""
    shutil.copytree(ROOT / "runbooks" / "lab", folder / "lab")
    for site in SITES:
        for name in RUNBOOKS:
            file = folder / "lab" / f"{name}-{site}.yaml"
            text = yaml.safe_load(file.read_text())
            if name != "fence":
                text["parameters"]["watch"] = "PT1S"
            if name == "fail-back":
                text["parameters"]["steady"] = "PT2S"
            file.write_text(yaml.safe_dump(text | {"hold": PATIENT | {"dark_within": "PT30S"}}))
    return folder


@dataclass
class Pinned:
    """A client that writes at one site whatever the director says; what it was told was taken, with the time."""

    lab: Lab
    site: str
    first: int
    taken: dict[int, datetime] = field(default_factory=dict)

    def __enter__(self) -> Pinned:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _write(self) -> None:
        where = psycopg.conninfo.make_conninfo(
            host="127.0.0.1", port=self.lab.ports[of(self.site, "postgres")], dbname="orders", user="app",
            password=self.lab.passwords["app"], connect_timeout=2,
        )  # fmt: skip
        number = self.first
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(where, autocommit=True) as connection:
                while not self._stop.wait(0.01):
                    number -= 1
                    connection.execute(
                        "insert into orders (number, customer, amount) values (%s, 'pinned', 1)", (number,)
                    )
                    self.taken[number] = datetime.now(UTC)
            self._stop.wait(0.02)


@dataclass
class Visitors:
    """Clients whose sessions are written at one site's store whatever happens; when each was told that it is kept."""

    lab: Lab
    site: str
    name: str
    told: dict[str, datetime] = field(default_factory=dict)

    def __enter__(self) -> Visitors:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _write(self) -> None:
        with contextlib.suppress(ValkeyError), two_sites.session_store(self.lab.sites[self.site]) as client:
            while not self._stop.wait(0.005):
                key = f"{self.name}:{len(self.told)}"
                client.set(key, "here", ex=3600)
                self.told[key] = datetime.now(UTC)


@dataclass
class Field(Pitch):
    """A lab of two sites, of which each may be lost."""

    rounds: int = 0
    lost: set[int] = field(default_factory=set)
    """Orders that rounds before this one lost, and listed."""

    def catalog(self, folder: Path) -> Path:
        """Write the catalog of its recoveries."""
        return catalog(folder)

    def worker(self, site: str) -> Running:
        """Return the worker of a site."""
        return self._engines[SITES.index(site)]

    async def close(self) -> None:
        """Take everything down: the next lab begins to number its orders anew, and has lost none."""
        await super().close()
        self.lost.clear()

    @contextlib.asynccontextmanager
    async def round(self) -> AsyncIterator[Round]:
        """Have one round; whatever goes wrong in it spoils the field."""
        await self.ready()
        self.rounds += 1
        try:
            async with self._workers_back():
                yield await asyncio.to_thread(Round.of, self)
        except BaseException:
            await self.close()
            raise
        finally:
            self.away.clear()
            self.unhurt()


@dataclass
class Round:
    """One loss of the active site, and the way home."""

    field: Field
    old: str
    pinned: Pinned
    known: int
    began: datetime
    patience: float = PATIENCE
    """Seconds in which each recovery has to end."""

    @classmethod
    def of(cls, field: Field) -> Round:
        """Look at what is so now."""
        old = two_sites.active(field.lab)
        known = ledger.count(field.lab.place.load / "acknowledged.jsonl")
        return cls(field, old, Pinned(field.lab, old, -1_000_000 * field.rounds), known, datetime.now(UTC))

    @property
    def lab(self) -> Lab:
        """The lab."""
        return self.field.lab

    @property
    def new(self) -> str:
        """The site that takes over."""
        return addresses.other(self.old)

    def lose(self, kind: Kind) -> datetime:
        """Have the site lost; return when."""
        at = datetime.now(UTC)
        if kind != "killed":
            self.lab.break_("partition")
        if kind != "cut off":
            self.field.away.add(self.old)
            self.field.worker(self.old).kill_worker()
            self.lab.break_(self.old)
        return at

    async def start(self, procedure: str, runbook: str, **fields: Any) -> Recovery:
        """Start a recovery, live."""
        given = {"runbook": f"lab/{runbook}", "reason": "a test", "requested_by": "alice", **fields}
        queue = self.field.engine.settings.task_queue
        client = self.field.engine.client
        return Recovery(await client.start_workflow(procedure, given, id="lab/orders", task_queue=queue))

    async def take_over(self, outage: datetime, **parameters: str) -> Report:
        """Have the other site take over; who is asked says yes, and that it goes back where it can not go on."""
        runbook, given = f"take-over-{self.new}", {"outage_started_at": outage.isoformat(), "parameters": parameters}
        return await decided(await self.start("DataCenterActivation", runbook, **given), self.patience, back=True)

    async def come_back(self) -> None:
        """Have the lost site come back, with its worker, as its own start-up has it."""
        await asyncio.to_thread(self._heal)
        self.field.away.clear()

    def _heal(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.lab.heal()
                return
            except LabError:  # it is fenced while it starts
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    async def fenced(self) -> Report:
        """Wait until the lost site is fenced; nobody is asked."""
        watch = self.field.engine.client.get_workflow_handle(f"lab/fence-{self.old}")
        return await decided(Recovery(watch), self.patience)

    async def home(self) -> Report:
        """Go home; who is asked says yes."""
        return await decided(await self.start("Failback", f"fail-back-{self.old}"), self.patience)

    async def accounted(self, taken_over: Report, home: Report) -> set[int]:
        """Assert that each acknowledged order is there or listed, and nothing doubled or left; return the listed."""
        assert (home.outcome, home.residual) == ("recovered", ()), (home.failure, self.field.engine.log()[-3000:])
        listed, lab = set(numbers(home)), self.lab
        acknowledged = {row.number for row in ledger.acknowledged(lab.place.load)}  # first: orders go on
        assert not listed & self.field.lost, "lost twice"
        there = two_sites.rows(lab, self.old)
        assert len(there) == len(set(there))
        missing = (acknowledged | set(self.pinned.taken)) - set(there) - self.field.lost
        assert missing <= listed, f"lost, and not listed: {sorted(missing - listed)}"
        assert not listed & set(there)
        unsure = {row.number for row in ledger.refused(lab.place.load)}
        pinned = set(range(self.pinned.first - 100_000, self.pinned.first))
        assert listed <= missing | unsure | pinned, (
            f"listed, and never lost: {sorted(listed - missing - unsure - pinned)}"
        )
        self.never_both(taken_over, home)
        await self.stands()
        self.field.lost |= listed
        return listed

    def never_both(self, taken_over: Report, home: Report) -> None:
        """Assert that the lost site committed nothing more once clients could write at the other one."""
        seen = next(line for line in home.steps if line.step.startswith("before the rebuild: see what only"))
        last = seen.shows.get("last")
        opened = next(line for line in taken_over.steps if line.step == f"point front at {self.new}")
        if last is not None:
            assert datetime.fromisoformat(str(last)) < opened.ended, (seen.shows, opened)

    async def stands(self) -> None:
        """Assert that everything is as it was, with clients in."""
        wanted = self.field.proper(self.old)

        async def wrong() -> dict[str, object]:
            return two_sites.differs(wanted, await asyncio.to_thread(self.field.shown))

        async def right() -> bool:
            return not await wrong()

        with contextlib.suppress(AssertionError):
            await eventually(right, "everything is as it has to be", 15, pause=0.3)
        assert not (left := await wrong()), left
        log = self.lab.place.load / "acknowledged.jsonl"
        count = ledger.count(log)
        await eventually(lambda: ledger.count(log) > count + 20, "orders are taken at home", 30)


async def decided(recovery: Recovery, seconds: float = PATIENCE, *, back: bool = False, by: str = "carol") -> Report:
    """Approve at every gate as one who may, and wait for the end; what is held goes ``back``, or else may not be."""
    report = None
    try:
        async with asyncio.timeout(seconds):
            while (report := await recovery.status()) is None or report.outcome == "running":
                assert report is None or report.hold is None or back, f"held: {report.hold}"
                with contextlib.suppress(RPCError, WorkflowUpdateFailedError, AssertionError):
                    if report and report.phase.startswith("gate"):
                        await recovery.approve(by)
                    elif report and report.hold:
                        await recovery.resolve("compensate", by=by)
                await asyncio.sleep(0.25)  # each question costs the worker time
    except TimeoutError:
        raise AssertionError(report) from None
    return await recovery.ended(seconds)


def numbers(report: Report) -> Iterator[int]:
    """Yield the number of each order that a report lists as kept."""
    for line in (str(figure.value) for figure in report.figures):
        if " of public.orders (" not in line and " of orders (" not in line:
            continue
        for part in line.rpartition("(")[2].rstrip(")").split(", "):
            ends = re.fullmatch(r"(-?\d+)(?:-(\d+)| to (-?\d+))?", part)
            assert ends, line
            last = ends[2] or ends[3] or ends[1]
            yield from range(int(ends[1]), int(last) + 1)
