"""Whether pods find room on the nodes of a cluster, and in the quotas of their namespace; pure.

What is looked at is what most schedulers refuse for first: requests of every resource, the number of pods, node
selectors, taints, and nodes that are not ready or take no pods. Affinities, spreading over zones, volumes and host
ports are not: a pod that has any of them may find less room than is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from math import ceil
from typing import Any

from recovery.models import Wire

Object = dict[str, Any]
Amounts = dict[str, int]
"""Of each resource: CPU in thousandths, all else in units (bytes)."""
PODS = "pods"
SUFFIXES = {
    "n": "1e-9",
    "u": "1e-6",
    "m": "1e-3",
    "": "1",
    "k": "1e3",
    "M": "1e6",
    "G": "1e9",
    "T": "1e12",
    "P": "1e15",
}
SUFFIXES |= {"E": "1e18"} | {f"{name}i": str(2 ** (10 * power)) for power, name in enumerate("KMGTPE", 1)}
QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)([numkMGTPE]?|[KMGTPE]i)")
BARS = ("NoSchedule", "NoExecute")
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
UNSEEN = "affinities, spreading, volumes and host ports are not looked at"


class NodeRoom(Wire):
    """What a node has left, and what keeps pods from it; ``why`` it takes none at all."""

    name: str
    free: Amounts = {}
    labels: dict[str, str] = {}
    taints: tuple[tuple[str, str, str], ...] = ()
    why: str = ""


class Limits(Wire):
    """A ResourceQuota: what is used and granted of each resource; ``scoped`` if it is for some pods only."""

    name: str
    used: Amounts = {}
    hard: Amounts = {}
    scoped: bool = False


class PodAsked(Wire):
    """What a pod of a workload asks for, and how many there are to be more than there are."""

    workload: str
    more: int
    requests: Amounts = {}
    limits: Amounts = {}
    selector: dict[str, str] = {}
    tolerations: tuple[Object, ...] = ()


def quantity(text: object, resource: str = "") -> int:
    """Return an amount as Kubernetes writes it: thousandths of CPU, else units, rounded up. Raises ValueError."""
    found = QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    amount = Decimal(found[1]) * Decimal(SUFFIXES[found[2]])
    return ceil(amount * 1000 if resource.removeprefix("requests.").removeprefix("limits.") == "cpu" else amount)


def amount(number: int, resource: str) -> str:
    """Return an amount as people write it."""
    if resource.rpartition(".")[2] == "cpu":
        return f"{number}m"
    return f"{number / 2**20:.0f}Mi" if resource.rpartition(".")[2] in ("memory", "storage") else f"{number}"


def amounts(told: Mapping[str, object] | None) -> Amounts:
    """Return amounts by resource."""
    return {name: quantity(text, name) for name, text in (told or {}).items()}


def asked(spec: Mapping[str, Any], what: str = "requests") -> Amounts:
    """Return what a pod asks for: its containers together, or one that initialises it, if that is more; and overhead.

    A request that is not there is as much as the limit.
    """
    run, first = ([_of(one, what) for one in spec.get(kind) or ()] for kind in ("containers", "initContainers"))
    own = _most([_sum(run), *first])
    return _sum([own, amounts(spec.get("overhead"))])


def _of(container: Mapping[str, Any], what: str) -> Amounts:
    told = container.get("resources") or {}
    least = amounts(told.get("limits")) if what == "requests" else {}
    return least | amounts(told.get(what))


def _sum(parts: Sequence[Amounts]) -> Amounts:
    return {name: sum(one.get(name, 0) for one in parts) for name in {name for one in parts for name in one}}


def _most(parts: Sequence[Amounts]) -> Amounts:
    return {name: max(one.get(name, 0) for one in parts) for name in {name for one in parts for name in one}}


def room(node: Object, pods: Iterable[Object], opened: bool = False) -> NodeRoom:
    """Return what a node has left beside its pods; ``opened`` tells that it takes pods again before it is needed."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    left = amounts(status.get("allocatable"))
    for pod in pods:
        for name, asked_for in {**asked(pod["spec"]), PODS: 1}.items():
            left[name] = left.get(name, 0) - asked_for
    states = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    cordoned = bool(spec.get("unschedulable")) and not opened
    taints = [
        (one["key"], one.get("value") or "", one["effect"])
        for one in spec.get("taints") or ()
        if one["effect"] in BARS and one["key"] != UNSCHEDULABLE
    ]
    why = "is not ready" if states.get("Ready") != "True" else "is cordoned" if cordoned else ""
    return NodeRoom(
        name=node["metadata"]["name"], free=left, labels=node["metadata"].get("labels") or {}, taints=tuple(taints),
        why=why,
    )  # fmt: skip


def tolerated(taint: tuple[str, str, str], tolerations: Iterable[Object]) -> bool:
    """Tell whether a pod may run in spite of a taint."""
    key, value, effect = taint
    return any(
        one.get("effect", effect) in ("", effect)
        and one.get("key", "" if one.get("operator") == "Exists" else None) in ("", key)
        and (one.get("operator") == "Exists" or (one.get("value") or "") == value)
        for one in tolerations
    )


def takes(node: NodeRoom, pod: PodAsked) -> bool:
    """Tell whether a node may run one more such pod."""
    return (
        not node.why
        and all(node.labels.get(name) == value for name, value in pod.selector.items())
        and all(tolerated(one, pod.tolerations) for one in node.taints)
        and all(amount <= node.free.get(name, 0) for name, amount in {**pod.requests, PODS: 1}.items() if amount)
    )


def placed(nodes: Sequence[NodeRoom], pods: Sequence[PodAsked]) -> dict[str, int]:
    """Return for how many pods of each workload there is room: large ones first, each on the first node it fits."""
    left = {one.name: one for one in nodes}
    found = {pod.workload: 0 for pod in pods}
    for pod in sorted(pods, key=lambda one: (-one.requests.get("cpu", 0), -one.requests.get("memory", 0))):
        for _ in range(pod.more):
            node = next((one for one in left.values() if takes(one, pod)), None)
            if node is None:
                break
            used = {**pod.requests, PODS: 1}
            free = {name: amount - used.get(name, 0) for name, amount in node.free.items()}
            left[node.name] = node.model_copy(update={"free": free})
            found[pod.workload] += 1
    return found


def counted(pods: Sequence[PodAsked]) -> Amounts:
    """Return what all of these take of a ResourceQuota, by the names that it has for that."""
    all_of_them = sum(pod.more for pod in pods)
    found: Amounts = {PODS: all_of_them, f"count/{PODS}": all_of_them}
    for pod in pods:
        for kind, each in (("requests", pod.requests), ("limits", pod.limits)):
            for name, amount in each.items():
                for key in (f"{kind}.{name}", *([name] if kind == "requests" else [])):
                    found[key] = found.get(key, 0) + amount * pod.more
    return found
