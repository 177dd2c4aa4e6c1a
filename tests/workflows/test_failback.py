"""Failback: everything at a site was killed, the other one took over; the way home, and what only the lost one had."""

from __future__ import annotations

import asyncio
import csv
import re
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from lab import ledger, link
from lab.estate import Lab
from recovery.report import Report
from tests.lab.pairs import ask, replayed
from tests.matrix.two_sites import session_store
from tests.running import Recovery, Running, eventually
from tests.stores import snapshot_of
from tests.switches import at_both_sites
from tests.workflows.test_take_over import decided, lost, taken_over, two  # noqa: F401  (a fixture)

pytestmark = pytest.mark.asyncio(loop_scope="function")

CUSTOMERS = 200
"""Each of whom has a session, in the lab."""

PINNED = """
insert into orders (number, customer, amount) values (-1, 'pinned, "and quoted"', 1.5);
begin; savepoint s; insert into orders (number, customer, amount) values (-2, 'within', 1); release s; commit;
begin; insert into orders (number, customer, amount) values (-9, 'rolled back', 1); rollback;
update customers set name = 'changed there only' where id = 7;
delete from customers where id in (8, 9);
create table made_there (id int primary key);
insert into made_there values (1);
"""


@pytest_asyncio.fixture
async def engine(two: Lab) -> AsyncIterator[Running]:  # noqa: F811
    async with at_both_sites(two) as found:
        yield found


async def home(engine: Running, mode: str = "live", **parameters: object) -> Recovery:
    start = {"runbook": "lab/fail-back-north", "reason": "north is well again", "requested_by": "alice", "mode": mode}
    given = {"steady": "PT3S", "watch": "PT1S", **parameters}
    handle = await engine.client.start_workflow(
        "Failback",
        start | {"parameters": given},
        id="lab/orders" + ("/check" if mode == "check" else ""),
        task_queue=engine.settings.task_queue,
    )
    return Recovery(handle)


async def back_with(two: Lab, engine: Running, sql: str) -> None:  # noqa: F811
    """Have north come back asking nobody, with clients pinned to it, until FenceWatch fences it."""
    north = two.databases["north"]
    await asyncio.to_thread(north.start)
    await asyncio.to_thread(two.sites["north"].valkey.start)
    with north.connect("orders") as connection:
        for statement in sql.strip().splitlines():
            connection.execute(statement.encode())
    two.sites["north"].start_ssh()
    link.ask(two.place, "open")
    watch = Recovery(engine.client.get_workflow_handle("lab/fence-north"))
    assert (await watch.ended(60)).outcome == "recovered"
    assert north.running() is None
    await asyncio.to_thread(two.heal)
    begun = engine.log().count("polling")
    engine.start_worker()
    await eventually(lambda: engine.log().count("polling") > begun, "the worker at north polls", 60)


def numbers(report: Report, table: str) -> set[int]:
    """Return the keys of a table that the report lists as kept."""
    lines = [str(figure.value) for figure in report.figures if f" of {table} (" in str(figure.value)]
    found: set[int] = set()
    for part in (part for line in lines for part in line.rpartition("(")[2].rstrip(")").split(", ")):
        ends = re.fullmatch(r"(\d+)-(\d+)|(-\d+) to (-?\d+)|(-?\d+)", part)
        assert ends, part
        first, last = [int(end) for end in ends.groups() if end is not None] * (2 if ends[5] else 1)
        found |= set(range(first, last + 1))
    return found


def kept(report: Report) -> Path:
    return Path(report.delivered["what only orders had"].partition(" on host ")[0])


async def test_home_again_with_all_that_only_the_lost_site_had(
    two: Lab,  # noqa: F811
    engine: Running,
    tmp_path: Path,
) -> None:
    north, south = two.databases["north"], two.databases["south"]
    with north.connect("orders") as straddling:  # what it writes arrives at south, and that it was committed does not
        straddling.execute("begin")
        straddling.execute("insert into customers values (999, 'written before, committed after')")
        await eventually(lambda: len(ledger.acknowledged(two.place.load)) > 50, "orders are taken", 30)
        await eventually(replayed(north, south), "south has all of it")
        await asyncio.to_thread(two.break_, "partition")
        straddling.execute("commit")
    with session_store(two.sites["north"]) as store:
        for number in range(25):
            store.set(f"session:only-there-{number}", f"basket {number}", ex=3600)
    report = await taken_over(engine, await lost(two, engine))
    assert report.outcome == "recovered", report.failure
    await back_with(two, engine, PINNED)
    stays = {row.number for row in ledger.acknowledged(two.place.load)}

    report = await (await home(engine, "check")).ended(60)
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure
    assert int(next(one.value for one in report.figures if one.name == "transactions that only orders has")) >= 5
    assert not list(two.place.north.glob("copies/*divergent*"))
    assert (two.databases["north"].standby(), two.director.site()) == (True, "south")

    report = await decided(await home(engine))
    assert (report.outcome, report.residual) == ("recovered", ()), report.failure
    assert [gate.gate for gate in report.gates if gate.decisions] == [
        "rebuild the lost site", "switch over", "declare the end",
    ]  # fmt: skip

    assert (north.standby(), south.standby(), two.director.site()) == (False, True, "north")
    assert ask(north, "select count(*) from pg_stat_replication where state = 'streaming'") == "1"
    count = len(ledger.acknowledged(two.place.load))
    await eventually(lambda: len(ledger.acknowledged(two.place.load)) > count + 50, "orders are taken at north", 30)

    figures = {figure.name: figure.value for figure in report.figures}
    assert 25 <= int(figures["sessions that only sessions has"]) <= 25 + CUSTOMERS
    (snapshot,) = two.place.north.glob("copies/sessions.divergent-*/sessions.rdb")
    assert snapshot.stat().st_mode & 0o077 == 0
    with snapshot_of(snapshot, tmp_path) as store:
        assert [store.get(f"session:only-there-{number}") for number in range(25)] == [f"basket {n}" for n in range(25)]
        assert store.ttl("session:only-there-7") in range(3000, 3600)
    with session_store(two.sites["north"]) as store:
        assert not store.exists("session:only-there-7")

    with (kept(report) / "public.orders.csv").open(newline="") as file:
        rows = {int(row["number"]): row["customer"] for row in csv.DictReader(file)}
    assert {number: rows[number] for number in (-1, -2)} == {-1: 'pinned, "and quoted"', -2: "within"}
    assert -9 not in rows
    assert numbers(report, "public.orders") == set(rows)
    # Each acknowledged order is in the database, or listed by its number; nothing that is listed is there as well.
    acknowledged = {row.number for row in ledger.acknowledged(two.place.load)}
    taken = {int(number) for number in ask(north, "select number from orders").split()}
    assert stays <= acknowledged
    assert acknowledged - taken <= set(rows)
    assert not taken & set(rows)
    assert set(rows) - {-1, -2} <= stays | {row.number for row in ledger.refused(two.place.load)}

    assert sorted((kept(report) / "public.customers.csv").read_text().splitlines()[1:]) == [
        '"7","changed there only"', '"999","written before, committed after"',
    ]  # fmt: skip
    assert len((kept(report) / "public.customers.deleted.csv").read_text().splitlines()) == 3
    assert any("made_there" in str(figure.value) for figure in report.figures)
    assert ask(north, "select count(*) from customers where name = 'changed there only' or id in (8, 9, 999)") == "2"
    for site in ("north", "south"):
        place = two.place.at(site)
        assert list(place.folder.glob("data.*")) == []
        assert [path.name for path in place.jobs.glob("[!.]*")] == []


@pytest.mark.drawn
async def test_before_the_lost_site_is_fenced_nothing_is_rebuilt(two: Lab, engine: Running) -> None:  # noqa: F811
    assert (await taken_over(engine, await lost(two, engine))).outcome == "recovered"
    await engine.client.get_workflow_handle("lab/fence-north").cancel()
    await asyncio.to_thread(two.databases["north"].start)
    two.sites["north"].start_ssh()
    two.sites["north"].await_ssh()
    two.sites["north"].valkey.start()
    engine.start_worker()
    report = await (await home(engine, "check", settled="PT1H")).ended(60)
    assert report.outcome == "checked"
    assert any("is a primary" in line and "fenced first" in line for line in report.blockers), report.blockers
    assert any(line.startswith("parameters.settled: south has to serve until") for line in report.blockers)
    with two.databases["north"].connect("orders") as connection:
        connection.execute("select 1")


@pytest.mark.drawn
async def test_without_a_record_there_is_no_way_home(two: Lab, engine: Running) -> None:  # noqa: F811
    report = await (await home(engine, "check")).ended(60)
    assert any("parameters.recovery: Temporal knows no" in line for line in report.blockers), report.blockers
    assert any(line.startswith("front: does not point at south") for line in report.blockers), report.blockers
    with two.databases["north"].connect("orders") as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (False,)


@pytest.mark.soak
async def test_old_log_that_is_gone_is_told_before_anything_is_overwritten(two: Lab, engine: Running) -> None:  # noqa: F811
    assert (await taken_over(engine, await lost(two, engine))).outcome == "recovered"
    await back_with(two, engine, "insert into orders (number, customer, amount) values (-1, 'pinned', 1)")
    north = two.databases["north"]
    await asyncio.to_thread(north.stop, quick=False)
    for folder in (north.place.data / "pg_wal", north.place.archive):
        for segment in folder.glob("0000000100*"):
            segment.unlink()
    report = await (await home(engine, "check")).ended(60)
    assert any("cannot be told" in line for line in report.blockers), report.blockers
    with pytest.raises(psycopg.Error), north.connect("orders"):
        pass
