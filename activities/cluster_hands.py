"""Whose hand a namespace has seen last: kept in a ConfigMap there, so that a late one is refused."""

from __future__ import annotations

import asyncio
import re

from activities.cluster_refusals import Conflict
from activities.clusters import ClusterAt, Object, ask, get
from recovery.errors import Invalid, Stale, Transient
from recovery.fencing import hand

NAME = "recovery-hands"
TRIES = 20
PAUSE = 0.02
Number = tuple[int, int, int]


async def claim(at: ClusterAt, namespace: str, system: str, part: str) -> None:
    """Write down that this hand is the last one on a ``part`` of a system, unless it is. Raises Stale if it is late.

    By compare-and-swap of the resourceVersion. Without a lease there is no order among recoveries, and none to keep.
    """
    mine = hand()
    if not mine.epoch or mine.system != system:
        return
    key = re.sub(r"[^-._a-zA-Z0-9]", "_", f"{system}.{part}")
    number = (mine.epoch, mine.order, mine.attempt)
    for _ in range(TRIES):
        if await _swapped(at, namespace, key, number):
            return
        await asyncio.sleep(PAUSE)
    raise Transient(f"{at.name}: others keep changing configmap/{NAME} in {namespace}")


async def _swapped(at: ClusterAt, namespace: str, key: str, mine: Number) -> bool:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    found = await get(at, f"{path}/{NAME}")
    last = _last(at, found, key)
    if last > mine:
        raise Stale(
            f"{at.name}, {key}: epoch {last[0]} (order {last[1]}, attempt {last[2]}) has written since, this is epoch"
            f" {mine[0]} (order {mine[1]}, attempt {mine[2]}); nothing was written. See which recovery holds it now"
        )
    if last == mine:
        return True
    try:
        if found is None:
            new = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}}
            await ask(at, "POST", path, new | _noted(key, mine))
        else:
            found["data"] = (found.get("data") or {}) | _noted(key, mine)["data"]
            await ask(at, "PUT", f"{path}/{NAME}", found)
    except Conflict:
        return False
    return True


def _noted(key: str, number: Number) -> Object:
    return {"data": {key: " ".join(map(str, number))}}


def _last(at: ClusterAt, found: Object | None, key: str) -> Number:
    text = ((found or {}).get("data") or {}).get(key, "0 0 0")
    try:
        epoch, order, attempt = map(int, text.split())
    except ValueError:
        raise Invalid(f"{at.name}: {key} in configmap/{NAME} is not as a recovery wrote it") from None
    return epoch, order, attempt
