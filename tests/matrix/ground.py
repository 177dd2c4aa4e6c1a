"""A lab under load of a test's own, its worker and Temporal, and what the lab shows: not what a procedure says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psycopg
import yaml

from lab import ledger, processes
from lab.estate import Lab
from recovery.report import Report
from tests.copies import parent, strangers, sweep
from tests.labs import RATE, lab_apart
from tests.matrix.failing_worker import Failing
from tests.matrix.scenes import around, digest
from tests.running import ROOT, Recovery, Running, eventually, running
from tests.workflows.test_side_copy import restorable

PROGRAM = ["-m", "tests.matrix.failing_worker"]
PATIENT = {"roles": ["dba"], "within": "PT4M", "dark_within": "PT3M"}
SILENT = {"roles": ["dba"], "within": "PT4S", "dark_within": "PT3S"}
RUNBOOKS = ("replace-orders", "extract-orders")


def catalog(folder: Path, **changes: Mapping[str, object]) -> Path:
    """Write the lab's catalog with runbooks that hold for long, ``silent-`` ones, and those of ``changes``.

    A change is named ``base_name``: ``replace_soon`` is the runbook ``soon-replace-orders``.
    """
    shutil.copytree(ROOT / "runbooks" / "lab", folder / "lab")
    for name in RUNBOOKS:
        text = yaml.safe_load((folder / "lab" / f"{name}.yaml").read_text())
        own = {how: change for key, change in changes.items() for base, how in [key.split("_")] if base in name}
        for prefix, change in {"": {"hold": PATIENT}, "silent-": {"hold": SILENT}}.items():
            (folder / "lab" / f"{prefix}{name}.yaml").write_text(yaml.safe_dump(text | change))
        for how, more in own.items():
            (folder / "lab" / f"{how}-{name}.yaml").write_text(yaml.safe_dump(text | {"hold": PATIENT} | dict(more)))
    return folder


@dataclass
class Ground:
    """A lab whose database recoveries replace, again and again; what spoils it has it made anew."""

    folder: Path
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    rate: float = RATE
    _open: AsyncExitStack | None = None
    _lab: Lab | None = None
    _engine: Running | None = None
    _count: int = 0

    @property
    def lab(self) -> Lab:
        """The lab."""
        assert self._lab is not None
        return self._lab

    @property
    def engine(self) -> Running:
        """Its worker and Temporal."""
        assert self._engine is not None
        return self._engine

    @property
    def failing(self) -> Path:
        """The file that says what fails."""
        return self.folder / "failing.json"

    async def ready(self) -> None:
        """Have the lab up, and a worker."""
        if self._open is not None:
            return
        self._count += 1
        self.failing.unlink(missing_ok=True)
        self._open = AsyncExitStack()
        self._lab = self._open.enter_context(lab_apart())
        await asyncio.to_thread(self._lab.up, rate=self.rate)
        catalogs = catalog(self.folder / f"catalogs-{self._count}", **self.changes)
        program = running(self._lab, PROGRAM, FAILING=str(self.failing), RECOVERY_CATALOGS=str(catalogs))
        self._engine = await self._open.enter_async_context(program)

    async def close(self) -> None:
        """Take everything down."""
        if self._open is not None:
            await self._open.aclose()
            self._open = None

    def fail(self, activity: str, point: str = "before", times: int = 1) -> None:
        """Have an activity fail."""
        Failing.model_validate({"activity": activity, "point": point, "times": times}).write(self.failing)

    @contextlib.asynccontextmanager
    async def scene(self) -> AsyncIterator[Scene]:
        """Have one recovery on the ground; whatever goes wrong in the body spoils it."""
        await self.ready()
        try:
            found = await Scene.of(self)
            async with never_two(self.lab):
                yield found
            await self.engine.freed("lab/orders")  # a person has looked at what was left
            self.clear()
            await asyncio.to_thread(back_up, self.lab)
        except BaseException:
            await self.close()
            raise

    def clear(self) -> None:
        """Take away what a recovery that ended well leaves for people."""
        self.failing.unlink(missing_ok=True)
        sweep(self.lab)
        for aside in self.lab.place.north.glob("data.fenced-*"):
            shutil.rmtree(aside)


@dataclass
class Scene:
    """One recovery to a moment, and the world as it was before."""

    ground: Ground
    target: datetime
    deleted: frozenset[int]
    missing: frozenset[int]
    world: Mapping[str, object]

    @classmethod
    async def of(cls, ground: Ground) -> Scene:
        """Choose a moment, have orders deleted after it, and look at the world."""
        target = await restorable(ground.lab)
        # Acknowledged before it: what was only sent before it may have been committed after it.
        sure = [row.number for row in ledger.acknowledged(ground.lab.place.load) if row.acknowledged_at < target]
        with ground.lab.postgres.connect("orders") as connection:
            found = connection.execute("delete from orders where number = any(%s) returning number", (sure[-20:],))
            deleted = frozenset(int(str(row[0])) for row in found)
        assert deleted
        return cls(ground, target, deleted, missing(ground.lab) | deleted, world(ground.lab))

    @property
    def lab(self) -> Lab:
        """The lab."""
        return self.ground.lab

    async def start(self, runbook: str, **fields: str) -> Recovery:
        """Start a recovery, live."""
        return await self.ground.engine.start(runbook=f"lab/{runbook}", target_time=self.target, **fields)

    def lost(self) -> frozenset[int]:
        """Return acknowledged orders that the database has lost since this scene began."""
        return missing(self.lab) - self.missing

    async def unchanged(self) -> None:
        """Assert that the world is as it was, with clients in, and that no order was lost."""
        with contextlib.suppress(AssertionError):
            await eventually(lambda: world(self.lab) == self.world, "the world is as it was", 10, 0.2)
        assert world(self.lab) == self.world
        await writes(self.lab)
        assert self.lost() == frozenset()
        assert self.deleted <= missing(self.lab)


def back_up(lab: Lab) -> None:
    """Take a base backup where there is none of the timeline that the database is on: somebody had it skipped."""
    said = re.search(
        r"Latest checkpoint's TimeLineID: *(\d+)", lab.postgres.run("pg_controldata", "-D", lab.place.data)
    )
    assert said is not None
    labels = [label.read_text() for label in lab.place.backups.glob("*/backup_label")]
    if not any(f"START TIMELINE: {said[1]}\n" in label for label in labels):
        lab.base_backup()


def missing(lab: Lab) -> frozenset[int]:
    """Return the acknowledged orders that the database does not have; read in this order, none is only on its way."""
    acknowledged = {row.number for row in ledger.acknowledged(lab.place.load)}
    with lab.postgres.connect("orders") as connection:
        return frozenset(acknowledged - {int(str(row[0])) for row in connection.execute("select number from orders")})


def world(lab: Lab) -> dict[str, object]:
    """Return what a recovery may change, but for rows and log, which clients change meanwhile."""
    place = lab.place
    return {
        "data": place.data.stat().st_ino if place.data.exists() else None,
        "settings": settings(place.data),
        "folders": sorted(path.name for path in place.north.iterdir() if path.is_dir()),
        **around(lab),
        "backups": {path.name: digest(path / "backup_manifest") for path in sorted(place.backups.iterdir())},
        "timelines": sorted({path.name[:8] for path in place.archive.iterdir() if len(path.name) == 24}),
        "histories": {path.name: digest(path) for path in sorted(place.archive.glob("*.history"))},
        "servers": {str(folder): len(servers(folder)) for folder in (place.data, place.copies)},
        "strangers": strangers(lab),
        "admitted": admitted(lab),
    }


def settings(data: Path) -> dict[str, tuple[str, int, int]]:
    """Return the configuration in a data directory: content, rights and owner of each file."""
    files = sorted(data.glob("*.conf"))
    return {file.name: (digest(file), file.stat().st_mode, file.stat().st_uid) for file in files}


def servers(folder: Path) -> list[processes.Process]:
    """Return the servers that work in a folder, one process each."""
    found = processes.postgres_in(folder)
    pids = {process.pid for process in found} | {0}  # one that has just ended has no parent
    return [process for process in found if parent(process.pid) not in pids]


def admitted(lab: Lab) -> bool:
    """Tell whether a client gets in where clients look for the database."""
    where = {"host": "127.0.0.1", "port": str(lab.ports["postgres"]), "dbname": "orders", "user": "app"}
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(**where, password=lab.passwords["app"], connect_timeout=5).close()  # type: ignore[arg-type]
        return True
    return False


async def writes(lab: Lab) -> None:
    """Wait until another order was acknowledged."""
    before = ledger.count(lab.place.load / "acknowledged.jsonl")
    await eventually(
        lambda: ledger.count(lab.place.load / "acknowledged.jsonl") > before, "an order is acknowledged", 20
    )


@contextlib.asynccontextmanager
async def never_two(lab: Lab) -> AsyncIterator[None]:
    """Look all the time that never two servers work in what is, or was, the running database's place."""
    twice: list[object] = []

    def look() -> None:
        asides = lab.place.north.glob("data.fenced-*")
        found = {pid.pid for folder in (lab.place.data, *asides) for pid in servers(folder)}
        if len(found) > 1:
            # A server that is just being renamed along with its folder is seen in both.
            again = {pid.pid: folder for folder in (lab.place.data, *asides) for pid in servers(folder)}
            if len(again) > 1:
                twice.append(again)

    async def watch() -> None:
        while True:
            await asyncio.to_thread(look)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    try:
        yield
        assert twice == []
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def figures(report: Report) -> dict[str, object]:
    """Return what was measured, by name."""
    return {figure.name: figure.value for figure in report.figures}
