"""For how long a planned switch refuses clients, beside a bare script of the same actions, by their own record."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from temporalio.client import Client

from bench.restore import worker
from lab import ledger
from lab.addresses import linked, other
from lab.director import UPSTREAMS
from lab.estate import Lab
from lab.place import SITES, environment, runner
from lab.site import Site
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.models import Decision, Start
from recovery.report import Report
from recovery.settings import Settings

ROUNDS = 4
RATE = 50
"""Orders a second: the record is as fine as the time between two of them."""


async def measure() -> dict[str, float]:
    """Return the seconds from the first refused order to the next one taken, of both, interleaved, there and back."""
    with lab_apart() as lab:
        variables = {"RECOVERY_STATE": str(lab.state)}
        settings = Settings.from_environment({**os.environ, **variables})
        async with Keeper(settings) as endpoint:
            client = await connect(settings, endpoint)
            with ExitStack() as stack:
                for site in SITES:
                    working = worker({**variables, "RECOVERY_SITE": site})
                    stack.callback(working.wait)
                    stack.callback(working.terminate)
                engine, bare = [], []
                for turn in range(ROUNDS + 1):
                    times = await asyncio.to_thread(_bare, lab), await _engine(client, lab)
                    if turn:  # the first round warms up
                        bare.append(times[0])
                        engine.append(times[1])
    seconds, script = median(engine), median(bare)
    return {
        "bare script, clients refused, s": round(script, 2),
        "switch, clients refused, s": round(seconds, 2),
        "ratio": round(seconds / script, 2),
        "seconds beyond 1.3 times the script (goal: at most 1)": round(seconds - 1.3 * script, 2),
    }


@contextmanager
def lab_apart() -> Iterator[Lab]:
    """Have a lab of two sites of one's own, under load."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    folder.chmod(0o755)  # the lab's servers run as another user under root
    lab = Lab(folder / "lab", folder / "state")
    try:
        lab.up(south=True, rate=RATE)
        yield lab
    finally:
        lab.down()
        shutil.rmtree(folder)


def _bare(lab: Lab) -> float:
    """Switch by hand: nothing is looked at, nothing is proven, nothing could be undone."""
    old = lab.sites[lab.primary.place.site]
    new = lab.sites[other(old.name)]
    began = _settled(lab)
    point(lab, [])
    run(old, str(old.service.script), "stop")
    old.postgres.run("pg_ctl", "-D", old.place.data, "-w", "-m", "fast", "stop")
    new.postgres.run("pg_ctl", "-D", new.place.data, "-w", "promote")
    store(lab, new, "replicaof", "no", "one")
    run(new, str(new.service.script), "start")
    point(lab, [{"dial": f"127.0.0.1:{new.port('orders')}"}])
    _follow(lab, old, new)
    return _refused(lab, began)


def _follow(lab: Lab, old: Site, new: Site) -> None:
    """Make the old site the replica of the new one, and wait until it is."""
    with (old.place.data / "postgresql.auto.conf").open("a") as file:
        file.write(f"primary_conninfo = '{new.postgres.upstream(old.place)}'\n")
    signal = old.place.data / "standby.signal"
    signal.touch()
    old.who.own(signal)
    old.postgres.run("pg_ctl", "-D", old.place.data, "-w", "-l", old.place.folder / "postgres.log", "start")
    store(lab, old, "replicaof", "127.0.0.1", str(lab.ports[linked(new.name, "valkey")]))
    deadline = time.monotonic() + 30
    while not replicated(lab, old, new):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{old.name} does not replicate {new.name}")
        time.sleep(0.1)


def replicated(lab: Lab, old: Site, new: Site) -> bool:
    """Tell whether the old site replicates the new one."""
    with new.postgres.connect("orders") as connection:
        row = connection.execute("select count(*) from pg_stat_replication where state = 'streaming'").fetchone()
    return row == (1,) and "master_link_status:up" in store(lab, old, "info", "replication")


def point(lab: Lab, upstreams: list[dict[str, str]]) -> None:
    """Point the director, by its admin API."""
    headers = {"Content-Type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", lab.ports["director-admin"], timeout=10)) as asked:
        asked.request("PATCH", UPSTREAMS, json.dumps(upstreams), headers)
        if (status := asked.getresponse().status) != 200:
            raise RuntimeError(f"the director answers {status}")


def store(lab: Lab, site: Site, *words: str) -> str:
    """Run a store's command line at a site, and return what it printed."""
    return run(site, str(lab.place.programs / "valkey-cli"), "-p", str(site.port("valkey")), *words)


def run(site: Site, *words: str) -> str:
    """Run a command as a host of the site does, and return what it printed."""
    env = environment(site.place, {"REDISCLI_AUTH": site.passwords["valkey"]})
    output: str = subprocess.run(
        words, cwd=site.place.home, env=env, check=True, capture_output=True, text=True, **runner().drop()
    ).stdout
    return output


async def _engine(client: Client, lab: Lab) -> float:
    began = await asyncio.to_thread(_settled, lab)
    await activated(client, other(lab.primary.place.site))
    return await asyncio.to_thread(_refused, lab, began)


async def activated(client: Client, site: str) -> Report:
    """Activate a site of the lab, approved as soon as people are asked; raises RuntimeError where it fails before."""
    start = Start(runbook=f"lab/activate-{site}", reason="bench", parameters={"watch": "PT0S"})
    handle = await client.start_workflow(
        "DataCenterActivation", start, id="lab/orders", task_queue="recovery", result_type=Report
    )
    while True:
        report: Report = await handle.query("status", result_type=Report)
        if report.outcome not in ("running", "recovered"):
            raise RuntimeError(report.failure)
        if report.phase.startswith("gate"):
            break
        await asyncio.sleep(0.05)
    gate = report.gates[0]
    decision = Decision(gate=gate.gate, by="bob", plan=gate.plan, evidence=gate.evidence)
    await handle.execute_update("decide", decision)
    found: Report = await handle.result()
    return found


def _settled(lab: Lab) -> datetime:
    """Return a moment after which nothing of the last switch is written down any more."""
    time.sleep(2)
    return datetime.now(UTC)


def _refused(lab: Lab, since: datetime) -> float:
    time.sleep(1)  # orders after the end
    return ledger.refused_for(lab.place.load, since)
