"""The order application of a site, over HTTP: `python -m lab.orders FOLDER` (its configuration.json).

`POST /orders {"number", "customer", "amount"}` answers 201 when the order was committed, 200 when one of that number
was there before, 503 when it was refused for certain, and 500 with the error `unknown` when nobody can say.
`GET /orders/NUMBER` answers with the order, or 404. `GET /health` answers 200 when orders can be taken: the database
takes writes, and the session store answers as a primary; else 503, and says why. Amounts are in euros, times UTC.

What it may take it reads from `config/orders.conf`, at the start and at SIGHUP, and says in `loaded` how that went.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import psycopg
from aiohttp import web
from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CONNECTIONS = 8
SESSION = 3600  # seconds
UNKNOWN = "unknown"  # as in the load generator's record

ORDER = """insert into orders (number, customer, amount) values (%s, %s, %s)
    on conflict (number) do nothing"""
LOOK = "select number, customer, amount, placed_at from orders where number = %s"
WRITABLE = "select not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off'"


class Unknown(Exception):
    """The connection was lost while an order was on its way: it may have been committed or not."""


class Limits:
    """What the configuration allows: `max_amount=` euros, the most that an order may be worth."""

    def __init__(self, folder: Path) -> None:
        """Take the folder of the application, and read."""
        self._file, self._loaded = folder / "config" / "orders.conf", folder / "loaded"
        self.max_amount = Decimal(1_000_000)
        self.read()

    def read(self) -> None:
        """Read it again; what cannot be read changes nothing."""
        content = self._file.read_bytes() if self._file.exists() else b""
        try:
            lines = (line.partition("=") for line in content.decode().splitlines() if line and line[0] != "#")
            self.max_amount = Decimal({name: value for name, _, value in lines}.get("max_amount", "1000000"))
            said = "good"
        except (ValueError, InvalidOperation):
            said = "bad"
        partial = self._loaded.with_name("loaded.partial")
        partial.write_text(f"{said} {hashlib.sha256(content).hexdigest()}\n")
        partial.replace(self._loaded)


class Database:
    """A few connections, each made when it is needed and again when it was lost."""

    def __init__(self, address: str) -> None:
        """Take the connection string."""
        self._address = address
        self._idle: asyncio.LifoQueue[Connection | None] = asyncio.LifoQueue()
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(None)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """Lend a connection. Raises psycopg.Error when there is none to be had."""
        one = await self._idle.get()
        try:
            if one is None or one.closed:
                one = await psycopg.AsyncConnection.connect(self._address, autocommit=True, connect_timeout=2)
            yield one
        finally:
            self._idle.put_nowait(None if one is None or one.closed else one)

    async def place(self, number: int, customer: str, amount: Decimal) -> bool:
        """Commit an order; False when one of this number was there. Raises psycopg.Error (refused), Unknown."""
        async with self.connected() as connection:
            try:
                return (await connection.execute(ORDER, (number, customer, amount))).rowcount == 1
            except psycopg.Error as error:
                if connection.closed or connection.broken:
                    raise Unknown(str(error).strip()) from error
                raise

    async def ask(self, query: Any, *values: object) -> tuple[Any, ...] | None:
        """Return the first row of an answer. Raises psycopg.Error."""
        async with self.connected() as connection:
            return await (await connection.execute(query, values)).fetchone()


class Orders:
    """The application: a database, and a session store that notes who ordered last."""

    def __init__(self, database: Database, store: Valkey, limits: Limits) -> None:
        """Take what it works with."""
        self._database, self._store, self._limits = database, store, limits

    def application(self) -> web.Application:
        """Return its routes."""
        found = web.Application()
        found.add_routes(
            [
                web.post("/orders", self.place),
                web.get(r"/orders/{number:\d{1,18}}", self.look),
                web.get("/health", self.health),
            ]
        )
        return found

    async def place(self, request: web.Request) -> web.Response:
        """Take an order; the session store is told afterwards, and its failure refuses nothing."""
        try:
            given = json.loads(await request.read(), parse_float=Decimal)
            number, customer, amount = int(given["number"]), str(given["customer"]), Decimal(given["amount"])
        except (ValueError, TypeError, KeyError, InvalidOperation) as error:
            return _said(400, error=f"number, customer and amount are needed ({type(error).__name__}: {error})")
        if amount > self._limits.max_amount:
            return _said(503, error="max_amount", message="orders of this amount are not taken")
        try:
            new = await self._database.place(number, customer, amount)
        except Unknown as error:
            return _said(500, error=UNKNOWN, message=str(error))
        except psycopg.Error as error:
            return _refused(error)
        return _said(201 if new else 200, number=number, session=await self._note(customer, number))

    async def _note(self, customer: str, number: int) -> bool:
        try:
            await asyncio.gather(
                self._store.execute_command("INCR", "orders"),
                self._store.execute_command("SET", f"session:{customer}", number, "EX", SESSION),
            )
        except ValkeyError:
            return False
        return True

    async def look(self, request: web.Request) -> web.Response:
        """Show an order."""
        try:
            row = await self._database.ask(LOOK, int(request.match_info["number"]))
        except psycopg.Error as error:
            return _refused(error)
        if row is None:
            return _said(404, error="there is no such order")
        return _said(200, number=row[0], customer=row[1], amount=str(row[2]), placed_at=row[3].isoformat())

    async def health(self, request: web.Request) -> web.Response:
        """Say whether orders can be taken."""
        database, store = await asyncio.gather(self._writable(), self._primary())
        limits = "good" if self._limits.max_amount > 0 else "takes no orders"
        well = database == store == limits == "good"
        return _said(200 if well else 503, database=database, store=store, configuration=limits)

    async def _writable(self) -> str:
        try:
            return "good" if await self._database.ask(WRITABLE) == (True,) else "takes no writes"
        except psycopg.Error as error:
            return _name(error)

    async def _primary(self) -> str:
        try:
            role: Any = await self._store.execute_command("ROLE")
        except ValkeyError as error:
            return type(error).__name__
        return "good" if role[0] == b"master" else "is a replica"


def _name(error: psycopg.Error) -> str:
    return error.sqlstate or type(error).__name__


def _refused(error: psycopg.Error) -> web.Response:
    return _said(503, error=_name(error), message=str(error).strip())


def _said(status: int, **fields: object) -> web.Response:
    return web.json_response(fields, status=status)


async def serve(folder: Path) -> None:
    """Serve until SIGTERM, then let what is on its way end. Raises OSError when the port is taken."""
    given = json.loads((folder / "configuration.json").read_text())
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    store = Valkey(
        port=given["store"], password=given["store_password"], socket_timeout=1, socket_connect_timeout=1
    )  # fmt: skip
    limits = Limits(folder)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, limits.read)
    application = Orders(Database(given["database"]), store, limits).application()
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", given["port"], reuse_address=True).start()
    (folder / "ready").touch()
    await stopped.wait()
    await runner.cleanup()
    await store.aclose()


if __name__ == "__main__":
    os.chdir("/")
    asyncio.run(serve(Path(sys.argv[1])))
