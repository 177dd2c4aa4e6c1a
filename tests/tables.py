"""Tables of sessions in the PostgreSQL of a lab's two sites, and clients that write them."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator

from activities.databases import DatabaseAt
from lab.estate import Lab
from lab.postgres import Postgres
from runbooks.library import library
from tests.running import ROOT, eventually

NAMES = {"north": "orders", "south": "orders-south"}
CREATE = """
create table sessions (id uuid primary key default gen_random_uuid(), number int not null, basket text,
    seen timestamptz not null default now(), ends timestamptz);
create index on sessions (number);
insert into sessions (number, basket, ends) select n, repeat('x', n % 90), now() + interval '1 hour'
    from generate_series(1, {many}) n;
"""


def at(lab: Lab, site: str, **more: object) -> DatabaseAt:
    """Return how the engine reaches the database of a site."""
    estate = library(ROOT / "runbooks", lab.state / "estate.env").estate("lab")
    found = estate.databases[NAMES[site]]
    return DatabaseAt.of(NAMES[site], found, estate.hosts[found.host]).model_copy(update=more)


def tell(database: Postgres, *statements: str, name: str = "orders") -> object:
    """Carry out statements, and return the first value of what the last one answers."""
    with database.connect(name) as connection:
        for statement in statements:
            done = connection.execute(statement.encode())
        row = done.fetchone() if done.description else None
        return row[0] if row else None


async def replayed(lab: Lab, seconds: float = 20) -> None:
    """Wait until south has replayed all that north has."""
    commit = "select pg_logical_emit_message(true, 'test', 'all before this is in the log')"
    wanted = tell(lab.databases["north"], commit, "select pg_current_wal_flush_lsn()")
    await eventually(
        lambda: tell(lab.databases["south"], f"select pg_last_wal_replay_lsn() >= '{wanted}'"), "south has all", seconds
    )


@contextlib.contextmanager
def written(database: Postgres, many: int, seed: int = 7, writers: int = 2) -> Iterator[list[int]]:
    """Write sessions all the time, new ones, others and some that go or end; yield how many, so far.

    Every second client does not wait for the log (synchronous_commit): what it wrote is seen before that is in it.
    """
    stop, count = threading.Event(), [0] * writers

    def write(which: int) -> None:
        chance = random.Random(seed + which)
        with database.connect("orders") as connection:
            connection.execute("set synchronous_commit = on" if which % 2 else "set synchronous_commit = off")
            while not stop.is_set():
                number = chance.randrange(1, many // writers) * writers + which  # no two of them wait for each other
                with connection.transaction():
                    if chance.random() < 0.2:
                        connection.execute("delete from sessions where number = %s", [number])
                    connection.execute(
                        "insert into sessions (number, basket, ends) values (%s, %s, now() + %s * interval '1 s')",
                        [number, str(chance.random()), chance.choice([0.3, 2.5, 900])],
                    )
                    connection.execute("update sessions set seen = clock_timestamp() where number = %s", [number])
                    connection.execute("update sessions set basket = %s where number = 1", [str(chance.random())])
                count[which] += 1

    threads = [threading.Thread(target=write, args=[which]) for which in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield count
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def two_sites(lab: Lab, many: int) -> None:
    """Bring both sites up, with so many sessions."""
    lab.up(load=False, south=True)
    with lab.databases["north"].connect("orders") as connection:
        connection.execute(CREATE.format(many=many).encode())
        connection.execute("vacuum analyze sessions")
