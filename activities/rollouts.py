"""Whether what a cluster was told has come about: workloads that are rolled out, and services with an address."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar
from urllib.parse import quote

from activities import clusters
from activities.clusters import ClusterAt, Object
from activities.manifest_files import Ref
from activities.manifests import ManifestsAt
from recovery.actions import Probe, Spec
from recovery.errors import Transient
from recovery.models import Wire

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
PAUSE = 0.25
FINAL = "its deadline is over"


class RolledOutSpec(Spec):
    """Wait up to ``seconds`` until workloads and services among ``objects`` are well, and ``stays`` to see them so."""

    target: ManifestsAt
    objects: tuple[Ref, ...]
    seconds: float = 60
    stays: float = 0


class Workload(Wire):
    """A workload or a service, whether it is ready, and if not, why."""

    name: str
    ready: bool
    why: str = ""


class RolledOut(Wire):
    """How each stands at the end of the wait."""

    workloads: tuple[Workload, ...] = ()

    @property
    def well(self) -> bool:
        """Whether all of them are ready."""
        return all(one.ready for one in self.workloads)

    @property
    def why(self) -> tuple[str, ...]:
        """What is wrong, a sentence for each that is not."""
        return tuple(f"{one.name}: {one.why}" for one in self.workloads if not one.ready)


class LookAtRollouts(Probe[RolledOutSpec, RolledOut]):
    """Wait for a rollout, and say how it went: one that does not come to its end is a verdict, and no failure.

    A service without a selector has its addresses from elsewhere, and is left alone.
    """

    name = "manifests.rolled_out"
    limit = timedelta(minutes=16)
    patience = timedelta(minutes=20)
    skip: ClassVar[str] = "it is not known whether the workloads are well"

    def title(self, spec: RolledOutSpec) -> str:
        """Say what is waited for."""
        return f"see {spec.target.name} rolled out"

    async def observe(self, spec: RolledOutSpec) -> RolledOut:
        """Look again and again until all are ready, the time is over, or the cluster itself has given one up."""
        clock = asyncio.get_running_loop().time
        until, since = clock() + spec.seconds, None
        while True:
            late = clock() > until
            try:
                found = await _look(spec)
            except Transient:
                if late:
                    raise
            else:
                since = (since or clock()) if found.well else None
                final = any(FINAL in one.why for one in found.workloads)
                if final or (late if since is None else clock() >= since + spec.stays):
                    return found
            await asyncio.sleep(PAUSE)


rolled_out = LookAtRollouts()


async def _look(spec: RolledOutSpec) -> RolledOut:
    at = spec.target.cluster
    counted = [one for one in spec.objects if one.kind in (*WORKLOADS, "Service")]
    found = await asyncio.gather(*(_one(at, ref) for ref in counted))
    return RolledOut(workloads=tuple(one for one in found if one))


async def _one(at: ClusterAt, ref: Ref) -> Workload | None:
    where = await clusters.resource(at, ref.version, ref.kind)
    live = await clusters.get(at, where.path(ref.namespace, ref.name))
    if live is None:
        return Workload(name=ref.label, ready=False, why="is not there")
    if ref.kind == "Service":
        return await _service(at, ref, live)
    why = unready(ref.kind, live)
    if why and (pods := await _pods(at, ref, live)):
        why = f"{why}; {pods}"
    return Workload(name=ref.label, ready=not why, why=why)


async def _service(at: ClusterAt, ref: Ref, live: Object) -> Workload | None:
    if not live["spec"].get("selector") or live["spec"].get("type") == "ExternalName":
        return None
    found = await clusters.get(at, f"/api/v1/namespaces/{ref.namespace}/endpoints/{ref.name}")
    ready = any(subset.get("addresses") for subset in (found or {}).get("subsets") or ())
    return Workload(name=ref.label, ready=ready, why="" if ready else "has no address: no pod of it is ready")


def unready(kind: str, live: Object) -> str:
    """Return why a workload is not rolled out, "" when it is; pure.

    What its status says counts only once it is about the present specification (observedGeneration).
    """
    status, spec = live.get("status") or {}, live["spec"]
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return "its controller has not seen the change yet"
    for one in status.get("conditions") or ():
        if one.get("type") == "Progressing" and one.get("reason") == "ProgressDeadlineExceeded":
            return f"ProgressDeadlineExceeded: {FINAL}"
    wanted, updated, available, total = _counts(kind, spec, status)
    if updated < wanted:
        return f"{updated} of {wanted} replicas are updated"
    if total > updated:
        return f"{total - updated} old replicas are still there"
    return "" if available >= wanted else f"{available} of {wanted} replicas are available"


def _counts(kind: str, spec: Object, status: Mapping[str, int]) -> tuple[int, int, int, int]:
    """Return how many are wanted, updated, available and there at all."""
    if kind == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return wanted, status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0), 0
    wanted = spec.get("replicas", 1)
    if kind == "StatefulSet":  # one of old knows no availableReplicas
        partition = ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition", 0)
        same = status.get("currentRevision") == status.get("updateRevision")
        updated = wanted if same else status.get("updatedReplicas", 0) + min(partition, wanted)
        return wanted, updated, status.get("readyReplicas", 0), 0
    total = status.get("replicas", 0)
    return wanted, status.get("updatedReplicas", 0), status.get("availableReplicas", 0), total


async def _pods(at: ClusterAt, ref: Ref, live: Object) -> str:
    """Return what is wrong with the first pod that is not ready, if this worker may look at pods."""
    labels = (live["spec"].get("selector") or {}).get("matchLabels") or {}
    asked = quote(",".join(f"{name}={value}" for name, value in labels.items()))
    path = f"/api/v1/namespaces/{ref.namespace}/pods?labelSelector={asked}"
    found = await clusters.get(at, path) if labels else None
    told = (f"pod {pod['metadata']['name']}: {why}" for pod in (found or {}).get("items", ()) if (why := unwell(pod)))
    return next(told, "")


def unwell(pod: Object) -> str:
    """Return why a pod is not ready, "" when it is; pure."""
    status = pod.get("status") or {}
    states = [one.get("state") or {} for one in status.get("containerStatuses") or ()]
    for state in states:
        for how in ("waiting", "terminated"):
            if reason := (state.get(how) or {}).get("reason"):
                return str(reason)
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    ready = conditions.get("Ready", {})
    if ready.get("status") == "True":
        return ""
    placed = conditions.get("PodScheduled", {})
    if placed.get("status") == "False":
        return f"{placed.get('reason', 'Unscheduled')}: {placed.get('message', '')}"[:200]
    return str(ready.get("reason") or status.get("phase") or "is not ready")
