"""The copy holds the longest prefix of the log before the first commit later than the target, neither more nor less."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import pytest_asyncio

from lab import ledger
from lab.estate import Lab
from tests.conftest import SEED
from tests.copies import ask_copy, drop_all
from tests.running import Running, eventually, running
from tests.workflows.test_side_copy import restorable

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = (5, pytest.param(40, marks=pytest.mark.soak))
WRITERS = 6
COMMIT = re.compile(r"tx:\s*(\d+), lsn: ([0-9A-F/]+),.*desc: COMMIT (\d{4}-\d\d-\d\d [\d:.]+)")


@dataclass(frozen=True)
class Commit:
    """One commit record, in the order of the log."""

    xid: int
    at: datetime


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab) -> AsyncIterator[Running]:
    await asyncio.to_thread(lab.base_backup)  # a copy replays all the log that came since
    async with running(lab) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def commits(lab: Lab) -> AsyncIterator[list[Commit]]:
    """Write with several hands at once, for a while after the base backup; return the log's own order of commits."""
    await restorable(lab)
    with lab.postgres.connect("orders") as connection:
        connection.execute("create table journal (id bigint primary key, account int, delta int)")
        connection.execute("create table accounts (id int primary key, balance int not null)")
        connection.execute("insert into accounts select i, 0 from generate_series(1, 20) i")
    chance = random.Random(SEED)
    await asyncio.gather(*(asyncio.to_thread(write, lab, random.Random(chance.random()), n) for n in range(WRITERS)))
    yield await asyncio.to_thread(log, lab)
    with lab.postgres.connect("orders") as connection:
        connection.execute("drop table journal, accounts")


def write(lab: Lab, chance: random.Random, writer: int) -> None:
    """Move amounts, one to five journal entries a transaction; some stay open for a while, some roll back."""
    with lab.postgres.connect("orders") as connection:
        connection.execute("set deadlock_timeout = '20ms'")
        connection.commit()
        for turn in range(120):
            try:
                with connection.transaction():
                    for part in range(chance.randint(1, 5)):
                        account, delta = chance.randint(1, 20), chance.randint(-9, 9)
                        identity = (writer * 1000 + turn) * 10 + part
                        connection.execute("insert into journal values (%s, %s, %s)", (identity, account, delta))
                        connection.execute("update accounts set balance = balance + %s where id = %s", (delta, account))
                        if chance.random() < 0.1:
                            connection.execute("select pg_sleep(%s)", (chance.random() / 20,))
                    if chance.random() < 0.1:
                        raise psycopg.Rollback
            except psycopg.errors.DeadlockDetected:
                continue  # its transaction is gone; the others went on


def log(lab: Lab) -> list[Commit]:
    """Read every commit record with pg_waldump, once all that was written has reached the archive."""
    with lab.postgres.connect("orders") as connection:
        row = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    deadline = time.monotonic() + 30
    while str(row[0]) not in lab.postgres.archived():
        assert time.monotonic() < deadline, "not within 30 s: the log is archived"
        time.sleep(0.05)
    names = lab.postgres.archived()
    text = lab.postgres.run("pg_waldump", "-p", lab.place.archive, "--rmgr=Transaction", names[0], str(row[0]))
    return [Commit(int(m[1]), datetime.fromisoformat(f"{m[3]}+00:00")) for m in COMMIT.finditer(text)]


@pytest.mark.parametrize("cases", CASES)
async def test_copy_is_the_prefix_of_the_log(lab: Lab, engine: Running, commits: list[Commit], cases: int) -> None:
    with lab.postgres.connect("orders") as connection:
        rows = connection.execute("select id, xmin::text::bigint from journal").fetchall()
    written = {int(str(number)): int(str(xid)) for number, xid in rows}
    mine = [commit for commit in commits if commit.xid in set(written.values())]
    assert len(mine) > 300, "the writers have to have written"
    await eventually(lambda: datetime.now(UTC) > commits[-1].at + timedelta(seconds=2), "the last target is final")
    for target in targets(mine, cases):
        recovery = await engine.start("live", target_time=target)
        await recovery.approve()
        report = await recovery.ended()
        assert report.outcome == "recovered", report.failure
        check(lab, target, commits, written)
        drop_all(lab)


def targets(mine: list[Commit], cases: int) -> list[datetime]:
    """Return random moments: between commits, exactly at one, and a microsecond beside one."""
    chance = random.Random(SEED)
    beside = [timedelta(0), timedelta(microseconds=-1), timedelta(microseconds=1)]
    exact = [chance.choice(mine).at + chance.choice(beside) for _ in range(cases // 2)]
    first, last = mine[0].at, mine[-1].at
    return exact + [first + (last - first) * chance.random() for _ in range(cases - len(exact))]


def check(lab: Lab, target: datetime, commits: list[Commit], written: dict[int, int]) -> None:
    """Compare the copy with what the log says, computed without the code under test."""
    prefix: set[int] = set()
    for commit in commits:
        if commit.at > target:
            break
        prefix.add(commit.xid)
    expected = {number for number, xid in written.items() if xid in prefix}
    assert {int(line) for line in ask_copy(lab, "select id from journal")} == expected, f"target {target}"
    torn = """select count(*) from accounts a
        where balance <> coalesce((select sum(delta) from journal where account = a.id), 0)"""
    assert ask_copy(lab, torn) == ["0"], f"target {target}: a transaction is there in part"
    early = {a.number for a in ledger.acknowledged(lab.place.load) if a.acknowledged_at < target - timedelta(seconds=1)}
    assert early <= {int(line) for line in ask_copy(lab, "select number from orders")}, f"target {target}"
