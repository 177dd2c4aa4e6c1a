"""How manifests are applied: a bad revision rolled back on a real API server, through a relay that cuts connections."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from activities.manifest_compare import compare_manifests
from activities.manifests import Applied, ManifestsSpec, apply_manifests
from lab.kubernetes import Kubernetes
from tests.clusters import Deployed, config_map, secret, service, through, workload
from tests.matrix.relay import Relay, relay
from tests.matrix.scenes import Scene, Stage
from tests.running import eventually

GOOD = (
    config_map("settings", {"limit": "10"}),
    config_map("by-update", {"limit": "10"}),
    config_map("new", {"back": "again"}),
    secret("login", {"password": "old"}),
    service("shop"),
    workload("shop", "shop:1", replicas=2),
)
BAD = (
    config_map("settings", {"limit": "0", "odd": "yes"}),
    secret("login", {"password": "new"}),
    service("shop"),
    workload("shop", "shop:broken", replicas=None, env={"ODD": "1"}),
    config_map("extra", {"only": "here"}),
    workload("extra", "extra:1", kind="StatefulSet"),
)
UPDATED = config_map("by-update", {"limit": "0", "odd": "yes"})
"""What was deployed by an update, and not by server-side apply."""


class ApplyManifestsScene(Scene[ManifestsSpec, Applied]):
    """Bring back what was changed, made and deleted by a bad revision; replicas are taken from who scaled."""

    action = apply_manifests
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

    async def set(self) -> ManifestsSpec:
        """Deploy the bad revision."""
        folder = Path(self.ends.enter_context(tempfile.TemporaryDirectory(prefix="manifests-")))
        self.relay = await self.ends.enter_async_context(relay(self.cluster.ports["kubernetes"]))
        (folder / "repository").mkdir()
        self.deployed = Deployed(self.cluster, folder / "repository")
        self.deployed.at = through(self.cluster, self.relay.port, folder / "kubeconfig")
        good, head = self.deployed.commit(*GOOD), self.deployed.commit(*BAD, UPDATED)
        await asyncio.to_thread(self._deploy)
        overrule = ("scaler",)
        compared = await compare_manifests.observe(self.deployed.compare(good, head, overrule=overrule))
        in_the_way = (*compared.faults, *compared.conflicts, *compared.drift)
        assert not in_the_way, in_the_way
        assert compared.overruled == ("deployment/shop: .spec.replicas is owned by scaler",)
        return self.deployed.spec(good, compared, overrule=overrule)

    def _deploy(self) -> None:
        self.deployed.clear()
        self.deployed.apply(*BAD)
        self.deployed.update(UPDATED)
        self.deployed.edit("Deployment", "shop", {"spec": {"replicas": 5}}, manager="scaler")

    def shows(self, spec: ManifestsSpec) -> Mapping[str, object]:
        """Return every object of the namespace, what is kept among them, and who owns the replicas."""
        found = self.deployed.everything()
        return {"objects": found, "scaled": self._scaled(), "jobs": []}

    def _scaled(self) -> list[str]:
        live = self.deployed.get("Deployment", "shop") or {}
        entries = live.get("metadata", {}).get("managedFields", ())
        return [one["manager"] for one in entries if "f:replicas" in one["fieldsV1"].get("f:spec", {})]

    async def meddle_before(self, spec: ManifestsSpec) -> None:
        """Somebody edits a value."""
        self.deployed.edit("ConfigMap", "settings", {"data": {"limit": "7"}})

    async def meddle_after(self, spec: ManifestsSpec) -> None:
        """Somebody edits another value: one that was deleted would be what it was."""
        self.deployed.edit("ConfigMap", "new", {"data": {"back": "by hand"}})

    async def strike(self, accident: str, spec: ManifestsSpec, chance: Random) -> None:
        """Cause the accident once something is kept, after a few more writes or at once."""
        await eventually(lambda: self._writes(spec) > chance.randrange(3), "something was written", 15, pause=0.002)
        if accident == "connection cut":
            self.relay.cut()
            return
        await asyncio.to_thread(self.cluster.kill_api)
        await asyncio.to_thread(self.cluster.start)

    def _writes(self, spec: ManifestsSpec) -> int:
        """Return how many writes of the action are to be seen."""
        kept = self.deployed.get("Secret", spec.keeping.secret) is not None
        made = self.deployed.get("ConfigMap", "new") is not None
        return kept + made + (kept and self.deployed.get("ConfigMap", "extra") is None)

    async def clear(self) -> None:
        """Empty the namespace."""
        await asyncio.to_thread(self.cluster.start)
        await asyncio.to_thread(self.deployed.clear)
        await self.ends.aclose()
