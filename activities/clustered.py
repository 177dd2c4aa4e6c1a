"""What of a move between sites is in Kubernetes clusters: workloads and nodes, how each is named in a step; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from activities.clusters import ClusterAt
from activities.directors import Act
from activities.nodes import MARK, NodesAt, NodesLook, NodesSeen, NodesSpec, drain_nodes
from activities.rooms import RoomSpec
from activities.workload_looks import WorkloadSeen, WorkloadSpec
from activities.workloads import ScaleSpec, WorkloadAt, quiet_workload, scale_workload
from runbooks.schema import Cluster, Workload

STAY_OPEN = "nodes that are open stand in nobody's way"
"""Why their opening is not undone: meanwhile an autoscaler may take one away, and somebody may cordon one."""


class Clustered:
    """The clusters of an estate, and the workloads that a runbook names; from the site ``old`` to the site ``new``."""

    old: str
    new: str

    def __init__(self, systems: tuple[str, ...], estate: Mapping[str, Any], owner: str) -> None:
        """Take them from an estate as history holds it: one of old has neither."""
        self.owner = owner
        self.clusters = {name: Cluster.model_validate(one) for name, one in estate.get("clusters", {}).items()}
        self.workloads = {
            name: Workload.model_validate(one) for name, one in estate.get("workloads", {}).items() if name in systems
        }

    def drained(self, site: str) -> list[str]:
        """Return the clusters of ``site`` whose nodes are emptied while it is not active."""
        used = {one.cluster for one in self.workloads.values()}
        return [name for name, one in sorted(self.clusters.items()) if one.drain and one.site == site and name in used]

    def nodes(self, cluster: str) -> NodesLook:
        """Return how the nodes of a cluster are looked at, all of them where they are only opened.

        The first workload there stands for them.
        """
        one = self.clusters[cluster]
        name = min(name for name, workload in self.workloads.items() if workload.cluster == cluster)
        drains = one.site == self.old
        selector, within = (one.drain.nodes or "", int(one.drain.within.total_seconds())) if one.drain else ("", 0)
        at = NodesAt(
            cluster=ClusterAt.of(cluster, one), namespace=self.workloads[name].namespace,
            selector=selector if drains else "", within=within,
        )  # fmt: skip
        return NodesLook(system=name, at=at, drains=drains)

    def drain_nodes(self, cluster: str, seen: NodesSeen) -> Act:
        """Return how nodes that were seen are emptied."""
        look = self.nodes(cluster)
        return drain_nodes, NodesSpec(
            system=look.system, at=look.at, wanted="drained", run=self.owner, names=seen.nodes
        )

    def open(self, cluster: str) -> Act:
        """Return how the nodes of a cluster are opened that recoveries have cordoned, whichever that were."""
        look = self.nodes(cluster)
        at = look.at.model_copy(update={"selector": ""})
        return drain_nodes, NodesSpec(system=look.system, at=at, wanted="open", run=self.owner)

    def rooms(self) -> list[RoomSpec]:
        """Return how it is seen whether each cluster of the new site has room for what is scaled up there."""
        found: dict[str, list[str]] = {}
        for name, one in sorted(self.workloads.items()):
            if self.clusters[one.cluster].site == self.new:
                found.setdefault(one.cluster, []).append(name)
        return [
            RoomSpec(
                system=names[0], cluster=ClusterAt.of(cluster, self.clusters[cluster]),
                workloads=tuple(self._at(name) for name in names), mark=MARK if self.clusters[cluster].drain else "",
            )
            for cluster, names in sorted(found.items())
        ]  # fmt: skip

    def of(self, name: str) -> WorkloadSpec:
        """Return how a workload is named in a look."""
        return WorkloadSpec(system=name, workload=self._at(name))

    def scale(self, name: str, replicas: int) -> Act:
        """Return how a workload is scaled; pods that run already are rolled out anew where it says so."""
        restart = self.owner if self.workloads[name].restart and replicas else ""
        return scale_workload, ScaleSpec(system=name, workload=self._at(name), replicas=replicas, restart=restart)

    def quiet(self, name: str) -> Act:
        """Return how a workload of a lost site is brought to stand still, if that can be: nobody waits for it."""
        return quiet_workload, ScaleSpec(system=name, workload=self._at(name), replicas=0)

    def _at(self, name: str) -> WorkloadAt:
        one = self.workloads[name]
        return WorkloadAt.of(name, one, self.clusters[one.cluster])

    # --- what is told of them ----------------------------------------------------------------------------

    def standing(self, seen: Mapping[str, WorkloadSeen]) -> Iterator[str]:
        """Say how many pods of each workload run, and to how many it is scaled."""
        for name in sorted(seen):
            one, site = seen[name], self.clusters[self.workloads[name].cluster].site
            goal = self.workloads[name].replicas if site == self.new else 0
            yield f"{name} at {site}: {one.ready} of {one.replicas} pods are ready; it is scaled to {goal}"

    def emptied(self, seen: Mapping[str, NodesSeen]) -> Iterator[str]:
        """Say how many nodes are drained, and how many are opened."""
        for name, one in sorted(seen.items()):
            if self.clusters[name].site == self.old:
                yield f"nodes of {name}, once clients are at {self.new}: {len(one.nodes)} drained of {one.pods} pods"
            else:
                yield f"{cordoned_of(name)}, and that are opened: {len(one.cordoned)}"

    def hindered(self, workloads: Mapping[str, WorkloadSeen], nodes: Mapping[str, NodesSeen]) -> Iterator[str]:
        """Yield what stands in the way of a planned move of workloads."""
        yield from (fault for found in nodes.values() for fault in found.faults)
        for name, seen in workloads.items():
            site = self.clusters[self.workloads[name].cluster].site
            yield from seen.faults
            if not seen.faults and site == self.old and not seen.replicas:
                yield f"{name}: does not run at {site}, which is said to be active; scale it up, or leave it out"
            yield from self.warm(name, seen) if site == self.new else ()

    def warm(self, name: str, seen: WorkloadSeen) -> Iterator[str]:
        """Say of a workload of the new site that it runs already, unless it may."""
        if seen.replicas and not self.workloads[name].restart:
            yield (
                f"{name}: runs at {self.new} already ({seen.replicas} replicas), with connections to a standby; scale"
                " it to 0, or say restart: true, so that its pods are rolled out anew"
            )


def nodes_of(cluster: str) -> str:
    """Return the nodes of a cluster as they are named among what is started: no system is named so."""
    return f"nodes of {cluster}"


def cordoned_of(cluster: str) -> str:
    """Return what people read of those that are to be opened."""
    return f"{nodes_of(cluster)} that recoveries have cordoned"
