"""A real Knot with a zone that takes updates, a real Unbound that keeps what it was told, and a relay that acts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
import dns.tsig
import dns.update
import dns.zone

from activities.dns_director import PointRecord
from activities.dns_zones import RecordSpec
from lab import ports

SECRETS = {"recovery.": "c2VjcmV0LW9mLXRoZS1yZWNvdmVyeS0w", "people.": "c2VjcmV0LW9mLXBlb3BsZS0wMDAwMDAw"}
SECRETS |= {"reader.": "c2VjcmV0LW9mLXJlYWRlcnMtMDAwMDAw"}
NORTH, SOUTH, NOBODY, ELSEWHERE = "127.0.0.11", "127.0.0.12", "127.0.0.99", "192.0.2.9"
ZONE = """$ORIGIN example.test.
$TTL 3600
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
shop {ttl} A 127.0.0.11
www {ttl} CNAME north.example.test.
"""
CONFIGURATION = """
server:
    listen: 127.0.0.1@{port}
    rundir: {folder}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {folder}/db
    journal-db-max-size: 16M
    kasp-db-max-size: 16M
    timer-db-max-size: 16M
    catalog-db-max-size: 16M
log:
  - target: stderr
    any: info
key:
{keys}
acl:
  - id: updates
    key: [recovery., people.]
    action: [update, transfer]
  - id: reads
    key: reader.
    action: transfer
template:
  - id: default
    storage: {folder}
    file: "%s.zone"
    zonefile-load: whole
zone:
  - domain: example.test.
    acl: [updates, reads]
"""
CACHE = """
server:
    interface: 127.0.0.1@{port}
    directory: {folder}
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    do-not-query-localhost: no
    module-config: iterator
    num-threads: 1
    local-zone: "test." nodefault
    domain-insecure: "test."
remote-control:
    control-enable: no
stub-zone:
    name: example.test.
    stub-addr: 127.0.0.1@{knot}
"""


class Server:
    """A name server of its own process; its folder holds its configuration and its log."""

    program: str
    package: str

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, ports.choose(["dns"])["dns"]
        self.address = f"{ports.ADDRESS}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 10) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which(self.program, path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, f"scripts/debian-packages installs {self.package}"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([program, "-c", self.folder / "conf"], stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while not self.ask("ns.example.test.", "A", 0.05):
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it with SIGKILL, if it runs."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def ask(self, name: str = "shop.example.test.", kind: str = "A", seconds: float = 1) -> list[str]:
        """Return what it answers; nothing where it does not."""
        with contextlib.suppress(OSError, dns.exception.DNSException):
            answer = dns.query.udp(dns.message.make_query(name, kind), ports.ADDRESS, timeout=seconds, port=self.port)
            return [one.to_text() for found in answer.answer for one in found]
        return []


class Knot(Server):
    """The primary of example.test, which keeps its journal; its keys lie beside it."""

    program, package = "knotd", "knot"

    def __init__(self, folder: Path, ttl: int = 3600) -> None:
        super().__init__(folder)
        (folder / "db").mkdir()
        (folder / "example.test.zone").write_text(ZONE.format(ttl=ttl))
        keys = [f"  - id: {name}\n    algorithm: hmac-sha256\n    secret: {text}" for name, text in SECRETS.items()]
        told = {"folder": folder, "port": self.port, "keys": "\n".join(keys)}
        (folder / "conf").write_text(CONFIGURATION.format(**told))
        for name, text in SECRETS.items():
            (folder / f"{name}key").write_text(text)

    def spec(self, **more: Any) -> RecordSpec:
        """Return how the engine names its record."""
        return self.point(**more)

    def point(self, site: str = "south", **more: Any) -> PointRecord:
        """Return what moves its record."""
        key = {"name": "recovery", "algorithm": "hmac-sha256", "secret": str(self.folder / "recovery.key")}
        given = {
            "system": "shop", "server": self.address, "zone": "example.test", "record": "shop.example.test",
            "type": "A", "sites": {"north": NORTH, "south": SOUTH}, "nobody": NOBODY, "key": key, "ttl": 2,
            "resolvers": (self.address,), "site": site, "drill": True,
        }  # fmt: skip
        return PointRecord.model_validate(given | more)

    def tell(self, kind: str, *values: str, name: str = "shop", ttl: int = 3600) -> None:
        """Write a record as somebody else would."""
        key = dns.tsig.Key("people.", SECRETS["people."], "hmac-sha256")
        update = dns.update.UpdateMessage("example.test.", keyring=key)
        update.delete(name, kind)
        for value in values:
            update.add(name, ttl, kind, value)
        assert dns.query.tcp(update, ports.ADDRESS, timeout=5, port=self.port).rcode() == 0

    def records(self) -> dict[str, list[str]]:
        """Return every record of the zone with its TTL, but for the serial."""
        key = dns.tsig.Key("people.", SECRETS["people."], "hmac-sha256")
        zone = dns.zone.Zone("example.test.")
        transfer = dns.message.make_query("example.test.", "AXFR")
        transfer.use_tsig(key)
        dns.query.inbound_xfr(ports.ADDRESS, zone, transfer, port=self.port, timeout=5)
        found: dict[str, list[str]] = {}
        for name, ttl, data in zone.iterate_rdatas():
            if data.rdtype != dns.rdatatype.SOA:
                found.setdefault(f"{name} {dns.rdatatype.to_text(data.rdtype)}", []).append(f"{ttl} {data.to_text()}")
        return found

    def mark(self, name: str = "_recovery.shop") -> list[str] | None:
        """Return whose write was the last."""
        return self.records().get(f"{name} TXT")


class Unbound(Server):
    """A resolver that keeps what it was told for as long as its TTL says."""

    program, package = "unbound", "unbound"

    def __init__(self, folder: Path, knot: Knot) -> None:
        super().__init__(folder)
        (folder / "conf").write_text(CACHE.format(folder=folder, port=self.port, knot=knot.port))


@contextlib.contextmanager
def running(server: Server) -> Iterator[None]:
    """Run a server."""
    try:
        server.start()
        yield
    finally:
        server.kill()


class Between:
    """A relay before the primary; ``before`` and ``after`` run around the next update that passes.

    What they raise cuts the connection to who writes.
    """

    def __init__(self, knot: Knot) -> None:
        self.knot, self.address, self.updates = knot, "", 0
        self.before: Callable[[], Awaitable[None]] | None = None
        self.after: Callable[[], Awaitable[None]] | None = None
        self.waiting = asyncio.Event()

    async def held(self) -> asyncio.Event:
        """Hold the next update until what this returns is set; ``waiting`` tells that it is there."""
        let_go, self.waiting = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            self.waiting.set()
            await let_go.wait()

        self.before = hold
        return let_go

    async def cut(self) -> None:
        """Cut the connection of the update that is passing: for ``before`` and ``after``."""
        raise ConnectionAbortedError

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one message and its answer."""
        with contextlib.suppress(OSError, EOFError):
            asked = await _message(reader)
            update = asked[4] >> 3 & 15 == 5
            before, self.before = (self.before, None) if update else (None, self.before)
            if before is not None:
                await before()
            there, to_there = await asyncio.open_connection(ports.ADDRESS, self.knot.port)
            to_there.write(asked)
            answer = await _message(there)
            to_there.close()
            self.updates += update and answer[5] & 15 == 0
            after, self.after = (self.after, None) if update else (None, self.after)
            if after is not None:
                await after()
            writer.write(answer)
            await writer.drain()
            await reader.read()
        writer.transport.abort()


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(2)
    return head + await reader.readexactly(int.from_bytes(head, "big"))


@contextlib.asynccontextmanager
async def between(knot: Knot) -> AsyncIterator[Between]:
    """Put a relay before ``knot``."""
    found = Between(knot)
    server = await asyncio.start_server(found.serve, ports.ADDRESS, 0)
    async with server:
        found.address = f"{ports.ADDRESS}:{server.sockets[0].getsockname()[1]}"
        yield found
