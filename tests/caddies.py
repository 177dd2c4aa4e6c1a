"""Real Caddy as a traffic director in front of two sites, and a relay before its admin API that acts for a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from aiohttp import web

from activities.director import MARK, Point
from lab import ports
from tests.running import eventually

CADDY = Path(sys.executable).with_name("caddy")
SLOW = {"/slow": 0.5, "/slower": 2.0}
PORTS = ("admin", "clients", "north", "south")


class Fronting(Protocol):
    """What stands before two sites: the port of each."""

    ports: dict[str, int]


class Caddy:
    """One Caddy that resumes what it was last told; its folder holds its first configuration and its log."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ports = folder, ports.choose(PORTS)
        self.admin, self.url = (f"http://{ports.ADDRESS}:{self.ports[name]}" for name in PORTS[:2])
        self.process: subprocess.Popen[bytes] | None = None
        first = {"admin": {"listen": self.at("admin")}, "apps": {"http": {"servers": {"clients": self.served()}}}}
        (folder / "caddy.json").write_text(json.dumps(first))

    def at(self, name: str) -> str:
        """Return the address of a port by its name."""
        return f"{ports.ADDRESS}:{self.ports[name]}"

    def served(self) -> dict[str, Any]:
        """Return the server as it is at first: at north, with an option that nobody could guess."""
        proxy = {"handler": "reverse_proxy", "upstreams": [{"dial": self.at("north"), "max_requests": 977}]}
        inner = {"handler": "subroute", "routes": [{"handle": [proxy]}]}
        return {"listen": [self.at("clients")], "automatic_https": {"disable": True}, "routes": [{"handle": [inner]}]}

    def point(self, site: str = "south", **more: Any) -> Point:
        """Return what moves its traffic."""
        sites = {name: self.at(name) for name in ("north", "south")}
        return Point.model_validate(
            {"system": "front", "admin": self.admin, "server": "clients", "sites": sites, "site": site, "drill": True}
            | more
        )

    def start(self, seconds: float = 10) -> None:
        """Start it, and wait until it answers."""
        homes = {name: str(self.folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [CADDY, "run", "--config", self.folder / "caddy.json", "--resume"],
                env=os.environ | homes, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                self.server()
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it with SIGKILL, if it runs."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def server(self) -> dict[str, Any]:
        """Return the configuration of the server."""
        found: dict[str, Any] = self.tell("GET", "apps/http/servers/clients")
        return found

    def upstreams(self) -> list[dict[str, Any]]:
        """Return the upstreams as they stand there."""
        found: list[dict[str, Any]] = self.server()["routes"][0]["handle"][0]["routes"][0]["handle"][0]["upstreams"]
        return found

    def mark(self) -> dict[str, int] | None:
        """Return whose write was the last."""
        for route in self.server()["routes"]:
            for handler in route["handle"]:
                if MARK in handler:
                    found: dict[str, int] = handler[MARK]["front"]
                    return found
        return None

    def tell(self, method: str, path: str, body: object = None) -> Any:
        """Change its configuration as somebody else would."""
        data = None if body is None else json.dumps(body).encode()
        header = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.admin}/config/{path}", data, header, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read() or b"null")

    def repoint(self, *upstreams: dict[str, Any]) -> None:
        """Set the upstreams as somebody else would."""
        path = "apps/http/servers/clients/routes/0/handle/0/routes/0/handle/0/upstreams"
        self.tell("PATCH", path, list(upstreams))


@contextlib.contextmanager
def caddy(folder: Path) -> Iterator[Caddy]:
    """Run a Caddy in ``folder``."""
    found = Caddy(folder)
    try:
        found.start()
        yield found
    finally:
        found.kill()


@contextlib.asynccontextmanager
async def sites(director: Fronting) -> AsyncIterator[None]:
    """Serve at each site of ``director``: ``/broken`` with 500, what is slow after its seconds, all else at once."""
    async with contextlib.AsyncExitStack() as stack:
        for name in ("north", "south"):
            await stack.enter_async_context(_serving(_site(name), director.ports[name]))
        yield


def _site(name: str) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(SLOW.get(request.path, 0))
        return web.Response(text=name, status=500 if request.path == "/broken" else 200, headers={"Site": name})

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    return application


class Between:
    """A relay before the admin API; ``before`` and ``after`` run around the next write that passes.

    What they raise cuts the connection to who writes.
    """

    def __init__(self, director: Caddy) -> None:
        self._director = director
        self.port, self.writes = 0, 0
        self.before: Callable[[], Awaitable[None]] | None = None
        self.after: Callable[[], Awaitable[None]] | None = None

    @property
    def address(self) -> str:
        """Return where the relay listens."""
        return f"http://{ports.ADDRESS}:{self.port}"

    async def held(self) -> asyncio.Event:
        """Hold the next write, and return what lets it go once set; use with ``waiting``."""
        let_go, self.waiting = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            self.waiting.set()
            await let_go.wait()

        self.before = hold
        return let_go

    async def pass_on(self, request: web.Request) -> web.Response:
        """Pass one request on."""
        if request.method == "PATCH":
            before, self.before = self.before, None
            if before is not None:
                await before()
        answer = await self._forward(request)
        if request.method == "PATCH" and answer.status == 200:
            self.writes += 1
            after, self.after = self.after, None
            if after is not None:
                await after()
        return answer

    async def _forward(self, request: web.Request) -> web.Response:
        headers = {key: value for key, value in request.headers.items() if key in ("If-Match", "Content-Type")}
        body = await request.read()
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, self._director.admin + request.path, data=body, headers=headers) as found,
        ):
            told = {"ETag": found.headers["ETag"]} if "ETag" in found.headers else {}
            return web.Response(body=await found.read(), status=found.status, headers=told)

    async def cut(self) -> None:
        """Cut the connection of the write that is passing: for ``before`` and ``after``."""
        raise ConnectionAbortedError

    @web.middleware
    async def middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Cut instead of answering with an error."""
        try:
            return await self.pass_on(request)
        except (ConnectionAbortedError, aiohttp.ClientError):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()


@contextlib.asynccontextmanager
async def between(director: Caddy) -> AsyncIterator[Between]:
    """Put a relay before the admin API of ``director``."""
    found = Between(director)
    application = web.Application(middlewares=[found.middleware])
    async with _serving(application, 0) as port:
        found.port = port
        yield found


@contextlib.asynccontextmanager
async def _serving(application: web.Application, port: int) -> AsyncIterator[int]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, ports.ADDRESS, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def waited(found: Between) -> None:
    """Wait until a write is held."""
    await eventually(lambda: found.waiting.is_set(), "a write is held", 5, pause=0.005)
