"""The SSH server of a lab host: `python -m lab.sshd ROOT SITE PORT`. Commands only: no files, no forwarding."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import asyncssh

from lab.place import Place, Runner, environment, runner

QUEUE = 16  # pieces of input (32 kB each) that wait for a command before its client has to wait
CHUNK = 65536  # bytes of output passed on at once
SIGNALS = {name: number for name, number in vars(signal).items() if name.startswith("SIG")}


class Door(asyncssh.SSHServer):
    """Lets in one user with one key."""

    def __init__(self, place: Place, who: Runner) -> None:
        """Say whose door this is."""
        self._place, self._who = place, who
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember the connection: its keys are chosen once the user is known."""
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        """Offer the one authorized key to the one user; everybody else has no key that fits."""
        if username == self._who.name and self._connection is not None:
            self._connection.set_authorized_keys(str(self._place.ssh / "authorized_keys"))
        return True

    def session_requested(self) -> "Command":
        """Open a session for one command."""
        return Command(self._place, self._who)


class Command(asyncssh.SSHServerSession[bytes]):
    """Run one command in a session of its own, as sshd does, and pass on its input, outputs and end.

    A client that goes away closes the pipes and nothing else: what must outlive a connection can.
    """

    # By hand, because SSHServerProcess.redirect() loses the end of large inputs: asyncio's write pipe
    # drops what it still buffers when the end of the input arrives while it resumes (CPython 3.11).

    def __init__(self, place: Place, who: Runner) -> None:
        """Say where and as whom to run."""
        self._place, self._who = place, who
        self._line = ""
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._outputs: list[asyncio.BaseTransport] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._child: asyncio.subprocess.Process | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        """Remember the channel."""
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        """Take the command; a shell or a subsystem is not offered."""
        self._line = command
        return True

    def session_started(self) -> None:
        """Start the command."""
        self._running = asyncio.create_task(self._run())

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Queue input for the command, and stop the client when it does not keep up."""
        self._input.put_nowait(data)
        if self._input.qsize() >= QUEUE:
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        """End the input; the outputs stay open."""
        self._input.put_nowait(b"")
        return True

    def signal_received(self, signal: str) -> None:
        """Pass a signal on to the command and to everything that it started in its session."""
        if self._child and self._child.returncode is None and (number := SIGNALS.get(f"SIG{signal}")):
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def pause_writing(self) -> None:
        """Stop reading outputs: the client does not keep up."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Read outputs again."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the pipes of a command whose client went away."""
        self._input.put_nowait(b"")
        self._writable.set()
        for output in self._outputs:
            output.close()

    async def _run(self) -> None:
        (stdout, to_stdout), (stderr, to_stderr) = os.pipe(), os.pipe()
        # fmt: off
        self._child = child = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", self._line, stdin=asyncio.subprocess.PIPE, stdout=to_stdout, stderr=to_stderr,
            cwd=self._place.home, env=environment(self._place), start_new_session=True, **self._who.drop())
        # fmt: on
        os.close(to_stdout)
        os.close(to_stderr)
        feeding = asyncio.create_task(self._feed(child))
        await asyncio.gather(self._pass_on(stdout, None), self._pass_on(stderr, asyncssh.EXTENDED_DATA_STDERR))
        code = await child.wait()
        feeding.cancel()
        with suppress(OSError):  # nobody is there any more to be told
            if code < 0:
                self._channel.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
            else:
                self._channel.exit(code)

    async def _feed(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdin is not None
        while data := await self._input.get():
            if self._input.qsize() < QUEUE:
                self._channel.resume_reading()
            with suppress(ConnectionError):  # the command closed its input: what else comes is dropped
                child.stdin.write(data)
                await child.stdin.drain()
        child.stdin.close()

    async def _pass_on(self, handle: int, datatype: int | None) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(handle, "rb", buffering=0)
        )
        self._outputs.append(transport)
        with suppress(OSError):  # the channel was closed meanwhile
            while data := await reader.read(CHUNK):
                await self._writable.wait()
                self._channel.write(data, datatype)
        transport.close()


async def serve(place: Place, port: int) -> None:
    """Serve until killed. Raises OSError when the port is taken."""
    who = runner()

    # fmt: off
    await asyncssh.listen(
        "127.0.0.1", port, server_factory=lambda: Door(place, who), encoding=None,
        server_host_keys=[str(place.host_key)], public_key_auth=True, password_auth=False,
        kbdint_auth=False, gss_host=None, agent_forwarding=False, x11_forwarding=False, allow_pty=False,
        allow_scp=False, sftp_factory=None, keepalive_interval=30, login_timeout=20)
    # fmt: on
    await asyncio.Event().wait()


if __name__ == "__main__":
    os.chdir("/")
    # Dies by SIGTERM without clean-up, on purpose: asyncio would kill the commands that still run.
    asyncio.run(serve(Place(Path(sys.argv[1]), sys.argv[2]), int(sys.argv[3])))
