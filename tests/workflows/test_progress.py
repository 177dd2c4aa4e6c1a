"""A restore that may not write as fast as it could: how far it is shows everywhere, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from temporalio.api.enums.v1 import EventType
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowHistory
from temporalio.service import RPCError

from console.reports import fetch
from console.runs import describe
from lab.estate import Lab
from recovery.progress import MOST, Progress
from recovery.report import Report
from tests.conftest import FreshLab
from tests.copies import drop_all, orders_in_copy, strangers
from tests.running import ROOT, SLOWER, Recovery, Running, eventually, running
from tests.workflows.test_side_copy import acknowledged, restorable

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = 45
"""For how long the files of the backup are to be written."""


@pytest.fixture(scope="module")
def lab(fresh_labs: FreshLab) -> Lab:
    """A lab of these tests alone: its catalog has a rate."""
    lab = fresh_labs()
    lab.up()
    lab.base_backup()
    return lab


@pytest.fixture(scope="module")
def rate(lab: Lab) -> int:
    """The bytes a second at which the newest backup takes its time."""
    newest = max((lab.place.north / "backups").iterdir(), key=lambda folder: folder.stat().st_mtime)
    return sum(file.stat().st_blocks * 512 for file in newest.rglob("*")) // SECONDS


@pytest.fixture(scope="module")
def catalogs(rate: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's catalog with that rate."""
    folder = tmp_path_factory.mktemp("catalogs")
    shutil.copytree(ROOT / "runbooks" / "lab", folder / "lab")
    estate = yaml.safe_load((folder / "lab" / "estate.yaml").read_text())
    estate["databases"]["orders"]["io_rate"] = f"{rate // 1024}KiB"
    (folder / "lab" / "estate.yaml").write_text(yaml.safe_dump(estate))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, catalogs: Path) -> AsyncIterator[Running]:
    async with running(lab, RECOVERY_CATALOGS=str(catalogs)) as found:
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _no_copies(lab: Lab, engine: Running) -> AsyncIterator[None]:
    yield
    drop_all(lab)


def starter(engine: Running, *words: str) -> subprocess.Popen[str]:
    """Begin a command of the command line."""
    command = [sys.executable, str(ROOT / "starter.py"), *words]
    environment = {**os.environ, **engine.environment}
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def said(running: subprocess.Popen[str]) -> str:
    """Wait for its end, and return what it printed."""
    return running.communicate(timeout=60)[0]


def signals(history: WorkflowHistory) -> int:
    """Count what the run heard of its progress."""
    return sum(event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED for event in history.events)


async def seen(engine: Running) -> Report | None:
    """Return the report as `status` and `watch` have it, None while nobody can answer."""
    with suppress(RPCError):
        found = await fetch(engine.client, await describe(engine.client, "lab/orders"))
        return found.report if not found.remark else None
    return None


def moving(report: Report | None) -> Progress | None:
    """Return how far the step is that tells it."""
    return next((line.progress for line in report.steps if line.progress), None) if report else None


async def told(engine: Running, so: str, seconds: float = 60) -> Progress:
    """Return what is told first that has a value in the field ``so``."""

    async def look() -> Progress | None:
        found = moving(await seen(engine))
        return found if found and getattr(found, so) is not None else None

    found: Progress = await eventually(look, f"its progress is told, with {so}", seconds)
    return found


async def details(recovery: Recovery) -> str:
    """Return what the Temporal UI shows as current details."""
    with suppress(RPCError):
        answer = await recovery.handle.query(
            "__temporal_workflow_metadata", result_type=WorkflowMetadata, rpc_timeout=timedelta(seconds=5)
        )
        return str(answer.current_details)
    return ""


LINE = re.compile(
    r"^lay down backup \w+\.\w+: \*\*\d+\.\d [KM]iB of \d+\.\d MiB \(\d+ %\), \d+\.\d [KM]iB/s,"
    r" ends about \d\d:\d\d:\d\d UTC, as of \d\d:\d\d:\d\d\*\*$",
    re.MULTILINE,
)


@pytest.mark.drawn
async def test_progress_shows_wherever_somebody_looks(lab: Lab, engine: Running, rate: int) -> None:
    recovery = await engine.start("live", target_time=await restorable(lab))
    watching = starter(engine, "watch", "lab/orders")
    first = await told(engine, "ends")
    assert first.total is not None
    assert abs(first.total - SECONDS * rate) < rate
    assert first.ends is not None
    assert first.ends > first.at
    status = json.loads(said(starter(engine, "status", "lab/orders", "--json")))
    shown = Progress.model_validate(next(line for line in status["steps"] if line["progress"])["progress"])
    assert shown.at >= first.at
    page = said(starter(engine, "status", "lab/orders"))
    assert re.search(r"lay down backup .* MiB \(\d+ %\), .*/s, ends about ", page)

    async def told_in_details() -> bool:
        return LINE.search(await details(recovery)) is not None

    await eventually(told_in_details, "the details tell it", 40)

    async def further() -> Progress | None:  # what was too much before it could be held back is made up for first
        found = moving(await seen(engine))
        return found if found and found.done > first.done else None

    later: Progress = await eventually(further, "it goes on", 40)
    assert later.done <= rate * ((later.at - first.at).total_seconds() + 2) + first.done, "no faster than it may"
    report = await recovery.until("gate")
    assert moving(report) is None
    took = next((line.ended - line.began).total_seconds() for line in report.steps if line.step.startswith("lay"))
    assert SECONDS * 0.8 < took < SECONDS * SLOWER
    assert not LINE.search(await details(recovery))
    history = await recovery.handle.fetch_history()
    assert 1 <= signals(history) <= MOST
    assert len(history.events) < 80 + 4 * MOST
    await recovery.handle.cancel()
    assert (await recovery.ended()).outcome == "cancelled"
    lines = re.findall(r"… lay down backup .* of .* MiB \(\d+ %\), ", said(watching))
    assert SECONDS // 10 <= len(lines) <= SECONDS * SLOWER // 10 + 2


@pytest.mark.drawn
async def test_progress_goes_on_with_the_next_worker(lab: Lab, engine: Running) -> None:
    target = await restorable(lab)
    recovery = await engine.start("live", target_time=target)
    first = await told(engine, "rate")
    engine.kill_worker()
    at = datetime.now(UTC)
    engine.start_worker()

    async def goes_on() -> Progress | None:
        found = moving(await seen(engine))
        return found if found and found.at > at and found.rate else None

    then: Progress = await eventually(goes_on, "the next worker tells it before the step ends", 40)
    assert then.done >= first.done, "the job went on, nothing was begun anew"
    assert then.total == first.total
    await recovery.approve()
    report = await recovery.ended()
    assert report.outcome == "recovered", report.failure
    assert {number for number, when in acknowledged(lab).items() if when < target} <= orders_in_copy(lab)
    assert signals(await recovery.handle.fetch_history()) <= MOST


async def test_cancelled_while_it_is_held_back_leaves_nothing(lab: Lab, engine: Running) -> None:
    recovery = await engine.start("live", target_time=await restorable(lab))
    await told(engine, "total")
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert (report.outcome, report.residual) == ("cancelled", ())
    assert [found.name for folder in (lab.place.copies, lab.place.jobs) for found in folder.glob("[!.]*")] == []
    await eventually(lambda: strangers(lab) == [], "nothing of it runs")
