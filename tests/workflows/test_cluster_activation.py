"""DataCenterActivation with workloads of clusters: scaled, seen behind their service, drained, there and back, or not.

Both sites share one control plane where no site is lost, each with a workload and a node of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from activities.clusters import ClusterAt, forbidden
from lab import daemons
from lab.cluster_access import NAMESPACE
from lab.estate import Lab
from lab.kubernetes import Kubernetes
from recovery.report import Report
from tests.clusters import APPS, Object, control_plane, until, workload
from tests.labs import lab_apart
from tests.running import Recovery, Running, eventually
from tests.switches import activate, at_both_sites
from tests.workflows.test_failback import home
from tests.workflows.test_take_over import decided, lost
from tests.workloads import DOWN, REPLICAS, UP, At, author, deployed_at

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]
HPA = f"/apis/autoscaling/v1/namespaces/{NAMESPACE}/horizontalpodautoscalers"
BUDGETS = f"/apis/policy/v1beta1/namespaces/{NAMESPACE}/poddisruptionbudgets"
GUARD = "guard"


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with lab_apart() as lab:
        lab.up(south=True, rate=30)
        yield lab


@pytest.fixture(scope="module")
def webs(cluster: Kubernetes) -> Iterator[dict[str, At]]:
    with deployed_at({"north": cluster, "south": cluster}) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(two: Lab, webs: dict[str, At], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    catalogs = tmp_path_factory.mktemp("catalogs")
    author(catalogs / "lab", webs)
    async with at_both_sites(two, RECOVERY_CATALOGS=str(catalogs)) as found:
        yield found


async def switched(engine: Running, site: str) -> Report:
    recovery = await activate(engine, site)
    await recovery.approve()
    return await recovery.ended(180)


def stand(webs: dict[str, At]) -> dict[str, dict[str, object]]:
    return {site: at.stands() for site, at in webs.items()}


def scaled_by_others(at: At) -> None:
    """Have an autoscaler own the replicas of a workload."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": at.name}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3}
    scaler = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "auto"}}
    at.cluster.ask("POST", HPA, scaler | {"spec": spec})


async def anew(webs: dict[str, At]) -> None:
    """Have all serve at north, as a lab does that is made anew."""
    for site, at in webs.items():
        at.uncordon()
        at.deploy(REPLICAS if site == "north" else 0)
    await eventually(lambda: webs["north"].stands() == UP, "north serves")
    await eventually(lambda: webs["south"].stands()["pods"] == 0, "south stands still")


@contextlib.contextmanager
def guarded(at: At) -> Iterator[None]:
    """Have a pod on the node of a workload that a budget does not let go."""
    guard = workload(GUARD)
    guard["spec"]["template"]["spec"]["nodeSelector"] = {"site": at.site}
    at.cluster.ask("APPLY", f"{APPS}/deployments/{GUARD}?fieldManager=deployer", guard)
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": GUARD}}}
    body = {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": GUARD}, "spec": spec}
    at.cluster.ask("POST", BUDGETS, body)
    try:
        until(lambda: at.cluster.ask("GET", f"{BUDGETS}/{GUARD}").get("status", {}).get("currentHealthy") == 1, "seen")
        yield
    finally:
        at.cluster.ask("DELETE", f"{BUDGETS}/{GUARD}")
        at.cluster.ask("DELETE", f"{APPS}/deployments/{GUARD}")


@contextlib.asynccontextmanager
async def without_nodes(at: At, *verbs: str) -> AsyncIterator[None]:
    """Have nobody's worker be allowed any of ``verbs`` with nodes."""
    path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/recovery-nodes"
    rules = at.cluster.ask("GET", path)["rules"]
    kube = ClusterAt(name="kube", kubeconfig=str(at.cluster.kubeconfig()), context="lab")

    async def lacks(*wanted: str) -> bool:
        return set(await forbidden(kube, ("list", "patch"), "v1", "nodes")) == set(wanted)

    fewer = [
        one | {"verbs": [verb for verb in one["verbs"] if verb not in verbs]} if "nodes" in one["resources"] else one
        for one in rules
    ]
    at.cluster.ask("PATCH", path, {"rules": fewer})
    try:
        await eventually(lambda: lacks(*verbs), "the API server knows of it")
        yield
    finally:
        at.cluster.ask("PATCH", path, {"rules": rules})
        await eventually(lacks, "the API server knows of that, too")


@contextlib.contextmanager
def another_node(at: At, name: str) -> Iterator[None]:
    """Have one more node on which the workload of a site may run."""
    place, spare = at.cluster.place, replace(at, node=name)
    daemons.start(place, name, "node", name)
    try:
        until(spare.labelled, "the node is there")
        yield
    finally:
        daemons.stop(place, [name], 0)
        at.cluster.ask("DELETE", f"/api/v1/nodes/{name}")


async def test_check_tells_what_is_scaled_and_changes_nothing(engine: Running, webs: dict[str, At]) -> None:
    before = stand(webs)
    report = await (await activate(engine, "south", "check")).ended(60)
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure
    plan = {line.title: line.state for line in report.steps}
    assert plan["scale web-north to 0"] == plan["scale web-south to 2"] == "would change"
    assert plan["drain the nodes of cluster-north"] == "would change"
    assert stand(webs) == before


async def test_check_names_what_would_stop_a_workload(engine: Running, webs: dict[str, At]) -> None:
    south = webs["south"]
    scaled_by_others(south)
    south.deploy(1, paused=True)
    try:
        report = await (await activate(engine, "south", "check")).ended(60)
    finally:
        south.cluster.ask("DELETE", f"{HPA}/auto")
        south.deploy(0)
        await eventually(lambda: south.stands()["pods"] == 0, "it stands still again")
    for said in ("horizontalpodautoscaler/auto owns its replicas", "is paused", "runs at south already (1 replicas)"):
        assert any("web-south: " in one and said in one for one in report.blockers), report.blockers


def large(at: At) -> Object:
    """Return pods of which one node has room for one."""
    container = {"name": "app", "image": "web:1", "resources": {"requests": {"cpu": "40"}}}
    return {"metadata": {"labels": {"app": at.name}}, "spec": {"containers": [container]}}


async def test_pods_that_find_no_room_are_not_scaled_up(engine: Running, webs: dict[str, At]) -> None:
    """Told before anything is done, on the nodes as on the quota of the namespace; the scheduler says the same."""
    south = webs["south"]
    quotas = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
    south.cluster.ask("POST", quotas, {"metadata": {"name": "team"}, "spec": {"hard": {"requests.cpu": "50"}}})
    south.deploy(0, template=large(south))
    try:
        before = stand(webs)
        report = await (await activate(engine, "south")).ended(60)
        assert (report.outcome, stand(webs)) == ("failed", before)
    finally:
        south.cluster.ask("DELETE", f"{quotas}/team")
    room, quota = sorted(report.blockers)
    assert room.startswith(
        "web-south: pods on nodes of cluster-south: needed 2 (to be more), there 1 (2 nodes take pods"
    )
    assert quota.startswith(
        f"web-south: requests.cpu of ResourceQuota {NAMESPACE}/team: needed 80000 (80000m), there 50"
    )
    south.deploy(REPLICAS, template=large(south))
    try:
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{south.name}"

        def bound() -> list[bool]:
            found = south.cluster.ask("GET", pods)["items"]
            states = [one for pod in found for one in pod["status"].get("conditions", ())]
            return [one["status"] == "True" for one in states if one["type"] == "PodScheduled"]

        await eventually(lambda: sorted(bound()) == [False, True], "the scheduler has placed one of two", 30)
    finally:
        south.deploy(0)


async def test_there_and_back(engine: Running, webs: dict[str, At]) -> None:
    for site, other in (("south", "north"), ("north", "south")):
        recovery = await activate(engine, site)
        shown = str((await recovery.until("gate")).gates[0].shown)
        assert f"web-{site} at {site}: 0 of 0 pods are ready; it is scaled to {REPLICAS}" in shown
        assert f"web-{other} at {other}: {REPLICAS} of {REPLICAS} pods are ready; it is scaled to 0" in shown
        assert f"nodes of cluster-{other}, once clients are at {site}: 1 drained" in shown
        await recovery.approve()
        report = await recovery.ended(180)
        assert (report.outcome, report.residual) == ("recovered", ()), (report.failure, engine.log())
        assert stand(webs) == {site: UP, other: DOWN}
        assert {one.name: one.value for one in report.figures}[f"pods of web-{site} that serve"] == REPLICAS


async def test_drain_that_a_budget_refuses_may_be_skipped(engine: Running, webs: dict[str, At]) -> None:
    with guarded(webs["north"]):
        recovery = await activate(engine, "south")
        await recovery.approve()
        hold = (await recovery.until("hold", 120)).hold
        assert hold is not None
        assert (hold.step, hold.answers) == ("drain the nodes of cluster-north", ("retry", "skip"))
        assert f"poddisruptionbudget/{GUARD} does not let it go" in hold.why
        await recovery.resolve("skip")
        report = await recovery.ended(120)
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert (await switched(engine, "north")).outcome == "recovered"
    assert stand(webs) == {"north": UP, "south": DOWN}


async def test_image_that_does_not_come_up_brings_all_back(engine: Running, two: Lab, webs: dict[str, At]) -> None:
    """Also where somebody has cordoned a node meanwhile that was opened: that one is theirs, and in nobody's way."""
    south = webs["south"]
    south.deploy(0, "web:broken", progressDeadlineSeconds=2)
    south.cordon("0a1b2c3d")
    try:
        recovery = await activate(engine, "south")
        await recovery.approve()
        hold = (await recovery.until("hold", 120)).hold
        assert hold is not None
        assert "web-south: deployment/web-south in orders of cluster-south is not ready" in str(hold)
        assert not south.cordoned()
        south.cordon(None)
        await recovery.resolve("compensate")
        report = await recovery.ended(120)
        assert (report.outcome, report.residual) == ("compensated", ()), report.failure
        assert south.cordoned()
    finally:
        south.deploy(0)
        south.uncordon()
    await eventually(lambda: webs["north"].stands() == UP, "it serves at north")
    assert webs["south"].live()["spec"]["replicas"] == 0
    assert two.director.site() == "north"


async def test_lost_cluster_holds_nothing_up_and_is_quiet_when_it_is_back(tmp_path: Path) -> None:
    """Two control planes: that of the lost site is killed with it."""
    with lab_apart() as lab, control_plane() as north, control_plane() as south:
        lab.up(south=True, rate=30)
        with deployed_at({"north": north, "south": south}) as webs:
            author(tmp_path / "lab", webs)
            async with at_both_sites(lab, RECOVERY_CATALOGS=str(tmp_path)) as engine:
                outage = await lost(lab, engine)
                await asyncio.to_thread(north.kill_api)
                given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
                report = await decided(await activate(engine, "south", **given))
                assert (report.outcome, report.residual) == ("recovered", ()), report.failure
                assert webs["south"].stands() == UP
                told = report.delivered["web-north at north"]
                assert told.startswith("not brought to stand still: "), told
                assert told.endswith("; lab/fence-north does it once it can"), told
                watch = Recovery(engine.client.get_workflow_handle("lab/fence-north"))
                await asyncio.to_thread(north.start)
                await eventually(lambda: webs["north"].stands()["pods"] == 0, "it is stopped while no host is back", 60)
                await asyncio.to_thread(lab.heal)
                assert (await watch.ended(90)).outcome == "recovered"
                await eventually(lambda: webs["north"].stands() == DOWN, "north stands still")
                engine.start_worker()
                report = await decided(await home(engine))
                assert (report.outcome, report.residual) == ("recovered", ()), report.failure
                assert stand(webs) == {"north": UP, "south": DOWN}


async def test_old_cluster_that_refuses_is_told_and_holds_nobody_up(tmp_path: Path, webs: dict[str, At]) -> None:
    """Only hosts of the lost site are gone; its workload is left to who fences that site, and its nodes, too."""
    scaled_by_others(webs["north"])
    try:
        with lab_apart() as lab:
            lab.up(south=True, rate=30)
            author(tmp_path / "lab", webs)
            async with at_both_sites(lab, RECOVERY_CATALOGS=str(tmp_path)) as engine:
                outage = await lost(lab, engine)
                given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
                report = await decided(await activate(engine, "south", **given))
                assert (report.outcome, report.residual) == ("recovered", ()), report.failure
                told = report.delivered["web-north at north"]
                assert "horizontalpodautoscaler/auto owns its replicas" in told, told
                assert stand(webs) == {"north": UP, "south": UP}
    finally:
        webs["north"].cluster.ask("DELETE", f"{HPA}/auto")


async def test_rights_on_nodes_hold_up_no_take_over(tmp_path: Path, webs: dict[str, At]) -> None:
    """A planned move is refused; but where a site is lost, all nodes of the other one may be open."""
    await anew(webs)
    with lab_apart() as lab:
        lab.up(south=True, rate=30)
        author(tmp_path / "lab", webs)
        async with (
            at_both_sites(lab, RECOVERY_CATALOGS=str(tmp_path)) as engine,
            without_nodes(webs["south"], "list", "patch"),
        ):
            blockers = (await (await activate(engine, "south", "check")).ended(60)).blockers
            lacks = "web-south: this worker may not list, patch nodes of cluster-south; see its roles"
            assert any(line.startswith(lacks) for line in blockers), blockers
            outage = await lost(lab, engine)
            given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
            report = await decided(await activate(engine, "south", **given))
            assert (report.outcome, report.residual) == ("recovered", ()), report.failure
            assert webs["south"].stands() == UP
            told = f"not known, they stay as they are; {lacks}"
            name = "nodes of cluster-south that recoveries have cordoned"
            (figure,) = [one for one in report.figures if one.name == name]
            assert (str(figure.value).startswith(told), figure.met) == (True, False), figure
            (gate,) = [one for one in report.gates if one.decisions]
            assert f"{name}: {told}" in str(gate.shown), gate.shown


async def test_cordoned_nodes_that_nobody_may_open_hold_up_no_take_over(tmp_path: Path, webs: dict[str, At]) -> None:
    """One of two is cordoned, and stays so: its site is served from the other one, and people are told.

    There is no room on it either: of two pods that need a node each there is none for the second.
    """
    await anew(webs)
    south = webs["south"]
    with lab_apart() as lab, another_node(south, "node-spare"):
        lab.up(south=True, rate=30)
        author(tmp_path / "lab", webs)
        async with at_both_sites(lab, RECOVERY_CATALOGS=str(tmp_path)) as engine, without_nodes(south, "patch"):
            south.cordon("0a1b2c3d")
            south.deploy(0, template=large(south))
            report = await (await activate(engine, "south", "check", runbook="lab/take-over-south")).ended(60)
            figures = {one.name: one.value for one in report.figures}
            assert figures["pods on nodes of cluster-south that are there for web-south"] == 1, report.failure
            south.deploy(0)
            outage = await lost(lab, engine)
            given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
            report = await decided(await activate(engine, "south", **given))
            assert (report.outcome, report.residual) == ("recovered", ()), report.failure
            assert south.stands() == UP | {"cordoned": True}
            assert "open the nodes of cluster-south" not in {one.title for one in report.steps}
            told = f"{south.node}; web-south: this worker may not patch nodes of cluster-south; see its roles"
            name = "nodes of cluster-south that recoveries have cordoned"
            (figure,) = [one for one in report.figures if one.name == name]
            assert (str(figure.value).startswith(told), figure.met) == (True, False), figure
            (gate,) = [one for one in report.gates if one.decisions]
            assert f"{name}: {told}" in str(gate.shown), gate.shown
    south.uncordon()


@pytest.mark.soak  # it is waited for their end, for two minutes
async def test_pods_of_a_lost_site_that_do_not_go_are_told_and_hold_nobody_up(
    tmp_path: Path, webs: dict[str, At]
) -> None:
    await anew(webs)
    north, south = webs["north"], webs["south"]
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    stuck = north.cluster.ask("GET", f"{pods}?labelSelector=app%3D{north.name}")["items"][0]["metadata"]["name"]
    north.cluster.ask("PATCH", f"{pods}/{stuck}", {"metadata": {"finalizers": ["example.org/holds"]}})
    try:
        with lab_apart() as lab:
            lab.up(south=True, rate=30)
            author(tmp_path / "lab", webs)
            async with at_both_sites(lab, RECOVERY_CATALOGS=str(tmp_path)) as engine:
                outage = await lost(lab, engine)
                given = {"runbook": "lab/take-over-south", "outage_started_at": outage.isoformat()}
                recovery = await activate(engine, "south", **given)
                await recovery.approve("carol")
                await eventually(lambda: lab.director.site() == "south", "clients are in", 60)
                began = asyncio.get_running_loop().time()
                report = await recovery.ended(180)
                assert (report.outcome, report.residual) == ("recovered", ()), report.failure
                assert asyncio.get_running_loop().time() - began < 150
                told = report.delivered["web-north at north"]
                assert told.startswith("not brought to stand still: web-north: "), told
                assert f"still there: {stuck}; see the node, and finalizers; lab/fence-north does it once" in told, told
                assert (south.stands(), north.live()["spec"]["replicas"]) == (UP, 0)
                assert north.cluster.ask("GET", f"{pods}/{stuck}")["metadata"]["deletionTimestamp"]
    finally:
        north.cluster.ask("PATCH", f"{pods}/{stuck}", {"metadata": {"finalizers": None}})
