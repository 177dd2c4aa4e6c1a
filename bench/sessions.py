"""What a check of 100,000 sessions takes, and what a client of the store notices of it, interleaved.

Measured twice in the same run: with everything on whatever core is free, and with the store and its client on a core
of their own, as where the engine does not run on the store's machine. Both need two cores.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import valkey
from temporalio.client import Client

from bench.restore import worker
from bench.switch import lab_apart
from lab import processes
from lab.estate import Lab
from lab.place import SITES
from recovery import embedded
from recovery.connection import connect
from recovery.embedded import Keeper
from recovery.models import Start
from recovery.report import Report
from recovery.settings import Settings

SESSIONS = 100_000
RATE = 1000
"""Sessions a second that the client writes; each takes its turn, so that one that is late is seen."""
SECONDS = 40
"""For how long it is measured beside checks, if nothing else is said."""
DRAWN = 200
"""How often the checks are drawn again, to see what chance makes of a ratio."""
CORES = os.sched_getaffinity(0)
LAYOUTS = ("on shared cores", "store and client on a core of their own")
Written = Sequence[tuple[float, float]]
"""When each session was sent, by the clock of the machine, and the seconds that it took."""


class Window(NamedTuple):
    """From when to when something was, or was not, done beside the client."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.ended - self.began

    def times(self, written: Written) -> list[float]:
        """Return what the sessions took that were sent in it."""
        return [took for sent, took in written if self.began <= sent < self.ended]


class Turn(NamedTuple):
    """A window beside a check, and after it two as long without one.

    What differs between the two without one is what the machine does by itself.
    """

    beside: Window
    without: Window
    again: Window

    def times(self, written: Written) -> Times:
        """Return what the sessions took that were sent in each of its windows."""
        return tuple(one.times(written) for one in self)


Times = tuple[list[float], ...]
"""What sessions took, in seconds: beside a check, without one, and without one again."""


def told(turns: Sequence[Turn], written: Written) -> dict[str, object]:
    """Return what a client noticed, of all checks together; an interval is of checks drawn by chance (bootstrap)."""
    times = [turn.times(written) for turn in turns]
    rates = [
        (len(beside) / len(without)) / (turn.beside.seconds / turn.without.seconds)
        for turn, (beside, without, _) in zip(turns, times, strict=True)
    ]
    beside, without, again = together(times)
    chance = random.Random(0)
    drawn = [ratios(chance.choices(times, k=len(times))) for _ in range(DRAWN)]
    ratio, other = ratios(times)
    return {
        "seconds beside a check": round(sum(turn.beside.seconds for turn in turns), 1),
        "checks": len(turns),
        "p99 without a check, ms": round(p99(without + again) * 1000, 3),
        "p99 beside a check, ms": round(p99(beside) * 1000, 3),
        "p99 ratio (goal: at most 1.03)": round(ratio, 3),
        "p99 ratio, 95 % of what chance would make of it": interval(one for one, _ in drawn),
        "p99 ratio of two without one, for comparison": round(other, 3),
        "p99 ratio of two without one, 95 %": interval(one for _, one in drawn),
        "median ratio": round(median(beside) / median(without + again), 3),
        "throughput ratio (goal: at least 0.97)": round(median(rates), 3),
        "throughput ratio of a single check, least": round(min(rates), 3),
    }


def together(times: Iterable[Times]) -> Times:
    """Return what was noticed in some turns as if it were one."""
    return tuple([took for one in found for took in one] for found in zip(*times, strict=True))


def ratios(times: Iterable[Times]) -> tuple[float, float]:
    """Return how many times as long the slowest hundredth took beside a check; then of two without one."""
    beside, without, again = together(times)
    return p99(beside) / p99(without + again), p99(again) / p99(without)


def interval(found: Iterable[float]) -> list[float]:
    """Return between what 95 % of them are."""
    known = sorted(found)
    return [round(known[len(known) * at // 1000], 3) for at in (25, 975)]


def p99(times: Iterable[float]) -> float:
    """Return the 99th percentile."""
    found = sorted(times)
    return found[len(found) * 99 // 100]


async def measure(seconds: int = SECONDS) -> dict[str, object]:
    """Return the seconds of a check, what its commands take at the store, and what a client noticed (interleaved).

    ``seconds`` are measured beside checks for each layout of the cores, and twice as long without one.
    """
    with lab_apart() as lab, ExitStack() as stack:
        variables = {"RECOVERY_STATE": str(lab.state)}
        settings = Settings.from_environment({**os.environ, **variables})
        _fill(lab)
        async with Keeper(settings) as endpoint:
            client = await connect(settings, endpoint)
            working = [worker({**variables, "RECOVERY_SITE": site}) for site in SITES]
            for one in working:
                stack.callback(one.wait)
                stack.callback(one.terminate)
            await _checked(client)  # it warms up
            writer = stack.enter_context(_writing(lab))
            engine = [os.getpid(), embedded.status(settings).pid or 0, *(one.pid for one in working)]
            turns: dict[str, list[Turn]] = {layout: [] for layout in LAYOUTS}
            commands = {}
            for layout, found in turns.items():
                _pin(lab, engine, writer.pid, apart=layout == LAYOUTS[1])
                with _store(lab) as store:
                    store.config_resetstat()
                    while sum(turn.beside.seconds for turn in found) < seconds:
                        beside = await _window(client)
                        found.append(Turn(beside, *[await _window(None, beside.seconds) for _ in range(2)]))
                    commands[layout] = _commands(store)
            written = await asyncio.to_thread(writer.told)
    took = [turn.beside.seconds for found in turns.values() for turn in found]
    return {
        "check of 100,000 sessions with its sample, s (goal: under 5)": round(median(took), 2),
        "check of 100,000 sessions with its sample, most, s": round(max(took), 2),
        **{layout: told(found, written) | commands[layout] for layout, found in turns.items()},
    }


async def _window(client: Client | None, seconds: float = 0) -> Window:
    """Check, or do nothing for so many seconds; return from when to when that was."""
    began = time.monotonic()
    await (_checked(client) if client else asyncio.sleep(seconds))
    return Window(began, time.monotonic())


async def _checked(client: Client) -> None:
    start = Start(runbook="lab/check-sessions", reason="bench")
    handle = await client.start_workflow(
        "SessionReplicationCheck", start, id="lab/check-sessions", task_queue="recovery", result_type=Report
    )
    report: Report = await handle.result()
    if report.blockers:
        raise RuntimeError(report.blockers)


def _commands(store: valkey.Valkey) -> dict[str, float]:
    """Return for how long what a check asks keeps the store from answering others, as the store itself tells."""
    told: Any = store.info("latencystats")
    return {
        f"{what} of {name}, ms": round(told[f"latency_percentiles_usec_{name}"][percentile] / 1000, 3)
        for name in ("eval_ro", "evalsha_ro", "info")
        for what, percentile in (("median", "p50"), ("p99", "p99"))
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


# --- cores ------------------------------------------------------------------------------------------------


def _pin(lab: Lab, engine: Iterable[int], writer: int, *, apart: bool) -> None:
    """Let everything use every core, or keep one for the store that takes sessions, and for its client."""
    first, *others = sorted(CORES)
    store = [one.pid for one in processes.valkey_in(lab.place.at(SITES[0]).valkey)]
    rest = {one.pid for one in processes.members(lab.place.root)} | set(engine)
    for pid in rest - {*store, writer}:
        _keep(pid, set(others) if apart and others else CORES)
    for pid in (*store, writer):
        _keep(pid, {first} if apart and others else CORES)


def _keep(pid: int, cores: set[int]) -> None:
    """Keep every thread of a process to some cores, and what it starts from now on."""
    with suppress(FileNotFoundError, ProcessLookupError):  # what ended meanwhile
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


# --- the client -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """A client of the store that writes all the time."""

    pid: int
    stop: Event
    queue: multiprocessing.Queue[Any]

    def told(self) -> Written:
        """Have it stop; return what it wrote, and when."""
        self.stop.set()
        found: Written = self.queue.get()
        return found


@contextmanager
def _writing(lab: Lab) -> Iterator[Writer]:
    """Have a client write in a process of its own until the body is over."""
    here = multiprocessing.get_context("spawn")
    site = lab.sites[SITES[0]]
    told, stop = here.Queue(), here.Event()
    process = here.Process(target=_write, args=(site.port("valkey"), site.passwords["valkey"], stop, told))
    process.start()
    try:
        told.get()  # it has begun
        yield Writer(process.pid or 0, stop, told)
    finally:
        process.terminate()
        process.join()


def _write(port: int, password: str, stop: Event, told: multiprocessing.Queue[object]) -> None:
    with valkey.Valkey(port=port, password=password, socket_timeout=5) as client:
        client.set("session:0", "y")
        told.put("begun")
        written: list[tuple[float, float]] = []
        turn = time.monotonic()
        while not stop.is_set():
            turn += 1 / RATE
            if (early := turn - time.monotonic()) > 0:
                time.sleep(early)
            sent = time.monotonic()
            client.set(f"session:{len(written) * 7919 % SESSIONS}", "y" * 200, ex=7200)
            written.append((sent, time.monotonic() - sent))
    told.put(written)
