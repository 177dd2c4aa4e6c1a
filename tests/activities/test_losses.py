"""What is said of a site that is lost, and what stands in the way of taking over from it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import losses
from activities.databases import seen
from activities.director import Pointed, Seen
from activities.losses import Lost
from activities.nodes import NodesSeen
from activities.sightings import Sighting
from activities.sites import NEEDED, Sites
from activities.stores import replication
from runbooks.procedures.data_center_activation import Parameters
from tests.activities.captured import captured
from tests.activities.sample import SYSTEMS, estate

OUTAGE = datetime(2026, 11, 21, 12, tzinfo=UTC)
STANDBY = seen(captured("pg_standby")).model_copy(update={"committed": OUTAGE - timedelta(seconds=2.5)})
GONE = Sighting(why="no route to host")
LOST = Lost(
    sightings={"south": {"orders": GONE}, "any worker": {"orders": GONE}},
    databases={"orders-south": STANDBY},
    stores={"sessions-south": replication(captured("store_replica"))},
    directors={"front": Seen(pointed=Pointed(at="site", site="north"))},
)


def taking(**wanted: Any) -> Sites:
    return Sites(
        SYSTEMS, estate(), Parameters.model_validate({"site": "south", "how": "unplanned"} | wanted), "0a1b2c3d"
    )


def database(**change: Any) -> Lost:
    return LOST.model_copy(update={"databases": {"orders-south": STANDBY.model_copy(update=change)}})


PLANTED: dict[str, tuple[Lost, str]] = {
    "kill switch": (LOST.model_copy(update={"halted": "bob: wait"}), r"the kill switch is on \(bob: wait\)"),
    "primary": (database(role="primary"), "orders-south: is a primary, no standby"),
    "down": (database(role="down"), "orders-south: is down, no standby"),
    "fault": (database(faults=("jobs: x",)), "orders-south: jobs: x"),
    "no room": (database(free=NEEDED - 1), "orders-south: .* free for log"),
    "store": (
        LOST.model_copy(update={"stores": {"sessions-south": replication(captured("store_primary"))}}),
        "sessions-south: is no replica",
    ),
    "director": (
        LOST.model_copy(update={"directors": {"front": Seen(pointed=Pointed(at="site", site="south"))}}),
        "front: points at south already",
    ),
}


def test_nothing_stands_in_the_way_of_taking_over_from_a_site_that_is_gone() -> None:
    assert losses.blockers(taking(), LOST) == []


@pytest.mark.parametrize("name", PLANTED)
def test_blocker_is_named(name: str) -> None:
    found, said = PLANTED[name]
    assert any(re.search(said, line) for line in losses.blockers(taking(), found))


NO_RIGHT = "web: this worker may not patch nodes of kube"


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        (NodesSeen(known=False, faults=(NO_RIGHT,)), {"kube": f"not known, they stay as they are; {NO_RIGHT}"}),
        (NodesSeen(nodes=("a", "b"), cordoned=("a",), faults=(NO_RIGHT,)), {"kube": f"a; {NO_RIGHT}"}),
        (NodesSeen(nodes=("a", "b"), faults=(NO_RIGHT,)), {}),
        (NodesSeen(nodes=("a", "b"), cordoned=("a",)), {}),
    ],
)
def test_nodes_that_nobody_may_open_are_told_and_stand_in_no_way(nodes: NodesSeen, told: dict[str, str]) -> None:
    found = LOST.model_copy(update={"nodes": {"kube": nodes}})
    assert losses.blockers(taking(), found) == []
    assert losses.unopened(found) == told


def test_what_may_be_missing_is_what_was_committed_after_the_last_that_arrived() -> None:
    (found,) = losses.estimates(taking(), LOST, OUTAGE)
    assert (found.seconds, found.committed) == (2.5, STANDBY.committed)
    assert not losses.over((found,), timedelta(seconds=2.5))
    assert losses.over((found,), timedelta(seconds=2.4))


def test_nothing_is_missing_where_every_commit_waited_for_the_standby() -> None:
    (found,) = losses.estimates(taking(replication="synchronous"), LOST, OUTAGE)
    assert found.seconds == 0


def test_what_nobody_can_know_is_too_much() -> None:
    found = losses.estimates(taking(), database(committed=None), OUTAGE)
    assert losses.over(found, timedelta(days=1))
    assert "not known" in losses.loss_at_stake(taking(), found, (), timedelta(0)).in_words[0]


def test_one_that_answers_from_anywhere_can_be_fenced_from_there() -> None:
    there = Sighting(site="north", answered=True, seen=seen(captured("pg_retired")))
    found = LOST.model_copy(update={"sightings": {"south": {"orders": GONE}, "any worker": {"orders": there}}})
    assert losses.reached_from(taking(), found) == "north"
    own = there.model_copy(update={"site": "south"})
    found = LOST.model_copy(update={"sightings": {"any worker": {"orders": there}, "south": {"orders": own}}})
    assert losses.reached_from(taking(), found) == "south"
    assert losses.reached_from(taking(), LOST) is None


def test_whoever_answers_for_the_fence_reads_what_was_seen_from_where() -> None:
    told = losses.fence_at_stake(taking(), LOST).in_words
    assert told == (
        "from south: orders cannot be seen: no route to host",
        "from any worker: orders cannot be seen: no route to host",
    )


def store(**change: Any) -> Lost:
    seen = LOST.stores["sessions-south"].model_copy(update=change)
    return LOST.model_copy(update={"stores": {"sessions-south": seen}, "at": OUTAGE + timedelta(seconds=4)})


@pytest.mark.parametrize(
    ("seen", "silent", "seconds"),
    [
        ({"linked": True, "idle": 3}, 3, 0),  # it has heard of its primary after the outage began
        ({"linked": True, "idle": 30}, 30, 27),
        ({"linked": False, "idle": None, "down": 3, "timeout": 10}, 13, 10),
        ({"linked": False, "idle": None, "down": 600, "timeout": 60}, 660, 657),
        ({"linked": False, "idle": None, "down": None, "timeout": 10}, None, None),
        ({"linked": False, "idle": None, "down": 3, "timeout": None}, None, None),
    ],
)
def test_sessions_that_may_be_missing_were_written_after_the_store_last_heard_from_its_primary(
    seen: dict[str, Any], silent: int | None, seconds: float | None
) -> None:
    (found,) = losses.sessions(taking(), store(**seen), OUTAGE)
    assert (found.silent, found.seconds) == (silent, seconds)
    assert losses.over((found,), timedelta(seconds=656)) == (seconds is None or seconds > 656)
    words = losses.loss_at_stake(taking(), (), (found,), timedelta(0)).in_words[0]
    assert words.startswith("sessions-south ")
    assert ("not known" in words) == (seconds is None)


def test_store_that_was_promoted_by_a_proven_switch_lacks_nothing() -> None:
    assert losses.sessions(taking(), store(role="primary"), OUTAGE) == ()
