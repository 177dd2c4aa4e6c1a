"""Whose hand a namespace has seen last: a Lease (coordination.k8s.io) there, so that a late one is refused."""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import UTC, datetime

from temporalio import activity

from activities.cluster_refusals import Conflict
from activities.clusters import ClusterAt, Object, ask, get
from recovery.errors import Invalid, Stale, Transient
from recovery.fencing import hand
from recovery.names import of_lease

VERSION, PLURAL = "coordination.k8s.io/v1", "leases"
VERBS = ("get", "create", "update")
"""What a worker has to be allowed of Leases."""
MARKS = ("recovery/epoch", "recovery/order", "recovery/attempt")
"""Annotations of a Lease: the number of the last hand. An epoch is more than leaseTransitions can hold."""
LONGEST = 253
"""Letters of a name."""
TRIES = 20
PAUSE = 0.02
Number = tuple[int, int, int]


async def claim(at: ClusterAt, namespace: str, system: str, part: str) -> None:
    """Write down that this hand is the last one on a ``part`` of a system, unless it is. Raises Stale if it is late.

    By compare-and-swap of the resourceVersion. Without a lease there is no order among recoveries, and none to keep.
    """
    number = own(system)
    if number is None:
        return
    name = lease_name(system, part, hand().lease)
    for _ in range(TRIES):
        if await _swapped(at, namespace, name, number):
            return
        await asyncio.sleep(PAUSE)
    raise Transient(f"{at.name}: others keep changing lease/{name} in {namespace}")


def own(system: str) -> Number | None:
    """Return the number of the hand that acts here on a system; None without a lease."""
    mine = hand()
    return (mine.epoch, mine.order, mine.attempt) if mine.epoch and mine.system == system else None


def lease_name(system: str, part: str, lease: str = "") -> str:
    """Return the name of the Lease of a part of a system; of two that look alike to Kubernetes, each has its own.

    So have those of two catalogs: of which the system is, its ``lease`` tells.
    """
    given = (*([of_lease(lease)[0]] if lease else []), system, part)
    told = ".".join(["recovery", *given])
    words = [re.sub(r"[^a-z0-9-]+", "-", word.lower()).strip("-") for word in given]
    name = ".".join(["recovery", *filter(None, words)])
    if name == told and len(name) <= LONGEST:
        return name
    return f"{name[:230].rstrip('.-')}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


async def _swapped(at: ClusterAt, namespace: str, name: str, mine: Number) -> bool:
    path = f"/apis/{VERSION}/namespaces/{namespace}/{PLURAL}"
    found = await get(at, f"{path}/{name}")
    last = _last(at, found, name)
    if last > mine:
        raise late(f"{at.name}, lease/{name}", last, mine)
    if last == mine:
        return True
    try:
        if found is None:
            await ask(at, "POST", path, _noted({"metadata": {"name": name}}, mine, last))
        else:
            await ask(at, "PUT", f"{path}/{name}", _noted(found, mine, last))
    except Conflict:
        return False
    return True


def late(where: str, last: Number, mine: Number) -> Stale:
    """Return what is said of a hand that came after another one."""
    return Stale(
        f"{where}: epoch {last[0]} (order {last[1]}, attempt {last[2]}) has written since, this is epoch {mine[0]}"
        f" (order {mine[1]}, attempt {mine[2]}); nothing was written. See which recovery holds it now"
    )


def _noted(found: Object, mine: Number, last: Number) -> Object:
    """Return the Lease with this hand as its last one: who holds it, since when, and how often that has changed."""
    now, spec, meta = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", dict(found.get("spec") or {}), found["metadata"]
    if mine[0] != last[0]:
        spec |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
    spec |= {"renewTime": now, "holderIdentity": _holder()}
    marks = dict(zip(MARKS, map(str, mine), strict=True))
    labels = (meta.get("labels") or {}) | {"app.kubernetes.io/managed-by": "recovery"}
    told = {**meta, "labels": labels, "annotations": (meta.get("annotations") or {}) | marks}
    return {"apiVersion": VERSION, "kind": "Lease", "metadata": told, "spec": spec}


def _holder() -> str:
    """Return the recovery as Temporal knows it: workflow id, and run."""
    if not activity.in_activity():
        return "a hand that Temporal does not know"
    info = activity.info()
    return f"{info.workflow_id} {info.workflow_run_id}"


def _last(at: ClusterAt, found: Object | None, name: str) -> Number:
    if found is None:
        return (0, 0, 0)
    marks = found["metadata"].get("annotations") or {}
    try:
        epoch, order, attempt = (int(marks[one]) for one in MARKS)
    except (KeyError, ValueError):
        raise Invalid(
            f"{at.name}: lease/{name} is not as a recovery wrote it; see who did, then delete it: it is made anew"
        ) from None
    return epoch, order, attempt
