"""What stands in the way of moving from one site to another: each is planted where nothing did, and named."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import pytest

import activities.sites
from activities.databases import seen
from activities.director import Pointed, Seen
from activities.sites import ALIKE, AT_LEAST, NEEDED, Found, Sites
from activities.stores import replication
from activities.workload_looks import WorkloadSeen
from runbooks.procedures.data_center_activation import Parameters
from tests.activities.captured import captured
from tests.activities.sample import SYSTEMS, estate, moving

OLD = seen(captured("pg_primary"))
NEW = seen(captured("pg_standby"))
VIEW = {"orders": OLD, "orders-south": NEW}
FOUND = Found(
    views={"north": VIEW, "south": VIEW},
    stores={
        "sessions": replication(captured("store_primary")),
        "sessions-south": replication(captured("store_replica")),
    },
    running={"mail-north": True, "api-north": True, "mail-south": False, "api-south": False},
    directors={"front": Seen(pointed=Pointed(at="site", site="north"))},
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def database(name: str, **change: Any) -> Found:
    """Return what was found, but for one database, as both sites see it."""
    view = VIEW | {name: VIEW[name].model_copy(update=change)}
    return FOUND.model_copy(update={"views": {"north": view, "south": view}})


def setting(name: str, value: str) -> Found:
    """Return what was found, but for one setting of the database at south."""
    return database("orders-south", settings=NEW.settings | {name: value})


def seen_from_south(name: str, **change: Any) -> Found:
    """Return what was found, but for one database as the south sees it."""
    view = VIEW | {name: VIEW[name].model_copy(update=change)}
    return FOUND.model_copy(update={"views": {"north": VIEW, "south": view}})


def store(name: str, **change: Any) -> Found:
    """Return what was found, but for one store."""
    stores = FOUND.stores | {name: FOUND.stores[name].model_copy(update=change)}
    return FOUND.model_copy(update={"stores": stores})


def service(name: str, runs: bool) -> Found:
    """Return what was found, but for one service."""
    return FOUND.model_copy(update={"running": FOUND.running | {name: runs}})


def director(**change: Any) -> Found:
    """Return what was found, but for the director."""
    front = FOUND.directors["front"].model_copy(update=change)
    return FOUND.model_copy(update={"directors": {"front": front}})


PLANTED: dict[str, tuple[Found, str]] = {
    "sites see another role": (
        seen_from_south("orders", role="down", serving=False),
        "orders: from north it is seen as primary, from south as down; .* mend the network",
    ),
    "sites see another system": (seen_from_south("orders-south", system="8"), "orders-south: from north .* as standby"),
    "fault on the old host": (database("orders", faults=("the kill switch /j is on",)), "^orders: the kill switch /j"),
    "fault on the new host": (database("orders-south", faults=("jobs: x",)), "^orders-south: jobs: x$"),
    "old one is a standby": (database("orders", role="standby"), "orders: is a standby, no primary; .* to move from"),
    "old one is down": (database("orders", role="down"), "orders: is down, no primary"),
    "new one is a primary": (database("orders-south", role="primary"), "orders-south: is a primary, no standby"),
    "new one is down": (database("orders-south", role="down"), "orders-south: is down, no standby; make it one"),
    "signal in the primary's data": (database("orders", signal=True), "orders: standby.signal lies in its data"),
    "another database": (database("orders-south", system="8"), r"orders-south: is another database .*8, not 77"),
    "replicates nothing": (database("orders-south", streaming=False), "orders-south: replicates nothing at this"),
    "replicates another one": (database("orders-south", of="192.0.2.9:1"), "orders-south: replicates 192.0.2.9:1, not"),
    "lags": (database("orders-south", flushed="0/1"), r"orders-south: lacks \d+ bytes of log, 1000000 are allowed"),
    "other timeline": (database("orders-south", timeline=2), "orders-south: is on timeline 2, orders on 1; build"),
    "other version": (database("orders-south", version="18.5"), "orders-south: is PostgreSQL 18.5, orders is 18.6"),
    "no room for log": (database("orders-south", free=NEEDED - 1024), "orders-south: 255 MiB are free .* 256 are"),
    "cannot be reached": (database("orders", unreached="no route"), "orders: its host cannot replicate .*: no route$"),
    "somebody else answers": (database("orders", reached="8"), r"orders: its host .*another database answers there"),
    "cannot be rewound": (database("orders", rewinds=False), "orders: has neither checksums nor wal_log_hints"),
    "old store is a replica": (
        store("sessions", role="replica", of="192.0.2.1:9"), "sessions: is a replica, no primary"
    ),
    "new store is a primary": (store("sessions-south", role="primary", of=""), "sessions-south: is no replica of sess"),
    "new store replicates another": (store("sessions-south", of="192.0.2.9:1"), "sessions-south: is no replica of"),
    "store without link": (store("sessions-south", linked=False), "sessions-south: has no link to sessions"),
    "store is being filled": (store("sessions-south", filling=True), "sessions-south: .* still being filled"),
    "store refuses writes": (store("sessions", writes="refused"), "sessions: refuses writes already; see who"),
    "store of another version": (store("sessions-south", version="8.0"), "sessions-south: is version 8.0, sessions"),
    "store with too little room": (store("sessions-south", room=7), "sessions-south: may use 7 bytes, .* maxmemory"),
    "store lags": (store("sessions", offset=2_000_000), r"sessions-south: lacks 19\d+ bytes, 1000000 bytes are"),
    "store with another history": (store("sessions-south", history="f" * 40), "sessions-south: has another history"),
    "service is down": (service("api-north", runs=False), "api-north: does not run at north"),
    "service runs already": (service("mail-south", runs=True), "mail-south: runs at south already; stop it"),
    "director points elsewhere": (director(pointed=Pointed()), "front: points at elsewhere, not at north; see who"),
    "director points at south": (director(pointed=Pointed(at="site", site="south")), "front: points at south, not at"),
    "director forgets": (director(keeps=False), "front: does not keep its configuration over a restart; .*--resume"),
    **{f"{name} too small": (setting(name, "-1"), f"orders-south: {name} is -1, at orders ") for name in AT_LEAST},
    **{f"{name} differs": (setting(name, "x"), f"orders-south: {name} is 'x', at orders '.*'") for name in ALIKE},
}  # fmt: skip


def blockers(found: Found, **wanted: Any) -> list[str]:
    """Return what stands in the way of a move that allows a replica to lack one million bytes."""
    return moving(**{"max_lag": 1_000_000} | wanted).blockers(found, NOON)


def test_nothing_stands_in_the_way() -> None:
    assert blockers(FOUND) == []


@pytest.mark.parametrize("name", PLANTED)
def test_blocker_is_named_with_what_to_do(name: str) -> None:
    found, said = PLANTED[name]
    assert any(re.search(said, line) for line in blockers(found)), blockers(found)


@pytest.mark.parametrize("name", PLANTED)
def test_blocker_says_which_system(name: str) -> None:
    found = [line for line in blockers(PLANTED[name][0]) if not line.startswith("north would be shut")]
    assert all(line.partition(": ")[0] in SYSTEMS for line in found)


def test_promise_of_a_runbook_that_the_primary_does_not_keep_is_named() -> None:
    assert any("orders: no standby is synchronous" in line for line in blockers(FOUND, replication="synchronous"))
    kept = database("orders", synchronous=1)
    assert blockers(kept, replication="synchronous") == []


def test_several_are_named_at_once() -> None:
    both = database("orders-south", version="18.5", free=0)
    named = both.model_copy(update={"running": FOUND.running | {"api-north": False}})
    assert len(blockers(named)) == 3


@pytest.mark.parametrize("name", ["orders-south", "sessions", "api-south", "front"])
def test_nothing_is_said_of_what_a_check_could_not_see(name: str) -> None:
    found = database("orders-south", role="down", settings={}).model_copy(
        update={
            "stores": store("sessions", role="replica").stores,
            "running": service("api-south", runs=True).running,
            "directors": director(keeps=False).directors,
        }
    )
    whole = blockers(found)
    told = blockers(found.model_copy(update={"unseen": frozenset({name})}))
    assert [line for line in whole if line not in told]
    assert not [
        line for line in told if line.startswith((f"{name}: ", "north would be shut" * (name == "orders-south") or "-"))
    ]


def test_what_is_no_pair_is_not_compared() -> None:
    """Settings of a database that is down are not known, and nobody wants to read that they differ."""
    found = blockers(database("orders-south", role="down", settings={}, streaming=False))
    assert [line.partition(":")[0] for line in found if not line.startswith("north would be shut")] == ["orders-south"]


def test_site_without_an_address_is_named() -> None:
    given = estate()
    del given["directors"]["front"]["sites"]["south"]
    assert sites(given).blockers(FOUND, NOON) == ["front: has no address of south in the estate"]


def test_every_blocker_is_planted() -> None:
    """Each place that yields one is come to by one of those above, and so is one that is added there."""
    module, came = ast.parse(inspect.getsource(activities.sites)), set[int]()

    def traced(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename == activities.sites.__file__:
            came.add(frame.f_lineno)
            return traced
        return None

    given = estate()
    del given["directors"]["front"]["sites"]["south"]
    before = sys.gettrace()
    sys.settrace(traced)
    try:
        for found, _ in PLANTED.values():
            moving(max_lag=1_000_000).blockers(found, NOON)
        sites(given).blockers(FOUND, NOON)
        moving(max_lag=1_000_000, replication="synchronous").blockers(FOUND, NOON)
    finally:
        sys.settrace(before)
    yields = [node for node in ast.walk(module) if isinstance(node, ast.Yield | ast.YieldFrom)]
    places = {(node.lineno, node.end_lineno or node.lineno) for node in yields} - unlike(module)
    assert [place for place in sorted(places) if not came & set(range(place[0], place[1] + 1))] == []


def unlike(module: ast.Module) -> set[tuple[int, int]]:
    """Return the places that yield what is only told."""
    (only,) = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "_unlike")
    return {(node.lineno, node.end_lineno or 0) for node in ast.walk(only) if isinstance(node, ast.Yield)}


# --- what people decide on -------------------------------------------------------------------------------------------


def test_outlook_tells_what_is_lacking_and_what_is_unlike() -> None:
    found = database("orders-south", flushed="0/1100000", settings=NEW.settings | {"max_connections": "99"})
    found = found.model_copy(update={"stores": store("sessions", offset=300).stores})
    outlook = moving().outlook(found)
    assert outlook.at_stake.startswith("south takes over from north")
    assert set(outlook.in_words) >= {
        f"orders-south lacks {0x60} bytes of log at this moment",
        f"sessions-south lacks {300 - 252} bytes of log at this moment",
        f"{OLD.clients} sessions are connected to orders; they are ended",
        "max_connections: 40 at orders, 99 at orders-south",
    }


def test_outlook_of_two_alike_tells_of_no_difference() -> None:
    told = moving().outlook(FOUND).in_words
    assert [line for line in told if " at orders, " in line] == []
    assert "orders-south lacks 0 bytes of log at this moment" in told


# --- in which order -------------------------------------------------------------------------------------------------


def sites(given: dict[str, Any], site: str = "south", systems: tuple[str, ...] = SYSTEMS) -> Sites:
    """Return the move in a made-up estate."""
    return Sites(systems, given, Parameters(site=site), "0a1b2c3d")


def levels(after: dict[str, list[str]], site: str = "south") -> list[list[str]]:
    """Return the levels of services of a site that need each other so."""
    given = estate()
    one = given["services"]["mail-south"]
    given["services"] = {name: one | {"after": needs} for name, needs in after.items()}
    systems = (*SYSTEMS[:4], *after, "front")
    return [[service.name for service in level.services] for level in sites(given, systems=systems).levels(site)]


@pytest.mark.parametrize(
    ("after", "order"),
    [
        ({}, []),
        ({"a": [], "b": []}, [["a", "b"]]),
        ({"a": ["b"], "b": []}, [["b"], ["a"]]),
        ({"a": ["c"], "b": ["c"], "c": ["orders-south"]}, [["c"], ["a", "b"]]),
        ({"a": ["b"], "b": ["c"], "c": []}, [["c"], ["b"], ["a"]]),
        ({"a": ["b", "c"], "b": [], "c": ["b"]}, [["b"], ["c"], ["a"]]),
        ({"a": ["nothing that a runbook names"]}, [["a"]]),
        ({"a": ["b"], "b": ["a"]}, [["a", "b"]]),
        ({"a": ["b"], "b": ["a"], "c": []}, [["c"], ["a", "b"]]),
        ({"a": ["a"]}, [["a"]]),
    ],
)
def test_services_are_started_after_what_they_need(after: dict[str, list[str]], order: list[list[str]]) -> None:
    assert levels(after) == order
    assert levels(after, "north") == []


@pytest.mark.parametrize(
    ("after", "waits"),
    [
        ({"a": [], "b": ["a"], "c": ["a", "orders-south"]}, {"a": (), "b": ("a",), "c": ("a",)}),
        ({"a": ["b", "c"], "b": [], "c": ["b"]}, {"a": ("b", "c"), "b": (), "c": ("b",)}),
        ({"a": ["b"], "b": ["a"], "c": ["b"]}, {"a": (), "b": (), "c": ()}),  # what a circle leads to is in it
        ({"a": ["a"]}, {"a": ()}),
        ({"slow": [], "quick": [], "next": ["quick"]}, {"slow": (), "quick": (), "next": ("quick",)}),
    ],
)
def test_each_service_waits_for_what_it_needs_alone(
    after: dict[str, list[str]], waits: dict[str, tuple[str, ...]]
) -> None:
    given = estate()
    one = given["services"]["mail-south"]
    given["services"] = {name: one | {"after": needs} for name, needs in after.items()}
    boots = sites(given, systems=(*SYSTEMS[:4], *after, "front")).boots("south")
    assert {boot.name: boot.after for boot in boots} == waits
    assert [[one["name"] for one in boot.start[1].model_dump()["services"]] for boot in boots] == [
        [b.name] for b in boots
    ]
    assert all(boot.ready is None for boot in boots)


def test_machines_are_started_before_what_needs_them_and_only_those_that_are_named() -> None:
    given = estate()
    one = {"subscription": "11111111-2222-3333-4444-555555555555", "resource_group": "shop"}
    given["machines"] = {
        name: one | {"name": name, "site": site}
        for name, site in (("vm", "south"), ("other", "south"), ("old", "north"))
    }
    given["services"]["mail-south"]["after"] = ["vm"]
    move = sites(given, systems=(*SYSTEMS, "vm", "old"))
    assert {boot.name: (boot.start[0].name, boot.after) for boot in move.boots("south")} == {
        "vm": ("azure.machine", ()),
        "mail-south": ("services.run", ("vm",)),
        "api-south": ("services.run", ("mail-south",)),
    }
    assert [boot.name for boot in move.free()] == ["vm"]
    first = move.levels("south")[0]
    assert [one.name for one in first.services] == ["mail-south"]
    assert move.awake(first, {"vm"}).services == ()
    assert move.awake(first, set()) == first


def test_what_tells_whether_a_service_is_ready_is_waited_for() -> None:
    given = estate()
    given["services"]["api-south"] |= {"ready": "curl -f localhost", "within": "PT1M"}
    waits = {boot.name: boot.ready for boot in sites(given).boots("south")}
    assert waits["mail-south"] is None
    assert waits["api-south"] is not None
    probe, spec = waits["api-south"]
    assert (probe.name, spec.model_dump()["service"]["ready"], spec.model_dump()["service"]["within"]) == (
        "services.ready",
        "curl -f localhost",
        60,
    )


def clustered(**more: Any) -> dict[str, Any]:
    """Return an estate with a cluster at each site, and a workload there that is after a service, and before one."""
    given = estate()
    given["clusters"] = {
        f"kube-{site}": {"site": site, "kubeconfig": "/etc/dr/kube", "drain": True} for site in ("north", "south")
    }
    given["workloads"] = {
        f"web-{site}": {
            "cluster": f"kube-{site}", "namespace": "shop", "name": "web", "replicas": 3, "after": [f"mail-{site}"],
            **more,
        }
        for site in ("north", "south")
    }  # fmt: skip
    for site in ("north", "south"):
        given["services"][f"api-{site}"]["after"] = [f"web-{site}"]
    return given


WEBS = (*SYSTEMS, "web-north", "web-south")


def test_workloads_stand_in_the_order_beside_services() -> None:
    move = sites(clustered(), systems=WEBS)
    assert {boot.name: (boot.start[0].name, boot.after) for boot in move.boots("south")} == {
        "nodes of kube-south": ("nodes.drain", ()),
        "mail-south": ("services.run", ()),
        "web-south": ("workloads.scale", ("mail-south", "nodes of kube-south")),
        "api-south": ("services.run", ("web-south",)),
    }
    assert [boot.name for boot in move.boots("south") if boot.kept] == ["nodes of kube-south"]
    assert [boot.name for boot in move.free()] == ["nodes of kube-south", "mail-south"]
    stops = [[(act.name, spec.system) for act, spec in turn] for turn in move.standstill()]
    assert stops == [
        [("services.run", "api-north")],
        [("workloads.scale", "web-north")],
        [("services.run", "mail-north")],
    ]


def test_workload_that_is_rolled_out_anew_waits_for_the_database() -> None:
    free = {
        restart: {one.name for one in sites(clustered(restart=restart, after=[]), systems=WEBS).free()}
        for restart in (False, True)
    }
    assert free[False] - free[True] == {"web-south"}
    assert free[True] == {"nodes of kube-south", "mail-south"}


def test_only_nodes_of_the_old_site_are_looked_at_as_those_that_are_drained() -> None:
    given = clustered()
    for one in given["clusters"].values():
        one["drain"] = {"nodes": "pool=shop"}
    move = sites(given, systems=WEBS)
    looks = {name: move.nodes(name) for name in ("kube-north", "kube-south")}
    assert {name: (one.drains, one.at.selector) for name, one in looks.items()} == {
        "kube-north": (True, "pool=shop"),
        "kube-south": (False, ""),
    }


def test_only_a_workload_that_may_run_at_both_sites_does() -> None:
    seen = {"web-north": WorkloadSeen(replicas=3, ready=3), "web-south": WorkloadSeen(replicas=1, ready=1)}
    found = FOUND.model_copy(update={"workloads": seen})
    (told,) = sites(clustered(), systems=WEBS).blockers(found, NOON)
    assert told.startswith("web-south: runs at south already (1 replicas)")
    assert sites(clustered(restart=True), systems=WEBS).blockers(found, NOON) == []


def test_workload_that_does_not_run_where_it_should_is_named() -> None:
    seen = {"web-north": WorkloadSeen(), "web-south": WorkloadSeen(faults=("web-south: is odd",))}
    found = FOUND.model_copy(update={"workloads": seen})
    told = sites(clustered(), systems=WEBS).blockers(found, NOON)
    assert told == [
        "web-north: does not run at north, which is said to be active; scale it up, or leave it out",
        "web-south: is odd",
    ]


def test_services_are_stopped_in_the_other_order() -> None:
    move = moving()
    stopped = [[one.name for one in level.services] for level in move.stops()]
    assert stopped == [["api-north"], ["mail-north"]]
    assert not any(level.wanted for level in move.stops())
    assert all(level.wanted for level in move.levels("north"))
    assert [[one.name for one in level.services] for level in move.levels("south")] == [["mail-south"], ["api-south"]]


def test_way_home_is_the_same_with_the_sites_changed() -> None:
    there, home = moving(), sites(estate(), "north")
    assert (home.old, home.new) == (there.new, there.old)
    assert home.databases[0].old == there.databases[0].new
    assert home.of_old(home.databases[0]).other.name == "orders"


def test_only_what_a_runbook_names_is_moved() -> None:
    move = sites(estate(), systems=("orders", "orders-south", "front"))
    assert (move.stores, move.levels("north"), move.health()) == ([], [], [])


def test_only_what_serves_is_asked_whether_it_is_ready() -> None:
    assert [request.system for request in moving().health()] == ["api-south"]
