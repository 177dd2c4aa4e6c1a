"""ConfigurationRollback over a real API server and two machines at once: both have the good revision, or neither."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from lab.cluster_access import NAMESPACE
from lab.estate import Lab
from lab.kubernetes import Kubernetes
from recovery.report import Report
from tests.clusters import MANAGER, Deployed, config_map, service, workload
from tests.running import Recovery, Running, eventually, running
from tests.shops import Machine, Remote, below, catalog
from tests.stores import lab_host

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

NAMES = ("one", "two")
Object = dict[str, Any]
GOOD = (config_map("settings", {"limit": "100"}), workload("shop", "shop:1"), service("shop"))
BAD = (config_map("settings", {"limit": "0"}), workload("shop", "shop:broken"), service("shop"), config_map("new", {}))


@dataclass
class Estate:
    """A repository, two machines and a namespace that have what is in it, and the engine."""

    engine: Running
    root: Path
    deployed: Deployed
    remote: Remote
    machines: Mapping[str, Machine]
    lab: Lab
    good: str = ""
    bad: str = ""

    def anew(self) -> None:
        """Have nothing deployed, and no catalog, as at first."""
        self.deployed.clear()
        shutil.rmtree(self.root / "lab", ignore_errors=True)
        self.good = ""

    def have(self, good: Sequence[Object], bad: Sequence[Object], files: str = "works well\n", **more: Any) -> None:
        """Commit both, deploy the bad one, and write the catalog."""
        for objects, text in ((good, files), (bad, "works badly\n")):
            tree = below("web", {"app.conf": text}) | {"k8s/all.yaml": str(yaml.safe_dump_all(objects))}
            self.bad = self.remote.commit(tree)
            self.good = self.good or self.bad
        self.deployed.apply(*bad)
        for machine in self.machines.values():
            machine.have({"app.conf": "works badly\n"})
        kubeconfig = str(self.deployed.cluster.kubeconfig(more.pop("user", "recovery")))
        manifests = {"cluster": {"cluster": "lab", "folder": "k8s", "namespace": NAMESPACE, "manager": MANAGER}}
        parameters = {"canary": ["on-one"], "waves": [1], "watch": "PT0.5S", "settle": "PT6S", **more}
        hosts = dict.fromkeys(NAMES, lab_host(self.lab))
        catalog(self.root, "lab", self.remote, self.machines, hosts, parameters, manifests=manifests)
        file = self.root / "lab" / "estate.yaml"
        known = yaml.safe_load(file.read_text())
        known["clusters"] = {"lab": {"site": "north", "kubeconfig": kubeconfig}}
        file.write_text(yaml.safe_dump(known))

    async def start(self, mode: str = "live", **parameters: Any) -> Recovery:
        """Start the rollback."""
        parameters = {"revision": self.good, **parameters}
        given = {"runbook": "lab/back", "reason": "it broke", "mode": mode, "requested_by": "alice"}
        queue = self.engine.settings.task_queue
        handle = await self.engine.client.start_workflow(
            "ConfigurationRollback", given | {"parameters": parameters}, id="lab/shop", task_queue=queue
        )
        return Recovery(handle)

    async def approved(self, **parameters: Any) -> Report:
        """Roll back, with the gate approved."""
        recovery = await self.start(**parameters)
        await recovery.approve()
        return await recovery.ended(120)

    def world(self) -> dict[str, object]:
        """Return what there is."""
        files = {name: (one.has(), one.loaded) for name, one in self.machines.items()}
        return {"objects": self.deployed.everything(), "tree": self.remote.tree(), **files}

    def data(self, name: str = "settings") -> object:
        """Return what a ConfigMap holds."""
        return (self.deployed.get("ConfigMap", name) or {}).get("data")


@asynccontextmanager
async def estate_of(
    lab: Lab, cluster: Kubernetes, work: Path, program: list[str] | None = None, *, worker: bool = True
) -> AsyncIterator[Estate]:
    """Have an estate in which nothing is deployed yet."""
    folder = lab.place.north / "clustered"
    folder.mkdir()
    folder.chmod(0o755)
    (work / "work").mkdir()
    deployed = Deployed(cluster, work / "work")
    deployed.clear()
    machines = {name: Machine.new(name, folder) for name in NAMES}
    root = work / "catalogs"
    root.mkdir()
    async with running(lab, program, worker, RECOVERY_CATALOGS=str(root)) as engine:
        yield Estate(engine, root, deployed, Remote.new(folder / "shop.git"), machines, lab)
    shutil.rmtree(folder)
    deployed.clear()


@pytest_asyncio.fixture(loop_scope="module")
async def estate(lab: Lab, cluster: Kubernetes, tmp_path: Path) -> AsyncIterator[Estate]:
    async with estate_of(lab, cluster, tmp_path) as found:
        yield found


async def test_bad_revision_goes_back_on_hosts_and_cluster(estate: Estate) -> None:
    estate.have(GOOD, BAD)
    recovery = await estate.start(prune=True)
    shown = str((await recovery.until("gate")).gates[0].shown)
    assert "cluster: go: configmap/new" in shown
    assert "not well now: cluster (deployment/shop" in shown
    await recovery.approve()
    report = await recovery.ended(120)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert (estate.data(), estate.data("new")) == ({"limit": "100"}, None)
    shop = estate.deployed.get("Deployment", "shop") or {}
    assert shop["status"]["availableReplicas"] == 1
    assert shop["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:1"
    assert {one.has()["app.conf"] for one in estate.machines.values()} == {"works well\n"}
    assert estate.remote.tree() == estate.remote.tree(estate.good)


async def test_what_is_not_to_be_pruned_stays(estate: Estate) -> None:
    estate.have(GOOD[:1], (BAD[0], BAD[3]))
    report = await estate.approved()
    assert report.outcome == "recovered", report.failure
    assert "stay, though the good revision has them not: configmap/new" in str(report.gates[0].shown)
    assert (estate.data(), estate.deployed.get("ConfigMap", "new") is None) == ({"limit": "100"}, False)


async def test_worse_on_the_cluster_returns_on_the_hosts_too(estate: Estate) -> None:
    good = (GOOD[0], workload("shop", "shop:broken"), GOOD[2])
    estate.have(good, (BAD[0], workload("shop", "shop:1"), BAD[2]), settle="PT20S")
    before = estate.deployed
    await eventually(lambda: (before.get("Deployment", "shop") or {}).get("status", {}).get("availableReplicas"), "up")
    world = estate.world()
    report = await estate.approved()
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    assert "cluster was well, and is not any more" in report.failure
    assert estate.world() == world


async def test_worse_on_a_host_returns_on_the_cluster_too(estate: Estate) -> None:
    estate.have(GOOD[:1], BAD[:1], "works\nnot on two\n", canary=["cluster"])
    world = estate.world()
    report = await estate.approved()
    assert (report.outcome, report.residual) == ("compensated", ()), report.failure
    assert estate.world() == world


async def test_killed_api_server_is_waited_for(estate: Estate) -> None:
    estate.have(GOOD[:1], BAD[:1], watch="PT2S")
    recovery = await estate.start()
    await recovery.approve()
    await eventually(lambda: estate.machines["one"].loaded == "works well\n", "the canary is changed")
    estate.deployed.cluster.kill_api()
    try:
        await eventually(_tries(recovery), "the cluster is tried", 60)
    finally:
        estate.deployed.cluster.start()
    report = await recovery.ended(120)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert estate.data() == {"limit": "100"}


def _tries(recovery: Recovery) -> Any:
    async def look() -> bool:
        found = (await recovery.handle.describe()).raw_description.pending_activities
        return any("cluster" in one.activity_id and one.attempt > 1 for one in found)

    return look


async def test_field_of_another_manager_is_asked_for(estate: Estate) -> None:
    estate.have(GOOD[:1], BAD[:1])
    estate.deployed.edit("ConfigMap", "settings", {"data": {"limit": "5"}}, manager="night-shift")
    world = estate.world()
    report = await (await estate.start("check")).ended()
    said = "configmap/settings: .data.limit is owned by night-shift"
    assert any(said in one and "overrule" in one for one in report.blockers), report.blockers
    assert estate.world() == world
    report = await estate.approved(overrule=["night-shift"])
    assert report.outcome == "recovered", report.failure
    assert estate.data() == {"limit": "100"}


async def test_what_the_cluster_refuses_is_told_before_anything_is_touched(estate: Estate) -> None:
    wrong = {**config_map("settings", {}), "data": {"limit": 5}}
    estate.have((wrong, {"apiVersion": "v1", "kind": "Nonsense", "metadata": {"name": "x"}}), BAD[:1], user="viewer")
    world = estate.world()
    report = await (await estate.start()).ended()
    assert (report.outcome, report.residual) == ("failed", ())
    for said in ("Nonsense", "may not", "settings"):
        assert any(said in one for one in report.blockers), (said, report.blockers)
    assert estate.world() == world
