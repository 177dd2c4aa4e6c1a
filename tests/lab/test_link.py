"""The link between the sites passes everything on, drops everything silently, or refuses everything."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from lab import ports
from lab.link import Link

HANGS = 0.4  # seconds in which something would have happened


@dataclass
class Echo:
    """A server that sends back what it gets, and keeps what it got."""

    port: int
    link: Link
    got: bytearray = field(default_factory=bytearray)
    serving: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving += 1
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                self.got += data
                writer.write(data)
                await writer.drain()
        await close(writer)
        self.serving -= 1

    async def ended(self) -> None:
        """Wait until nobody is connected any more."""
        async with asyncio.timeout(5):
            while self.link.ends or self.serving:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def echoing() -> AsyncIterator[Echo]:
    chosen = ports.choose(("link", "server"))
    found = Echo(chosen["link"], Link([(chosen["link"], chosen["server"])]))
    async with await asyncio.start_server(found.serve, "127.0.0.1", chosen["server"]):
        await found.link.become("open")
        yield found
        await found.link.become("refused")
        await found.ended()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def connect(found: Echo, seconds: float = 5) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", found.port), seconds)


async def test_bytes_arrive_in_both_directions() -> None:
    given = os.urandom(20_000_000)  # more than any buffer holds
    async with echoing() as found:
        reader, writer = await connect(found)
        writer.write(given)
        writer.write_eof()  # the answer comes all the same
        assert await asyncio.wait_for(reader.read(-1), 20) == given
        assert found.got == given
        await close(writer)


async def test_everything_at_once_arrives_too() -> None:
    """What was sent, and ended, before the link has reached the other side."""
    async with echoing() as found:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", found.port)) as client:
                client.sendall(b"early")
                client.shutdown(socket.SHUT_WR)
                assert await asyncio.to_thread(client.recv, 16) == b"early"
                assert await asyncio.to_thread(client.recv, 16) == b""


async def test_dropped_bytes_arrive_when_healed() -> None:
    async with echoing() as found:
        reader, writer = await connect(found)
        await found.link.become("dropped")
        writer.write(b"held")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(4), HANGS)
        assert found.got == b""
        await found.link.become("open")
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"held"
        await close(writer)


async def test_dropped_end_is_not_told() -> None:
    async with echoing() as found:
        _, writer = await connect(found)
        await found.link.become("dropped")
        ends = len(found.link.ends)
        await close(writer)
        await asyncio.sleep(HANGS)
        assert len(found.link.ends) == ends
        await found.link.become("open")
        await found.ended()


async def test_new_connection_hangs_while_dropped() -> None:
    async with echoing() as found:
        await found.link.become("dropped")
        with pytest.raises(TimeoutError):
            await connect(found, HANGS)
        waiting = asyncio.create_task(connect(found, 10))
        await asyncio.sleep(HANGS)
        await found.link.become("open")
        reader, writer = await waiting  # the kernel tries again by itself
        writer.write(b"late")
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"late"
        await close(writer)


async def test_refused_link_breaks_connections() -> None:
    async with echoing() as found:
        reader, writer = await connect(found)
        await found.link.become("refused")
        with pytest.raises(ConnectionRefusedError):
            await connect(found)
        assert await asyncio.wait_for(reader.read(1), 5) == b""
        await close(writer)
        await found.link.become("dropped")
        with pytest.raises(TimeoutError):
            await connect(found, HANGS)
        await found.link.become("open")
        _, writer = await connect(found)
        await close(writer)


async def test_nobody_behind_the_link_is_an_end() -> None:
    chosen = ports.choose(("link", "server"))
    link = Link([(chosen["link"], chosen["server"])])
    await link.become("open")
    reader, writer = await asyncio.open_connection("127.0.0.1", chosen["link"])
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(1), 5) == b""
    await close(writer)
    await link.become("refused")
