"""Two sites whose orders are shown by workloads of clusters: the lab's catalog with those in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from activities.nodes import MARK
from lab import daemons
from lab.cluster_access import NAMESPACE
from lab.kubernetes import NODE, Kubernetes
from lab.place import SITES
from tests.clusters import APPS, CORE, Object, service, until, workload
from tests.running import ROOT

REPLICAS = 2


@dataclass(frozen=True)
class At:
    """What a site has of a cluster, which may be one for both: a workload, and a node that only that may run on."""

    site: str
    cluster: Kubernetes
    node: str

    @property
    def name(self) -> str:
        """The workload."""
        return f"web-{self.site}"

    def deploy(self, replicas: int, image: str = "web:1", **spec: Any) -> None:
        """Have it deployed, with that many replicas, and its service."""
        told = workload(self.name, image, replicas=replicas, **spec)
        told["spec"]["template"]["spec"]["nodeSelector"] = {"site": self.site}
        for one, path in ((told, f"{APPS}/deployments"), (service(self.name), f"{CORE}/services")):
            self.cluster.ask("APPLY", f"{path}/{self.name}?fieldManager=deployer&force=true", one)

    def live(self) -> Object:
        """Return the workload."""
        found: Object = self.cluster.ask("GET", f"{APPS}/deployments/{self.name}")
        return found

    def cordon(self, mark: str | None) -> None:
        """Cordon its node, with the mark of a recovery or as anybody would."""
        self._node({"metadata": {"annotations": {MARK: mark}}, "spec": {"unschedulable": True}})

    def uncordon(self) -> None:
        """Open its node."""
        self._node({"metadata": {"annotations": {MARK: None}}, "spec": {"unschedulable": None}})

    def cordoned(self) -> bool:
        """Tell whether its node takes no pods, whoever has cordoned it."""
        return bool(self.cluster.ask("GET", f"/api/v1/nodes/{self.node}")["spec"].get("unschedulable"))

    def labelled(self) -> bool:
        """Have its node be open, and one of its site; tell whether the node is there yet."""
        labels = {"labels": {"site": self.site}, "annotations": {MARK: None}}
        try:
            self._node({"metadata": labels, "spec": {"unschedulable": None}})
        except OSError:
            return False
        return True

    def _node(self, change: Object) -> None:
        self.cluster.ask("PATCH", f"/api/v1/nodes/{self.node}", change)

    def stands(self) -> dict[str, object]:
        """Return how many replicas are wanted, how many addresses clients find, and whose mark the node has."""
        subsets = self.cluster.ask("GET", f"{CORE}/endpoints/{self.name}").get("subsets") or ()
        node = self.cluster.ask("GET", f"/api/v1/nodes/{self.node}")
        return {
            "replicas": self.live()["spec"]["replicas"],
            "addresses": sum(len(one.get("addresses") or ()) for one in subsets),
            "pods": len(self.cluster.ask("GET", f"{CORE}/pods?labelSelector=app%3D{self.name}")["items"]),
            "cordoned": bool(node["spec"].get("unschedulable")) and MARK in node["metadata"].get("annotations", {}),
        }


UP = {"replicas": REPLICAS, "addresses": REPLICAS, "pods": REPLICAS, "cordoned": False}
DOWN = {"replicas": 0, "addresses": 0, "pods": 0, "cordoned": True}


@contextmanager
def deployed_at(clusters: Mapping[str, Kubernetes]) -> Iterator[dict[str, At]]:
    """Have the workload run at north, and stand still at south; where both are one cluster it gets another node."""
    shared = clusters["north"] is clusters["south"]
    found = {site: At(site, clusters[site], "node-south" if shared and site == "south" else NODE) for site in SITES}
    place = clusters["south"].place
    try:
        if shared:
            daemons.start(place, "node-south", "node", "node-south")
        for one in found.values():
            until(one.labelled, "the node is there")
            one.deploy(REPLICAS if one.site == "north" else 0)
        until(lambda: found["north"].stands()["addresses"] == REPLICAS, "it runs at north")
        yield found
    finally:
        if shared:
            daemons.stop(place, ["node-south"], 0)


def author(folder: Path, deployed: Mapping[str, At], *, queued: bool = True, **more: Any) -> None:
    """Write the lab's catalog with the clusters, drained while they do not serve, and with the workloads.

    Not ``queued``, any worker sees both sites as theirs do.
    """
    if not folder.exists():
        shutil.copytree(ROOT / "runbooks" / "lab", folder)
    file = folder / "estate.yaml"
    estate = yaml.safe_load(file.read_text())
    estate["workloads"] = {}
    for place in () if queued else estate["sites"].values():
        del place["queue"]
    for site, at in deployed.items():
        estate["clusters"][f"cluster-{site}"] = {
            "site": site, "kubeconfig": str(at.cluster.kubeconfig()), "context": "lab",
            "drain": {"nodes": f"site={site}", "within": "PT5S"},
        }  # fmt: skip
        database = "orders" if site == "north" else "orders-south"
        estate["workloads"][at.name] = {
            "cluster": f"cluster-{site}", "namespace": NAMESPACE, "name": at.name, "replicas": REPLICAS,
            "after": [database, f"orders-app-{site}"], "endpoints": at.name, "within": "PT30S", **more,
        }  # fmt: skip
    file.write_text(yaml.safe_dump(estate))
    for one in folder.glob("*.yaml"):
        runbook = yaml.safe_load(one.read_text())
        if "front" in runbook.get("systems", ()):
            runbook["systems"] += [at.name for at in deployed.values()]
        if runbook.get("procedure") == "FenceWatch":
            runbook["systems"].append(f"web-{runbook['parameters']['site']}")
        one.write_text(yaml.safe_dump(runbook))
