"""Whether a cluster has room for the pods that a site is to be scaled up by, on its nodes and in its quotas."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from activities import clusters
from activities.clusters import ClusterAt, Object
from activities.placement import Amounts, Limits, NodeRoom, PodAsked, amounts, asked, counted, placed, room
from activities.workloads import WorkloadAt, read
from recovery.actions import Probe, Spec
from recovery.errors import RecoveryError, Refused
from recovery.models import Wire

SECONDS = 12.0
"""What a cluster has not told by then is not known: clients may be waiting."""
PAGE = 500
SHOWN = 5
NODES, PODS = "/api/v1/nodes", "/api/v1/pods"
LIVE = "status.phase!=Succeeded,status.phase!=Failed"


class RoomSpec(Spec):
    """The workloads of one cluster that are scaled up together.

    ``mark`` is the annotation of nodes that are cordoned now and opened before, if this worker may; "" where none are.
    """

    cluster: ClusterAt
    workloads: tuple[WorkloadAt, ...]
    mark: str = ""
    seconds: float = SECONDS


class Granted(Wire):
    """What pods need of a resource in a namespace, and how much of its ResourceQuota is left."""

    namespace: str
    quota: str
    resource: str
    needed: int
    left: int


class RoomSeen(Wire):
    """How many pods are to be more of each workload, and for how many there is room.

    ``nodes`` is how many may take pods, ``away`` names some that may not, with why. ``unseen`` tells of what
    was not looked at. ``why`` nothing is known, where the cluster did not tell.
    """

    more: dict[str, int] = {}
    fits: dict[str, int] = {}
    nodes: int = 0
    away: tuple[str, ...] = ()
    quotas: tuple[Granted, ...] = ()
    unseen: tuple[str, ...] = ()
    why: str = ""


class LookForRoom(Probe[RoomSpec, RoomSeen]):
    """See for how many pods there is room; that a cluster does not tell is an answer, too."""

    name = "workloads.room"
    limit = timedelta(seconds=SECONDS + 5)

    def title(self, spec: RoomSpec) -> str:
        """Say where."""
        return f"see what room {spec.cluster.name} has"

    async def observe(self, spec: RoomSpec) -> RoomSeen:
        """Look at its nodes, at all pods on them, at the workloads, and at the quotas of their namespaces."""
        looking = asyncio.ensure_future(_seen(spec))
        try:
            # A request that is under way is waited for where it is cancelled: here nobody has to, for it only reads.
            await asyncio.wait([looking], timeout=spec.seconds)
            if not looking.done():
                return RoomSeen(why=f"{spec.cluster.name} has not told within {spec.seconds:g} s")
            return await looking
        except (RecoveryError, KeyError, ValueError) as error:
            return RoomSeen(why=error.message if isinstance(error, RecoveryError) else f"it tells of {error!r}")
        finally:
            looking.cancel()


look_for_room = LookForRoom()


async def _seen(spec: RoomSpec) -> RoomSeen:
    wanted = [_asked(one, await read(one)) for one in spec.workloads]
    nodes, pods = await asyncio.gather(_all(spec.cluster, NODES), _all(spec.cluster, PODS, LIVE))
    on: dict[str, list[Object]] = {}
    for pod in pods:
        on.setdefault(pod["spec"].get("nodeName", ""), []).append(pod)
    opens = [_opens(node, spec.mark) for node in nodes]
    may = any(opens) and not await clusters.forbidden(spec.cluster, ("patch",), "v1", "nodes")
    rooms = [
        room(node, on.get(node["metadata"]["name"], ()), may and to_open)
        for node, to_open in zip(nodes, opens, strict=True)
    ]
    quotas, unseen = await _quotas(spec, wanted)
    return RoomSeen(
        more={pod.workload: pod.more for pod in wanted}, fits=placed(rooms, wanted),
        nodes=sum(not one.why for one in rooms), away=_away(rooms), quotas=tuple(quotas), unseen=tuple(unseen),
    )  # fmt: skip


async def _quotas(spec: RoomSpec, wanted: list[PodAsked]) -> tuple[list[Granted], list[str]]:
    quotas: list[Granted] = []
    unseen: list[str] = []
    for namespace in sorted({one.namespace for one in spec.workloads}):
        names = {one.name for one in spec.workloads if one.namespace == namespace}
        needed = counted([pod for pod in wanted if pod.workload in names])
        try:
            told = await _all(spec.cluster, f"/api/v1/namespaces/{namespace}/resourcequotas")
        except Refused as error:
            unseen.append(f"quotas of {namespace} are not known: {error.message}")
            continue
        for limits in map(_limits, told):
            if limits.scoped:
                unseen.append(f"ResourceQuota {namespace}/{limits.name} is for some pods only, and is not looked at")
            else:
                quotas += _granted(namespace, limits, needed)
    return quotas, unseen


async def _all(at: ClusterAt, path: str, only: str = "") -> list[Object]:
    """Return every object of a collection (``only`` those of a field selector), page by page."""
    found: list[Object] = []
    more = ""
    while True:
        flags = {"limit": str(PAGE), "fieldSelector": only, "continue": more}
        page = await clusters.ask(at, "GET", path, None, **{name: value for name, value in flags.items() if value})
        found += page["items"]
        more = (page.get("metadata") or {}).get("continue") or ""
        if not more:
            return found


def _asked(at: WorkloadAt, live: Object) -> PodAsked:
    pod = live["spec"]["template"]["spec"]
    return PodAsked(
        workload=at.name, more=max(at.replicas - live["spec"].get("replicas", 1), 0), requests=asked(pod),
        limits=asked(pod, "limits"), selector=pod.get("nodeSelector") or {},
        tolerations=tuple(pod.get("tolerations") or ()),
    )  # fmt: skip


def _opens(node: Object, mark: str) -> bool:
    return bool(mark) and mark in (node["metadata"].get("annotations") or {})


def _limits(quota: Object) -> Limits:
    spec, status = quota.get("spec") or {}, quota.get("status") or {}
    return Limits(
        name=quota["metadata"]["name"], used=amounts(status.get("used")), hard=amounts(spec.get("hard")),
        scoped=bool(spec.get("scopes") or spec.get("scopeSelector")),
    )  # fmt: skip


def _granted(namespace: str, limits: Limits, needed: Amounts) -> list[Granted]:
    return [
        Granted(
            namespace=namespace, quota=limits.name, resource=name, needed=needed[name],
            left=hard - limits.used.get(name, 0),
        )
        for name, hard in sorted(limits.hard.items())
        if needed.get(name)
    ]  # fmt: skip


def _away(rooms: list[NodeRoom]) -> tuple[str, ...]:
    return tuple(f"{one.name} {one.why}" for one in rooms if one.why)[:SHOWN]
