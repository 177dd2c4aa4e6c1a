"""What a site needs against what it has: never enough by guess, both figures named, Azure's grants never overdrawn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities import capacity
from activities.capacity import Capacity, Need, quota
from activities.machine_operations import MachineAt
from activities.machines import MachineSpec, Way
from activities.quota import REGIONAL, Grant, QuotaSeen, Region, Size, Stood
from activities.rooms import Granted, RoomSeen
from activities.sites import Sites
from activities.workload_looks import WorkloadSeen
from runbooks.procedures.data_center_activation import Parameters
from tests.activities import test_homecoming, test_losses, test_sites
from tests.activities.sample import SYSTEMS, estate, moving

HERE = "sub/westeurope"
SIZES = {
    "D2": Size(cores=2, family="D"),
    "D4": Size(cores=4, family="D"),
    "E2": Size(cores=2, family="E"),
    "E8": Size(cores=8, family="E"),
}
figures = st.one_of(st.none(), st.integers(0, 99))


@given(needed=figures, there=figures)
def test_what_nobody_knows_is_never_enough(needed: int | None, there: int | None) -> None:
    one = Need(system="orders", what="connections", needed=needed, there=there, remedy="raise it")
    if needed is None or there is None:
        assert one.enough is None
        assert "not known" in one.words
    else:
        assert one.enough == (there >= needed)
    assert one.words.endswith("raise it") == (one.enough is False)
    assert capacity.blockers(Capacity((one,))) == ([one.words] if one.enough is False else [])
    assert capacity.blockers(Capacity((one,)), ["orders"]) == []


@given(authored=figures, in_use=figures, there=figures)
def test_both_figures_are_named_and_what_people_said_goes_first(
    authored: int | None, in_use: int | None, there: int | None
) -> None:
    (one,), notes = capacity.connections("b", "a", authored, in_use, there, "as it says", "raise it")
    assert one.needed == (in_use if authored is None else authored)
    assert f"needed {'not known' if one.needed is None else one.needed} (" in one.words
    assert f"there {'not known' if there is None else there} (as it says)" in one.words
    assert bool(notes) == (authored is not None and in_use is not None and in_use > authored)


# --- of a move ------------------------------------------------------------------------------------------------------


def living(old: dict[str, Any], new: dict[str, Any], sites: Sites | None = None) -> Capacity:
    """Return the needs of a move of which the databases have told so."""
    found = test_sites.database("orders", **{"limit": 40, "reserved": 3} | old)
    view = found.views["north"] | {
        "orders-south": test_sites.NEW.model_copy(update={"limit": 40, "reserved": 3} | new)
    }  # fmt: skip
    return capacity.of_living(sites or moving(), found.model_copy(update={"views": {"north": view, "south": view}}))


def saying(kind: str, name: str, connections: int) -> dict[str, Any]:
    """Return the estate in which a system says what its clients need."""
    found = estate()
    found[kind][name]["connections"] = connections
    return found


@pytest.mark.parametrize(("clients", "short"), [(0, False), (37, False), (38, True)])
def test_clients_of_the_active_database_have_to_find_room_at_the_other(clients: int, short: bool) -> None:
    found = living({"clients": clients}, {})
    (one,) = found.needs
    assert (one.system, one.needed, one.there, bool(found.short)) == ("orders-south", clients, 37, short)
    assert one.there_as == "max_connections 40, reserved 3, in use 0"


def test_who_is_connected_to_the_standby_stays_and_what_is_reserved_is_not_there() -> None:
    found = living({"clients": 20}, {"reserved": 8, "clients": 13})
    assert found.short[0].words == (
        "orders-south: connections: needed 20 (clients of orders now), there 19 (max_connections 40, reserved 8,"
        " in use 13); raise max_connections there, or have clients need fewer"
    )


@pytest.mark.parametrize(("restart", "replicas", "there"), [(True, 2, 97), (True, 0, 37), (False, 2, 37)])
def test_who_goes_with_pods_that_are_replaced_is_not_in_the_way(restart: bool, replicas: int, there: int) -> None:
    told = estate()
    told["clusters"] = {"kube": {"site": "south", "kubeconfig": "/etc/kube"}}
    web = {"cluster": "kube", "namespace": "shop", "name": "web", "replicas": 2, "after": ["orders-south"]}
    told["workloads"] = {"web": web | {"restart": restart}}
    sites = Sites((*SYSTEMS, "web"), told, Parameters(site="south"), "0a1b2c3d")
    found = test_sites.database("orders", limit=100, reserved=3, clients=60)
    south = test_sites.NEW.model_copy(update={"limit": 100, "reserved": 3, "clients": 60})
    view = found.views["north"] | {"orders-south": south}
    views = {"views": {"north": view, "south": view}, "workloads": {"web": WorkloadSeen(replicas=replicas)}}
    (one,) = capacity.of_living(sites, found.model_copy(update=views)).needs
    assert (one.needed, one.there) == (60, there)
    assert ("counted as gone with the pods of web" in one.there_as) == (there == 97)


@pytest.mark.parametrize("name", ["orders", "orders-south"])
def test_peak_that_the_estate_says_counts_at_either_of_the_two(name: str) -> None:
    sites = Sites(SYSTEMS, saying("databases", name, 38), Parameters(site="south"), "0a1b2c3d")
    assert [one.needed for one in living({"clients": 1}, {}, sites).short] == [38]
    found = living({"clients": 39}, {}, sites)
    assert found.notes == ("orders has 39 clients now, more than the connections in the estate, 38",)


def test_store_is_asked_for_its_clients() -> None:
    found = test_sites.store("sessions", clients=70, limit=99)
    south = found.stores["sessions-south"].model_copy(update={"clients": 31, "limit": 100})
    found = found.model_copy(update={"stores": found.stores | {"sessions-south": south}})
    (one,) = capacity.of_living(moving(), found).short
    assert (one.needed, one.there, one.there_as) == (70, 69, "maxclients 100, in use 31")
    untold = found.model_copy(
        update={"stores": found.stores | {"sessions-south": south.model_copy(update={"limit": None})}}
    )
    (one,) = capacity.of_living(moving(), untold).needs
    assert (one.enough, "it does not tell its maxclients" in one.words) == (None, True)
    assert not capacity.of_living(moving(), found.model_copy(update={"unseen": frozenset({"sessions"})})).needs


def test_what_was_seen_by_a_build_before_this_says_nothing() -> None:
    """A history that is replayed decides as it did: nothing is added to what people were shown."""
    assert capacity.of_living(moving(), test_sites.FOUND) == Capacity()
    assert capacity.of_lost(test_losses.taking(), test_losses.LOST) == Capacity()
    assert capacity.of_home(test_homecoming.going(), test_homecoming.BACK) == Capacity()
    assert capacity.not_known(moving(), Capacity()) is None


def lost(connections: int | None) -> Capacity:
    given = saying("databases", "orders", connections) if connections else estate()
    sites = Sites(SYSTEMS, given, Parameters.model_validate({"site": "south", "how": "unplanned"}), "0a1b2c3d")
    return capacity.of_lost(sites, test_losses.database(limit=40, reserved=3))


def test_taking_over_from_a_lost_site_goes_by_what_the_estate_says_alone() -> None:
    assert [one.enough for one in lost(37).needs] == [True]
    assert [one.enough for one in lost(38).needs] == [False]
    (one,) = lost(None).needs
    assert (one.enough, one.needed, one.there) == (None, None, 37)
    told = capacity.not_known(test_losses.taking(), lost(None))
    assert told is not None
    assert "orders cannot be asked, and the estate says no connections" in told.in_words[0]
    shown = capacity.shortage_at_stake(test_losses.taking(), lost(38))
    assert "37 of 38 connections for orders-south." in shown.at_stake
    assert shown.in_words[0].startswith("short: orders-south: connections: needed 38 ")
    assert "there 37" in shown.in_words[0]


def test_what_was_counted_before_the_site_was_lost_is_recalled() -> None:
    (one,) = capacity.recalled(lost(None), living({"clients": 38}, {})).needs
    assert one.words == (
        "orders-south: connections: needed 38 (clients of orders when the move began), there 37 (max_connections 40,"
        " reserved 3, in use 0); raise max_connections there, or have clients need fewer"
    )
    assert capacity.recalled(lost(37), living({"clients": 38}, {})) == lost(37), "what people have said goes first"
    assert capacity.recalled(lost(None), living({"limit": None}, {})) == lost(None)


# --- what Azure grants ----------------------------------------------------------------------------------------------


def at(name: str) -> MachineAt:
    return MachineAt(subscription="sub", resource_group="shop", machine=name, name=name)


def machine(name: str, *ways: str) -> MachineSpec:
    """Return what starts a machine; a way that is no size is another machine."""
    alternatives = tuple(Way(size=one) if one in SIZES else Way(instead=at(one)) for one in ways)
    return MachineSpec(system=name, at=at(name), wanted="running", alternatives=alternatives)


def seen(machines: dict[str, str], grants: dict[str, tuple[int, int]], **sizes: Size) -> QuotaSeen:
    """Return what Azure tells: machines as "size power zone", (used, granted) by family."""
    stood = {}
    for name, text in machines.items():
        size, power, zone = f"{text} deallocated 1".split()[:3] if " " not in text else f"{text} 1".split()[:3]
        stood[name] = Stood(power=power, size=size, zone=zone, region=HERE)
    told = {name: Grant(used=used, limit=limit) for name, (used, limit) in grants.items()}
    return QuotaSeen(machines=stood, regions={HERE: Region(grants=told, sizes=SIZES | sizes)})


ROOMY = {"D": (4, 99), "E": (0, 99), REGIONAL: (4, 99)}


def test_machine_that_starts_as_it_is_needs_what_is_counted_already() -> None:
    found = quota([machine("a"), machine("b")], seen({"a": "D2", "b": "D2"}, {"D": (4, 4), REGIONAL: (4, 4)}))
    assert found.short == ()
    assert [(one.system, one.needed, one.there) for one in found.needs] == [("a, b", 4, 4)] * 2
    assert all("counts deallocated machines as used" in line for line in found.notes)
    assert len(found.notes) == 2
    assert quota([machine("a")], seen({"a": "D2"}, ROOMY)).notes == ()


def test_what_others_have_used_up_is_short() -> None:
    found = quota([machine("a"), machine("b")], seen({"a": "D2", "b": "D2"}, {"D": (9, 8), REGIONAL: (9, 99)}))
    assert [one.words for one in found.short] == [
        "a, b: vCPUs of D in westeurope: needed 4 (to be started), there 3 (granted 8, used 9, of which 4 are theirs);"
        " have the quota raised, or name a size of another family in alternatives"
    ]
    assert found.notes == ("a: Azure does not grant a in size D2", "b: Azure does not grant b in size D2")


def test_where_less_is_used_than_our_machines_have_they_are_not_counted() -> None:
    found = quota([machine("a")], seen({"a": "D2"}, {"D": (1, 2), REGIONAL: (1, 99)}))
    assert [(one.needed, one.there) for one in found.short] == [(2, 1)]


@pytest.mark.parametrize("power", ["running", "starting"])
def test_machine_that_runs_needs_nothing_more(power: str) -> None:
    full = {"D": (9, 1), REGIONAL: (9, 1)}
    assert quota([machine("a")], seen({"a": f"D2 {power}"}, full)) == Capacity()
    assert quota([machine("a", "b")], seen({"a": "D2", "b": f"D2 {power}"}, full)) == Capacity()
    assert quota([], seen({}, full)) == Capacity()
    assert quota([machine("a")], None) == Capacity()


def test_alternative_is_counted_where_the_first_is_not_granted() -> None:
    found = quota([machine("a", "E2")], seen({"a": "D2"}, {"D": (3, 2), "E": (0, 2), REGIONAL: (3, 5)}))
    assert found.short == ()
    assert found.notes[0] == "a: Azure does not grant a in size D2; a is started in size E2 instead"
    assert [(one.what, one.needed, one.there) for one in found.needs] == [
        ("vCPUs of E in westeurope", 2, 2), ("vCPUs of all families in westeurope", 2, 4),
    ]  # fmt: skip
    found = quota([machine("a", "E2")], seen({"a": "D2"}, {"D": (3, 2), "E": (1, 2), REGIONAL: (3, 5)}))
    assert found.notes[0] == "a: Azure does not grant a in size D2, nor what its alternatives say (1)"


def test_size_that_the_subscription_does_not_get_is_short() -> None:
    nowhere, zoned = (Size(cores=2, family="D", barred=where) for where in (("",), ("1",)))
    found = quota([machine("a")], seen({"a": "D2"}, ROOMY, D2=nowhere))
    assert [one.there_as for one in found.short] == ["this subscription gets none in this region"]
    found = quota([machine("a")], seen({"a": "D2"}, ROOMY, D2=zoned))
    assert [one.there_as for one in found.short] == ["this subscription gets none in zone 1"]
    assert quota([machine("a")], seen({"a": "D2 stopped"}, ROOMY, D2=zoned)).short == ()  # it has its place
    assert quota([machine("a", "b")], seen({"a": "D2", "b": "D2 deallocated 2"}, ROOMY, D2=zoned)).short == ()


@pytest.mark.parametrize(
    "found",
    [
        QuotaSeen(why="throttled"),
        seen({"a": "D2"}, ROOMY).model_copy(update={"regions": {HERE: Region(why="throttled")}}),
        seen({"a": "X9"}, ROOMY),
        seen({"a": "D2"}, {}),
    ],
)
def test_what_azure_does_not_tell_is_not_known(found: QuotaSeen) -> None:
    needs = quota([machine("a")], found).needs
    assert needs
    assert all(one.enough is None for one in needs)


names = st.sampled_from(["a", "b", "c"])
sizes = st.sampled_from(sorted(SIZES))
powers = st.sampled_from(["running", "deallocated", "stopped"])


@st.composite
def regions(draw: st.DrawFn) -> tuple[list[MachineSpec], QuotaSeen]:
    """Draw machines, and what is used beside them and granted."""
    stood = {name: f"{draw(sizes)} {draw(powers)} 1" for name in draw(st.sets(names, min_size=1))}
    others = {family: draw(st.integers(0, 9)) for family in ("D", "E")}
    for text in stood.values():
        size = SIZES[text.split()[0]]
        others[size.family] += size.cores
    used = others | {REGIONAL: sum(others.values())}
    grants = {name: (one, draw(st.integers(0, 40))) for name, one in used.items()}
    return [machine(name, *draw(st.lists(sizes, max_size=2))) for name in sorted(stood)], seen(stood, grants)


@given(regions())
def test_nothing_is_short_only_where_some_way_for_each_keeps_within_every_grant(
    drawn: tuple[list[MachineSpec], QuotaSeen],
) -> None:
    specs, found = drawn
    told = quota(specs, found)
    asleep = [one for one in specs if found.machines[one.system].power != "running"]
    if told.short or not asleep:
        return
    grants = found.regions[HERE].grants
    after = [{name: one.used for name, one in grants.items()}]
    for spec in asleep:  # every combination of ways, as Azure would count them
        was = SIZES[found.machines[spec.system].size]
        sizes = [was, *(SIZES[one] for one in spec.sizes if found.machines[spec.system].power != "stopped")]
        after = [_resized(used, was, now) for used in after for now in sizes]
    assert any(all(used[name] <= grants[name].limit for name in used if _touched(told, name)) for used in after), (
        told.words
    )


def _resized(used: dict[str, int], was: Size, now: Size) -> dict[str, int]:
    found = dict(used)
    found[was.family] -= was.cores
    found[now.family] += now.cores
    return found | {REGIONAL: used[REGIONAL] + now.cores - was.cores}


def _touched(told: Capacity, name: str) -> bool:
    what = "all families" if name == REGIONAL else name
    return any(one.what.startswith(f"vCPUs of {what} in") for one in told.needs)


@given(regions(), st.sampled_from(["D", "E", REGIONAL]))
def test_what_is_granted_without_end_is_never_short(drawn: tuple[list[MachineSpec], QuotaSeen], name: str) -> None:
    specs, found = drawn
    one = found.regions[HERE]
    grant = one.grants[name].model_copy(update={"limit": 10_000})
    generous = found.model_copy(
        update={"regions": {HERE: one.model_copy(update={"grants": one.grants | {name: grant}})}}
    )
    key = "all families" if name == REGIONAL else name
    assert not [need for need in quota(specs, generous).short if need.what.startswith(f"vCPUs of {key} in")]


@given(regions())
def test_blocker_names_both_figures(drawn: tuple[list[MachineSpec], QuotaSeen]) -> None:
    for one in quota(*drawn).short:
        assert f"needed {one.needed} (" in one.words
        assert f"there {one.there} (" in one.words


# --- room for pods --------------------------------------------------------------------------------------------------


def test_pods_that_find_no_room_are_short_and_what_a_cluster_does_not_tell_is_not_known() -> None:
    cpu = Granted(namespace="shop", quota="team", resource="requests.cpu", needed=800, left=500)
    here = RoomSeen(more={"api": 2, "web": 3, "old": 0}, fits={"api": 2, "web": 1, "old": 0}, nodes=4,
                    away=("n9 is cordoned",), quotas=(cpu,), unseen=("it is so",))  # fmt: skip
    found = capacity.room({"c": here})
    assert [one.words for one in found.short] == [
        "web: pods on nodes of c: needed 3 (to be more), there 1 (4 nodes take pods (n9 is cordoned); affinities,"
        " spreading, volumes and host ports are not looked at); free room or add nodes, or have its pods ask for less",
        "api, web: requests.cpu of ResourceQuota shop/team: needed 800 (800m), there 500 (500m is left); have the quota"
        " raised, or have its pods ask for less",
    ]
    assert [one.system for one in found.needs if one.enough] == ["api"]
    assert found.notes == ("api, web: it is so",)
    (silent,) = capacity.room({"c": RoomSeen(why="it does not answer")}).needs
    assert (silent.enough, silent.there_as) == (None, "it does not answer")
    assert capacity.room({"c": RoomSeen(more={"web": 0}, fits={"web": 0})}) == Capacity()
