"""Machines of an estate: what is refused, each fault with its field, and who stands in for whom."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from recovery.errors import fields
from runbooks.references import mismatches
from runbooks.schema import Estate, Machine, TrafficManager
from tests.runbooks.samples import ROOT

WHERE = {"subscription": "11111111-2222-3333-4444-555555555555", "resource_group": "shop-(west)"}
ORDERS: dict[str, Any] = WHERE | {"site": "north", "name": "orders-vm"}
FRONT = WHERE | {
    "kind": "traffic-manager", "profile": "front", "sites": {"north": "north-ep"}, "url": "https://shop.example",
}  # fmt: skip


def estate(**machines: Any) -> Estate:
    """Return the lab's estate with machines."""
    content = yaml.safe_load((ROOT / "lab" / "estate.yaml").read_text().replace("${LAB_", "/LAB_").replace("}", ""))
    for kind in ("databases", "stores", "services", "directors", "clusters", "configurations", "hosts"):
        content.pop(kind)
    return Estate.model_validate(content | {"hosts": {}, "machines": machines})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subscription": "shop"}, "subscription: "),
        ({"resource_group": "a/b"}, "resource_group: "),
        ({"name": ""}, "name: "),
        ({"kind": "aws"}, "kind: Input should be 'azure'"),
        ({"endpoint": "http://management.azure.com"}, "endpoint: "),
        ({"endpoint": "https://me:secret@management.azure.com"}, "endpoint: "),
        ({"ca": "arm.pem"}, "ca: "),
        ({"alternatives": [{}]}, "alternatives.0: Value error, give either a size or a machine"),
        ({"alternatives": [{"size": "x", "machine": "y"}]}, "alternatives.0: Value error, give either a size or"),
        ({"alternatives": [{"zone": "2"}]}, "alternatives.0: Value error, zone: Azure moves no machine into another"),
        ({"alternatives": [{"size": "x y"}]}, "alternatives.0.size: "),
        ({"password": "x"}, "password: Extra inputs are not permitted"),
    ],
)
def test_fault_of_a_machine_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Machine.model_validate(ORDERS | changes)
    assert fields(caught.value).startswith(said), fields(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"profile": "a/b"}, "profile: "),
        ({"sites": {}}, "sites: "),
        ({"sites": {"north": "a/b"}}, "sites.north: "),
        ({"kind": "caddy"}, "kind: "),
        ({"weights": {"north": 0}}, "weights.north: "),
        ({"weights": {"south": 5}}, "input: Value error, weights.south: has no endpoint; name it in sites"),
    ],
)
def test_fault_of_a_profile_is_named(changes: dict[str, Any], said: str) -> None:
    assert TrafficManager.model_validate(FRONT).endpoint == "https://management.azure.com"
    with pytest.raises(ValidationError) as caught:
        TrafficManager.model_validate(FRONT | changes)
    assert fields(caught.value).startswith(said), fields(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"alternatives": [{"size": "x"}, {"machine": "spare"}]}, None),
        ({"site": "west"}, "machines.orders.site: the estate has no such site"),
        ({"tier": "tin"}, "machines.orders.tier: the estate has no such tier"),
        ({"alternatives": [{"machine": "other"}]}, "machines.orders.alternatives.0.machine: the estate has no such"),
        ({"alternatives": [{"machine": "orders"}]}, "machines.orders.alternatives.0.machine: is the machine itself"),
        ({"alternatives": [{"machine": "away"}]}, "machines.orders.alternatives.0.machine: away is at another site"),
        ({"alternatives": [{"size": "x"}, {"size": "x"}]}, "machines.orders.alternatives.1: x is named twice"),
    ],
)
def test_machine_that_leads_nowhere_is_named(changes: dict[str, Any], said: str | None) -> None:
    machines = {"orders": ORDERS | changes, "spare": ORDERS, "away": ORDERS | {"site": "south"}}
    found = mismatches(estate(**machines))
    assert [one[: len(said)] for one in found] == [said] if said else found == []
