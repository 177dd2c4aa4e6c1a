"""The one link between the sites: `python -m lab.link ROOT LISTEN:TARGET…`. It can be cut, and healed.

Everything that one site says to the other goes through this process, each route from a port of its own. Told over
its Unix socket, it drops everything silently (`dropped`: open connections hang, new ones hang, too, and what was
sent arrives once it is `open` again), or refuses everything (`refused`: open connections break).
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal, cast, get_args

from lab.place import LabError, Place

State = Literal["open", "dropped", "refused"]
STATES: tuple[State, ...] = get_args(State)
BACKLOG = 100
FULL = 0.1  # seconds in which a connection begins on loopback, unless the queue is full
ADDRESS = "127.0.0.1"


def control(place: Place) -> Path:
    """Return the Unix socket at which the link is asked."""
    return place.run / "link.sock"


def ask(place: Place, word: State | Literal["state"]) -> State:
    """Bring the link into a state, or ask for it, and return it. Raises LabError when the link does not run."""
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(5)
            asked.connect(str(control(place)))
            asked.sendall(word.encode() + b"\n")
            answer = asked.makefile().readline().strip()
    except OSError as error:
        raise LabError(f"the link between the sites does not answer ({error}): `lab up` starts it") from error
    if answer not in STATES:
        raise LabError(f"the link between the sites: {answer or 'no answer'}")
    return answer


def state(place: Place) -> State | None:
    """Return the state of the link; None when it does not run."""
    with suppress(LabError):
        return ask(place, "state")
    return None


def wait(place: Place, seconds: float) -> None:
    """Wait until the link answers. Raises LabError when it does not within that many seconds."""
    deadline = time.monotonic() + seconds
    while state(place) is None:
        if time.monotonic() > deadline:
            raise LabError(f"no link between the sites within {seconds:g} s, see {place.logs / 'link.log'}")
        time.sleep(0.02)


class End(asyncio.Protocol):
    """One end of a connection that goes through the link; what comes in is written to the other end.

    What comes before there is another end is kept: a transport cannot be told from its very beginning not to read.
    """

    transport: asyncio.Transport
    other: "End | None" = None
    ended = False

    def __init__(self, link: "Link") -> None:
        """Say to which link it belongs."""
        self._link = link
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)
        self._link.ends.add(self)

    def join(self, other: "End") -> None:
        """Say which is the other end, and do as the link does now."""
        self.other = other
        if other.transport.is_closing():  # refused meanwhile, or gone
            self.transport.abort()
        else:
            self.transport.pause_reading()  # so that an end that came early comes again
            self.turn(self._link.state)

    def turn(self, state: State) -> None:
        """Hang, break or go on, as the link does now."""
        if state == "open":
            self.read()
        elif state == "refused":
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.pause_reading()

    def read(self) -> None:
        """Begin to read, or go on with it, if the link is open."""
        if self._link.state == "open" and self.other is not None and not self.transport.is_closing():
            early, self._early = self._early, b""
            self.other.transport.write(early)
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        if self.other is not None:
            self.other.transport.write(data)
        else:
            self._early += data

    def eof_received(self) -> bool:
        """Pass on that nothing more comes, and go on with the other direction unless that has ended, too."""
        self.ended = True
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.write_eof()
        return self.other is None or not self.other.ended

    def pause_writing(self) -> None:
        """Stop reading at the other end: this one does not keep up."""
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read again at the other end."""
        if self.other is not None:
            self.other.read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end, too."""
        self._link.ends.discard(self)
        if self.other is not None:
            self.other.transport.close()


class Route:
    """One port of the link and where it leads."""

    def __init__(self, link: "Link", port: int, target: int) -> None:
        """Say what is joined."""
        self._link, self._port, self._target = link, port, target
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._fillers: list[socket.socket] = []

    async def open(self) -> None:
        """Let in whoever comes."""
        await self._stop()
        if self._socket is None:
            self._socket = socket.socket(proto=socket.IPPROTO_TCP)  # or asyncio lets small answers wait (Nagle)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(False)
            self._socket.bind((ADDRESS, self._port))
        self._socket.listen(BACKLOG)
        self._accepting = asyncio.create_task(self._accept(self._socket))

    async def drop(self) -> None:
        """Let whoever comes hang: the kernel drops a beginning connection while too many wait to be let in."""
        if self._socket is None:
            await self.open()
        await self._stop()
        assert self._socket is not None
        self._socket.listen(0)
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            while True:
                self._fillers.append(filler := socket.socket())
                filler.setblocking(False)
                await asyncio.wait_for(loop.sock_connect(filler, (ADDRESS, self._port)), FULL)

    async def refuse(self) -> None:
        """Refuse whoever comes."""
        await self._stop()
        for held in (*self._fillers, *([self._socket] if self._socket else [])):
            held.close()
        self._fillers.clear()
        self._socket = None

    async def _stop(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, address = await loop.sock_accept(listening)
            if filler := next((filler for filler in self._fillers if filler.getsockname() == address), None):
                self._fillers.remove(filler)
                filler.close()
                accepted.close()
                continue
            _, near = await loop.connect_accepted_socket(lambda: End(self._link), accepted)
            self._link.beside(self._join(near))

    async def _join(self, near: End) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(lambda: End(self._link), ADDRESS, self._target)
        except OSError:  # nothing listens there
            near.transport.abort()
            return
        near.join(far)
        far.join(near)


class Link:
    """All routes, open or cut together."""

    def __init__(self, routes: Iterable[tuple[int, int]]) -> None:
        """Say which ports lead to which."""
        self.state: State = "open"
        self.ends: set[End] = set()
        self._routes = [Route(self, port, target) for port, target in routes]
        self._tasks: set[asyncio.Task[None]] = set()

    def beside(self, work: Coroutine[object, object, None]) -> None:
        """Let something go on for as long as it takes."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def become(self, state: State) -> None:
        """Be open, drop everything, or refuse everything."""
        self.state = state
        for end in [*self.ends]:
            end.turn(state)
        turns = {"open": Route.open, "dropped": Route.drop, "refused": Route.refuse}
        await asyncio.gather(*(turns[state](route) for route in self._routes))

    async def serve(self, path: Path) -> None:
        """Answer at a Unix socket until killed. Raises OSError when a port is taken."""
        await self.become("open")
        path.unlink(missing_ok=True)
        async with await asyncio.start_unix_server(self._answer, path):
            await asyncio.Event().wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = (await reader.readline()).decode().strip()
        if word in STATES:
            await self.become(word)
        writer.write(self.state.encode() + b"\n" if word in (*STATES, "state") else b"no such state\n")
        writer.close()


if __name__ == "__main__":
    os.chdir("/")
    pairs = [pair.split(":") for pair in sys.argv[2:]]
    asyncio.run(Link((int(port), int(target)) for port, target in pairs).serve(control(Place(Path(sys.argv[1])))))
