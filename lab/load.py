"""The load generator: `python -m lab.load ROOT PORT`. Numbered orders, each acknowledgement written down.

They go to the database at that port, or, with `--through URL`, over HTTP through the traffic director.
"""

import argparse
import asyncio
import json
import os
import random
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lab.ledger import UNKNOWN, Log, highest_number, now
from lab.place import Place
from lab.schedule import PAUSE, Load

Connection = psycopg.AsyncConnection[tuple[object, ...]]

GRACE = 0.6  # seconds for orders in flight when told to stop
MIXED = 0.2  # share of orders that also change other rows

ORDER = "insert into orders (number, customer, amount) values (%s, %s, %s)"
REPRICE = "update orders set amount = %s where number = %s"
RENAME = "update customers set name = %s where id = %s"


@dataclass
class Direct(Load):
    """Writers that are clients of the database."""

    async def run(self, writers: int) -> None:
        """Place orders with that many writers until `stopping`."""
        self.number = max(self.number, await first_number(self))
        self.due = asyncio.get_running_loop().time()
        await asyncio.gather(*(self.write() for _ in range(writers)))

    async def connect(self) -> Connection:
        """Connect as `app`. Raises psycopg.Error."""
        return await psycopg.AsyncConnection.connect(self.address, autocommit=True, connect_timeout=2)

    async def write(self) -> None:
        """Place orders until told to stop, with one connection that is made anew whenever it breaks."""
        connection: Connection | None = None
        while not self.stopping:
            number = await self.slot()
            if connection is None:
                try:
                    connection = await self.connect()
                except psycopg.Error as error:
                    self.refused.add(number=number, at=now(), error=_name(error))
                    await asyncio.sleep(PAUSE)
                    continue
            if not await self.place(connection, number):
                connection = None

    async def place(self, connection: Connection, number: int) -> bool:
        """Place one order and write down how it went; False when the connection is lost."""
        sent = now()
        try:
            async with connection.transaction():
                await self.transact(connection, number)
        except psycopg.Error as error:
            lost = connection.closed or connection.broken
            # Without a connection nobody can say whether the commit had been done.
            self.refused.add(number=number, at=now(), error=UNKNOWN if lost else _name(error))
            if lost:
                await connection.close()
            return not lost
        except asyncio.CancelledError:
            self.refused.add(number=number, at=now(), error=UNKNOWN)
            raise
        self.acknowledged.add(number=number, sent_at=sent, acknowledged_at=now())
        return True

    async def transact(self, connection: Connection, number: int) -> None:
        """Do the statements of one order."""
        amount = random.randrange(100, 100_000) / 100
        customer = random.randrange(1, 201)
        await connection.execute(ORDER, (number, f"customer {customer}", amount))
        if self.mixed and random.random() < MIXED:
            await connection.execute(REPRICE, (amount, random.randrange(1, number + 1)))
            await connection.execute(RENAME, (f"customer {customer} of order {number}", customer))


def _name(error: psycopg.Error) -> str:
    return error.sqlstate or type(error).__name__


async def first_number(load: Direct) -> int:
    """Return the highest number in the table, waiting for the database; 0 when the table is gone."""
    while True:
        try:
            async with await load.connect() as connection:
                row = await (await connection.execute("select coalesce(max(number), 0) from orders")).fetchone()
                return int(str(row[0])) if row else 0
        except psycopg.errors.UndefinedTable:
            return 0
        except psycopg.OperationalError:
            await asyncio.sleep(PAUSE)


async def generate(load: Load, writers: int) -> None:
    """Place orders until SIGTERM; then let those in flight end, and return within a second."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    running, waiting = asyncio.create_task(load.run(writers)), asyncio.create_task(stopped.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    load.stopping = True
    await asyncio.wait([running], timeout=GRACE)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running  # a writer that failed by itself says here why


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and place orders until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m lab.load", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("port", type=int, nargs="?", help="of the database")
    parser.add_argument("--through", metavar="URL", help="order over HTTP, at this address, and not at a database")
    parser.add_argument("--rate", type=float, default=100, help="orders per second, of all writers together")
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--mixed", action="store_true", help="also change amounts and names of customers")
    given = parser.parse_args(arguments)
    place = Place(given.root)
    logs = Log(place.load / "acknowledged.jsonl"), Log(place.load / "refused.jsonl")
    kind, address = _where(given, place)
    load = kind(address, given.rate, given.mixed, *logs, highest_number(place.load))
    asyncio.run(generate(load, given.writers))


def _where(given: argparse.Namespace, place: Place) -> tuple[type[Load], str]:
    if given.through:
        from lab.clients import Clients  # with its HTTP client

        return Clients, given.through
    password = json.loads(place.secrets.read_text())["app"]
    return Direct, psycopg.conninfo.make_conninfo(
        host="127.0.0.1", port=given.port, dbname="orders", user="app", password=password, sslmode="disable"
    )


if __name__ == "__main__":
    os.chdir("/")
    main()
