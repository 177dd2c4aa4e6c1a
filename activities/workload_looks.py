"""What workloads of a cluster show: how many run, what would stand in the way of scaling them, whether they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar

from activities import cluster_hands, clusters
from activities.cluster_refusals import Missing
from activities.clusters import Object
from activities.rollouts import FINAL, unready, unwell
from activities.workloads import VERSION, WorkloadAt, paused, pods, read, scaled_by, scalers
from recovery.actions import Probe, Spec
from recovery.errors import Fatal, Invalid, RecoveryError, Refused, Transient
from recovery.models import Wire

PAUSE = 0.25
SURE = 3.0
"""Seconds for which a rollout has to be given up: the verdict on the one before stands until its controller looks."""
GLANCE = timedelta(seconds=12)


class WorkloadSpec(Spec):
    """The workload to look at."""

    workload: WorkloadAt


class WorkloadSeen(Wire):
    """How many replicas it is to have, how many pods of it are ready, and what stands in the way of scaling it.

    ``answered`` is whether its cluster did, where that need not be.
    """

    replicas: int = 0
    ready: int = 0
    faults: tuple[str, ...] = ()
    answered: bool = True


class LookAtWorkload(Probe[WorkloadSpec, WorkloadSeen]):
    """Look at a workload, at who else scales it, and at what this worker may do."""

    name = "workloads.look"

    def title(self, spec: WorkloadSpec) -> str:
        """Say what is looked at."""
        return f"look at {spec.workload.name}"

    async def observe(self, spec: WorkloadSpec) -> WorkloadSeen:
        """Read it, and ask for each right that scaling needs. Raises Transient, and Refused where nobody is known."""
        at = spec.workload
        faults = [*await clusters.namespace_faults(at.cluster, at.namespace), *await _rights(at)]
        try:
            live = await read(at)
            names = await scalers(at)
        except (Invalid, Refused) as error:
            return WorkloadSeen(faults=(*_told(at, faults), error.message))
        faults += filter(None, (paused(at, live), scaled_by(at, names) if names else "", await _no_service(at)))
        ready = (live.get("status") or {}).get("readyReplicas", 0)
        return WorkloadSeen(replicas=live["spec"].get("replicas", 1), ready=ready, faults=tuple(_told(at, faults)))


look_at_workload = LookAtWorkload()


class SightWorkload(Probe[WorkloadSpec, WorkloadSeen]):
    """Look at a workload whose cluster may be gone: that it does not answer is what was seen, and no failure."""

    name = "workloads.sight"
    limit = timedelta(seconds=40)
    beside: ClassVar[bool] = True

    def title(self, spec: WorkloadSpec) -> str:
        """Say what is looked for."""
        return f"see what is left of {spec.workload.name}"

    async def observe(self, spec: WorkloadSpec) -> WorkloadSeen:
        """Read it, if anybody answers."""
        try:
            async with asyncio.timeout(GLANCE.total_seconds()):
                live = await read(spec.workload)
        except (RecoveryError, TimeoutError) as error:
            return WorkloadSeen(answered=False, faults=(str(error) or "it does not answer",))
        ready = (live.get("status") or {}).get("readyReplicas", 0)
        return WorkloadSeen(replicas=live["spec"].get("replicas", 1), ready=ready)


sight_workload = SightWorkload()


class Serving(Wire):
    """How many pods of it are ready, with how many addresses behind its service, and after how many seconds."""

    ready: int = 0
    addresses: int | None = None
    seconds: float = 0


class AwaitsWorkload(Probe[WorkloadSpec, Serving]):
    """Wait until a workload is rolled out, and each of its ready pods is an address of its service."""

    name = "workloads.ready"
    limit = timedelta(minutes=62)
    patience = timedelta(minutes=65)
    skip: ClassVar[str] = "what needs it is started although it may not be ready"

    def title(self, spec: WorkloadSpec) -> str:
        """Say what is waited for."""
        return f"see {spec.workload.name} ready"

    async def observe(self, spec: WorkloadSpec) -> Serving:
        """Look again and again. Raises Fatal once its time is over, or the cluster itself has given it up."""
        at, clock = spec.workload, asyncio.get_running_loop().time
        began, given_up = clock(), None
        while True:
            try:
                found = await _serving(at)
            except Transient as error:
                found = error.message
            if isinstance(found, Serving):
                return found.model_copy(update={"seconds": round(clock() - began, 3)})
            given_up = (given_up or clock()) if FINAL in found else None
            if clock() > began + at.within or (given_up and clock() > given_up + SURE):
                raise Fatal(f"{at.label} is not ready after {clock() - began:.0f} s: {found}; {_advice(at, found)}")
            await asyncio.sleep(PAUSE)


await_workload = AwaitsWorkload()


async def _serving(at: WorkloadAt) -> Serving | str:
    """Return that it serves, or why it does not."""
    live = await read(at)
    own = await pods(at, live)
    if why := unready(at.kind, live):
        wrong = (f"pod {pod['metadata']['name']}: {what}" for pod in own if (what := unwell(pod)))
        return f"{why}; {next(wrong, 'no pod of it tells why')}"
    ready = [pod["metadata"]["name"] for pod in own if not unwell(pod) and not pod["metadata"].get("deletionTimestamp")]
    if len(ready) < at.replicas:
        return f"{len(ready)} of {at.replicas} pods are ready"
    if not at.endpoints:
        return Serving(ready=len(ready))
    found = await clusters.get(at.cluster, f"/api/v1/namespaces/{at.namespace}/endpoints/{at.endpoints}")
    told = set(_addresses(found or {}))
    if missing := [name for name in ready if name not in told]:
        return f"service/{at.endpoints} has no address of {', '.join(missing[:5])}"
    return Serving(ready=len(ready), addresses=len(ready))


def _addresses(endpoints: Object) -> Iterable[str]:
    """Yield the pods behind the ready addresses of a service."""
    for subset in endpoints.get("subsets") or ():
        yield from ((one.get("targetRef") or {}).get("name", "") for one in subset.get("addresses") or ())


def _advice(at: WorkloadAt, why: str) -> str:
    if "Unschedulable" in why:
        return (
            "there is not enough room on the nodes that it may run on: free some or add nodes, then let it be retried"
        )
    if "has no address" in why:
        return f"see the selector and ports of service/{at.endpoints}"
    return f"see kubectl -n {at.namespace} describe and logs of that pod"


async def _rights(at: WorkloadAt) -> list[str]:
    needed = (
        (VERSION, at.plural, ("get", "patch")),
        ("v1", "pods", ("list",)),
        ("autoscaling/v1", "horizontalpodautoscalers", ("list",)),
        (cluster_hands.VERSION, cluster_hands.PLURAL, cluster_hands.VERBS),
        *([("v1", "endpoints", ("get",))] if at.endpoints else ()),
    )
    lacks = [
        (plural, await clusters.forbidden(at.cluster, verbs, version, plural, at.namespace))
        for version, plural, verbs in needed
    ]
    return [
        f"this worker may not {', '.join(verbs)} {plural} in {at.namespace} of {at.cluster.name}; see its roles (RBAC)"
        for plural, verbs in lacks
        if verbs
    ]


async def _no_service(at: WorkloadAt) -> str:
    if not at.endpoints:
        return ""
    try:
        await clusters.ask(at.cluster, "GET", f"/api/v1/namespaces/{at.namespace}/endpoints/{at.endpoints}")
    except Missing:
        return f"endpoints: there is no service/{at.endpoints} in {at.namespace} of {at.cluster.name}; deploy it"
    except Refused:  # its rights tell
        pass
    return ""


def _told(at: WorkloadAt, faults: Iterable[str]) -> list[str]:
    """Return faults with the workload that has them."""
    return [one if one.startswith(f"{at.name}: ") else f"{at.name}: {one}" for one in faults]
