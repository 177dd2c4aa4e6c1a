"""The SSH server of a lab host: `python -m lab.sshd ROOT PORT`. Commands only: no files, no forwarding."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import asyncssh

from lab.place import Place, Runner, environment, runner


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


async def execute(place: Place, who: Runner, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run one command in a session of its own, as sshd does, and pass on its output and its end.

    A client that goes away closes the pipes and nothing else: what must outlive a connection can.
    """
    if process.command is None:
        process.stderr.write(b"this host takes commands only\n")
        process.exit(1)
        return
    (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = os.pipe(), os.pipe(), os.pipe()
    # fmt: off
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", process.command, stdin=stdin, stdout=stdout, stderr=stderr,
        cwd=place.home, env=environment(place), start_new_session=True, **who.drop())
    # fmt: on
    for handle in (stdin, stdout, stderr):
        os.close(handle)
    process.set_redirect_pid(-child.pid)  # a signal from the client goes to the whole group
    # send_eof=False: the channel has one end for both outputs, and stdout must not close it for stderr.
    await process.redirect(to_stdin, from_stdout, from_stderr, bufsize=0, send_eof=False)
    await asyncio.gather(process.stdout.drain(), process.stderr.drain(), return_exceptions=True)
    code = await child.wait()
    process.set_redirect_pid(None)
    if code < 0:
        process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
    else:
        process.exit(code)


async def serve(place: Place, port: int) -> None:
    """Serve until killed. Raises OSError when the port is taken."""
    who = runner()

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        await execute(place, who, process)

    # fmt: off
    await asyncssh.listen(
        "127.0.0.1", port, server_factory=lambda: Door(place, who), process_factory=handle, encoding=None,
        server_host_keys=[str(place.ssh / "host_key")], public_key_auth=True, password_auth=False,
        kbdint_auth=False, gss_host=None, agent_forwarding=False, x11_forwarding=False, allow_pty=False,
        allow_scp=False, sftp_factory=None, keepalive_interval=30, login_timeout=20)
    # fmt: on
    await asyncio.Event().wait()


if __name__ == "__main__":
    os.chdir("/")
    # Dies by SIGTERM without clean-up, on purpose: asyncio would kill the commands that still run.
    asyncio.run(serve(Place(Path(sys.argv[1])), int(sys.argv[2])))
