"""Whether what has a configuration is well: looked at for a while, since it has to stay so."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, NamedTuple

from activities import ssh
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.errors import RecoveryError
from recovery.models import Wire

EVERY = 1.0
"""Seconds between two looks."""
MISSES = 3
"""Looks in a row that have to find something unwell before that is believed: one may be lost on the way."""
AT_ONCE = 25


class HealthAt(Wire):
    """A command on a host that ends with 0 while a target is well, and the revision it is told of (``$REVISION``)."""

    target: str
    host: HostAt
    command: str
    revision: str = ""


class WatchHealth(Spec):
    """Watch targets: each has to be well within ``settle`` seconds, and for ``seconds`` from then on.

    Once one that ``must`` be well is not, the others are no longer watched.
    """

    what: str
    targets: tuple[HealthAt, ...]
    settle: float = 0
    seconds: float = 0
    must: tuple[str, ...] = ()


class State(Wire):
    """Whether a target is well, and if not, what it says."""

    well: bool
    why: str = ""


class Watched(Wire):
    """How each target came out of it; one that was not watched to the end is missing."""

    targets: dict[str, State] = {}


class Look(NamedTuple):
    """One look: how many seconds after the beginning, and what was seen."""

    at: float
    state: State


def verdict(looks: Sequence[Look], settle: float, seconds: float) -> State | None:
    """Return what a target is, from the looks at it so far, None while that is open; pure.

    It is well if it was once within ``settle``, for ``seconds`` from then on, and is at the end. What was well is
    unwell once several looks in a row say so.
    """
    last = looks[-1]
    first = next((look.at for look in looks if look.state.well), None)
    if first is None:
        return last.state if last.at >= settle else None
    if len(looks) >= MISSES and not any(look.state.well for look in looks[-MISSES:]):
        return last.state
    return last.state if last.state.well and last.at >= first + seconds else None


class WatchesHealth(Probe[WatchHealth, Watched]):
    """Look again and again; what is unwell is what was found out, and no failure."""

    name = "health.watch"
    limit = timedelta(hours=2)
    patience = timedelta(hours=4)
    skip: ClassVar[str] = "nobody knows whether what was changed is well"

    def title(self, spec: WatchHealth) -> str:
        """Say what is watched."""
        return f"watch the health of {spec.what}"

    async def observe(self, spec: WatchHealth) -> Watched:
        """Watch each, until one is unwell that must not be."""
        turns = asyncio.Semaphore(AT_ONCE)
        watching = {asyncio.create_task(_watched(at, spec, turns)): at.target for at in spec.targets}
        found: dict[str, State] = {}
        left = set(watching)
        try:
            while left and all(found[name].well for name in spec.must if name in found):
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                found |= {watching[task]: task.result() for task in done}
        finally:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        return Watched(targets={at.target: found[at.target] for at in spec.targets if at.target in found})


watch_health = WatchesHealth()


async def _watched(target: HealthAt, spec: WatchHealth, turns: asyncio.Semaphore) -> State:
    clock = asyncio.get_running_loop().time
    began, looks = clock(), list[Look]()
    while True:
        async with turns:
            state = await _asked(target)
        looks.append(Look(clock() - began, state))
        if (known := verdict(looks, spec.settle, spec.seconds)) is not None:
            return known
        await asyncio.sleep(EVERY)


async def _asked(target: HealthAt) -> State:
    try:
        values = {"run": f"export REVISION={target.revision}; {target.command}", "limit": 10}
        text = await ssh.look(target.host, "status", values)
    except RecoveryError as error:
        return State(well=False, why=error.message[:200])
    code, _, said = text.partition("\n")
    told = " ".join(said.split())[:150]
    return State(well=code == "0", why="" if code == "0" else f"exit code {code}{': ' if told else ''}{told}")


def worse(before: Mapping[str, State], after: Mapping[str, State]) -> list[str]:
    """Return what was well before and is not any more; pure."""
    return [
        f"{name} was well, and is not any more ({now.why})"
        for name, now in after.items()
        if not now.well and before.get(name, now).well
    ]


def unwell(after: Mapping[str, State]) -> list[str]:
    """Return what is not well, whatever it was before; pure."""
    return [f"{name} is not well ({now.why})" for name, now in after.items() if not now.well]
