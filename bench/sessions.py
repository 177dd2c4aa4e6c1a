"""What a check of 100,000 sessions takes, and what a client of the store notices of it, interleaved."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from contextlib import ExitStack
from multiprocessing.synchronize import Event
from statistics import median

import valkey
from temporalio.client import Client

from bench.restore import worker
from bench.switch import lab_apart
from lab.estate import Lab
from lab.place import SITES
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.models import Start
from recovery.report import Report
from recovery.settings import Settings

SESSIONS = 100_000
RATE = 1000
"""Sessions a second that the client writes; each takes its turn, so that one that is late is seen."""
ROUNDS = 8
Noticed = tuple[float, float]
"""Sessions a second, and the 99th percentile of the time that one took, in milliseconds."""


async def measure() -> dict[str, float]:
    """Return the seconds of a check, and how a client's throughput and p99 are beside those without one (ABAB)."""
    with lab_apart() as lab, ExitStack() as stack:
        variables = {"RECOVERY_STATE": str(lab.state)}
        settings = Settings.from_environment({**os.environ, **variables})
        _fill(lab)
        async with Keeper(settings) as endpoint:
            client = await connect(settings, endpoint)
            for site in SITES:
                working = worker({**variables, "RECOVERY_SITE": site})
                stack.callback(working.wait)
                stack.callback(working.terminate)
            took, without, beside = [], list[Noticed](), list[Noticed]()
            await _checked(client)  # it warms up
            for _ in range(ROUNDS):
                seconds, noticed = await _written(lab, client)
                took.append(seconds)
                beside.append(noticed)
                without.append((await _written(lab, None, seconds))[1])
    rate, slow = (median(one[at] for one in beside) / median(one[at] for one in without) for at in (0, 1))
    return {
        "check of 100,000 sessions with its sample, s (goal: under 5)": round(median(took), 2),
        "p99 of a client without a check, ms": round(median(one[1] for one in without), 2),
        "p99 beside a check, ratio (goal: at most 1.03)": round(slow, 3),
        "throughput beside a check, ratio (goal: at least 0.97)": round(rate, 3),
    }


def _fill(lab: Lab) -> None:
    with _store(lab) as client:
        pipe = client.pipeline(transaction=False)
        for number in range(SESSIONS):
            pipe.set(f"session:{number}", "x" * 200, ex=7200)
            if number % 5000 == 4999:
                pipe.execute()
        pipe.execute()
        client.wait(1, 10_000)


def _store(lab: Lab) -> valkey.Valkey:
    site = lab.sites[SITES[0]]
    return valkey.Valkey(port=site.port("valkey"), password=site.passwords["valkey"], socket_timeout=5)


async def _checked(client: Client) -> float:
    start = Start(runbook="lab/check-sessions", reason="bench")
    began = time.monotonic()
    handle = await client.start_workflow(
        "SessionReplicationCheck", start, id="lab/check-sessions", task_queue="recovery", result_type=Report
    )
    report: Report = await handle.result()
    if report.blockers:
        raise RuntimeError(report.blockers)
    return time.monotonic() - began


async def _written(lab: Lab, client: Client | None, seconds: float = 0) -> tuple[float, Noticed]:
    """Return how long a check took, or so many seconds without one, and what a client noticed meanwhile."""
    here = multiprocessing.get_context("spawn")
    site = lab.sites[SITES[0]]
    told = here.Queue()
    stopped = here.Event()
    writer = here.Process(target=_write, args=(site.port("valkey"), site.passwords["valkey"], stopped, told))
    writer.start()
    await asyncio.to_thread(told.get)  # it has begun
    if client is None:
        await asyncio.sleep(seconds)
        took = seconds
    else:
        took = await _checked(client)
    stopped.set()
    found: Noticed = await asyncio.to_thread(told.get)
    writer.join()
    return took, found


def _write(port: int, password: str, stop: Event, told: multiprocessing.Queue[object]) -> None:
    with valkey.Valkey(port=port, password=password, socket_timeout=5) as client:
        client.set("session:0", "y")
        told.put("begun")
        times: list[float] = []
        began = turn = time.perf_counter()
        while not stop.is_set():
            turn += 1 / RATE
            if (early := turn - time.perf_counter()) > 0:
                time.sleep(early)
            sent = time.perf_counter()
            client.set(f"session:{len(times) * 7919 % SESSIONS}", "y" * 200, ex=7200)
            times.append(time.perf_counter() - sent)
        lasted = time.perf_counter() - began
    told.put((len(times) / lasted, sorted(times)[len(times) * 99 // 100] * 1000))
