"""A TCP relay in front of a server, whose connections a test can cut, let fall silent, or have say something else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable


class Relay:
    """Pass bytes both ways, until told otherwise."""

    def __init__(self, port: int, said: Callable[[bytes], bytes] = bytes) -> None:
        self._target, self._said = port, said
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.accepted = 0
        self._refuses = False

    @property
    def open(self) -> int:
        """How many connections there are."""
        return sum(not writer.is_closing() for writer in self._writers) // 2

    def cut(self) -> None:
        """Reset every connection at once, as a firewall that was restarted does."""
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """Pass on nothing more on the present connections, and close none: half-open. New ones work."""
        self._silent |= self._writers

    def refuse(self, refuses: bool = True) -> None:
        """Reset every connection, and each new one, until told otherwise: whoever is behind it has gone."""
        self._refuses = refuses
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_there}
        for source, sink, said in ((reader, to_there, self._said), (there, writer, bytes)):
            task = asyncio.create_task(self._pass_on(source, sink, said))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, said: Callable[[bytes], bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if sink in self._silent:
                    continue
                sink.write(said(data))
                await sink.drain()
        if sink not in self._silent:
            sink.transport.abort()

    async def _end(self) -> None:
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def relay(port: int, said: Callable[[bytes], bytes] = bytes) -> AsyncIterator[Relay]:
    """Listen on a port of its own, ``.port``, in front of 127.0.0.1:``port``; ``said`` changes what is sent."""
    found = Relay(port, said)
    server = await asyncio.start_server(found._serve, "127.0.0.1", 0)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        try:
            yield found
        finally:
            await found._end()
