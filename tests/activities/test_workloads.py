"""Workloads on a real control plane: scaled and seen to serve, or each reason why not, with whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from activities.cluster_hands import lease_name
from activities.workload_looks import (
    WorkloadSeen,
    WorkloadSpec,
    await_workload,
    look_at_workload,
    sight_workload,
)
from activities.workloads import MARK, Scaled, ScaleSpec, WorkloadAt, scale_workload
from lab.cluster_access import NAMESPACE
from lab.kubernetes import Kubernetes
from recovery.errors import Drifted, Fatal, Invalid, Refused, Stale, Transient
from recovery.fencing import Hand, acting
from tests.clusters import CORE, Deployed, Object, service, through, until, workload
from tests.matrix.relay import relay
from tests.running import eventually

HPAS = f"/apis/autoscaling/v1/namespaces/{NAMESPACE}/horizontalpodautoscalers"


@pytest.fixture
def deployed(cluster: Kubernetes, tmp_path: Path) -> Iterator[Deployed]:
    """Return a namespace in which nothing is."""
    (tmp_path / "repository").mkdir()
    found = Deployed(cluster, tmp_path / "repository")
    found.clear()
    yield found
    for one in cluster.ask("GET", HPAS)["items"]:
        cluster.ask("DELETE", f"{HPAS}/{one['metadata']['name']}")


def at(deployed: Deployed, **more: Any) -> WorkloadAt:
    known = {"name": "web", "cluster": deployed.at, "namespace": NAMESPACE, "kind": "Deployment", "object": "shop"}
    return WorkloadAt.model_validate(known | {"replicas": 2, "within": 20} | more)


def scale(deployed: Deployed, replicas: int = 2, restart: str = "", **more: Any) -> ScaleSpec:
    return ScaleSpec(system="web", workload=at(deployed, **more), replicas=replicas, restart=restart)


async def applied(spec: ScaleSpec) -> Scaled:
    before = await scale_workload.observe(spec)
    await scale_workload.apply(spec, before)
    return before


async def seen(deployed: Deployed, **more: Any) -> WorkloadSeen:
    return await look_at_workload.observe(WorkloadSpec(system="web", workload=at(deployed, **more)))


async def awaited(deployed: Deployed, **more: Any) -> Any:
    return await await_workload.observe(WorkloadSpec(system="web", workload=at(deployed, **more)))


def pods(deployed: Deployed) -> list[Object]:
    found: list[Object] = deployed.ask("GET", f"{CORE}/pods")["items"]
    return found


def scaler(name: str = "auto") -> Object:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 9}
    return {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_workload_is_scaled_and_serves_by_real_addresses(deployed: Deployed, kind: str) -> None:
    deployed.apply(workload("shop", kind=kind, replicas=0), service("shop"))
    before = await applied(scale(deployed, kind=kind))
    assert before == Scaled(replicas=0, still=True)
    found = await awaited(deployed, kind=kind, endpoints="shop")
    assert (found.ready, found.addresses) == (2, 2)
    endpoints = deployed.ask("GET", f"{CORE}/endpoints/shop")
    assert len(endpoints["subsets"][0]["addresses"]) == 2


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
async def test_standing_still_leaves_no_pod_and_goes_back_to_as_many(deployed: Deployed, kind: str) -> None:
    deployed.apply(workload("shop", kind=kind, replicas=3))
    until(lambda: len(pods(deployed)) == 3, "three run")
    spec = scale(deployed, 0, kind=kind)
    before = await applied(spec)
    assert pods(deployed) == []
    assert await scale_workload.observe(spec) == Scaled(replicas=0, still=True)
    await scale_workload.undo(spec, before)
    assert await scale_workload.observe(spec) == before == Scaled(replicas=3, still=False)
    assert len(pods(deployed)) == 3


async def test_what_still_ends_does_not_count_as_still(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=1))
    until(lambda: len(pods(deployed)) == 1, "one runs")
    name = pods(deployed)[0]["metadata"]["name"]
    deployed.edit("Pod", name, {"metadata": {"finalizers": ["example.org/holds"]}})
    spec = scale(deployed, 0)
    applying = asyncio.create_task(applied(spec))
    await eventually(lambda: (deployed.get("Deployment", "shop") or {})["spec"]["replicas"] == 0, "it is scaled")
    await asyncio.sleep(0.5)
    assert not applying.done()
    assert (await scale_workload.observe(spec)).still is None
    deployed.edit("Pod", name, {"metadata": {"finalizers": None}})
    await applying
    assert (await scale_workload.observe(spec)).still is True


async def test_pods_that_run_already_are_new_ones(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=1), service("shop"))
    until(lambda: len(pods(deployed)) == 1, "one runs")
    old = {pod["metadata"]["uid"] for pod in pods(deployed)}
    spec = scale(deployed, 2, "0a1b2c3d")
    before = await applied(spec)
    await applied(spec)  # another attempt rolls nothing out
    assert (await awaited(deployed, endpoints="shop")).addresses == 2
    assert not old & {pod["metadata"]["uid"] for pod in pods(deployed) if not pod["metadata"].get("deletionTimestamp")}
    live = deployed.get("Deployment", "shop") or {}
    assert live["spec"]["template"]["metadata"]["annotations"] == {MARK: "0a1b2c3d"}
    await scale_workload.undo(spec, before)
    live = deployed.get("Deployment", "shop") or {}
    assert not live["spec"]["template"]["metadata"].get("annotations")
    assert live["spec"]["replicas"] == 1


async def test_what_stood_still_is_not_rolled_out_anew(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=0))
    await applied(scale(deployed, 2, "0a1b2c3d"))
    assert (deployed.get("Deployment", "shop") or {})["metadata"]["annotations"][
        "deployment.kubernetes.io/revision"
    ] == "1"


async def test_what_somebody_scaled_is_not_overwritten(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=1))
    spec = scale(deployed)
    before = await scale_workload.observe(spec)
    deployed.edit("Deployment", "shop", {"spec": {"replicas": 5}})
    with pytest.raises(Drifted, match=r"web: deployment/shop in orders of lab: somebody else changed it .5 replicas"):
        await scale_workload.apply(spec, before)


async def test_late_hand_writes_nothing(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=1))
    spec = scale(deployed)
    before = await scale_workload.observe(spec)
    with acting(Hand("web", 8, 1, 1)):
        await scale_workload.halt(spec)
    with acting(Hand("web", 7, 9, 9)), pytest.raises(Stale, match="epoch 8"):
        await scale_workload.apply(spec, before)
    assert (deployed.get("Deployment", "shop") or {})["spec"]["replicas"] == 1
    lease = deployed.get("Lease", lease_name("web", "shop")) or {}
    assert lease["spec"]["holderIdentity"]


async def test_write_that_was_under_way_comes_to_nothing_once_another_hand_has_looked(
    deployed: Deployed, cluster: Kubernetes, tmp_path: Path
) -> None:
    """It has read the workload, and found its hand to be the last one; then it stood still on its way."""
    deployed.apply(workload("shop", replicas=1))
    async with relay(cluster.ports["kubernetes"], certificate=cluster.access.certificate) as between:
        slow = scale(deployed, cluster=through(cluster, between.port, tmp_path / "slow"))
        before = await scale_workload.observe(slow)
        between.hold(b"PATCH ")
        with acting(Hand("web", 7, 1, 1)):
            late = asyncio.create_task(scale_workload.apply(slow, before))
        await between.met.wait()
        with acting(Hand("web", 7, 2, 1)):
            await scale_workload.halt(scale(deployed))  # as an undo does that finds nothing to be undone
        between.release()
        with pytest.raises(Stale, match="order 2"):
            await late
    assert (deployed.get("Deployment", "shop") or {})["spec"]["replicas"] == 1


async def test_scaler_that_owns_the_replicas_is_refused(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=1))
    deployed.ask("POST", HPAS, scaler())
    with pytest.raises(Refused, match=r"web: deployment/shop .*: horizontalpodautoscaler/auto owns its replicas"):
        await applied(scale(deployed))
    assert any("horizontalpodautoscaler/auto owns" in fault for fault in (await seen(deployed)).faults)


async def test_paused_rollout_is_named(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=1, paused=True))
    assert any("kubectl -n orders rollout resume deployment/shop" in one for one in (await seen(deployed)).faults)
    with pytest.raises(Refused, match=r"web: .* is paused"):
        await applied(scale(deployed, 2, "0a1b2c3d"))


async def test_image_that_does_not_come_up_is_told(deployed: Deployed) -> None:
    """Kubernetes counts no deadline for what was merely scaled: the estate's own time has to be over."""
    deployed.apply(workload("shop", "shop:broken", replicas=0, progressDeadlineSeconds=1))
    await applied(scale(deployed))
    with pytest.raises(Fatal, match=r"web: deployment/shop .* 0 of 2 replicas are available; pod shop-.*describe and"):
        await awaited(deployed, within=2)


async def test_rollout_that_is_given_up_is_told_before_its_time_is_over(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=2))
    until(lambda: len(pods(deployed)) == 2, "both run")
    deployed.apply(workload("shop", "shop:broken", replicas=2, progressDeadlineSeconds=1))
    with pytest.raises(Fatal, match=r"web: deployment/shop .* ProgressDeadlineExceeded.*pod shop-.*describe and logs"):
        await awaited(deployed, within=600)


async def test_pods_that_crash_are_told(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=0, notes={"lab/crash": "yes"}))
    await applied(scale(deployed))
    with pytest.raises(Fatal, match=r"web: .* after \d+ s: .*CrashLoopBackOff"):
        await awaited(deployed, within=2)


async def test_nodes_without_room_are_told(deployed: Deployed) -> None:
    body = workload("shop", replicas=0)
    body["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100"}}
    deployed.apply(body)
    await applied(scale(deployed))
    with pytest.raises(Fatal, match=r"web: .*Unschedulable: .*Insufficient cpu.*not enough room on the nodes"):
        await awaited(deployed, within=2)


async def test_verdict_on_the_rollout_before_is_not_believed(deployed: Deployed) -> None:
    deployed.apply(workload("shop", "shop:broken", progressDeadlineSeconds=1), service("shop"))

    def given_up() -> bool:
        status = (deployed.get("Deployment", "shop") or {}).get("status") or {}
        return any(one.get("reason") == "ProgressDeadlineExceeded" for one in status.get("conditions") or ())

    until(given_up, "the rollout is given up")
    await applied(scale(deployed, 0))  # it comes to an end all the same
    deployed.apply(workload("shop", "shop:2", replicas=0, progressDeadlineSeconds=10))
    await applied(scale(deployed))
    assert (await awaited(deployed, endpoints="shop")).ready == 2


async def test_service_without_its_pods_is_told(deployed: Deployed) -> None:
    other = service("other")
    deployed.apply(workload("shop", replicas=0), other)
    await applied(scale(deployed))
    with pytest.raises(Fatal, match=r"service/other has no address of shop-.*selector and ports of service/other"):
        await awaited(deployed, endpoints="other", within=3)
    assert any("no service/nothing in orders" in one for one in (await seen(deployed, endpoints="nothing")).faults)


async def test_absent_workload_is_named(deployed: Deployed) -> None:
    said = "web: deployment/shop in orders of lab is not there; deploy it"
    with pytest.raises(Invalid, match=said):
        await scale_workload.observe(scale(deployed))
    assert any(said in fault for fault in (await seen(deployed)).faults)


async def test_what_this_worker_may_not_do_is_told_before(deployed: Deployed, cluster: Kubernetes) -> None:
    deployed.apply(workload("shop", replicas=1))
    viewer = deployed.at.model_copy(update={"kubeconfig": str(cluster.kubeconfig("viewer"))})
    faults = "\n".join((await seen(deployed, cluster=viewer)).faults)
    assert "web: this worker may not patch deployments in orders of lab; see its roles (RBAC)" in faults
    assert "web: this worker may not create, update leases in orders" in faults
    with pytest.raises(Refused, match="user viewer may not patch deployments in namespace orders"):
        await applied(scale(deployed, cluster=viewer))


async def test_namespace_that_is_being_deleted_is_named(deployed: Deployed, cluster: Kubernetes) -> None:
    admin = deployed.at.model_copy(update={"kubeconfig": str(cluster.kubeconfig("admin"))})
    path, meta = "/api/v1/namespaces/going", {"name": "going"}
    cluster.ask("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    there = path + "/configmaps"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.org/holds"]}}
    cluster.ask("POST", there, body)
    apps = "/apis/apps/v1/namespaces/going/deployments"
    made = workload("shop", replicas=0)
    cluster.ask("POST", apps, made | {"metadata": {"name": "shop", "finalizers": ["example.org/holds"]}})
    cluster.ask("DELETE", path)
    spec = scale(deployed, cluster=admin, namespace="going")
    try:
        faults = (await seen(deployed, cluster=admin, namespace="going")).faults
        assert any("web: lab: namespace going is being deleted" in fault for fault in faults)
        with acting(Hand("web", 1, 1, 1)), pytest.raises(Refused, match="namespace going is being deleted; wait"):
            await scale_workload.halt(spec)
    finally:
        for held in (f"{there}/held", f"{apps}/shop"):
            cluster.ask("PATCH", held, {"metadata": {"finalizers": None}})


async def test_cluster_that_does_not_answer_is_what_is_seen(
    deployed: Deployed, cluster: Kubernetes, tmp_path: Path, unused_tcp_port: int
) -> None:
    gone = WorkloadSpec(system="web", workload=at(deployed, cluster=through(cluster, unused_tcp_port, tmp_path / "k")))
    found = await sight_workload.observe(gone)
    assert (found.answered, "cannot be reached" in found.faults[0]) == (False, True)
    with pytest.raises(Transient):
        await look_at_workload.observe(gone)
    deployed.apply(workload("shop", replicas=1))
    assert (await sight_workload.observe(gone.model_copy(update={"workload": at(deployed)}))).replicas == 1
