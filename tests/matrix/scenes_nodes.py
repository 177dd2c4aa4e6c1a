"""How nodes are drained: two of three, one of which somebody has cordoned, on a real API server."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from activities.nodes import MARK, Cordoned, NodesAt, NodesSpec, drain_nodes
from lab.cluster_access import NAMESPACE
from lab.kubernetes import NODE, Kubernetes
from tests.clusters import Deployed, bare_nodes, through, until, workload
from tests.matrix.relay import Relay, relay
from tests.matrix.scenes import Scene, Stage

NAMES = (NODE, "bare-1", "bare-2")
PATH = "/api/v1/nodes"


class DrainNodesScene(Scene[NodesSpec, Cordoned]):
    """Drain them all; one is cordoned already, and stays so."""

    action = drain_nodes
    accidents = ("connection cut", "API server killed")
    rarely = ("API server killed",)
    moments = 2

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        assert stage.cluster is not None
        self.cluster: Kubernetes = stage.cluster()
        self.ends = AsyncExitStack()
        self.relay: Relay
        self.deployed: Deployed

    async def set(self) -> NodesSpec:
        """Have a pod on one of them."""
        folder = Path(self.ends.enter_context(tempfile.TemporaryDirectory(prefix="nodes-")))
        self.relay = await self.ends.enter_async_context(relay(self.cluster.ports["kubernetes"]))
        (folder / "repository").mkdir()
        self.deployed = Deployed(self.cluster, folder / "repository")
        at = through(self.cluster, self.relay.port, folder / "kubeconfig")
        await asyncio.to_thread(self._deploy)
        nodes = NodesAt(cluster=at, namespace=NAMESPACE, within=20)
        return NodesSpec(system="web", at=nodes, wanted="drained", run="0a1b2c3d", names=NAMES)

    def _deploy(self) -> None:
        self.deployed.clear()
        bare_nodes(self.cluster, *NAMES[1:])
        self.cluster.ask("PATCH", f"{PATH}/bare-2", {"spec": {"unschedulable": True}})
        self.deployed.apply(workload("shop"))
        until(lambda: self._ready() == 1, "one pod is ready")

    def _ready(self) -> int:
        live = self.deployed.get("Deployment", "shop") or {}
        return int(live["status"].get("readyReplicas", 0))

    def shows(self, spec: NodesSpec) -> Mapping[str, object]:
        """Return which takes pods, and whose mark each has."""
        found = {name: self.cluster.ask("GET", f"{PATH}/{name}") for name in NAMES}
        nodes = {
            name: (one["spec"].get("unschedulable", False), (one["metadata"].get("annotations") or {}).get(MARK))
            for name, one in found.items()
        }
        return {"nodes": nodes, "jobs": []}

    async def meddle_before(self, spec: NodesSpec) -> None:
        """Somebody cordons one."""
        self.cluster.ask("PATCH", f"{PATH}/bare-1", {"spec": {"unschedulable": True}})

    async def meddle_after(self, spec: NodesSpec) -> None:
        """Somebody takes one over from the recovery: it is theirs to open."""
        self.cluster.ask("PATCH", f"{PATH}/bare-1", {"metadata": {"annotations": {MARK: None}}})

    async def strike(self, accident: str, spec: NodesSpec, chance: Random) -> None:
        """Cause the accident before the first write, or after it."""
        await asyncio.sleep(chance.uniform(0, 0.2))
        if accident == "connection cut":
            self.relay.cut()
            return
        await asyncio.to_thread(self.cluster.kill_api)
        await asyncio.to_thread(self.cluster.start)

    async def clear(self) -> None:
        """Open the node, take the others away, and empty the namespace."""
        await asyncio.to_thread(self.cluster.start)
        await asyncio.to_thread(self._clear)
        await self.ends.aclose()

    def _clear(self) -> None:
        opened = {"metadata": {"annotations": {MARK: None}}, "spec": {"unschedulable": None}}
        self.cluster.ask("PATCH", f"{PATH}/{NODE}", opened)
        for name in NAMES[1:]:
            self.cluster.ask("DELETE", f"{PATH}/{name}")
        self.deployed.clear()
