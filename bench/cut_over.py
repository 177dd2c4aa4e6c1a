"""For how long clients are shut out by a cut-over, beside the printed runbook as a bare script, by their own record."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any

from temporalio.client import Client, WorkflowHandle

from bench.restore import lab_apart, printed, worker
from lab import ledger, processes
from lab.estate import Lab
from lab.place import environment, runner
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.models import Decision, Start
from recovery.report import Report
from recovery.settings import Settings

ROUNDS = 3
RUNBOOK = "lab/replace-orders"


async def measure() -> dict[str, float]:
    """Return the seconds between the last order before and the first one after, of both, interleaved."""
    with lab_apart() as lab:
        variables = {"RECOVERY_STATE": str(lab.state)}
        settings = Settings.from_environment({**os.environ, **variables})
        async with Keeper(settings) as endpoint:
            client = await connect(settings, endpoint)
            working = worker(variables)
            try:
                engine, bare = [], []
                for _ in range(ROUNDS):
                    bare.append(await asyncio.to_thread(_bare, lab))
                    engine.append(await _engine(client, lab))
            finally:
                working.terminate()
                working.wait()
    return {
        "bare script, clients shut out, s": round(median(bare), 2),
        "recovery, clients shut out, s": round(median(engine), 2),
        "ratio": round(median(engine) / median(bare), 2),
    }


def _target(lab: Lab) -> datetime:
    """Return a moment that can be restored: after the newest backup and two seconds of orders."""
    time.sleep(3)
    target = datetime.now(UTC)
    time.sleep(1.5)  # a moment is final a second later
    return target


def _bare(lab: Lab) -> float:
    text = printed(lab, RUNBOOK, _target(lab))
    began = datetime.now(UTC)
    subprocess.run(
        ["sh", "-s"], input=text, text=True, cwd="/", check=True, capture_output=True,
        env=environment(lab.place, {"DECIDED": "bench"}), **runner().drop(),
    )  # fmt: skip
    return _gap(lab, began)


async def _engine(client: Client, lab: Lab) -> float:
    start = Start(runbook=RUNBOOK, reason="bench", parameters={"target_time": _target(lab).isoformat()})
    began = datetime.now(UTC)
    handle = await client.start_workflow("DatabasePointInTimeRestore", start, id="lab/orders", task_queue="recovery")
    while not (report := await _report(handle)).phase.startswith("gate"):
        await asyncio.sleep(0.05)
    gate = report.gates[0]
    decision = Decision(gate=gate.gate, by="bob", plan=gate.plan, evidence=gate.evidence)
    await handle.execute_update("decide", decision)
    await handle.result()
    return _gap(lab, began)


async def _report(handle: WorkflowHandle[Any, Any]) -> Report:
    report: Report = await handle.query("status", result_type=Report)
    if report.outcome not in ("running", "recovered"):
        raise RuntimeError(report.failure)
    return report


def _gap(lab: Lab, began: datetime) -> float:
    """Return the longest time without an acknowledged order since ``began``; take away what was put aside."""
    time.sleep(1)  # orders after the end
    times = sorted(row.acknowledged_at for row in ledger.acknowledged(lab.place.load) if row.acknowledged_at >= began)
    longest = max((b - a).total_seconds() for a, b in pairwise(times))
    live = {process.pid for process in processes.postgres_in(lab.place.data)}
    assert live, "the restored database serves"
    for folder in (*lab.place.copies.iterdir(), *lab.place.north.glob("data.fenced-*")):
        shutil.rmtree(folder)
    return longest
