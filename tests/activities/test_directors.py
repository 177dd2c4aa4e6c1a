"""Which looks and actions a director takes, by its kind."""

from __future__ import annotations

import pytest

from activities.dns_director import Recorded, RecordSeen
from activities.pointing import Pointing, Sighted
from tests.activities.sample import SYSTEMS, moving

SITES = moving(systems=(*SYSTEMS, "edge", "shop", "azure"))
PROXY = Sighted(pointed=Pointing(at="site", site="north"))


def record(ttl: int, usual: int) -> RecordSeen:
    """Return what a look at a record shows."""
    return RecordSeen(pointed=Recorded(at="site", site="north", ttl=ttl), usual=usual)


@pytest.mark.parametrize(
    ("name", "seen", "point", "drained", "waits"),
    [
        ("front", "director.seen", "director.point", "director.drained", ("north", 10)),
        ("edge", "haproxy.seen", "haproxy.point", "haproxy.drained", ("north", 10)),
        ("shop", "dns.seen", "dns.point", "dns.resolved", ("", 10)),
    ],
)
def test_kind_has_its_own_steps(name: str, seen: str, point: str, drained: str, waits: tuple[str, int]) -> None:
    look, looked = SITES.seen_by(name)
    act, spec = SITES.point(name, "south")
    drain = SITES.drain(name)
    assert drain is not None
    wait, waited = drain
    assert (look.name, act.name, wait.name) == (seen, point, drained)
    assert looked.system == spec.system == waited.system == name
    told = waited.model_dump()
    assert (told["site"], told.get("seconds", told.get("most"))) == waits
    assert issubclass(act.state_type, Pointing)
    assert spec.model_dump()["site"] == "south"


def test_profile_of_azure_is_seen_pointed_and_awaited_and_nobody_is_drained() -> None:
    azure = SITES.front("azure")
    assert (azure.seen()[0].name, azure.point("south")[0].name) == ("traffic_manager.seen", "traffic_manager.point")
    assert azure.point("")[1].model_dump()["site"] == ""
    assert azure.drained("north", 10) is None
    told = azure.told("south")
    assert told is not None
    assert (told[0].name, told[1].model_dump()["site"]) == ("traffic_manager.healthy", "south")
    assert azure.keep_for(5) is None
    assert issubclass(azure.point("south")[0].state_type, Pointing)


def test_only_what_clients_keep_is_kept_shorter() -> None:
    assert [SITES.front(name).keep_for(5) is None for name in ("front", "edge", "shop")] == [True, True, False]
    assert [SITES.front(name).told("south") is None for name in ("front", "edge", "shop")] == [True, True, False]
    assert [SITES.front(name).kept(PROXY) for name in ("front", "edge")] == [0, 0]


@pytest.mark.parametrize(("ttl", "usual", "lowered"), [(3600, 3600, 30), (20, 20, 20), (30, 3600, 30), (5, 3600, 5)])
def test_ttl_is_only_ever_lowered(ttl: int, usual: int, lowered: int) -> None:
    shop = SITES.front("shop")
    assert (shop.lowered(record(ttl, usual)), shop.kept(record(ttl, usual))) == (lowered, ttl)
    assert shop.usual(record(ttl, usual)) == usual


def test_secret_is_in_no_step() -> None:
    drain = SITES.drain("shop")
    assert drain is not None
    specs = [SITES.seen_by("shop")[1], SITES.point("shop", "")[1], drain[1]]
    assert {spec.model_dump()["key"]["secret"] for spec in specs} == {"/etc/dr/tsig"}
