"""Two sites under load, with a worker each, on which recoveries switch there and back; and what each has to leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError

from lab import addresses, ledger
from lab.estate import Lab
from lab.place import SITES
from recovery.report import Report
from tests.labs import lab_apart
from tests.matrix import two_sites
from tests.matrix.cells import recorded
from tests.matrix.failing_worker import Failing
from tests.matrix.ground import PATIENT, SILENT
from tests.matrix.nursery import Nursed, Nursery
from tests.running import ROOT, Recovery, Running, eventually, running

PROCEDURE = "DataCenterActivation"
PATIENCE = 240.0
"""Seconds in which a switch has to end, on a machine that has other work to do."""


def catalog(folder: Path) -> Path:
    """Write the lab's catalog with runbooks that hold for long, and ``silent-`` ones."""
    shutil.copytree(ROOT / "runbooks" / "lab", folder / "lab")
    for site in SITES:
        text = yaml.safe_load((folder / "lab" / f"activate-{site}.yaml").read_text())
        text["parameters"]["watch"] = "PT1S"
        del text["parameters"]["fence_by"]  # so that what is answered is what every recovery can be answered
        for prefix, hold in {"": PATIENT, "silent-": SILENT}.items():
            (folder / "lab" / f"{prefix}activate-{site}.yaml").write_text(yaml.safe_dump(text | {"hold": hold}))
    return folder


class Crash(NamedTuple):
    """A worker killed at ``point`` of an activity of a ``procedure`` (a pattern), so many seconds into it."""

    procedure: str
    activity: str
    point: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.procedure}: {self.activity} {self.point}"

    def words(self, once: Path) -> dict[str, str]:
        """Return what a worker reads; it makes the file ``once`` when it strikes."""
        said = {"HURT_WORKFLOW": self.procedure, "HURT_ACTIVITY": self.activity, "HURT_POINT": self.point}
        return said | {"HURT_SECONDS": str(self.seconds), "HURT_ONCE": str(once)}


@dataclass
class Pitch:
    """A lab of two sites on which recoveries switch again and again; what spoils it has it made anew."""

    folder: Path
    rate: float = 50
    at_first: Mapping[str, Any] | None = None
    away: set[str] = field(default_factory=set)
    """Sites that are lost: their workers stay down."""
    _open: AsyncExitStack | None = None
    _lab: Lab | None = None
    _engines: tuple[Running, ...] = ()
    _count: int = 0
    _planned: dict[Crash, Path] = field(default_factory=dict)

    @property
    def lab(self) -> Lab:
        """The lab."""
        assert self._lab is not None
        return self._lab

    @property
    def engine(self) -> Running:
        """Its Temporal, and the worker of north."""
        return self._engines[0]

    def catalog(self, folder: Path) -> Path:
        """Write the catalog of its recoveries."""
        return catalog(folder)

    async def furnish(self, until: AsyncExitStack, folder: Path, catalogs: Path) -> None:
        """Run what the lab has besides, ``until`` it is taken down, and write that into the catalog."""

    def shown(self) -> dict[str, object]:
        """Return all that a recovery changes, and all that it must leave as it was."""
        return two_sites.shown(self.lab)

    def proper(self, where: str) -> dict[str, object]:
        """Return what there has to be where ``where`` is active."""
        return two_sites.proper(self.lab, where, self.at_first or {})

    async def ready(self) -> None:
        """Have the lab up, and a worker at each site."""
        if self._open is not None:
            return
        self._count += 1
        own = self.folder / str(self._count)
        catalogs = self.catalog(own / "catalogs")
        self._plan, self._failing, self._struck = own / "hurt.json", own / "failing.json", own / "struck"
        self._struck.mkdir()
        self._open = AsyncExitStack()
        self._lab = self._open.enter_context(lab_apart())
        await asyncio.to_thread(self._lab.up, south=True, rate=self.rate)
        await self.furnish(self._open, own, catalogs)
        self.at_first = await asyncio.to_thread(self.shown)
        given = {"HURT_PLAN": self._plan, "FAILING": self._failing, "RECOVERY_CATALOGS": catalogs}
        more = {name: str(path) for name, path in given.items()}
        found = await self._open.enter_async_context(running(self._lab, None, False, **more))
        nursery = Nursery.opened()
        self._open.callback(nursery.close)
        self._engines = tuple(
            Nursed(found.client, found.settings, {**found.environment, "RECOVERY_SITE": site}, nursery=nursery)
            for site in SITES
        )
        for engine in self._engines:
            self._open.callback(engine.kill_worker)  # waits for its end: until then it keeps Temporal
            engine.start_worker()

    async def close(self) -> None:
        """Take everything down."""
        if self._open is not None:
            self._engines = ()  # first: who starts killed workers anew must not start these
            await self._open.aclose()
            self._open = None

    def fail(self, activity: str, point: str = "before") -> None:
        """Have an activity fail for good, once."""
        Failing.model_validate({"activity": activity, "point": point}).write(self._failing)

    def hurt(self, activity: str, point: str, seconds: float) -> None:
        """Have the worker that runs an activity killed, once."""
        self.hurt_all([Crash("*", activity, point, seconds)])

    def hurt_all(self, crashes: Sequence[Crash]) -> None:
        """Have the workers that run these activities killed, once at each."""
        self.unhurt()
        self._planned = {crash: self._struck / str(number) for number, crash in enumerate(crashes)}
        whole = self._plan.with_suffix(".new")  # workers read it while it is written
        whole.write_text(json.dumps([crash.words(once) for crash, once in self._planned.items()]))
        whole.replace(self._plan)

    def struck(self) -> bool:
        """Tell whether a worker was killed at each."""
        return not self.spared()

    def spared(self) -> list[Crash]:
        """Return what was planned, and has not struck."""
        return [crash for crash, once in self._planned.items() if not once.exists()]

    @contextlib.asynccontextmanager
    async def scene(self) -> AsyncIterator[Match]:
        """Have one recovery on the pitch; whatever goes wrong in the body spoils it."""
        await self.ready()
        try:
            async with self._workers_back(), two_sites.never_two(self.lab):
                yield await asyncio.to_thread(Match.of, self)
        except BaseException:
            await self.close()
            raise
        finally:
            self.unhurt()

    def unhurt(self) -> None:
        """Have nothing be hurt any more, and nothing fail."""
        for file in (self._plan, self._failing, *self._planned.values()):
            file.unlink(missing_ok=True)
        self._planned = {}

    @contextlib.asynccontextmanager
    async def _workers_back(self) -> AsyncIterator[None]:
        """Start each worker that was killed anew, while the body runs, unless its site is lost."""

        async def look() -> None:
            while True:
                for site, engine in zip(SITES, self._engines, strict=False):  # none once it is closed
                    if engine.died() == -signal.SIGKILL and site not in self.away:
                        engine.start_worker()
                await asyncio.sleep(0.1)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()


@dataclass
class Match:
    """One recovery, from the site that is active to the other one, and what was so before."""

    pitch: Pitch
    old: str
    timeline: int
    acknowledged: int
    counted: int
    began: datetime

    @classmethod
    def of(cls, pitch: Pitch) -> Match:
        """Look at what is so now."""
        lab = pitch.lab
        acknowledged = ledger.count(lab.place.load / "acknowledged.jsonl")
        counted = two_sites.counted(lab)
        return cls(pitch, two_sites.active(lab), two_sites.timeline(lab), acknowledged, counted, datetime.now(UTC))

    @property
    def lab(self) -> Lab:
        """The lab."""
        return self.pitch.lab

    @property
    def new(self) -> str:
        """The site to activate."""
        return addresses.other(self.old)

    async def start(self, prefix: str = "") -> Recovery:
        """Start it, live."""
        start = {"runbook": f"lab/{prefix}activate-{self.new}", "reason": "a test", "requested_by": "alice"}
        queue = self.pitch.engine.settings.task_queue
        return Recovery(
            await self.pitch.engine.client.start_workflow(PROCEDURE, start, id="lab/orders", task_queue=queue)
        )

    async def switched(self, report: Report) -> None:
        """Assert that the other site is active, the old one its replica, and nothing is lost or left."""
        assert (report.outcome, report.residual) == ("recovered", ()), (report.failure, self.pitch.engine.log()[-3000:])
        await self.stands(self.new, 1)

    async def unchanged(self) -> None:
        """Assert that everything is as it was."""
        await self.stands(self.old, None)

    async def stands(self, where: str, promotions: int | None) -> None:
        """Assert that ``where`` is active, after so many promotions (None: as many as went back again)."""
        lab = self.lab
        wanted = self.pitch.proper(where)

        async def wrong() -> dict[str, object]:
            return two_sites.differs(wanted, await asyncio.to_thread(self.pitch.shown))

        async def right() -> bool:
            return not await wrong()

        with contextlib.suppress(AssertionError):
            await eventually(right, "everything is as it has to be", 15, pause=0.3)
        assert not (left := await wrong()), left
        await two_sites.orders_are_right(lab, self.acknowledged)
        if promotions is not None:
            assert two_sites.timeline(lab) - self.timeline == promotions
        assert two_sites.counted(lab) >= self.counted
        await self._free()

    async def _free(self) -> None:
        """Assert that no workflow of it is open."""

        async def still() -> list[str]:
            found = self.pitch.engine.client.list_workflows(
                "ExecutionStatus = 'Running' and WorkflowType != 'SystemLease'"
            )
            return [run.id async for run in found]

        async def nothing() -> bool:
            return not await still()

        await eventually(nothing, "no workflow is open", 10)


async def decided(recovery: Recovery, seconds: float = PATIENCE) -> Report:
    """Approve at the gate, again if the answer was lost on its way, and wait for the end; nothing may be held."""
    async with asyncio.timeout(seconds):
        while (report := await recovery.status()) is None or report.outcome == "running":
            assert report is None or report.hold is None, f"held: {report.hold}"
            if report and report.phase.startswith("gate"):
                with contextlib.suppress(RPCError, WorkflowUpdateFailedError, AssertionError):
                    await recovery.approve()
            await asyncio.sleep(0.1)
    return await recovery.ended(seconds)


async def steps(recovery: Recovery) -> dict[str, float]:
    """Return the activities of a recovery that has ended, with the seconds that each ran."""
    return recorded(await recovery.handle.fetch_history())


def same_way(name: str) -> str:
    """Return an activity's name without which way it goes, so that those of both ways can be compared."""
    return re.sub(
        r"cluster-(north|south)|orders-south|sessions-south|orders-app-(north|south)|north|south|orders|sessions",
        "*",
        name,
    )
