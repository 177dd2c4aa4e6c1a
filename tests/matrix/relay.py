"""A TCP relay in front of a server, whose connections a test can cut, silence, hold, or have say something else."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path


class Relay:
    """Pass bytes both ways, until told otherwise."""

    def __init__(
        self, port: int, said: Callable[[bytes], bytes] = bytes, trusting: ssl.SSLContext | None = None
    ) -> None:
        self._target, self._said, self._trusting = port, said, trusting
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.accepted = 0
        self.hushed = False
        self._refuses = False
        self._hushes_at: bytes | None = None
        self._held: bytes | None = None
        self._free = asyncio.Event()
        self.met = asyncio.Event()
        """Something is held."""

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

    def hush(self, at: bytes = b"") -> None:
        """Take connections, but pass on nothing from what has ``at`` in it on, until it may `speak`: half-open, all."""
        self._hushes_at = at

    def speak(self) -> None:
        """Pass on what comes from now on."""
        self._hushes_at, self.hushed = None, False

    def refuse(self, refuses: bool = True) -> None:
        """Reset every connection, and each new one, until told otherwise: whoever is behind it has gone."""
        self._refuses = refuses
        self.cut()

    def hold(self, word: bytes = b"") -> None:
        """Keep what is sent with that ``word`` (anything), and all after it, on any connection; none is closed."""
        self._held = word
        self._free.clear()
        self.met.clear()

    def release(self) -> None:
        """Pass on what was kept, late as that is."""
        self._held = None
        self._free.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", self._target, ssl=self._trusting)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_there}
        for source, sink, said in ((reader, to_there, self._say), (there, writer, _repeat)):
            task = asyncio.create_task(self._pass_on(source, sink, said))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _say(self, data: bytes) -> bytes:
        if self._held is not None and self._held in data:
            self.met.set()
            await self._free.wait()
        return self._said(data)

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, said: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                self.hushed = self.hushed or (self._hushes_at is not None and self._hushes_at in data)
                if self.hushed or sink in self._silent:
                    continue
                sink.write(await said(data))
                await sink.drain()
        if sink not in self._silent:
            sink.transport.abort()

    async def _end(self) -> None:
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _repeat(data: bytes) -> bytes:
    return data


@contextlib.asynccontextmanager
async def relay(
    port: int, said: Callable[[bytes], bytes] = bytes, certificate: Path | None = None
) -> AsyncIterator[Relay]:
    """Listen on a port of its own, ``.port``, in front of 127.0.0.1:``port``; ``said`` changes what is sent.

    With the server's ``certificate``, beside which its key lies, it reads what is sent over TLS.
    """
    trusting = shown = None
    if certificate is not None:
        trusting = ssl.create_default_context(cafile=str(certificate))
        shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        shown.load_cert_chain(certificate, certificate.with_suffix(".key"))
    found = Relay(port, said, trusting)
    server = await asyncio.start_server(found._serve, "127.0.0.1", 0, ssl=shown)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        try:
            yield found
        finally:
            await found._end()
