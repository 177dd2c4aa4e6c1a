"""For how long nobody takes orders once everything at a site was killed, beside a bare script, by clients' record."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from datetime import UTC, datetime
from statistics import median

from temporalio.client import Client, WorkflowFailureError

from bench.restore import begun, worker
from bench.switch import lab_apart, point, replicated, run, store
from lab import ledger
from lab.addresses import linked, other
from lab.estate import Lab
from lab.place import SITES
from lab.site import Site
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.models import Decision, Start
from recovery.report import Report
from recovery.settings import Settings

ROUNDS = 3


async def measure() -> dict[str, float]:
    """Return the seconds from the first refused order to the next one taken, people left out, interleaved."""
    with lab_apart() as lab:
        variables = {"RECOVERY_STATE": str(lab.state)}
        settings = Settings.from_environment({**os.environ, **variables})
        async with Keeper(settings) as endpoint:
            client = await connect(settings, endpoint)
            engine, bare = [], []
            for turn in range(ROUNDS + 1):
                times = await asyncio.to_thread(_bare, lab), await _engine(client, lab, variables)
                if turn:  # the first round warms up
                    bare.append(times[0])
                    engine.append(times[1])
    seconds, script = median(engine), median(bare)
    return {
        "bare script, no order taken, s": round(script, 2),
        "taking over, no order taken, s": round(seconds, 2),
        "ratio": round(seconds / script, 2),
        "seconds beyond 1.3 times the script (goal: at most 1)": round(seconds - 1.3 * script, 2),
    }


def _bare(lab: Lab) -> float:
    """Take over by hand: nothing is looked at, nothing is proven."""
    old, new = _sites(lab)
    began = _lose(lab, old)
    point(lab, [])
    new.postgres.run("pg_ctl", "-D", new.place.data, "-w", "promote")
    store(lab, new, "replicaof", "no", "one")
    run(new, str(new.service.script), "start")
    point(lab, [{"dial": f"127.0.0.1:{new.port('orders')}"}])
    return _rebuilt(lab, old, new, began)


async def _engine(client: Client, lab: Lab, variables: dict[str, str]) -> float:
    old, new = _sites(lab)
    workers = {site: worker({**variables, "RECOVERY_SITE": site}) for site in SITES}
    try:
        for one in workers.values():  # nothing that is measured waits for a worker that starts
            await asyncio.to_thread(begun, one)
        workers[old.name].kill()
        began = await asyncio.to_thread(_lose, lab, old)
        start = Start(
            runbook=f"lab/take-over-{new.name}", reason="bench", parameters={"watch": "PT0S"}, outage_started_at=began
        )
        handle = await client.start_workflow("DataCenterActivation", start, id="lab/orders", task_queue="recovery")
        while (report := await handle.query("status", result_type=Report)).outcome == "running":
            if report.phase.startswith("gate"):
                gate = next(one for one in report.gates if not one.decisions)
                decision = Decision(gate=gate.gate, by="bob", plan=gate.plan, evidence=gate.evidence)
                await handle.execute_update("decide", decision)
            await asyncio.sleep(0.05)
        if report.outcome != "recovered":
            raise RuntimeError(report.failure)
        watch = client.get_workflow_handle(f"lab/fence-{old.name}")
        await watch.cancel()  # not terminated: that would leave what it has in hand to nobody
        with contextlib.suppress(WorkflowFailureError):
            await watch.result()
        for kept in new.place.folder.glob("data.switch-*"):
            shutil.rmtree(kept)
        refused = await asyncio.to_thread(_rebuilt, lab, old, new, began)
        return refused - float(report.clock.people)
    finally:
        for one in workers.values():
            one.terminate()
            one.wait()


def _sites(lab: Lab) -> tuple[Site, Site]:
    old = lab.sites[lab.primary.place.site]
    return old, lab.sites[other(old.name)]


def _lose(lab: Lab, old: Site) -> datetime:
    time.sleep(2)  # nothing of the last round is written down any more
    began = datetime.now(UTC)
    lab.break_(old.name)
    return began


def _rebuilt(lab: Lab, old: Site, new: Site, began: datetime) -> float:
    """Return for how long orders were refused; then have the lost site be a replica, built anew."""
    time.sleep(1)  # orders after the end
    refused = ledger.refused_for(lab.place.load, began)
    lab.heal()
    run(old, str(old.service.script), "stop")
    shutil.rmtree(old.place.data)
    old.postgres.clone(new.postgres)
    old.postgres.start()
    store(lab, old, "replicaof", "127.0.0.1", str(lab.ports[linked(new.name, "valkey")]))
    store(lab, old, "config", "set", "min-replicas-to-write", "0")  # its start-up had it shut
    store(lab, old, "config", "rewrite")
    deadline = time.monotonic() + 30
    while not replicated(lab, old, new):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{old.name} does not replicate {new.name}")
        time.sleep(0.1)
    return refused
