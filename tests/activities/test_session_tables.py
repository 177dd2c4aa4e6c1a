"""Sessions in tables of two real databases: what is replayed, what differs, and what clients are just writing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import pytest_asyncio

from activities import ssh, tables
from activities.comparing import NAMED, Compared
from activities.databases import DatabaseAt
from activities.session_tables import (
    DatabaseSighting,
    PairOfDatabases,
    TableComparison,
    TablesSpec,
    compare_tables,
    see_database,
    write_message,
)
from activities.tables import SETTLED, TableAt
from lab.estate import Lab
from tests.conftest import FreshLab
from tests.running import eventually
from tests.tables import at, replayed, tell, two_sites, written

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

MANY = 100_000
PAGE_HEADER = 40
"""Bytes by which the place where the next record goes may lie beyond the end of the last one."""
ENDS = "timestamptz '2100-01-01 00:00:00Z'"
SESSIONS = TableAt(table="public.sessions", key="id", expires="ends")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _closed() -> AsyncIterator[None]:
    yield
    await ssh.close()


@pytest.fixture(scope="module")
def sites(fresh_labs: FreshLab) -> Lab:
    """Both sites, with sessions at north that south replays."""
    lab = fresh_labs()
    two_sites(lab, MANY)
    return lab


def given(sites: Lab) -> dict[str, object]:
    return {"system": "orders-south", "primary": at(sites, "north"), "standby": at(sites, "south"), "seconds": 5}


async def seeing(sites: Lab, site: str, table: TableAt = SESSIONS) -> DatabaseSighting:
    return await see_database.observe(TablesSpec(system=site, database=at(sites, site), tables=(table,)))


async def comparing(sites: Lab, table: TableAt = SESSIONS, **more: object) -> Compared:
    seen = (await seeing(sites, "north", table)).seen.tables[table.table]
    spec = {**given(sites), "table": table, "seen": seen, **more}
    return await compare_tables.observe(TableComparison.model_validate(spec))


async def test_healthy_pair_is_the_same(sites: Lab) -> None:
    await replayed(sites)
    for site in ("north", "south"):
        found = await seeing(sites, site)
        assert found.answered
        assert found.seen.tables["public.sessions"].sessions == MANY
    for whole in (False, True):
        began = time.monotonic()
        same = await comparing(sites, whole=whole)
        assert time.monotonic() - began < 10
        assert (same.differences, same.undecided) == ({}, 0)
        assert same.compared == MANY if whole else same.compared > 900
    seen = await write_message.observe(PairOfDatabases.model_validate({**given(sites), "writes": True}))
    assert seen.arrived
    assert 0 < seen.seconds < 2


@pytest.mark.parametrize("number", range(4))
async def test_healthy_pair_under_load_is_never_accused(sites: Lab, number: int) -> None:
    with written(sites.databases["north"], MANY, number) as count:
        found = await comparing(sites, whole=number % 2 == 0)
        assert sum(count) > 50
    assert not found.differences, found
    assert found.compared > 900


# --- what a standby lacks that stands still --------------------------------------------------------------------------


@contextmanager
def paused(sites: Lab) -> Iterator[None]:
    """Have south receive and not replay."""
    tell(sites.databases["south"], "select pg_wal_replay_pause()")
    try:
        yield
    finally:
        tell(sites.databases["south"], "select pg_wal_replay_resume()")


async def test_what_a_paused_standby_lacks_is_counted(sites: Lab) -> None:
    await replayed(sites)
    with paused(sites):
        tell(
            sites.databases["north"],
            "insert into sessions (number, ends) select -n, now() + interval '1 hour' from generate_series(1, 137) n",
            "insert into sessions (number, ends) select -n, now() + interval '1 s' from generate_series(1, 50) n",
            "update sessions set basket = 'another' where id in (select id from sessions where number > 500 limit 20)",
            "delete from sessions where id in (select id from sessions where number > 900 limit 5)",
        )
        seen = await write_message.observe(PairOfDatabases.model_validate({**given(sites), "seconds": 1}))
        found = await comparing(sites, keeps_up=False)
        state = await seeing(sites, "south")
    assert not seen.arrived
    assert seen.lacks > 137 * 32
    assert found.differences == {"missing": 137, "other contents": 20, "left over": 5}
    assert len(found.named) == NAMED
    assert (state.seen.paused, state.seen.received > state.seen.has) == (True, True)
    await replayed(sites)
    assert not (await comparing(sites, whole=True)).differences


async def test_session_that_moved_is_counted_once(sites: Lab) -> None:
    """A row that is written anew lies in another block: there it is left over, or missing, and is not."""
    await replayed(sites)
    with paused(sites):
        tell(sites.databases["north"], "update sessions set basket = basket || '!' where number between 1000 and 21000")
        there = "number between 1000 and 21000 and ends > now() + interval '10 s'"
        lacks = tell(sites.databases["north"], f"select count(*) from sessions where {there}")
        found = await comparing(sites, keeps_up=False)
    assert found.differences == {"other contents": lacks}
    await replayed(sites)


async def test_conflict_with_what_is_replayed_is_tried_again(sites: Lab) -> None:
    """A standby may cancel what it is asked, because its primary has taken the rows away that this may see."""
    south, north = sites.databases["south"], sites.databases["north"]
    conflicts = "select sum(confl_snapshot) from pg_stat_database_conflicts"
    tell(south, "alter system set max_standby_streaming_delay = 0", "select pg_reload_conf()")
    try:
        before = tell(south, conflicts)
        slow = "select 'count', count(*) from sessions, lateral (select pg_sleep(0.00001 + number * 0)) x"
        asked = asyncio.ensure_future(
            tables.ask(at(sites, "south"), ["set search_path = public;", f"{slow} where number < 9000;"], 20)
        )

        def hinder() -> bool:
            tell(north, "delete from sessions where number < -1", "vacuum sessions")
            tell(north, "insert into sessions (number) select -n from generate_series(2, 200) n")
            return tell(south, conflicts) != before

        await eventually(lambda: asyncio.to_thread(hinder), "a conflict", 20)
        found = await asked
    finally:
        tell(south, "alter system reset max_standby_streaming_delay", "select pg_reload_conf()")
    assert int(next(found.of("count"))[0]) > 8000
    await replayed(sites)


# --- what differs: it cannot, at a standby; so these are two databases that know nothing of each other ---------------

KEYS = {
    "uuid": "('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid",
    "bigint": "n::bigint * 1000000007",
    "text": "'it''s \"' || n || '\"' || chr(10) || E'\\\\ $$ é;' || chr(9)",
    "bytea": "decode(lpad(to_hex(n), 8, '0') || '00ff27', 'hex')",
    "character(12)": "lpad(n::text, 9, 'a')",
    "timestamptz": "timestamptz '2026-01-01 00:00:00.000001+00' + n * interval '1.5 s'",
    "inet": "inet '10.0.0.0' + n",
}
DIFFER = """update {table} set basket = 'x' where n = 11;
delete from {table} where n = 13; insert into {table} select * from made where n = 4001;
update {table} set ends = ends + interval '1 h' where n = 15"""


@pytest.fixture(scope="module")
def elsewhere(sites: Lab) -> DatabaseAt:
    """A database of its own in north's server, whose log is the same; so it has come as far as the primary."""
    tell(sites.databases["north"], "create database elsewhere", name="postgres")
    return at(sites, "north", dbname="elsewhere", name="elsewhere")


@pytest.mark.parametrize("kind", KEYS)
async def test_what_differs_is_found_and_named(sites: Lab, elsewhere: DatabaseAt, kind: str) -> None:
    table = TableAt(table=f'public."of {kind} \'s"', key='"The ""Key"" x"', expires="ends")
    north, columns = sites.databases["north"], f"n, 'basket ' || n as basket, {ENDS} as ends"
    made = f"create temp table made as select {KEYS[kind]} as {table.key}, {columns} from generate_series(1, 4001) n"
    first = f"create table {table.table} as select * from made where n <= 4000"
    for name in ("orders", "elsewhere"):
        tell(north, made, first, f"alter table {table.table} add primary key ({table.key})", name=name)
    same = await comparing(sites, table, standby=elsewhere, whole=True)
    assert (same.differences, same.compared) == ({}, 4000)
    tell(north, made, DIFFER.format(table=table.table), name="elsewhere")
    expected = {"missing": 1, "other contents": 2, "left over": 1}
    for more in ({"whole": True}, {"keeps_up": False}):
        found = await comparing(sites, table, standby=elsewhere, **more)
        assert found.differences == expected, (more, found)
        assert found.compared == 4001
        assert len(found.named) == 4
    if kind == "bigint":
        assert f"{13 * 1000000007}: missing" in found.named
    tell(north, f"delete from {table.table} where n between 100 and 300", name="elsewhere")
    found = await comparing(sites, table, standby=elsewhere, sample=10)
    assert found.differences["missing"] == 202, "where both have not as many, all are compared"
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-|basket", found.model_dump_json())


async def test_sample_finds_what_is_often_wrong(sites: Lab, elsewhere: DatabaseAt) -> None:
    """With as many sessions at both, so that no count tells."""
    for name, shift in (("orders", 0), ("elsewhere", 3)):
        tell(
            sites.databases["north"], "create table often (id int primary key, basket text)",
            f"insert into often select n, case when n % 5 = 0 then {shift} else 0 end from generate_series(1, 50000) n",
            name=name,
        )  # fmt: skip
    found = await comparing(sites, TableAt(table="public.often", key="id"), standby=elsewhere, sample=400)
    assert found.differences.keys() == {"other contents"}
    assert 0.1 < found.differences["other contents"] / found.compared < 0.35
    assert 300 < found.compared <= 400


async def test_session_that_has_ended_is_not_there(sites: Lab, elsewhere: DatabaseAt) -> None:
    north, table = sites.databases["north"], TableAt(table="public.ending", key="id", expires="ends")
    for name in ("orders", "elsewhere"):
        tell(
            north, "create table ending (id int primary key, ends timestamptz)",
            f"insert into ending select n, {ENDS} from generate_series(1, 100) n",
            "insert into ending values (1001, 'infinity'), (1002, null), (1003, '-infinity')", name=name,
        )  # fmt: skip
    tell(north, "insert into ending select n, now() - interval '1 s' * n from generate_series(200, 300) n")
    tell(north, "insert into ending select n, now() + interval '1 s' from generate_series(400, 450) n")
    for more in ({}, {"whole": True}, {"keeps_up": False}):
        found = await comparing(sites, table, standby=elsewhere, **more)
        assert not found.differences, (more, found)
        assert found.compared >= 102
    await eventually(
        lambda: tell(north, "select count(*) = 0 from ending where id between 400 and 450 and ends > now()"), "ended"
    )
    assert (await seeing(sites, "north", table)).seen.tables["public.ending"].sessions == 102


# --- what cannot be compared -----------------------------------------------------------------------------------------

ODD = """create table odd (a int, b int, c text, d timestamp, e timestamptz, primary key (a, b));
create unique index on odd (c) where c <> '';
create unlogged table forgotten (id int primary key);
create view seen as select * from odd;
create table "Odd ""one"" x" (id int unique);
create table parted (id uuid primary key, basket text) partition by hash (id);
create table parted_0 partition of parted for values with (modulus 2, remainder 0);
create table parted_1 partition of parted for values with (modulus 2, remainder 1);
insert into parted select gen_random_uuid(), 'x' from generate_series(1, 5000);
create table kinds (id int primary key, f float8, m money, b bytea, i interval, t timestamptz, r regclass, d date);
insert into kinds select n, n / 7.0, n, '\\x00ff27', n * interval '1 h', now(), 'sessions', now()
    from generate_series(1, 900) n;
"""


@pytest.fixture(scope="module")
def odd(sites: Lab) -> Lab:
    tell(sites.databases["north"], ODD)
    return sites


@pytest.mark.parametrize(
    ("table", "key", "expires", "why"),
    [
        ("public.nothing", "id", "", "there is no such table (table)"),
        ("elsewhere.sessions", "id", "", "there is no such table (table)"),
        ('public."SESSIONS"', "id", "", "there is no such table (table)"),
        ("public.seen", "a", "", "is a view, no table"),
        ("public.forgotten", "id", "", "is unlogged: what it holds is never replicated"),
        ("public.sessions", "identity", "", "there is no such column (key)"),
        ("public.sessions", "ctid", "", "there is no such column (key)"),
        ("public.sessions", "number", "", "no index in which this column alone is unique"),
        ("public.odd", "a", "", "several columns together are not known here (key)"),
        ("public.odd", "c", "", "no index in which this column alone is unique"),
        ("public.sessions", "id", "ended", "there is no such column (expires)"),
        ("public.sessions", "id", "basket", "this column is no timestamptz, but text (expires)"),
        ('public."Odd ""one"" x"', "ID", "", ""),
        ("PUBLIC.Sessions", "id", "Ends", ""),
        ("public.parted", "id", "", ""),
    ],
)
async def test_what_cannot_be_compared_is_named(odd: Lab, table: str, key: str, expires: str, why: str) -> None:
    await replayed(odd)
    for site in ("north", "south"):
        found = await seeing(odd, site, TableAt(table=table, key=key, expires=expires))
        assert found.answered, found
        fault = found.seen.tables[table].fault
        assert why in fault if why else not fault
        assert fault.startswith(f"{table}: ") if why else True


async def test_table_of_many_parts_is_compared(odd: Lab) -> None:
    await replayed(odd)
    table = TableAt(table="public.parted", key="id")
    for whole in (False, True):
        found = await comparing(odd, table, whole=whole)
        assert (found.differences, found.undecided) == ({}, 0)
        assert found.compared == 5000 if whole else found.compared > 500


async def test_settings_of_a_site_are_no_difference(odd: Lab) -> None:
    other = {
        "timezone": "Asia/Tokyo", "datestyle": "German", "bytea_output": "escape", "extra_float_digits": "-3",
        "intervalstyle": "iso_8601", "lc_monetary": "de_DE.utf8", "search_path": "public",
    }  # fmt: skip
    known = str(tell(odd.databases["south"], "select string_agg(collname, ' ') from pg_collation"))
    other = {name: value for name, value in other.items() if name != "lc_monetary" or value in known}
    changed = (f"alter system set {name} = '{value}'" for name, value in other.items())
    tell(odd.databases["south"], *changed, "select pg_reload_conf()")
    try:
        await eventually(lambda: tell(odd.databases["south"], "show extra_float_digits") == "-3", "it is set")
        found = await comparing(odd, TableAt(table="public.kinds", key="id", expires=""), whole=True)
    finally:
        tell(odd.databases["south"], *(f"alter system reset {name}" for name in other), "select pg_reload_conf()")
    assert (found.differences, found.compared) == ({}, 900)


# --- who does not answer ---------------------------------------------------------------------------------------------


async def test_login_that_is_not_let_in_is_told(sites: Lab) -> None:
    spec = TablesSpec(system="x", database=at(sites, "north", dbuser="nobody-here"), tables=(SESSIONS,))
    found = await see_database.observe(spec)
    assert not found.answered
    assert "does not let this login (nobody-here) in" in found.why


async def test_server_that_is_not_there_is_told(sites: Lab) -> None:
    found = await see_database.observe(TablesSpec(system="x", database=at(sites, "north", port=1), tables=(SESSIONS,)))
    assert not found.answered
    assert "cannot be reached; does it run?" in found.why


async def test_server_that_stands_still_is_told(sites: Lab) -> None:
    server = sites.databases["south"].running()
    assert server is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(60):
            found = await seeing(sites, "south")
            seen = await write_message.observe(PairOfDatabases.model_validate({**given(sites), "seconds": 1}))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert not found.answered
    assert not seen.arrived
    assert seen.failed


async def test_table_that_is_locked_is_told(sites: Lab) -> None:
    seen = (await seeing(sites, "north")).seen.tables["public.sessions"]
    with sites.databases["north"].connect("orders") as connection, connection.transaction():
        connection.execute("lock table sessions in access exclusive mode")
        found = await compare_tables.observe(
            TableComparison.model_validate({**given(sites), "table": SESSIONS, "seen": seen})
        )
        state = await seeing(sites, "north")
    assert "a table is locked" in found.failed
    assert (state.answered, state.seen.role) == (True, "primary")
    assert state.seen.tables["public.sessions"].fault.endswith("who has it locked?")
    await replayed(sites)


async def test_what_is_seen_before_the_log_has_it_is_waited_for(sites: Lab) -> None:
    """A client that does not wait for the log: others see its row before a standby can have it."""
    north = sites.databases["north"]
    tell(north, "alter system set wal_writer_delay = '500ms'", "select pg_reload_conf()")
    try:
        await eventually(lambda: tell(north, "show wal_writer_delay") == "500ms", "it is set")
        for _ in range(3):
            write = "insert into sessions (number) values (-1)"
            end = tell(north, "set synchronous_commit = off", write, "select pg_current_wal_insert_lsn() - '0/0'")
            told = await tables.ask(at(sites, "north"), [SETTLED])
            assert told.offset >= int(str(end)) - PAGE_HEADER
    finally:
        tell(north, "alter system reset wal_writer_delay", "select pg_reload_conf()")


async def test_message_of_a_primary_is_in_no_table(sites: Lab) -> None:
    written = "select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables where relname = 'sessions'"
    north = sites.databases["north"]
    tables_ = "select count(*) from pg_class"
    before, known = tell(north, "select pg_stat_force_next_flush()", written), tell(north, tables_)
    at_first = tell(north, "select pg_current_wal_insert_lsn()")
    seen = await write_message.observe(PairOfDatabases.model_validate({**given(sites), "writes": True}))
    assert seen.arrived
    assert tell(north, f"select pg_current_wal_insert_lsn() > '{at_first}'") is True
    assert (tell(north, "select pg_stat_force_next_flush()", written), tell(north, tables_)) == (before, known)
    assert (await write_message.observe(PairOfDatabases.model_validate(given(sites)))).arrived
