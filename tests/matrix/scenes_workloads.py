"""How a workload is scaled: one that runs already is rolled out anew, on a real API server, through a relay."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from activities.workloads import Scaled, ScaleSpec, WorkloadAt, scale_workload
from lab.cluster_access import NAMESPACE
from lab.kubernetes import Kubernetes
from tests.clusters import Deployed, through, until, workload
from tests.matrix.relay import Relay, relay
from tests.matrix.scenes import Scene, Stage


class ScaleWorkloadScene(Scene[ScaleSpec, Scaled]):
    """Scale from one to three, of which none is to be as old as the one that was there."""

    action = scale_workload
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

    async def set(self) -> ScaleSpec:
        """Have one replica run."""
        folder = Path(self.ends.enter_context(tempfile.TemporaryDirectory(prefix="workloads-")))
        self.relay = await self.ends.enter_async_context(relay(self.cluster.ports["kubernetes"]))
        (folder / "repository").mkdir()
        self.deployed = Deployed(self.cluster, folder / "repository")
        at = through(self.cluster, self.relay.port, folder / "kubeconfig")
        await asyncio.to_thread(self._deploy)
        web = WorkloadAt(
            name="web", cluster=at, namespace=NAMESPACE, kind="Deployment", object="shop", replicas=3, within=20
        )
        return ScaleSpec(system="web", workload=web, replicas=3, restart="0a1b2c3d")

    def _deploy(self) -> None:
        self.deployed.clear()
        self.deployed.apply(workload("shop"))
        until(lambda: self._ready() == 1, "one pod is ready")

    def _ready(self) -> int:
        live = self.deployed.get("Deployment", "shop") or {}
        return int(live["status"].get("readyReplicas", 0))

    def shows(self, spec: ScaleSpec) -> Mapping[str, object]:
        """Return how many it is to have, and of which template; a second roll-out would be one of another."""
        live = self.deployed.get("Deployment", "shop") or {}
        return {"replicas": live["spec"]["replicas"], "template": live["spec"]["template"], "jobs": []}

    async def meddle_before(self, spec: ScaleSpec) -> None:
        """Somebody scales it."""
        self.deployed.edit("Deployment", "shop", {"spec": {"replicas": 2}})

    async def meddle_after(self, spec: ScaleSpec) -> None:
        """Somebody scales it later."""
        self.deployed.edit("Deployment", "shop", {"spec": {"replicas": 2}})

    async def strike(self, accident: str, spec: ScaleSpec, chance: Random) -> None:
        """Cause the accident before the first write, or after it."""
        await asyncio.sleep(chance.uniform(0, 0.1))
        if accident == "connection cut":
            self.relay.cut()
            return
        await asyncio.to_thread(self.cluster.kill_api)
        await asyncio.to_thread(self.cluster.start)

    async def clear(self) -> None:
        """Empty the namespace."""
        await asyncio.to_thread(self.cluster.start)
        await asyncio.to_thread(self.deployed.clear)
        await self.ends.aclose()
