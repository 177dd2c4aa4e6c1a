"""Nodes on a real control plane: cordoned and emptied, as budgets allow, and opened as recoveries had closed them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.nodes import MARK, Cordoned, NodesAt, NodesLook, NodesSpec, drain_nodes, evictable, look_at_nodes
from lab.cluster_access import NAMESPACE
from lab.kubernetes import NODE, Kubernetes
from recovery.actions import Order
from recovery.errors import Fatal
from tests.clusters import CORE, Deployed, bare_nodes, until, workload
from tests.running import eventually

OTHERS = ("bare-1", "bare-2")
BUDGETS = f"/apis/policy/v1beta1/namespaces/{NAMESPACE}/poddisruptionbudgets"
PATH = "/api/v1/nodes"


@pytest.fixture
def deployed(cluster: Kubernetes, tmp_path: Path) -> Iterator[Deployed]:
    """Return a namespace in which nothing is, and three nodes that take pods."""
    (tmp_path / "repository").mkdir()
    found = Deployed(cluster, tmp_path / "repository")
    found.clear()
    bare_nodes(cluster, *OTHERS)
    yield found
    for one in cluster.ask("GET", BUDGETS)["items"]:
        cluster.ask("DELETE", f"{BUDGETS}/{one['metadata']['name']}")
    cluster.ask("PATCH", f"{PATH}/{NODE}", {"metadata": {"annotations": {MARK: None}}, "spec": {"unschedulable": None}})
    for name in OTHERS:
        cluster.ask("DELETE", f"{PATH}/{name}")


def nodes(deployed: Deployed, **more: Any) -> NodesAt:
    return NodesAt.model_validate({"cluster": deployed.at, "namespace": NAMESPACE, "within": 20} | more)


def drain(deployed: Deployed, *names: str, run: str = "0a1b2c3d", **more: Any) -> NodesSpec:
    at = nodes(deployed, **more)
    return NodesSpec(system="web", at=at, wanted="drained", run=run, names=names or (NODE, *OTHERS))


def opening(deployed: Deployed) -> NodesSpec:
    return NodesSpec(system="web", at=nodes(deployed), wanted="open", run="ffffffff")


async def applied(spec: NodesSpec) -> Cordoned:
    before = await drain_nodes.observe(spec)
    await drain_nodes.apply(spec, before)
    return before


def cordoned(deployed: Deployed) -> dict[str, str | None]:
    """Return the nodes that take no pods, each with whose mark it has."""
    found = deployed.ask("GET", PATH)["items"]
    return {
        one["metadata"]["name"]: (one["metadata"].get("annotations") or {}).get(MARK)
        for one in found
        if one["spec"].get("unschedulable")
    }


def running(deployed: Deployed) -> list[str]:
    pods = deployed.ask("GET", f"{CORE}/pods")["items"]
    return [one["metadata"]["name"] for one in pods if one["spec"].get("nodeName")]


def up(deployed: Deployed, count: int) -> None:
    until(lambda: len(running(deployed)) == count, f"{count} pods run")


def by_hand(deployed: Deployed, name: str, closed: bool = True) -> None:
    deployed.ask("PATCH", f"{PATH}/{name}", {"spec": {"unschedulable": closed or None}})


async def test_nodes_are_cordoned_and_their_pods_evicted(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=2))
    up(deployed, 2)
    by_hand(deployed, "bare-2")
    spec = drain(deployed)
    before = await applied(spec)
    assert cordoned(deployed) == {NODE: "0a1b2c3d", "bare-1": "0a1b2c3d", "bare-2": None}
    assert running(deployed) == []
    await drain_nodes.undo(spec, before)
    assert cordoned(deployed) == {"bare-2": None}
    up(deployed, 2)


async def test_pods_of_daemon_sets_stay(deployed: Deployed) -> None:
    deployed.apply(workload("agent", kind="DaemonSet"), workload("shop"))
    until(lambda: sum(one.startswith("shop") for one in running(deployed)) == 1, "the shop runs")
    await applied(drain(deployed, NODE))
    assert [one.partition("-")[0] for one in running(deployed) if one.startswith(("shop", "agent"))] != []
    assert not any(one.startswith("shop") for one in running(deployed))


def test_mirror_pods_and_what_has_ended_are_left() -> None:
    meta = {"name": "a", "annotations": {"kubernetes.io/config.mirror": "x"}}
    assert not evictable({"metadata": meta})
    assert not evictable({"metadata": {"name": "a"}, "status": {"phase": "Succeeded"}})
    assert evictable({"metadata": {"name": "a"}, "status": {"phase": "Running"}})


async def test_budget_is_honoured_and_named(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=2))
    up(deployed, 2)
    until(lambda: (deployed.get("Deployment", "shop") or {})["status"].get("readyReplicas") == 2, "both are ready")
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "shop"}}}
    body = {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "all"}, "spec": spec}
    deployed.ask("POST", BUDGETS, body)
    until(lambda: "observedGeneration" in deployed.ask("GET", f"{BUDGETS}/all").get("status", {}), "it is seen")
    said = r"nodes of lab are not empty after 1 s: pod shop-.* in orders \(poddisruptionbudget/all does not let it go"
    with pytest.raises(Fatal, match=said):
        await applied(drain(deployed, within=1))
    assert len(running(deployed)) == 2
    draining = asyncio.create_task(applied(drain(deployed)))
    await asyncio.sleep(1)
    assert not draining.done()
    deployed.ask("DELETE", f"{BUDGETS}/all")
    await draining
    assert running(deployed) == []


async def test_only_what_recoveries_have_cordoned_is_opened(deployed: Deployed) -> None:
    by_hand(deployed, "bare-2")
    await applied(drain(deployed, NODE, "bare-2"))
    spec = opening(deployed)
    before = await applied(spec)
    assert before.nodes == {NODE: "cordoned by recovery 0a1b2c3d"}
    assert cordoned(deployed) == {"bare-2": None}
    await drain_nodes.undo(spec, before)
    assert cordoned(deployed) == {NODE: "0a1b2c3d", "bare-2": None}


async def test_node_that_is_gone_counts_as_drained(deployed: Deployed) -> None:
    spec = drain(deployed)
    before = await drain_nodes.observe(spec)
    deployed.ask("DELETE", f"{PATH}/bare-1")
    await drain_nodes.apply(spec, before)
    now = await drain_nodes.observe(spec)
    assert (now.open, now.empty, set(now.nodes or {})) == (False, True, {NODE, "bare-2"})
    bare_nodes(deployed.cluster, "bare-1")  # one that is made meanwhile is not touched
    assert set(cordoned(deployed)) == {NODE, "bare-2"}


async def test_cluster_that_lost_all_its_nodes_is_drained(deployed: Deployed) -> None:
    spec = drain(deployed, *OTHERS)
    before = await drain_nodes.observe(spec)
    for name in OTHERS:
        deployed.ask("DELETE", f"{PATH}/{name}")
    by = datetime.now(UTC) + timedelta(minutes=1)
    order = Order[NodesSpec, Cordoned](spec=spec, before=before, mode="live", not_after=by)
    now = await drain_nodes.carry_out(order)
    assert (now.nodes, now.open, now.empty) == ({}, False, True)
    bare_nodes(deployed.cluster, *OTHERS)


async def test_what_would_be_drained_is_counted(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=2))
    up(deployed, 2)
    seen = await look_at_nodes.observe(NodesLook(system="web", at=nodes(deployed)))
    assert (set(seen.nodes), seen.cordoned, seen.pods, seen.faults) == ({NODE, *OTHERS}, (), 2, ())
    seen = await look_at_nodes.observe(NodesLook(system="web", at=nodes(deployed, selector="pool=none")))
    assert seen.faults == ("web: lab has no node pool=none; see its drain in the estate",)


async def test_rights_that_draining_lacks_are_named(deployed: Deployed, cluster: Kubernetes) -> None:
    viewer = deployed.at.model_copy(update={"kubeconfig": str(cluster.kubeconfig("viewer"))})
    seen = await look_at_nodes.observe(NodesLook(system="web", at=nodes(deployed, cluster=viewer)))
    said = "web: this worker may not list, patch nodes of lab; see its roles (RBAC), or leave drain out in the estate"
    assert said in seen.faults
    assert any("may not create pods/eviction" in fault for fault in seen.faults)


@pytest.fixture(params=[("list", "patch")])
def opener(request: pytest.FixtureRequest, deployed: Deployed, cluster: Kubernetes) -> Iterator[NodesAt]:
    """Return the nodes as somebody sees them who may list and change nodes, and nothing else of the whole cluster."""
    rbac, name = "/apis/rbac.authorization.k8s.io/v1", {"metadata": {"name": "opener"}}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "opener"}
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "viewer"}
    opens = [{"apiGroups": [""], "resources": ["nodes"], "verbs": list(request.param)}]
    cluster.ask("POST", f"{rbac}/clusterroles", name | {"rules": opens})
    cluster.ask("POST", f"{rbac}/clusterrolebindings", name | {"roleRef": role, "subjects": [user]})
    at = deployed.at.model_copy(update={"kubeconfig": str(cluster.kubeconfig("viewer"))})
    yield nodes(deployed, cluster=at)
    for kind in ("clusterrolebindings", "clusterroles"):
        cluster.ask("DELETE", f"{rbac}/{kind}/opener")


async def allowed(look: NodesLook) -> bool:
    return not (await look_at_nodes.observe(look)).faults


async def listed(look: NodesLook) -> bool:
    return (await look_at_nodes.observe(look)).known


async def test_opening_needs_no_rights_on_pods(deployed: Deployed, opener: NodesAt) -> None:
    look = NodesLook(system="web", at=opener, drains=False)
    await eventually(lambda: allowed(look), "the API server has learnt of the role")
    deployed.apply(workload("shop"))
    up(deployed, 1)
    await applied(drain(deployed, "bare-1"))
    seen = await look_at_nodes.observe(look)
    assert (seen.cordoned, seen.pods, seen.faults) == (("bare-1",), 0, ())
    spec = opening(deployed).model_copy(update={"at": opener})
    by = datetime.now(UTC) + timedelta(minutes=1)
    before = await drain_nodes.observe(spec)
    await drain_nodes.carry_out(Order[NodesSpec, Cordoned](spec=spec, before=before, mode="live", not_after=by))
    assert cordoned(deployed) == {}


@pytest.mark.parametrize("opener", [("list",)], indirect=True)
async def test_who_may_only_list_nodes_sees_which_are_to_be_opened(deployed: Deployed, opener: NodesAt) -> None:
    look = NodesLook(system="web", at=opener, drains=False)
    await eventually(lambda: listed(look), "the API server has learnt of the role")
    await applied(drain(deployed, "bare-1"))
    seen = await look_at_nodes.observe(look)
    assert seen.cordoned == ("bare-1",)
    (said,) = seen.faults
    assert said.startswith("web: this worker may not patch nodes of lab")


async def test_node_that_is_not_there_is_no_fault_where_none_is_drained(deployed: Deployed) -> None:
    look = NodesLook(system="web", at=nodes(deployed, selector="pool=none"))
    assert (await look_at_nodes.observe(look)).faults
    assert (await look_at_nodes.observe(look.model_copy(update={"drains": False}))).faults == ()


async def test_right_that_opening_lacks_is_named(deployed: Deployed, cluster: Kubernetes) -> None:
    viewer = deployed.at.model_copy(update={"kubeconfig": str(cluster.kubeconfig("viewer"))})
    look = NodesLook(system="web", at=nodes(deployed, cluster=viewer), drains=False)
    seen = await look_at_nodes.observe(look)
    (said,) = seen.faults
    assert said.startswith("web: this worker may not list, patch nodes of lab")
    assert not seen.known
