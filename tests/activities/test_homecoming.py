"""What stands in the way of going home, what people are shown, and what the record of a takeover tells."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import homecoming
from activities.comparing import Compared
from activities.databases import seen
from activities.director import Pointed, Seen
from activities.divergence import Divergence, divergence
from activities.homecoming import Back
from activities.salvage import Salvaged, SalvagedTable
from activities.session_keeping import Snapshot
from activities.sites import NEEDED, Sites
from activities.store_roles import CLOSED
from activities.stores import replication
from activities.takeovers import TakenOver, taken_over
from recovery.errors import Invalid, Refused
from recovery.past import Done, Past
from runbooks.procedures.failback import Parameters
from tests.activities.captured import captured
from tests.activities.sample import SYSTEMS, estate

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SERVES = seen(captured("pg_primary"))
LOST = seen(captured("pg_retired")).model_copy(
    update={"system": SERVES.system, "reached": SERVES.system, "unreached": "", "faults": ()}
)
TAKEN = TakenOver(run="r", owner="0f0f0f0f", databases={"orders-south": "orders"}, ended=NOW - timedelta(hours=1))
PARTED = Divergence(line=1, fork="0/3000148", end="0/30002F0", commits=3, first=NOW, last=NOW + timedelta(seconds=2))
BACK = Back(
    databases={"orders-south": SERVES.model_copy(update={"faults": ()}), "orders": LOST},
    divergences={"orders": PARTED},
    stores={
        "sessions-south": replication(captured("store_primary")),
        "sessions": replication(captured("store_primary")),
    },
    directors={"front": Seen(pointed=Pointed(at="site", site="south"))},
)
KEPT = Salvaged(
    stage="exported", owner="0a1b2c3d", rows=3,
    tables=(SalvagedTable(table="public.orders", rows=3, keys="7-9", file="public.orders.csv", digest="d"),),
    notes=("public.orders: 1 row had been deleted there only",), manifest="m",
)  # fmt: skip


def going(**wanted: Any) -> Sites:
    return Sites(SYSTEMS, estate(), Parameters.model_validate({"site": "north"} | wanted), "0a1b2c3d")


def lost(**change: Any) -> Back:
    return BACK.model_copy(update={"databases": {**BACK.databases, "orders": LOST.model_copy(update=change)}})


def blockers(found: Back = BACK, taken: TakenOver = TAKEN, settled: timedelta = timedelta(0)) -> list[str]:
    return homecoming.blockers(going(), found, taken, settled, NOW)


PLANTED: dict[str, tuple[Back, str]] = {
    "kill switch": (BACK.model_copy(update={"halted": {"north": "bob: wait"}}), r"is on at north \(bob: wait\)"),
    "not fenced": (lost(role="primary"), "orders: is a primary; have it fenced first"),
    "would be a primary": (lost(signal=False), "orders: is stopped, but would come up as a primary; have it fenced"),
    "fault": (lost(faults=("jobs: x",)), "orders: jobs: x"),
    "another database": (lost(system="1"), "orders: is another database"),
    "out of reach": (lost(unreached="no route"), "orders: its host cannot replicate orders-south: no route"),
    "another one there": (lost(reached="2"), "another database answers there"),
    "no room": (lost(free=NEEDED - 1), "orders: .* are free"),
    "nobody serves": (
        BACK.model_copy(update={"databases": {**BACK.databases, "orders-south": LOST}}),
        "orders-south: is down, no primary",
    ),
    "store": (
        BACK.model_copy(update={"stores": {**BACK.stores, "sessions-south": replication(captured("store_replica"))}}),
        "sessions-south: is a replica, no primary",
    ),
    "director": (
        BACK.model_copy(update={"directors": {"front": Seen(pointed=Pointed(at="nobody"))}}),
        "front: does not point at south alone",
    ),
}


def test_nothing_stands_in_the_way_of_going_home_to_a_fenced_site() -> None:
    assert blockers() == []
    assert blockers(lost(role="standby", serving=True)) == []


@pytest.mark.parametrize("name", PLANTED)
def test_blocker_is_named(name: str) -> None:
    found, said = PLANTED[name]
    assert any(re.search(said, line) for line in blockers(found)), blockers(found)


def test_nothing_is_said_of_what_a_check_could_not_see() -> None:
    unseen = frozenset({"orders", "front"})
    found = lost(role="primary").model_copy(update={"unseen": unseen, "directors": PLANTED["director"][0].directors})
    assert blockers(found) == []


def test_record_of_another_takeover_is_none() -> None:
    (line,) = blockers(taken=TAKEN.model_copy(update={"databases": {"orders": "orders-south"}}))
    assert line.startswith("parameters.recovery: that one had orders from orders-south taken over")


def test_other_site_has_to_have_served_for_as_long_as_the_runbook_says() -> None:
    assert blockers(settled=timedelta(hours=1)) == []
    (line,) = blockers(settled=timedelta(hours=2))
    assert line == "parameters.settled: south has to serve until 2026-11-21 13:00:00Z; wait"


def test_people_read_what_only_the_lost_site_has_and_where_it_is_kept() -> None:
    told = homecoming.at_stake(going(), BACK, {"orders": KEPT}, {}, ("the power holds",))
    assert told.in_words[:4] == (
        "orders: 3 transactions were committed there only, after 0/3000148, from 2026-11-21 12:00:00Z to"
        " 2026-11-21 12:00:02Z",
        "orders: 3 rows of public.orders (7-9)",
        "orders: public.orders: 1 row had been deleted there only",
        "orders: those rows are kept in /srv/copies/orders.divergent-0a1b2c3d on host north-db",
    )
    assert told.in_words[-1] == "whoever approves answers for this: the power holds"


def test_rows_that_were_not_exported_are_said_to_be_gone() -> None:
    for kept in ({}, {"orders": Salvaged()}):
        assert any("NOT exported" in line for line in homecoming.at_stake(going(), BACK, kept, {}, ()).in_words)
    nothing = BACK.model_copy(update={"divergences": {"orders": Divergence(line=1, fork="0/3000148")}})
    assert (
        "orders has committed nothing that orders-south lacks"
        in homecoming.at_stake(going(), nothing, {}, {}, ()).in_words
    )


def test_people_read_what_only_the_lost_store_has_and_where_that_is_kept() -> None:
    (two,) = going().stores
    seen = Compared(
        compared=9, differences={"missing": 2, "other contents": 1, "left over": 4}, named=("session:7: missing",)
    )
    found = BACK.model_copy(update={"sessions": {"sessions": seen}})
    for kept, end in (
        ({}, "sessions: they are NOT kept; they are gone once it replicates sessions-south"),
        (
            {"sessions": Snapshot(stage="kept", keys=40)},
            "sessions: all 40 keys that it holds are kept, as a snapshot, in"
            f" {homecoming.keeps(going(), two).out} on host north-db",
        ),
    ):
        told = homecoming.at_stake(going(), found, {}, kept, ()).in_words
        at = told.index(end)
        assert told[at - 1] == (
            "sessions: 2 sessions that sessions-south does not have, and 1 that it has otherwise (session:7: missing)"
            " are overwritten"
        )


def test_store_that_was_fenced_is_opened_as_it_was_or_as_the_one_that_serves() -> None:
    (two,) = going().stores
    closed = BACK.stores["sessions"].model_copy(update={"least": CLOSED})
    assert homecoming.shut(BACK.model_copy(update={"stores": {**BACK.stores, "sessions": closed}}), two)
    assert not homecoming.shut(BACK, two)
    serves = BACK.stores["sessions-south"].model_copy(update={"least": 2, "lag": 5})
    found = BACK.model_copy(update={"stores": {"sessions": closed, "sessions-south": serves}})
    for fenced, wanted in ({"sessions": (1, 7)}, (1, 7)), ({}, (2, 5)), ({"sessions": (CLOSED, 10)}, (2, 5)):
        spec = homecoming.reopens(going(), two, found, TAKEN.model_copy(update={"fenced": fenced}))
        assert (spec.system, spec.least, spec.lag) == ("sessions", *wanted)


def test_what_a_log_tells_is_read() -> None:
    text = "line\t1\nfork\t0/3000148\ncommits\t2\nend\t0/3000200\n"
    text += "first\t2026-11-21T12:00:00.5Z\nlast\t2026-11-21T12:00:01Z\n"
    found = divergence(text)
    assert (found.commits, found.fork, found.first) == (2, "0/3000148", datetime(2026, 11, 21, 12, 0, 0, 500000, UTC))
    assert divergence("line\t2\nfork\t\n") == Divergence(line=2)
    with pytest.raises(Invalid):
        divergence("line\tone\n")


def past(**change: Any) -> Past:
    promoted = {"spec": {"system": "orders-south", "other": {"name": "orders"}, "lost": True}}
    fenced = {"spec": {"system": "sessions"}, "before": {"least": 1, "lag": 7}}
    done = (
        Done(step="promote", action="postgres.promote_standby", order=promoted),
        Done(step="fence", action="valkey.fence", order=fenced),
    )
    given = {"workflow": "lab/orders", "run": "r", "completed": True, "commits": "clients write at south", "done": done}
    return Past.model_validate(given | change)


def test_record_tells_who_was_promoted_for_whom_and_what_had_been_fenced() -> None:
    found = taken_over(past(), "0f0f0f0f")
    assert (found.databases, found.fenced) == ({"orders-south": "orders"}, {"sessions": (1, 7)})


@pytest.mark.parametrize("change", [{"completed": False}, {"commits": ""}, {"done": ()}])
def test_recovery_that_took_over_from_nobody_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"parameters.recovery: lab/orders \(run r\) took over from no lost"):
        taken_over(past(**change), "0f0f0f0f")
