"""What is said of tables of sessions, given what was seen of them, and how they are asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.comparing import Compared
from activities.session_tables import DatabaseSighting, Replayed, _ranges
from activities.session_verdict import Limits, Loss, Verdict
from activities.table_pair import DatabasePair
from activities.table_verdict import SeenTables, figures, of_tables
from activities.tables import Replicating, Side, TableAt, TableSeen, literal, moment, quoted, said
from activities.tables import seen as read
from recovery.errors import Invalid
from recovery.models import Wire
from runbooks.procedures import session_replication_check
from runbooks.procedures.session_replication_check import Parameters
from runbooks.schema import Estate
from tests.activities.sample import estate, moving

LIMITS = Limits(lag_bytes=100, lag_seconds=2)
(PAIR,) = moving().databases
BOTH = (PAIR.old, PAIR.new)
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
TABLE = {"public.s": TableSeen(sessions=9, type="uuid")}
PRIMARY = Replicating(role="primary", system="7", now=NOW, has=500, tables=TABLE)
STANDBY = Replicating(
    system="7", now=NOW, has=480, received=490, committed=NOW - timedelta(seconds=7), link="streaming",
    of=PAIR.old.reached, tables=TABLE,
)  # fmt: skip
THERE, SAME = Replayed(arrived=True, seconds=0.1), Compared(compared=9)
AWAY = DatabaseSighting(why="it does not answer")
LATE = Replayed(seconds=2, lacks=20)


def of(
    old: Replicating | DatabaseSighting = PRIMARY, new: Replicating | DatabaseSighting = STANDBY,
    replayed: Replayed | None = THERE, compared: Compared | None = SAME,
) -> SeenTables:  # fmt: skip
    known = {
        one.name: found if isinstance(found, DatabaseSighting) else DatabaseSighting(answered=True, seen=found)
        for one, found in zip(BOTH, (old, new), strict=True)
    }
    return SeenTables(databases=known, replayed=replayed, compared={"public.s": compared} if compared else {})


def told(**changes: Any) -> Verdict:
    return of_tables(BOTH, of(**changes), LIMITS)


def but(base: Replicating, **changes: object) -> Replicating:
    return base.model_copy(update=changes)


def test_pair_that_keeps_up_is_replicated() -> None:
    found = told()
    assert (found.state, found.reasons) == ("replicated", ())
    assert found.losses == (Loss(replica="orders-south (public.s)", sessions=0, seconds=0.1),)
    assert figures(of()) == {
        "sessions at orders (public.s)": 9, "sessions at orders-south (public.s)": 9,
        "sessions compared at orders-south (public.s)": 9,
    }  # fmt: skip


FAULTY = {"public.s": TableSeen(fault="public.s: is unlogged")}


@pytest.mark.parametrize(
    ("changes", "state", "why"),
    [
        ({"old": AWAY}, "broken", "orders cannot be seen: it does not answer"),
        ({"new": AWAY}, "broken", "orders-south cannot be seen"),
        ({"new": PRIMARY}, "split", "orders (byte 500 of its log) and orders-south (byte 500 of its log) both take"),
        ({"old": STANDBY}, "broken", "orders and orders-south are both standbys"),
        ({"new": but(STANDBY, system="8")}, "broken", "orders-south is a copy of another database than orders"),
        ({"new": but(STANDBY, link="", of="")}, "broken", "orders-south has no link to orders"),
        ({"new": but(STANDBY, of="x:1")}, "broken", "orders-south replicates x:1, which is not orders"),
        ({"new": but(STANDBY, link="waiting")}, "broken", "has a link to orders that is waiting, not streaming"),
        ({"new": but(STANDBY, paused=True)}, "lagging", "does not replay: that is paused, with 10 bytes of log"),
        ({"new": but(STANDBY, has=300)}, "lagging", "orders-south lacks 200 bytes of log, 100 are allowed"),
        ({"replayed": LATE}, "lagging", "not replayed at orders-south after 2 s: it lacks 20 bytes"),
        ({"replayed": Replayed(failed="gone")}, "broken", "orders-south or orders went away: gone"),
        ({"compared": Compared(failed="gone")}, "broken", "orders-south (public.s) could not be compared: gone"),
        ({"old": but(PRIMARY, tables=FAULTY)}, "broken", "orders: public.s: is unlogged"),
        ({"new": but(STANDBY, tables=FAULTY)}, "broken", "orders-south: public.s: is unlogged"),
        (
            {"compared": Compared(compared=9, differences={"missing": 2}, named=("a: missing",))},
            "broken",
            "of 9 sessions 2 missing (a: missing)",
        ),
        (
            {"compared": Compared(compared=9, differences={"missing": 2}), "replayed": LATE},
            "lagging",
            "of 9 sessions 2 missing",
        ),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], state: str, why: str) -> None:
    found = told(**changes)
    assert found.state == state
    assert any(why in line for line in found.reasons), found.reasons


def test_link_that_a_login_may_not_see_is_nobodys_fault() -> None:
    assert told(new=but(STANDBY, link="hidden", of="")).state == "replicated"


@pytest.mark.parametrize(
    ("changes", "sessions", "seconds"),
    [
        ({"replayed": LATE, "compared": Compared(differences={"missing": 2, "left over": 5})}, 2, 9),
        ({"replayed": LATE, "compared": None, "new": but(STANDBY, committed=None)}, None, None),
        ({"replayed": None, "compared": None, "old": AWAY}, None, 7),
        ({"compared": Compared(failed="gone")}, None, 0.1),
    ],
)
def test_loss_is_known_as_far_as_it_was_seen(changes: dict[str, Any], sessions: int, seconds: float) -> None:
    assert told(**changes).losses == (Loss(replica="orders-south (public.s)", sessions=sessions, seconds=seconds),)


def test_split_loses_nothing_yet() -> None:
    assert told(new=PRIMARY).losses == ()


# --- how it is looked at ---------------------------------------------------------------------------------------------

WANTED = {"database": "orders", "table": "public.s", "key": "id", "expires": "ends"}


def pairs(systems: tuple[str, ...] = ("orders-south", "sessions", "orders"), **wanted: object) -> list[DatabasePair]:
    return list(DatabasePair.all(systems, estate(), Parameters.model_validate({"tables": [WANTED], **wanted})))


def test_pair_is_found_once() -> None:
    (found,) = pairs()
    assert [one.name for one in found.both] == ["orders-south", "orders"]
    assert found.tables == (TableAt(table="public.s", key="id", expires="ends"),)
    assert pairs(systems=("sessions", "sessions-south")) == []


def test_only_a_link_that_is_up_is_written_to() -> None:
    (found,) = pairs()
    for standby, writes in ((STANDBY, True), (but(STANDBY, link=""), False)):
        given = found.replays(of(new=standby), writes=True)
        assert given is not None
        assert (given.primary.name, given.standby.name, given.writes) == ("orders", "orders-south", writes)
    assert found.replays(of(new=PRIMARY), writes=True) is None


@pytest.mark.parametrize(
    ("changes", "whole", "keeps_up"),
    [({}, False, True), ({"replayed": LATE}, True, False), ({"new": but(STANDBY, link="")}, True, False)],
)
def test_standby_that_does_not_keep_up_is_compared_as_it_is(changes: Any, whole: bool, keeps_up: bool) -> None:
    (found,) = pairs()
    given = found.replays(of(**changes), writes=False)
    assert given is not None
    (spec,) = found.compares(of(**changes), given)
    assert (spec.whole, spec.keeps_up, spec.seen.type) == (whole, keeps_up, "uuid")


def test_nothing_is_compared_that_cannot_be() -> None:
    (found,) = pairs()
    given = found.replays(of(), writes=False)
    assert given is not None
    for seen in (of(replayed=Replayed(failed="gone")), of(new=but(STANDBY, tables=FAULTY))):
        assert not list(found.compares(seen, given))


# --- how it is asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "source"),
    [
        ("public.Sessions", '"public"."sessions"'),
        ('"My ""own"".x".t$1', '"My ""own"".x"."t$1"'),
        ('a."b.c"', '"a"."b.c"'),
    ],
)
def test_table_is_always_quoted(table: str, source: str) -> None:
    assert TableAt(table=table, key="id").source == source


def test_names_and_texts_cannot_end_early() -> None:
    assert quoted('"a"";drop table t--"') == '"a"";drop table t--"'
    assert quoted("Id") == '"id"'
    assert literal("it's") == "'it''s'"


def test_only_hex_is_asked_for() -> None:
    side = Side(PAIR.old, TableAt(table="public.s", key="id"), TableSeen(type="uuid"))
    assert "'61 62'" in next(side.keyed(["61", "62"], moment()))
    with pytest.raises(ValueError, match="drop"):
        list(side.keyed(["61') drop"], moment()))


@pytest.mark.parametrize(
    ("parts", "ranges"),
    [([0], ["0-32"]), ([3, 4, 5, 9], ["96-192", "288-320"]), ([1, 3], ["32-64", "96-128"])],
)
def test_parts_side_by_side_are_one_range(parts: list[int], ranges: list[str]) -> None:
    told = [f"t.ctid >= '({one.split('-')[0]},0)' and t.ctid < '({one.split('-')[1]},0)'" for one in ranges]
    assert list(_ranges(parts)) == told


def test_only_the_last_try_counts() -> None:
    found = said("reached\t5\tyes\nrow\ta\nagain\nrow\tb\noffset\t7\n")
    assert (found.reached, found.waited, found.offset) == (5, True, 7)
    assert list(found.of("row")) == [["b"]]


@pytest.mark.parametrize("text", ["", "reached\tx\tno\n", "reached\t5\n", "hello\n", "reached\t5\tno\noffset\n"])
def test_what_no_database_says_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="as PostgreSQL does"):
        said(text)


def test_nothing_told_of_a_table_is_no_table() -> None:
    assert read("public.s", "").fault == "public.s: there is no such table (table)"


# --- what a runbook may say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["sessions", "a.b.c", "public.s; drop table t", 'public."a', "public.s t", "", "a.1"])
def test_what_is_no_table_is_refused(table: str) -> None:
    with pytest.raises(ValueError, match="table"):
        Parameters.model_validate({"tables": [{**WANTED, "table": table}]})


@pytest.mark.parametrize("key", ["id, x", "id)", "", "lower(id)", "a.b"])
def test_what_is_no_column_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        Parameters.model_validate({"tables": [{**WANTED, "key": key}]})


STORES, DATABASES = ("sessions", "sessions-south"), ("orders", "orders-south")


@pytest.mark.parametrize(
    ("systems", "tables", "faults"),
    [
        (STORES, [], []),
        (DATABASES, [WANTED], []),
        (DATABASES, [WANTED, {**WANTED, "table": "public.t"}], []),
        ((*STORES, *DATABASES), [{**WANTED, "database": "orders-south"}], []),
        (("sessions",), [], ["systems: name the stores, or the databases, of both sites; one alone replicates nobody"]),
        (
            ("sessions", *DATABASES), [WANTED],
            ["systems: name the stores, or the databases, of both sites; one alone replicates nobody"],
        ),
        (
            (*STORES, "orders"), [WANTED],
            ["systems: name orders-south, too, the peer of orders; one alone replicates nobody"],
        ),
        (
            DATABASES, [],
            ["parameters.tables: say in which table of orders sessions are, or leave it out of systems"],
        ),
        (DATABASES, None, ["parameters.tables: say in which table of orders sessions are, or leave it out of systems"]),
        (
            STORES, [WANTED],
            ["parameters.tables.0.database: is none of the databases in systems: there is none"],
        ),
        (
            DATABASES, [WANTED, {**WANTED, "database": "orders-south"}],
            ["parameters.tables.1.table: is named twice"],
        ),
    ],
)  # fmt: skip
def test_fault_of_a_runbook_is_named(systems: tuple[str, ...], tables: Any, faults: list[str]) -> None:
    assert session_replication_check.faults(systems, {"tables": tables}, _estate()) == faults


def _estate() -> Estate:
    return Estate.model_validate(
        {"title": "x", "tiers": {"gold": {"rto": "PT1H", "rpo": "PT1M"}}, "people": {}, **estate()}
    )


def test_every_model_survives_the_wire() -> None:
    models: list[Wire] = [of(), told(), STANDBY, LATE]
    for model in models:
        assert type(model).model_validate_json(model.model_dump_json()) == model
