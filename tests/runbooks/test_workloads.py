"""Workloads and clusters of an estate: what is refused, each fault with its field."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from recovery.errors import fields
from runbooks.procedures import data_center_activation, failback, fence_watch
from runbooks.references import mismatches
from runbooks.schema import Cluster, Drain, Estate, Workload
from tests.runbooks.samples import ROOT

CLUSTER = {"site": "south", "kubeconfig": "/etc/dr/kube"}
WEB: dict[str, Any] = {"cluster": "kube", "namespace": "shop", "name": "web", "replicas": 3}


def estate(workloads: dict[str, Any]) -> Estate:
    """Return the lab's estate with workloads in a cluster at south."""
    content = yaml.safe_load((ROOT / "lab" / "estate.yaml").read_text().replace("${LAB_", "/LAB_").replace("}", ""))
    for kind in ("databases", "stores", "services", "directors", "configurations", "hosts"):
        content.pop(kind)
    host = {"site": "north", "address": "a", "user": "b", "known_hosts": "/k", "key": "/k", "jobs": "/j"}
    words = {"host": "north-db", "start": "a", "stop": "b", "status": "c"}
    more = {"hosts": {"north-db": host}, "services": {"app-north": words}}
    return Estate.model_validate(content | more | {"clusters": {"kube": CLUSTER}, "workloads": workloads})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replicas": 0}, "replicas: "),
        ({"replicas": None}, "replicas: "),
        ({"kind": "DaemonSet"}, "kind: "),
        ({"name": "a/b"}, "name: "),
        ({"namespace": "Shop"}, "namespace: "),
        ({"endpoints": "../x"}, "endpoints: "),
        ({"within": "PT0S"}, "within: "),
        ({"image": "x"}, "image: Extra inputs are not permitted"),
    ],
)
def test_fault_of_a_workload_is_named(changes: dict[str, Any], said: str) -> None:
    Workload.model_validate(WEB)
    with pytest.raises(ValidationError) as caught:
        Workload.model_validate(WEB | changes)
    assert fields(caught.value).startswith(said), fields(caught.value)


@pytest.mark.parametrize(
    ("given", "drain"),
    [
        ({}, None),
        ({"drain": False}, None),
        ({"drain": True}, Drain()),
        ({"drain": {"nodes": "pool in (shop, edge)"}}, Drain(nodes="pool in (shop, edge)")),
    ],
)
def test_draining_is_asked_for(given: dict[str, Any], drain: Drain | None) -> None:
    assert Cluster.model_validate(CLUSTER | given).drain == drain


@pytest.mark.parametrize("drain", ["yes", {"nodes": ""}, {"nodes": "a&limit=1"}, {"within": "P1D"}, {"force": True}])
def test_fault_of_draining_is_named(drain: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Cluster.model_validate(CLUSTER | {"drain": drain})
    assert fields(caught.value).startswith("drain"), fields(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"after": ["other"]}, None),
        ({"cluster": "none"}, "workloads.web.cluster: the estate has no such cluster"),
        ({"after": ["nothing"]}, "workloads.web.after: the estate has no nothing that could run before"),
        ({"after": ["app-north"]}, "workloads.web.after: app-north is at another site"),
        ({"after": ["web"]}, "workloads.web.after: goes round in a circle: web after web"),
        ({"name": "other"}, "workloads.other.name: web is the same object; name it once"),
    ],
)
def test_workload_that_leads_nowhere_is_named(changes: dict[str, Any], said: str | None) -> None:
    found = mismatches(estate({"web": WEB | changes, "other": WEB | {"name": "other"}}))
    assert found == ([said] if said else [])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"drain": True}, True),
        ({"drain": {"nodes": "pool=south"}}, False),
        ({"drain": True, "context": "other"}, False),
        ({"drain": True, "site": "north"}, False),
        ({}, False),
    ],
)
def test_one_cluster_of_two_sites_is_not_drained_as_a_whole(changes: dict[str, Any], named: bool) -> None:
    known = estate({})
    clusters = {"kube": CLUSTER | {"site": "north"}, "other": CLUSTER | changes}
    found = mismatches(
        known.model_copy(update={"clusters": {k: Cluster.model_validate(v) for k, v in clusters.items()}})
    )
    said = "clusters.other.drain: kube is the same cluster, for another site; name the nodes of each"
    assert found == ([said] if named else [])


def test_only_workloads_of_the_lost_site_are_fenced() -> None:
    found = fence_watch.faults(("web",), {"site": "north"}, estate({"web": WEB}))
    assert found == ["systems: web is not at north; name only what is to be fenced there"]


SAID = (
    "systems: all nodes of kube are drained, and other would be evicted; name that, too, or say in the estate which"
    " nodes are drained (clusters.kube.drain.nodes)"
)


@pytest.mark.parametrize(
    ("changes", "systems", "named"),
    [
        ({"drain": True}, ("web",), True),
        ({"drain": True}, ("web", "other"), False),
        ({"drain": True}, (), False),
        ({"drain": {"nodes": "pool=web"}}, ("web",), False),
        ({}, ("web",), False),
    ],
)
def test_drain_evicts_nothing_that_is_not_named(changes: dict[str, Any], systems: tuple[str, ...], named: bool) -> None:
    known = estate({"web": WEB, "other": WEB | {"name": "other", "cluster": "alias"}})
    clusters = {name: Cluster.model_validate(CLUSTER | changes) for name in ("kube", "alias")}
    known = known.model_copy(update={"clusters": clusters})
    for of, site in ((data_center_activation, "north"), (failback, "north"), (fence_watch, "south")):
        assert (SAID in of.faults(systems, {"site": site}, known)) == named
    assert SAID not in data_center_activation.faults(systems, {"site": "south"}, known)  # those are opened
