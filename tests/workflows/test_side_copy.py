"""The restore of the lab's orders to a side copy, on a real database under load."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from lab import ledger
from lab.estate import Lab
from tests.copies import ask_copy, drop_all, in_copies, orders_in_copy
from tests.labs import RATE
from tests.running import Running, eventually, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab) -> AsyncIterator[Running]:
    await asyncio.to_thread(lab.base_backup)  # a copy replays all the log that came since
    async with running(lab) as found:
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _no_copies(lab: Lab, engine: Running) -> AsyncIterator[None]:
    yield
    drop_all(lab)


async def restorable(lab: Lab) -> datetime:
    """Return a moment after some acknowledged orders, once it lies far enough in the past to be restored."""
    log = lab.place.load / "acknowledged.jsonl"
    await eventually(lambda: ledger.count(log) > 2 * RATE, "two seconds of orders since the base backup")
    target = datetime.now(UTC)
    await asyncio.sleep(1.2)  # the passing of time is itself the condition: a target is final a second later
    return target


def acknowledged(lab: Lab) -> dict[int, datetime]:
    """Return when each order was acknowledged, as the load generator wrote it down."""
    return {row.number: row.acknowledged_at for row in ledger.acknowledged(lab.place.load)}


async def test_live_restore_keeps_the_copy(lab: Lab, engine: Running) -> None:
    target = await restorable(lab)
    recovery = await engine.start("live", target_time=target)
    await recovery.approve()
    report = await recovery.ended()
    assert report.outcome == "recovered", report.failure
    assert report.delivered["copy"].startswith("psql -h ")
    assert report.gates[0].decisions[0].by == "bob"
    before = {number for number, at in acknowledged(lab).items() if at < target}
    assert before, "the load generator has to have written something"
    assert before <= orders_in_copy(lab)


async def test_restore_point_is_reached_from_a_chain(lab: Lab, engine: Running) -> None:
    """People see from what the copy is put together, and where in the log it stops."""
    await asyncio.to_thread(lab.postgres.summarize)
    full = await asyncio.to_thread(lab.base_backup)
    later = await asyncio.to_thread(lab.base_backup, full)
    log = lab.place.load / "acknowledged.jsonl"
    many = ledger.count(log)
    await eventually(lambda: ledger.count(log) > many + RATE, "a second of orders since the last backup")
    before = set(acknowledged(lab))
    with lab.postgres.connect("orders") as connection:
        connection.execute("select pg_create_restore_point('before the release')")
    after = datetime.now(UTC)
    recovery = await engine.start("live", parameters={"target_name": "before the release"})
    await recovery.approve()
    report = await recovery.ended()
    assert report.outcome == "recovered", report.failure
    told = next(shown for shown in report.gates[0].shown if "target" in shown)
    assert told["target"].startswith("the restore point “before the release” (0/")
    assert told["backups"] == [full.name, later.name]
    assert [s.title for s in report.steps][2] == f"lay down backup {later.name}, put together from 2"
    found = orders_in_copy(lab)
    assert before <= found
    assert not found & {number for number, at in acknowledged(lab).items() if at > after + timedelta(seconds=1)}
    assert "last commit in the copy" in {figure.name for figure in report.figures}


async def test_drill_leaves_nothing(lab: Lab, engine: Running) -> None:
    recovery = await engine.start("drill", target_time=await restorable(lab))
    report = await recovery.ended()
    assert report.outcome == "drilled", report.failure
    assert [s.state for s in report.steps if s.step.startswith(("lay", "replay"))] == ["undone", "undone"]
    assert report.delivered == {}
    assert in_copies(lab) == []


async def test_check_changes_nothing(lab: Lab, engine: Running) -> None:
    recovery = await engine.start("check", id="lab/orders/check", target_time=await restorable(lab))
    report = await recovery.ended()
    assert report.outcome == "checked"
    assert report.blockers == ()
    assert [s.state for s in report.steps][2:] == ["would change", "would change", "would look", "would look"]
    assert in_copies(lab) == []


async def test_check_of_rows_that_go_back_ends(lab: Lab, engine: Running) -> None:
    recovery = await engine.start(
        "check", id="lab/orders/check", runbook="lab/extract-orders", target_time=await restorable(lab)
    )
    report = await recovery.ended()
    assert (report.outcome, report.blockers) == ("checked", ())
    assert report.steps[-1].step.startswith("put rows of public.orders back")
    assert report.steps[-1].state == "would change"


async def test_rejected_copy_is_dropped(lab: Lab, engine: Running) -> None:
    recovery = await engine.start("live", target_time=await restorable(lab))
    await recovery.approve("carol", "reject")
    report = await recovery.ended()
    assert report.outcome == "compensated"
    assert "rejected by carol" in report.failure
    assert in_copies(lab) == []
    with pytest.raises(WorkflowFailureError) as failed:
        await recovery.handle.result()
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.details[0]["outcome"] == "compensated"


async def test_cancel_at_the_gate_drops_the_copy(lab: Lab, engine: Running) -> None:
    recovery = await engine.start("live", target_time=await restorable(lab))
    await recovery.until("gate")
    await recovery.handle.cancel()
    report = await recovery.ended()
    assert report.outcome == "cancelled"
    assert report.residual == ()
    assert in_copies(lab) == []
    description = await recovery.handle.describe()
    assert description.status is not None
    assert description.status.name == "CANCELED"


@pytest.mark.parametrize(("hours", "side"), [(-24, "past"), (1, "future")])
async def test_target_outside_the_range_is_refused(lab: Lab, engine: Running, hours: int, side: str) -> None:
    recovery = await engine.start("live", target_time=datetime.now(UTC) + timedelta(hours=hours))
    report = await recovery.ended()
    assert (report.outcome, report.kind) == ("failed", "Refused")
    assert "parameters.target_time" in report.failure
    first, last = (str(f.value) for f in report.figures) if report.figures else ("", "")
    assert " to " in report.failure, (first, last)
    assert in_copies(lab) == []


async def test_second_recovery_of_a_database_waits_for_the_first(lab: Lab, engine: Running) -> None:
    target = await restorable(lab)
    first = await engine.start("live", target_time=target)
    await first.until("gate")
    second = await engine.start("live", id="typed by hand into the form", target_time=target)
    report = await second.until("waits for orders, which lab/orders has in hand")
    assert report.steps == ()
    await first.handle.cancel()
    assert (await first.ended()).outcome == "cancelled"
    await second.until("gate")
    await second.handle.cancel()
    assert (await second.ended()).outcome == "cancelled"


async def test_running_database_is_untouched(lab: Lab, engine: Running) -> None:
    await restorable(lab)
    lab.break_("load")
    try:
        with lab.postgres.connect("orders") as connection:
            connection.autocommit = True
            connection.execute("analyze")  # else the server does so when it likes
            connection.execute("vacuum freeze")
            connection.execute("checkpoint")
        target = await restorable(lab)
        before, begun = await asyncio.to_thread(fingerprint, lab), position(lab)
        recovery = await engine.start("live", target_time=target)
        await recovery.approve()
        assert (await recovery.ended()).outcome == "recovered"
        after = await asyncio.to_thread(fingerprint, lab)
        assert after == before
        assert logged(lab, begun) <= {"RUNNING_XACTS"}, "the server itself notes now and then who runs"
    finally:
        lab.up()


def position(lab: Lab) -> str:
    """Return the end of the log."""
    with lab.postgres.connect("orders") as connection:
        row = connection.execute("select pg_current_wal_insert_lsn()").fetchone()
    assert row is not None
    return str(row[0])


def logged(lab: Lab, begun: str) -> set[str]:
    """Return the kinds of records that the log has gained since ``begun``."""
    now = position(lab)
    if now == begun:
        return set()
    text = lab.postgres.run("pg_waldump", "-p", lab.place.data / "pg_wal", "-s", begun, "-e", now)
    return set(re.findall(r"desc: (\S+)", text))


def fingerprint(lab: Lab) -> dict[str, object]:
    """Return what must not change: rows, settings, configuration files, data files, archive."""
    root = lab.place.root / "north"
    with lab.postgres.connect("orders") as connection:
        rows = connection.execute("select md5(string_agg(o::text, ',' order by number)) from orders o").fetchone()
        settings = connection.execute(
            "select md5(string_agg(name || setting, ',' order by name)) from pg_settings"
        ).fetchone()
    # memory, caches and counters of the running server itself
    skipped = ("pg_wal", "pg_stat", "pg_dynshmem", "pg_internal.init", "postmaster.pid", "pg_control")
    data = {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for folder in ("data", "archive", "backups")
        for file in sorted((root / folder).rglob("*"))
        if file.is_file() and not any(part in str(file) for part in skipped)
    }
    return {"rows": rows, "settings": settings, **data}


async def test_table_dropped_at_the_target_can_be_read(lab: Lab, engine: Running) -> None:
    # Replay stops before the drop's commit but after its lock: on an idle database every reader would wait for ever.
    await restorable(lab)
    lab.break_("load")
    try:
        with lab.postgres.connect("orders") as connection:
            connection.autocommit = True
            connection.execute("create table treasure as select generate_series(1, 1000) as coin")
            row = connection.execute("select clock_timestamp()").fetchone()
            connection.execute("drop table treasure")
        assert row is not None
        target = datetime.fromisoformat(str(row[0]))
        await eventually(lambda: datetime.now(UTC) > target + timedelta(seconds=1.2), "the target is final")
        recovery = await engine.start("live", target_time=target)
        await recovery.approve()
        report = await recovery.ended()
        assert report.outcome == "recovered", report.failure
        assert [s.shows.get("how") for s in report.steps if s.step.startswith("replay")] == ["promoted"]
        assert ask_copy(lab, "select count(*) from treasure") == ["1000"]
        assert ask_copy(lab, "show default_transaction_read_only") == ["on"]
    finally:
        lab.up()
