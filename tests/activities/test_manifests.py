"""A revision of manifests is compared, applied and taken back on a real API server, whose own state is what counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from activities.manifest_compare import Compared, compare_manifests, refs
from activities.manifests import Applied, ManifestsSpec, apply_manifests
from activities.rollouts import RolledOut, RolledOutSpec, rolled_out, unready, unwell
from lab.kubernetes import Kubernetes
from recovery.errors import Drifted, Fatal, Invalid, Refused
from tests.clusters import Deployed, claim, config_map, plain, secret, service, until, workload

Object = dict[str, Any]
pytestmark = pytest.mark.drawn


@pytest.fixture
def deployed(cluster: Kubernetes, tmp_path: Path) -> Iterator[Deployed]:
    """Begin with an empty namespace."""
    found = Deployed(cluster, tmp_path)
    found.clear()
    yield found
    found.clear()


class Rollback:
    """From what is deployed, ``bad``, to ``good``."""

    def __init__(self, deployed: Deployed, good: tuple[Object, ...], bad: tuple[Object, ...], **more: Any) -> None:
        self.deployed, self.more, self.hidden = deployed, more, more.pop("hidden", ())
        self.good, self.head = deployed.commit(*good), deployed.commit(*bad)

    async def compared(self) -> Compared:
        return await compare_manifests.observe(
            self.deployed.compare(self.good, self.head, hidden=self.hidden, **self.more)
        )

    async def ready(self) -> tuple[ManifestsSpec, Applied]:
        self.spec = self.deployed.spec(self.good, await self.compared(), **self.more)
        return self.spec, await apply_manifests.observe(self.spec)

    async def applied(self) -> tuple[ManifestsSpec, Applied]:
        spec, before = await self.ready()
        await apply_manifests.apply(spec, before)
        assert await apply_manifests.observe(spec) == apply_manifests.desired(spec, before)
        return spec, before


def how(compared: Compared) -> dict[str, str]:
    return {one.label: one.how for one in compared.objects}


def data(deployed: Deployed, name: str) -> object:
    return (deployed.get("ConfigMap", name) or {}).get("data")


# --- compare --------------------------------------------------------------------------------------------------------


async def test_every_object_is_compared(deployed: Deployed) -> None:
    good = config_map("a", {"x": "1"}), config_map("b", {"x": "1"}), config_map("c", {"x": "1"})
    bad = config_map("a", {"x": "1"}), config_map("b", {"x": "2"}), config_map("d", {"x": "1"}), claim("e")
    deployed.apply(*bad)
    before = deployed.everything()
    found = await Rollback(deployed, good, bad).compared()
    assert how(found) == {
        "configmap/a": "same", "configmap/b": "changed", "configmap/c": "new", "configmap/d": "extra",
        "persistentvolumeclaim/e": "left",
    }  # fmt: skip
    assert (found.drift, found.conflicts, found.faults) == ((), (), ())
    (changed,) = (one for one in found.objects if one.how == "changed")
    assert "-  x: '2'\n+  x: '1'\n" in changed.diff
    assert {one.label for one in refs(found)} == {"configmap/a", "configmap/b", "configmap/c"}
    assert deployed.everything() == before


async def test_secret_is_never_shown(deployed: Deployed) -> None:
    bad = secret("login", {"password": "geheim-new"})
    deployed.apply(bad)
    found = await Rollback(deployed, (secret("login", {"password": "geheim-old"}),), (bad,)).compared()
    assert how(found) == {"secret/login": "changed"}
    assert "its content differs" in found.objects[0].diff
    shown = found.model_dump_json()
    assert all(word not in shown for word in ("geheim", "Z2VoZWlt"))


async def test_hidden_file_is_never_shown(deployed: Deployed) -> None:
    bad = config_map("a", {"x": "geheim"})
    deployed.apply(bad)
    found = await Rollback(deployed, (config_map("a", {}),), (bad,), hidden=("objects.*",)).compared()
    assert how(found) == {"configmap/a": "changed"}
    assert "geheim" not in found.model_dump_json()


async def test_all_that_is_in_the_way_is_listed_at_once(deployed: Deployed) -> None:
    bad = config_map("a", {"x": "1"}), config_map("gone", {"x": "1"}), workload("shop")
    deployed.apply(*bad)
    deployed.edit("ConfigMap", "a", {"data": {"x": "by hand"}})
    deployed.edit("Deployment", "shop", {"spec": {"replicas": 4}}, manager="scaler")
    deployed.ask("DELETE", deployed.path(bad[1]))
    odd = {"apiVersion": "example.org/v1", "kind": "Odd", "metadata": {"name": "odd"}}
    elsewhere = config_map("x", {"x": "1"}, namespace="kube-system")
    wrong = workload("wrong", replicas=-1)
    good = config_map("a", {"x": "0"}), workload("shop", replicas=2), odd, elsewhere, wrong
    before = deployed.everything()
    found = await Rollback(deployed, good, bad).compared()
    assert found.drift == (
        "configmap/a: .data.x is not what the newest revision says",
        "deployment/shop: .spec.replicas is not what the newest revision says",
        "configmap/gone is not there, and the newest revision has it",
    )
    assert found.conflicts == (
        "configmap/a: .data.x is owned by kubectl-edit", "deployment/shop: .spec.replicas is owned by scaler",
    )  # fmt: skip
    faults = "\n".join(found.faults)
    assert "odd/odd: kind: lab knows no Odd of example.org/v1" in faults
    assert "user recovery may not get configmaps in namespace kube-system" in faults
    assert "deployment/wrong: lab: deployments/wrong: spec.replicas: invalid: must be greater" in faults
    assert len(found.faults) == 3
    assert deployed.everything() == before


async def test_faults_of_files_are_listed(deployed: Deployed) -> None:
    head = deployed.commit()
    good = deployed.commit(files={"a.yaml": "a: [", "b.yaml": "kind: B"})
    found = await compare_manifests.observe(deployed.compare(good, head))
    assert [fault.partition(":")[2][:9] for fault in found.faults] == [" a.yaml: ", " b.yaml, "]


async def test_what_this_worker_may_not_do_is_listed(deployed: Deployed, cluster: Kubernetes) -> None:
    bad = (config_map("d", {"x": "1"}),)
    deployed.apply(*bad)
    deployed.at = deployed.at.model_copy(update={"kubeconfig": str(cluster.kubeconfig("viewer"))})
    found = await Rollback(deployed, (config_map("a", {"x": "1"}),), bad).compared()
    faults = "\n".join(found.faults)
    assert "may not create, update leases in orders (whose hand was the last)" in faults
    assert "may not create, delete secrets in orders (what is kept for an undo)" in faults
    assert "configmap/a: lab: user viewer may not patch configmaps in namespace orders" in faults
    assert "configmap/d: this worker may not delete configmaps in orders" in faults


async def test_namespace_that_is_not_there_is_told(deployed: Deployed, cluster: Kubernetes) -> None:
    deployed.at = deployed.at.model_copy(update={"kubeconfig": str(cluster.kubeconfig("admin"))})
    good = deployed.commit(config_map("a", {"x": "1"}))
    spec = deployed.compare(good, good)
    nowhere = spec.model_copy(update={"target": deployed.target(namespace="nowhere")})
    found = await compare_manifests.observe(nowhere)
    assert "lab has no namespace nowhere" in found.faults


async def test_update_is_no_drift_until_a_value_differs(deployed: Deployed) -> None:
    """Who updates owns what the server filled in, too."""
    deployed.update(workload("shop", "shop:2"))
    rollback = Rollback(deployed, (workload("shop"),), (workload("shop", "shop:2"),))
    assert (await rollback.compared()).drift == ()
    deployed.edit("Deployment", "shop", {"spec": {"replicas": 3}}, manager=deployed.manager)
    found = await rollback.compared()
    assert found.drift == ("deployment/shop: .spec.replicas is not what the newest revision says",)
    spec, seen = await rollback.applied()
    shown = (deployed.get("Deployment", "shop") or {})["spec"]
    assert (shown["replicas"], shown["template"]["spec"]["containers"][0]["image"]) == (1, "shop:1")
    await apply_manifests.undo(spec, seen)
    assert (deployed.get("Deployment", "shop") or {})["spec"]["replicas"] == 3


# --- apply and undo -------------------------------------------------------------------------------------------------


async def test_rollback_brings_back_the_good_revision(deployed: Deployed) -> None:
    good = config_map("a", {"x": "1"}), secret("s", {"p": "old"}), workload("shop", replicas=2), service("shop")
    bad = config_map("a", {"x": "2", "y": "3"}), secret("s", {"p": "new", "q": "1"}), workload("shop", "shop:broken")
    deployed.apply(*good)
    wanted = deployed.everything()
    deployed.apply(*bad, config_map("extra", {"x": "1"}))
    deployed.ask("DELETE", deployed.path(service("shop")))
    rollback = Rollback(deployed, good, (*bad, config_map("extra", {"x": "1"})))
    spec, _ = await rollback.applied()
    found = deployed.everything()
    kept = found.pop(f"Secret/{spec.keeping.secret}")
    assert kept["type"] == "recovery/kept"
    assert found == wanted


async def test_undo_brings_back_what_was_there(deployed: Deployed) -> None:
    good = config_map("a", {"x": "1"}), secret("s", {"p": "old"}), workload("shop", replicas=2), config_map("b", {})
    bad = (
        config_map("a", {"x": "2", "y": "3"}),
        secret("s", {"p": "new"}),
        workload("shop"),
        config_map("c", {"x": "1"}),
    )
    deployed.apply(*bad)
    deployed.edit("ConfigMap", "c", {"data": {"of": "another"}}, manager="another")
    before = deployed.everything()
    spec, seen = await Rollback(deployed, good, bad).applied()
    assert deployed.get("ConfigMap", "c") is None
    await apply_manifests.undo(spec, seen)
    assert deployed.everything() == before
    assert await apply_manifests.observe(spec) == seen


async def test_update_counts_as_applied(deployed: Deployed) -> None:
    """kubectl apply without --server-side: a field that the good revision lacks has to go, and an undo to bring it."""
    deployed.update(config_map("a", {"x": "2", "y": "3"}))
    rollback = Rollback(deployed, (config_map("a", {"x": "1"}),), (config_map("a", {"x": "2", "y": "3"}),))
    assert (await rollback.compared()).conflicts == ()
    spec, seen = await rollback.applied()
    assert data(deployed, "a") == {"x": "1"}
    await apply_manifests.undo(spec, seen)
    assert data(deployed, "a") == {"x": "2", "y": "3"}


async def test_fields_of_others_stay_theirs(deployed: Deployed) -> None:
    deployed.apply(config_map("a", {"x": "2"}))
    deployed.edit("ConfigMap", "a", {"data": {"theirs": "1"}}, manager="another")
    spec, seen = await Rollback(deployed, (config_map("a", {"x": "1"}),), (config_map("a", {"x": "2"}),)).applied()
    assert data(deployed, "a") == {"x": "1", "theirs": "1"}
    await apply_manifests.undo(spec, seen)
    assert data(deployed, "a") == {"x": "2", "theirs": "1"}


async def test_conflict_is_refused(deployed: Deployed) -> None:
    deployed.apply(workload("shop", replicas=None))
    deployed.edit("Deployment", "shop", {"spec": {"replicas": 5}}, manager="scaler")
    spec, seen = await Rollback(deployed, (workload("shop", replicas=2),), (workload("shop", replicas=None),)).ready()
    with pytest.raises(Refused, match=r"deployment/shop of lab: \.spec.replicas is owned by scaler"):
        await apply_manifests.apply(spec, seen)
    await apply_manifests.undo(spec, seen)
    assert (deployed.get("Deployment", "shop") or {})["spec"]["replicas"] == 5


@pytest.mark.parametrize("by", ["edit", "apply"])
async def test_what_is_taken_from_another_is_given_back(deployed: Deployed, by: str) -> None:
    """Replicas that nobody owns any more would fall to one."""
    deployed.apply(workload("shop", replicas=None))
    if by == "edit":
        deployed.edit("Deployment", "shop", {"spec": {"replicas": 5}}, manager="scaler")
    else:
        scaled = {"replicas": 5, "minReadySeconds": 1}
        named = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"}}
        deployed.apply({**named, "spec": scaled}, manager="scaler")
    entry = owners(deployed, "scaler")
    bad = (workload("shop", replicas=None),)
    rollback = Rollback(deployed, (workload("shop", replicas=2),), bad, overrule=("scaler",))
    assert (await rollback.compared()).overruled == ("deployment/shop: .spec.replicas is owned by scaler",)
    spec, seen = await rollback.applied()
    assert (deployed.get("Deployment", "shop") or {})["spec"]["replicas"] == 2
    await apply_manifests.undo(spec, seen)
    assert (deployed.get("Deployment", "shop") or {})["spec"]["replicas"] == 5
    assert owners(deployed, "scaler") == entry


def owners(deployed: Deployed, manager: str) -> list[tuple[str, object]]:
    live = deployed.get("Deployment", "shop") or {}
    entries = live["metadata"]["managedFields"]
    return [(one["operation"], one["fieldsV1"]) for one in entries if one["manager"] == manager]


async def test_what_holds_data_is_never_deleted(deployed: Deployed) -> None:
    deployed.apply(claim("old"))
    before = deployed.everything()
    spec, seen = await Rollback(deployed, (claim("new"),), (claim("old"),)).applied()
    found = deployed.everything()
    assert {"PersistentVolumeClaim/old", "PersistentVolumeClaim/new"} <= found.keys()
    await apply_manifests.undo(spec, seen)
    assert deployed.everything() == before | {"PersistentVolumeClaim/new": found["PersistentVolumeClaim/new"]}


async def test_retry_keeps_what_was_kept_first(deployed: Deployed) -> None:
    good, bad = (config_map("a", {"x": "1"}),), (config_map("a", {"x": "2"}),)
    deployed.apply(*bad)
    spec, seen = await Rollback(deployed, good, bad).applied()
    kept = plain(deployed.get("Secret", spec.keeping.secret) or {"metadata": {}})
    await apply_manifests.apply(spec, seen)
    assert plain(deployed.get("Secret", spec.keeping.secret) or {"metadata": {}}) == kept


async def test_undo_without_what_was_kept_changes_nothing(deployed: Deployed) -> None:
    good, bad = (config_map("a", {"x": "1"}),), (config_map("a", {"x": "2"}),)
    deployed.apply(*bad)
    spec, seen = await Rollback(deployed, good, bad).applied()
    deployed.ask("DELETE", f"/api/v1/namespaces/orders/secrets/{spec.keeping.secret}")
    with pytest.raises(Fatal, match=f"secret/{spec.keeping.secret} is gone"):
        await apply_manifests.undo(spec, seen)
    assert data(deployed, "a") == {"x": "1"}


async def test_object_that_somebody_else_made_alike_is_drift(deployed: Deployed) -> None:
    good, bad = (config_map("a", {"x": "1"}),), (config_map("a", {"x": "2"}),)
    deployed.apply(*bad)
    spec, seen = await Rollback(deployed, good, bad).ready()
    deployed.apply(*good)
    deployed.apply(config_map("b", {}))
    with pytest.raises(Drifted, match="somebody else has just applied"):
        await apply_manifests.apply(spec, seen)


async def test_change_by_hand_is_not_undone(deployed: Deployed) -> None:
    good, bad = (config_map("a", {"x": "1"}),), (config_map("a", {"x": "2"}),)
    deployed.apply(*bad)
    spec, seen = await Rollback(deployed, good, bad).applied()
    deployed.edit("ConfigMap", "a", {"data": {"x": "by hand"}})
    with pytest.raises(Drifted, match="somebody else changed orders/configmap/a"):
        await apply_manifests.undo(spec, seen)
    assert data(deployed, "a") == {"x": "by hand"}


async def test_revision_that_lacks_an_object_is_named(deployed: Deployed) -> None:
    good, bad = (config_map("a", {"x": "1"}),), (config_map("a", {"x": "2"}),)
    deployed.apply(*bad)
    spec, seen = await Rollback(deployed, good, bad).ready()
    empty = deployed.commit()
    with pytest.raises(Invalid, match="there is no configmap/a"):
        await apply_manifests.apply(spec.model_copy(update={"source": empty}), seen)


async def test_revision_that_is_there_changes_nothing(deployed: Deployed) -> None:
    good = (config_map("a", {"x": "1"}), workload("shop"))
    deployed.apply(*good)
    spec, seen = await Rollback(deployed, good, good).ready()
    assert apply_manifests.desired(spec, seen) == seen


# --- how it stands --------------------------------------------------------------------------------------------------


async def stands(deployed: Deployed, *objects: Object, seconds: int = 20) -> RolledOut:
    source = deployed.commit(*objects)
    found = await compare_manifests.observe(deployed.compare(source, source))
    spec = RolledOutSpec(system="shop", target=deployed.target(), objects=refs(found), seconds=seconds)
    return await rolled_out.observe(spec)


async def test_rollout_is_waited_for(deployed: Deployed) -> None:
    kinds = ("Deployment", "StatefulSet", "DaemonSet")
    objects = (*(workload(f"a-{kind.lower()}", kind=kind, replicas=2) for kind in kinds), service("a-deployment"))
    deployed.apply(*objects)
    found = await stands(deployed, *objects)
    assert found.well, found.why
    assert len(found.workloads) == 4


async def test_bad_image_is_a_verdict(deployed: Deployed) -> None:
    good = (workload("shop", replicas=2), service("shop"))
    deployed.apply(*good)
    assert (await stands(deployed, *good)).well
    bad = workload("shop", "shop:broken", replicas=2, progressDeadlineSeconds=1)
    deployed.apply(bad)
    found = await stands(deployed, bad, service("shop"))
    assert not found.well
    assert "deployment/shop: ProgressDeadlineExceeded: its deadline is over; pod shop-" in found.why[0]
    assert found.workloads[1].ready  # the old pods still answer


async def test_crash_is_named(deployed: Deployed) -> None:
    bad = workload("shop", notes={"lab/crash": "yes"}), service("shop")
    deployed.apply(*bad)
    until(lambda: any(map(unwell, deployed.ask("GET", "/api/v1/namespaces/orders/pods")["items"])), "a pod crashes")
    found = await stands(deployed, *bad, seconds=1)
    assert "CrashLoopBackOff" in found.why[0]
    assert found.why[1] == "service/shop: has no address: no pod of it is ready"


@pytest.mark.parametrize(
    ("kind", "status", "why"),
    [
        ("Deployment", {}, "its controller has not seen the change yet"),
        ("Deployment", {"observedGeneration": 1, "replicas": 2}, "its controller has not seen the change yet"),
        ("Deployment", {"observedGeneration": 2, "updatedReplicas": 1}, "1 of 2 replicas are updated"),
        (
            "Deployment",
            {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 3},
            "1 old replicas are still there",
        ),
        ("Deployment", {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2}, "0 of 2 replicas are available"),
        (
            "Deployment",
            {"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2},
            "",
        ),
        (
            "StatefulSet",
            {"observedGeneration": 2, "currentRevision": "a", "updateRevision": "b", "readyReplicas": 2},
            "0 of 2 replicas are updated",
        ),
        ("StatefulSet", {"observedGeneration": 2, "readyReplicas": 1}, "1 of 2 replicas are available"),
        ("StatefulSet", {"observedGeneration": 2, "readyReplicas": 2}, ""),
        ("DaemonSet", {"observedGeneration": 2, "desiredNumberScheduled": 3}, "0 of 3 replicas are updated"),
        (
            "DaemonSet",
            {"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3},
            "",
        ),
    ],
)
def test_status_tells_a_rollout(kind: str, status: Object, why: str) -> None:
    assert unready(kind, {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}) == why
