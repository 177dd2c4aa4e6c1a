"""Whether pods find room: quantities as Kubernetes writes them, what keeps a pod from a node, and none placed twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.placement import NodeRoom, PodAsked, amounts, asked, counted, placed, quantity, room, takes, tolerated

BUSY: dict[str, Any] = {"spec": {"containers": [{"resources": {"requests": {"cpu": "300m", "memory": "1Gi"}}}]}}


@pytest.mark.parametrize(
    ("text", "resource", "amount"),
    [
        ("100m", "cpu", 100), ("1", "cpu", 1000), ("1.5", "cpu", 1500), (2, "requests.cpu", 2000),
        ("250u", "limits.cpu", 1), ("128Mi", "memory", 2**27), ("1k", "memory", 1000), ("1e3", "memory", 1000),
        ("1E", "memory", 10**18), ("1Ei", "memory", 2**60), ("0.5", "pods", 1), (".5Ki", "memory", 512), ("3", "x", 3),
    ],
)  # fmt: skip
def test_quantity_is_read_as_kubernetes_writes_it(text: object, resource: str, amount: int) -> None:
    assert quantity(text, resource) == amount


@pytest.mark.parametrize("text", ["", "much", "1ki", "1mi", "1K", ".", "1 Gi", "Gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)


def test_pod_asks_for_its_containers_together_or_for_the_one_that_initialises_it() -> None:
    def container(**requests: str) -> dict[str, Any]:
        return {"resources": {"requests": requests}}

    spec = {
        "containers": [container(cpu="100m", memory="1Mi"), container(cpu="200m"), {}],
        "initContainers": [container(cpu="250m", memory="2Mi"), container(cpu="1")],
        "overhead": {"cpu": "10m"},
    }
    assert asked(spec) == {"cpu": 1010, "memory": 2 * 2**20}
    limited = {"containers": [{"resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}]}
    assert asked(limited) == {"cpu": 1000, "memory": 2**30}
    assert asked(limited, "limits") == {"cpu": 2000, "memory": 2**30}
    assert asked({"containers": [{}]}) == {}


def node(name: str = "n", **spec: Any) -> dict[str, Any]:
    ready = spec.pop("ready", "True")
    return {
        "metadata": {"name": name, "labels": {"zone": "1"}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "1", "memory": "4Gi", "pods": "3"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def pod(more: int = 1, **fields: Any) -> PodAsked:
    return PodAsked.model_validate({"workload": "web", "more": more, "requests": {"cpu": 300}} | fields)


def test_what_pods_have_asked_for_is_not_left() -> None:
    left = room(node(), [BUSY, BUSY])
    assert left.free == {"cpu": 400, "memory": 2 * 2**30, "pods": 1}
    assert placed([left], [pod(5)]) == {"web": 1}
    assert placed([room(node(), [])], [pod(5)]) == {"web": 3}
    assert placed([room(node(), [])], [pod(5, requests={})]) == {"web": 3}  # as many pods as it takes
    assert placed([room(node(), [])], [pod(1, requests={"nvidia.com/gpu": 1})]) == {"web": 0}


TAINT = {"key": "only", "value": "batch", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("told", "asks", "fits"),
    [
        ({}, {}, True),
        ({"ready": "Unknown"}, {}, False),
        ({"unschedulable": True}, {}, False),
        ({}, {"selector": {"zone": "1"}}, True),
        ({}, {"selector": {"zone": "2"}}, False),
        ({"taints": [TAINT]}, {}, False),
        ({"taints": [TAINT | {"effect": "PreferNoSchedule"}]}, {}, True),
        ({"taints": [TAINT]}, {"tolerations": [TAINT]}, True),
        ({"taints": [TAINT]}, {"tolerations": [TAINT | {"value": "web"}]}, False),
        ({"taints": [TAINT]}, {"tolerations": [{"operator": "Exists"}]}, True),
        ({"taints": [TAINT]}, {"tolerations": [{"key": "only", "operator": "Exists"}]}, True),
        ({"taints": [TAINT]}, {"tolerations": [{"key": "other", "operator": "Exists"}]}, False),
        ({"taints": [TAINT]}, {"tolerations": [TAINT | {"effect": "NoExecute"}]}, False),
    ],
)
def test_what_keeps_a_pod_from_a_node_is_heeded(told: dict[str, Any], asks: dict[str, Any], fits: bool) -> None:
    assert takes(room(node(**told), []), pod(**asks)) is fits


def test_node_that_is_opened_before_takes_pods() -> None:
    cordoned = node(unschedulable=True, taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])
    assert room(cordoned, []).why == "is cordoned"
    assert takes(room(cordoned, [], opened=True), pod())


def test_key_of_a_toleration_has_to_be_named_unless_all_are_tolerated() -> None:
    assert not tolerated(("only", "", "NoSchedule"), [{"operator": "Equal", "value": ""}])


def test_quota_is_counted_by_each_of_its_names() -> None:
    found = counted([pod(2, requests={"cpu": 300, "memory": 5}, limits={"cpu": 500}), pod(1, requests={"cpu": 100})])
    assert found == {
        "pods": 3, "count/pods": 3, "requests.cpu": 700, "cpu": 700, "requests.memory": 10, "memory": 10,
        "limits.cpu": 1000,
    }  # fmt: skip
    assert amounts({"requests.cpu": "1", "limits.memory": "1Ki"}) == {"requests.cpu": 1000, "limits.memory": 1024}


small = st.integers(0, 8)


@given(
    nodes=st.lists(st.tuples(small, small, small), max_size=4),
    asks=st.lists(st.tuples(small, small, small), max_size=3),
)
def test_no_room_is_given_away_twice(nodes: list[tuple[int, int, int]], asks: list[tuple[int, int, int]]) -> None:
    rooms = [
        NodeRoom(name=str(number), free={"cpu": cpu, "memory": memory, "pods": pods})
        for number, (cpu, memory, pods) in enumerate(nodes)
    ]
    pods = [
        PodAsked(workload=str(number), more=more, requests={"cpu": cpu, "memory": memory})
        for number, (cpu, memory, more) in enumerate(asks)
    ]
    found = placed(rooms, pods)
    for name in ("cpu", "memory"):
        assert sum(found[one.workload] * one.requests[name] for one in pods) <= sum(one.free[name] for one in rooms)
    assert sum(found.values()) <= sum(one.free["pods"] for one in rooms)
    assert all(found[one.workload] <= one.more for one in pods)
    if len(pods) == 1 and found["0"] < pods[0].more:  # of one kind alone as many are placed as can be
        (one,) = pods
        each = [
            min([node.free["pods"], *(node.free[name] // need for name, need in one.requests.items() if need)])
            for node in rooms
        ]
        assert found["0"] == sum(each)


@given(st.lists(st.tuples(small, small), min_size=1, max_size=4), small, small)
def test_one_more_node_never_takes_room_away(nodes: list[tuple[int, int]], cpu: int, more: int) -> None:
    rooms = [NodeRoom(name=str(at), free={"cpu": free, "pods": pods}) for at, (free, pods) in enumerate(nodes)]
    asks = [PodAsked(workload="web", more=more, requests={"cpu": cpu})]
    assert placed(rooms[:-1], asks)["web"] <= placed(rooms, asks)["web"]
