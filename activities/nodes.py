"""Nodes of a cluster: cordoned and emptied by the Eviction API; opened again are those that a recovery had cordoned."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import ClassVar, Literal
from urllib.parse import quote

from activities import cluster_hands, clusters
from activities.cluster_refusals import Conflict, Guarded, Missing
from activities.clusters import MERGE, ClusterAt, Object
from recovery.actions import Action, Probe, Spec
from recovery.errors import Drifted, Fatal, Invalid, Transient
from recovery.models import Wire

MARK = "recovery/cordoned"
"""The annotation of a node that a recovery has cordoned, with that recovery."""
MIRROR = "kubernetes.io/config.mirror"
MANAGER = "recovery"
NODES, PODS = "/api/v1/nodes", "/api/v1/pods"
OPEN, CLOSED = "open", "cordoned by somebody"
TRIES = 10
PAUSE = 0.5
AWAY = timedelta(minutes=1)
"""For how long a cluster may not answer, beside the time that draining may take: then people are asked."""
PART = "nodes"
OPENING = (("v1", "nodes", ("list", "patch")),)
"""What opening nodes needs, of the whole cluster."""
DRAINING = (
    *OPENING, ("v1", "pods", ("list",)), ("v1", "pods/eviction", ("create",)),
    ("policy/v1beta1", "poddisruptionbudgets", ("list",)),
)  # fmt: skip
"""What emptying them needs."""


class NodesAt(Wire):
    """Nodes of a cluster that a recovery may empty: by a selector ("" for all of them), ``within`` so many seconds.

    The hand that has them is kept in ``namespace``.
    """

    cluster: ClusterAt
    namespace: str
    selector: str = ""
    within: int = 600


class NodesSpec(Spec):
    """Have nodes drained, by their ``names``, or open those that recoveries cordoned; ``run`` is the recovery."""

    at: NodesAt
    wanted: Literal["drained", "open"]
    run: str
    names: tuple[str, ...] = ()


class Cordoned(Wire):
    """Whether each node takes pods: open, cordoned by a recovery (which), or by somebody else.

    ``open`` tells that one of them takes pods, ``ours`` that one was cordoned by a recovery, ``empty`` that none takes
    pods and none is left on them that could be evicted; it is None while one is, and where that is not looked at. Nodes
    that are all gone are empty.
    """

    nodes: dict[str, str] | None = {}
    open: bool | None = False
    ours: bool | None = False
    empty: bool | None = None


class DrainNodes(Action[NodesSpec, Cordoned]):
    """Cordon nodes by compare-and-swap and evict their pods, as budgets allow; or open what recoveries cordoned.

    Pods of DaemonSets, mirror pods and those that have ended stay. Who cordoned a node stands in an annotation of it:
    an undo opens the ones that this recovery has cordoned, and no other. Nodes that are made meanwhile are not
    touched, and one that is gone counts as drained.
    """

    name = "nodes.drain"
    limit = timedelta(minutes=65)
    undo_patience = timedelta(minutes=70)
    skip: ClassVar[str] = "its nodes stay as they are, cordoned or with their pods"

    def title(self, spec: NodesSpec) -> str:
        """Say what becomes of the nodes."""
        return f"{'drain' if spec.wanted == 'drained' else 'open'} the nodes of {spec.at.cluster.name}"

    async def observe(self, spec: NodesSpec) -> Cordoned:
        """Look at each node, and at what runs there where all are cordoned."""
        nodes = {node["metadata"]["name"]: standing(node) for node in await _nodes(spec.at)}
        if spec.wanted == "drained":
            nodes = {name: how for name, how in nodes.items() if name in spec.names}
        else:
            nodes = {name: how for name, how in nodes.items() if how not in (OPEN, CLOSED)}
        takes, drains = OPEN in nodes.values(), spec.wanted == "drained"
        empty = True if drains and not takes and not await _evictable(spec.at, list(nodes)) else None
        ours = any(how not in (OPEN, CLOSED) for how in nodes.values())
        return Cordoned(nodes=nodes, open=takes, ours=ours, empty=empty)

    def desired(self, spec: NodesSpec, before: Cordoned) -> Cordoned:
        """Want none to take pods, and none left; or none that a recovery has closed."""
        if spec.wanted == "drained":
            return Cordoned(nodes=None, open=False, ours=None, empty=True)
        return Cordoned(nodes=None, open=None, ours=False, empty=None)

    def partial(self, spec: NodesSpec, before: Cordoned, now: Cordoned) -> bool:
        """Know that each node is as it was, or as it is to be."""
        was, goal, seen = before.nodes or {}, _goal(spec, before), now.nodes or {}
        return all(how in (was[name], goal[name]) for name, how in seen.items() if name in was)

    def insists(self, spec: NodesSpec) -> timedelta:
        """Have people hear of a cluster that does not answer while it is drained."""
        return timedelta(seconds=spec.at.within) + AWAY

    def begun(self, spec: NodesSpec, before: Cordoned, now: Cordoned) -> bool:
        """Know it by a node that is not what it was."""
        was, seen = before.nodes or {}, now.nodes or {}
        return any(seen.get(name) != how for name, how in was.items()) and self.partial(spec, before, now)

    async def apply(self, spec: NodesSpec, before: Cordoned) -> None:
        """Close each and empty it, or open each."""
        await self._bring(spec, before, _goal(spec, before))
        if spec.wanted == "drained":
            await _emptied(spec, before)

    async def undo(self, spec: NodesSpec, before: Cordoned) -> None:
        """Open what was open, close what was closed."""
        await self._bring(spec, before, before.nodes or {})
        if before.empty:
            await _emptied(spec, before)

    async def halt(self, spec: NodesSpec) -> None:
        """Shut out what an earlier attempt may still ask for: from now on this order's hand is the last."""
        await _claim(spec)

    async def _bring(self, spec: NodesSpec, before: Cordoned, goal: Mapping[str, str]) -> None:
        await _claim(spec)
        known = before.nodes or {}, _goal(spec, before)
        for name in sorted(goal):
            await _write(spec, name, goal[name], tuple(one.get(name) for one in known))


drain_nodes = DrainNodes()


def _goal(spec: NodesSpec, before: Cordoned) -> dict[str, str]:
    """Return how each node is to be: what somebody else has cordoned stays so."""
    found = before.nodes or {}
    if spec.wanted == "open":
        return dict.fromkeys(found, OPEN)
    return {name: f"cordoned by recovery {spec.run}" if how == OPEN else how for name, how in found.items()}


class NodesSeen(Wire):
    """Which nodes there are, which are cordoned by recoveries, how many pods would go, and what is in the way.

    ``known`` is whether they could be looked at.
    """

    known: bool = True
    nodes: tuple[str, ...] = ()
    cordoned: tuple[str, ...] = ()
    pods: int = 0
    faults: tuple[str, ...] = ()


class NodesLook(Spec):
    """The nodes to look at: those that are drained, or those among which some may have to be opened."""

    at: NodesAt
    drains: bool = True


class LookAtNodes(Probe[NodesLook, NodesSeen]):
    """Look at nodes that a recovery would empty or open, and at what it may do; at pods only where they would go."""

    name = "nodes.look"
    skip: ClassVar[str] = "nodes stay as they are, with their pods"

    def title(self, spec: NodesLook) -> str:
        """Say what is looked at."""
        return f"look at the nodes of {spec.at.cluster.name}"

    async def observe(self, spec: NodesLook) -> NodesSeen:
        """Count them. Raises Transient when the cluster does not answer."""
        at, rights = spec.at, DRAINING if spec.drains else OPENING
        lacks = [(one, await clusters.forbidden(at.cluster, verbs, version, one)) for version, one, verbs in rights]
        faults = [
            f"{spec.system}: this worker may not {', '.join(verbs)} {plural} of {at.cluster.name}; see its roles"
            " (RBAC), or leave drain out in the estate"
            for plural, verbs in lacks
            if verbs
        ]
        if faults and (spec.drains or "list" in lacks[0][1]):
            return NodesSeen(known=False, faults=tuple(faults))
        found = {node["metadata"]["name"]: standing(node) for node in await _nodes(at)}
        ours = tuple(name for name, how in found.items() if how not in (OPEN, CLOSED))
        if not spec.drains:
            return NodesSeen(nodes=tuple(found), cordoned=ours, faults=tuple(faults))
        if not found:
            faults.append(f"{spec.system}: {at.cluster.name} has no node {at.selector}; see its drain in the estate")
        pods = await _evictable(at, list(found))
        return NodesSeen(nodes=tuple(found), cordoned=ours, pods=len(pods), faults=tuple(faults))


look_at_nodes = LookAtNodes()


def standing(node: Object) -> str:
    """Return whether a node takes pods, and if not, who has cordoned it; pure."""
    if not node["spec"].get("unschedulable"):
        return OPEN
    run = (node["metadata"].get("annotations") or {}).get(MARK)
    return f"cordoned by recovery {run}" if run else CLOSED


async def _nodes(at: NodesAt, name: str = "") -> list[Object]:
    """Return the nodes, or the one of that ``name`` whatever its labels, if it is there."""
    asked = f"?labelSelector={quote(at.selector)}" if at.selector else ""
    asked = f"?fieldSelector={quote(f'metadata.name={name}')}" if name else asked
    found: list[Object] = (await clusters.ask(at.cluster, "GET", f"{NODES}{asked}"))["items"]
    return found


async def _evictable(at: NodesAt, names: Iterable[str]) -> list[Object]:
    """Return the pods on nodes that an eviction is for."""
    found: list[Object] = []
    for name in names:
        asked = quote(f"spec.nodeName={name}")
        found += (await clusters.ask(at.cluster, "GET", f"{PODS}?fieldSelector={asked}"))["items"]
    return [pod for pod in found if evictable(pod)]


def evictable(pod: Object) -> bool:
    """Tell whether a pod goes with its node: not one of a DaemonSet, which comes back, nor of the node's own; pure."""
    meta = pod["metadata"]
    if MIRROR in (meta.get("annotations") or {}) or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    return not any(one["kind"] == "DaemonSet" for one in meta.get("ownerReferences") or ())


async def _write(spec: NodesSpec, name: str, goal: str, known: tuple[str | None, ...]) -> None:
    """Bring one node to its goal, if it is one of what is known of it. Raises Drifted."""
    at = spec.at
    for _ in range(TRIES):
        node = next(iter(await _nodes(at, name)), None)
        if node is None or (now := standing(node)) == goal:
            return
        if now not in known:
            raise Drifted(f"node {name} of {at.cluster.name}: somebody else changed it ({now}); it was not overwritten")
        await _claim(spec)
        meta = {part: node["metadata"][part] for part in ("uid", "resourceVersion")}
        run = goal.rpartition(" ")[2] if goal not in (OPEN, CLOSED) else None
        body = {"metadata": {**meta, "annotations": {MARK: run}}, "spec": {"unschedulable": goal != OPEN or None}}
        with contextlib.suppress(Conflict):
            await clusters.ask(at.cluster, "PATCH", f"{NODES}/{name}?fieldManager={MANAGER}", body, kind=MERGE)
            return
    raise Transient(f"node {name} of {at.cluster.name} keeps changing while it is written")


async def _emptied(spec: NodesSpec, before: Cordoned) -> None:
    """Evict what is left again and again, as budgets allow. Raises Fatal with what does not go in time."""
    at, clock = spec.at, asyncio.get_running_loop().time
    until, version, held = clock() + at.within, await _eviction(at.cluster), dict[str, str]()
    while left := await _evictable(at, before.nodes or {}):
        await _claim(spec)
        for pod in left:
            if not pod["metadata"].get("deletionTimestamp"):
                await _evict(at.cluster, pod, version, held)
        if clock() > until:
            told = await _told(at, left, held)
            raise Fatal(f"the nodes of {at.cluster.name} are not empty after {at.within} s: {told}")
        await asyncio.sleep(PAUSE)


async def _evict(at: ClusterAt, pod: Object, version: str, held: dict[str, str]) -> None:
    meta = pod["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    known = {"name": meta["name"], "namespace": meta["namespace"]}
    options = {"preconditions": {"uid": meta["uid"]}}
    body = {"apiVersion": version, "kind": "Eviction", "metadata": known, "deleteOptions": options}
    try:
        await clusters.ask(at, "POST", f"{path}/eviction", body)
    except Guarded:
        held[meta["uid"]] = meta["name"]
    except (Missing, Conflict):  # it has gone, and another one may have its name
        held.pop(meta["uid"], None)
    else:
        held.pop(meta["uid"], None)


async def _eviction(at: ClusterAt) -> str:
    """Return the version of evictions that the server knows: old ones only the beta. Raises Invalid."""
    for one in (await clusters.ask(at, "GET", "/api/v1")).get("resources", ()):
        if one["name"] == "pods/eviction":
            return f"{one.get('group', 'policy')}/{one.get('version', 'v1beta1')}"
    raise Invalid(f"{at.name} knows no evictions; leave drain out in the estate")


async def _told(at: NodesAt, left: list[Object], held: dict[str, str]) -> str:
    """Say which pods are left, and by which budgets."""
    rows = []
    for pod in left[:5]:
        meta = pod["metadata"]
        why = "still ends"
        if meta["uid"] in held:
            budgets = ", ".join(await _budgets(at, pod)) or "of which nobody tells"
            why = f"poddisruptionbudget/{budgets} does not let it go: raise what that allows, or scale its workload up"
        rows.append(f"pod {meta['name']} in {meta['namespace']} ({why})")
    return "; ".join(rows)


async def _budgets(at: NodesAt, pod: Object) -> list[str]:
    version = (await _eviction(at.cluster)).partition("/")[2]
    path = f"/apis/policy/{version}/namespaces/{pod['metadata']['namespace']}/poddisruptionbudgets"
    found = (await clusters.ask(at.cluster, "GET", path))["items"]
    labels = pod["metadata"].get("labels") or {}
    return [one["metadata"]["name"] for one in found if _selects(one["spec"].get("selector") or {}, labels)]


def _selects(selector: Object, labels: Object) -> bool:
    """Tell whether a selector has these labels; one with expressions may."""
    return all(labels.get(name) == value for name, value in (selector.get("matchLabels") or {}).items())


async def _claim(spec: NodesSpec) -> None:
    await cluster_hands.claim(spec.at.cluster, spec.at.namespace, spec.system, PART)
