"""Hosts over SSH: kept connections, scripts that look, and named jobs that outlive a connection."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import asyncssh
from pydantic import field_validator
from temporalio import activity

from activities import scripts
from recovery import errors
from recovery.errors import Fatal, Refused, Transient
from recovery.fencing import hand, hand_file
from recovery.models import Wire
from recovery.progress import tell

CONNECT_SECONDS = 5.0
QUICK = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"
"""Ciphers asked for first: one call for each packet, where the usual first choice takes six times as long."""
AT_ONCE = 8
"""Commands over one connection: sshd lets ten be open in one (MaxSessions), and some may still come to their end."""
LOGINS = 5
"""Connections that are being opened to one host at a time: of more than ten sshd turns some away (MaxStartups)."""
LOOK_SECONDS = 25.0
SPARE = timedelta(seconds=5)
"""Of an activity's limit; in it a look that took too long is ended, and told to people."""
GRACE = 2
"""Seconds that a look has to end in order, before it is killed."""
INTERRUPTED = """trap 'trap "" TERM; sleep 0.5; kill -TERM 0; exit 130' INT"""
"""Heads a look: interrupted, not killed, psql has the server end its query; then what does not hear is ended."""
SAID = re.compile(r"^(Transient|Refused|Drifted|Stale|Fatal): (.*)", re.MULTILINE)
MOVED = re.compile(r"progress\t(\d{1,18}) (\d{1,18}) ?(.*)")
"""What a job says of its progress while somebody waits for its end: done, in all (0: not known), and a note."""
LOST = (asyncssh.DisconnectError, asyncssh.ChannelOpenError, OSError, TimeoutError)


class HostAt(Wire):
    """How to reach a host; ``known_hosts`` and ``key`` are files beside the worker, ``jobs`` a folder on the host.

    ``seen_from`` are sites from which it has another address, each with that and its port.
    """

    name: str = ""
    address: str
    port: int
    user: str
    known_hosts: str
    key: str
    jobs: str
    seen_from: tuple[tuple[str, str, int], ...] = ()

    @field_validator("seen_from", mode="before")
    @classmethod
    def _of_an_estate(cls, given: object) -> object:
        if isinstance(given, dict):
            return tuple((site, at["address"], at["port"]) for site, at in given.items())
        return given

    def seen(self) -> tuple[str, int]:
        """Return address and port as they are from the site of this worker."""
        usual = (self.address, self.port)
        return next(((address, port) for site, address, port in self.seen_from if site == _SITE), usual)


_SITE = ""


def stand_at(site: str) -> None:
    """See hosts from ``site`` from now on, "" from none in particular."""
    global _SITE
    _SITE = site


def stands() -> str:
    """Return the site from which hosts are seen, "" for none in particular."""
    return _SITE


@dataclass(eq=False)
class _Link:
    """A connection that is open, or being opened, and how many commands run over it."""

    opening: asyncio.Task[asyncssh.SSHClientConnection]
    commands: int = 0

    @property
    def lost(self) -> bool:
        """Whether nothing more goes over it."""
        found = self.opening
        return found.done() and (found.cancelled() or found.exception() is not None or found.result().is_closed())

    @property
    def open(self) -> asyncssh.SSHClientConnection | None:
        """The connection, once it is there."""
        return self.opening.result() if self.opening.done() and not self.lost else None


@dataclass(eq=False)
class _Links:
    """The connections to a host: as many as it takes, for each carries a few commands at a time."""

    kept: list[_Link] = field(default_factory=list)
    logins: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOGINS))


_links: dict[tuple[asyncio.AbstractEventLoop, HostAt], _Links] = {}


class _Slow(Exception):
    """A look took longer than it may."""


def within(limit: timedelta) -> float:
    """Return how many seconds a look may take in an activity whose attempts are limited so."""
    return (limit - SPARE).total_seconds()


async def look(host: HostAt, name: str, values: Mapping[str, object], seconds: float = LOOK_SECONDS) -> str:
    """Run the script ``name`` and return its output; it must change nothing. Tried twice on a dead connection.

    After ``seconds``, or when cancelled, it is interrupted on the host, too: another attempt must not look beside it.
    """
    body = f"{INTERRUPTED}\n{scripts.script(name, values)}"
    try:
        return await _run(host, f"exec timeout -s INT -k {GRACE} {seconds:g} sh -s", body, seconds)
    except _Slow:
        raise Transient(f"host {host.address}:{host.port}: the look took longer than {seconds:g} s") from None


async def reach(host: HostAt, seconds: float) -> None:
    """Have a host answer within so many seconds, also over a connection that is kept and may lead nowhere by now.

    Raises Transient, or Refused by the host.
    """
    try:
        async with asyncio.timeout(seconds):
            await look(host, "nothing", {}, seconds)
    except TimeoutError:
        for link in [link for link in _to(host).kept if link.open is not None]:
            _drop(host, link)
        address, port = host.seen()
        raise Transient(f"host {address}:{port}: no answer within {seconds:g} s") from None


async def job(host: HostAt, job_name: str, name: str, values: Mapping[str, object]) -> str:
    """Run the script ``name`` as the named job of this host and return its output.

    A job of this name that already runs is attached to; one that succeeded unseen is collected, one that failed is
    done again. When the recovery is cancelled the job is killed with everything that it started; when only this
    worker stops, or was given up, it goes on for the next attempt. ``end_job`` removes what a job leaves. What the job
    says of its progress meanwhile is told.
    """
    body = scripts.script(name, values).rstrip("\n")
    running = asyncio.ensure_future(_run(host, beginning(host, job_name, body), body, None))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if wanted():
            await asyncio.shield(_end(host, job_name, running))
        running.cancel()
        raise


def beginning(host: HostAt, job_name: str, body: str) -> str:
    """Return the command that takes ``body`` on standard input and begins the named job, or attaches to it.

    It is known by its environment: where the body is still on its way, there is nothing else to find it by.
    """
    check = hashlib.sha256(body.encode()).hexdigest()
    words = [f"RECOVERY_STARTS={job_name}", "sh", "-c", scripts.text("job"), "job", host.jobs, job_name, check]
    return shlex.join(["env", *words, *_hand()])


def _hand() -> tuple[str, str]:
    """Return in which file the host keeps the last hand of this lease, and the hand: a late one runs and ends no job.

    An order that was given before orders said their lease goes by its system.
    """
    now = hand()
    return hand_file(now.lease) if now.lease else now.system, f"{now.epoch} {now.order} {now.attempt}"


def wanted() -> bool:
    """Tell whether a cancel was asked for, and is not only the end of this worker or attempt."""
    details = activity.cancellation_details() if activity.in_activity() else None
    return details is not None and details.cancel_requested


async def _end(host: HostAt, job_name: str, running: asyncio.Future[str]) -> None:
    """End the job, and again until the command that starts it has ended: what is still on its way would start it."""
    while not running.done():
        await end_job(host, job_name)
        await asyncio.wait([running], timeout=0.1)
    await asyncio.gather(running, return_exceptions=True)  # however it ended
    await end_job(host, job_name)


async def end_job(host: HostAt, job_name: str) -> None:
    """Kill the named job with everything that it started, if it runs, and remove its files."""
    await look(host, "end_job", ending(host, job_name))


def ending(host: HostAt, job_name: str) -> Mapping[str, object]:
    """Return what the script that ends the named job is told."""
    lease, late = _hand()
    return {"jobs": host.jobs, "name": job_name, "lease": lease, "hand": late}


async def close() -> None:
    """Close every kept connection of this event loop."""
    loop = asyncio.get_running_loop()
    for key in [key for key in _links if key[0] is loop]:
        for link in _links.pop(key).kept:
            if link.open is not None:
                link.open.close()


async def _run(host: HostAt, command: str, stdin: str, seconds: float | None) -> str:
    for last in (False, True):
        async with _linked(host) as link:
            connection = await asyncio.shield(link.opening)
            try:
                done = await _command(connection, command, stdin, seconds)
            except LOST as error:
                _drop(host, link)
                if last:
                    raise Transient(
                        f"host {host.address}:{host.port}: the connection was lost ({_name(error)})"
                    ) from None
                continue
        if done.exit_status is None:  # the server went away before the command's end
            _drop(host, link)
            if last:
                raise Transient(f"host {host.address}:{host.port}: the connection was cut in the middle of a command")
            continue
        if done.exit_status != 0:
            raise _failure(host, str(done.stderr), done.exit_status)
        return str(done.stdout)
    raise AssertionError


async def _command(
    connection: asyncssh.SSHClientConnection, command: str, stdin: str, seconds: float | None
) -> asyncssh.SSHCompletedProcess:
    """Run ``command``; what has a limit of ``seconds`` ends itself after that. Raises _Slow if it did, or should have.

    Then the channel is closed alone: others work over the connection, and if that is dead, keepalive finds it.
    """
    opening = asyncio.ensure_future(connection.create_process(command, input=stdin, errors="replace"))
    began = asyncio.get_running_loop().time()
    try:
        process = await asyncio.shield(opening)
        async with _listening(process, seconds is None) as said:
            done = await process.wait(timeout=seconds and seconds + GRACE + 1)
    except asyncssh.TimeoutError:
        raise _Slow from None
    finally:
        # A cancel while it opens must not leave a shell on the host that waits for its input for ever.
        opening.add_done_callback(_close if seconds is None else _interrupt)
    if seconds and done.exit_status and asyncio.get_running_loop().time() - began >= seconds:
        raise _Slow
    done.stderr = "".join([*said, str(done.stderr)])
    return done


@contextlib.asynccontextmanager
async def _listening(process: asyncssh.SSHClientProcess[str], wanted: bool) -> AsyncIterator[list[str]]:
    """Tell what a job says of its progress; yields what else it has complained of and ``wait`` does not return."""
    said: list[str] = []

    async def listen() -> None:
        with contextlib.suppress(*LOST):  # whoever waits for the end finds that out
            async for line in process.stderr:
                if found := MOVED.fullmatch(line.rstrip("\n")):
                    tell(int(found[1]), int(found[2]) or None, note=found[3])
                else:
                    said.append(line)

    listening = asyncio.ensure_future(listen()) if wanted else None
    try:
        yield said
    finally:
        if listening is not None:
            listening.cancel()


def _close(opening: asyncio.Future[asyncssh.SSHClientProcess[str]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _interrupt(opening: asyncio.Future[asyncssh.SSHClientProcess[str]]) -> None:
    if not opening.cancelled() and opening.exception() is None and opening.result().returncode is None:
        with contextlib.suppress(OSError):  # the channel, or the connection, has gone
            opening.result().send_signal("INT")
    _close(opening)


def _to(host: HostAt) -> _Links:
    return _links.setdefault((asyncio.get_running_loop(), host), _Links())


@contextlib.asynccontextmanager
async def _linked(host: HostAt) -> AsyncIterator[_Link]:
    """Yield a connection that has room for another command, which may still have to be opened."""
    links = _to(host)
    links.kept[:] = [link for link in links.kept if not link.lost]
    link = next((link for link in links.kept if link.commands < AT_ONCE), None)
    if link is None:
        link = _Link(asyncio.create_task(_connect(host, links.logins)))
        links.kept.append(link)
    link.commands += 1
    try:
        yield link
    finally:
        link.commands -= 1


async def _connect(host: HostAt, logins: asyncio.Semaphore) -> asyncssh.SSHClientConnection:
    address, port = host.seen()
    where = f"host {address}:{port}"
    try:
        async with logins:
            # keepalive: a half-open connection is noticed within 3 × 3 s instead of hanging for ever.
            return await asyncssh.connect(
                address, port, username=host.user, client_keys=[host.key], known_hosts=host.known_hosts,
                config=None, agent_path=None, preferred_auth="publickey", connect_timeout=CONNECT_SECONDS,
                login_timeout=CONNECT_SECONDS, keepalive_interval=3, keepalive_count_max=3, encryption_algs=QUICK,
            )  # fmt: skip
    except asyncssh.HostKeyNotVerifiable:
        raise Refused(f"{where}: its key is not the one in known_hosts; nothing was sent. Find out why") from None
    except asyncssh.PermissionDenied:
        raise Refused(f"{where}: the login of {host.user} was refused; check the key and authorized_keys") from None
    except (asyncssh.KeyImportError, FileNotFoundError, PermissionError):
        raise Fatal(f"{where}: the key or known_hosts file beside the worker cannot be read") from None
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise Transient(f"{where}: cannot be reached ({_name(error)})") from None


def _drop(host: HostAt, link: _Link) -> None:
    with contextlib.suppress(ValueError):  # another command has dropped it already
        _to(host).kept.remove(link)
    if link.open is not None:
        link.open.abort()


def _failure(host: HostAt, stderr: str, status: int) -> errors.RecoveryError:
    if said := SAID.findall(stderr):
        kind, message = said[-1]
        failure: errors.RecoveryError = getattr(errors, kind)(f"host {host.address}:{host.port}: {message}")
        return failure
    tail = " / ".join(stderr.strip().splitlines()[-3:])[-600:]
    return Transient(f"host {host.address}:{host.port}: a command ended with {status}: {tail or 'no output'}")


def _name(error: BaseException) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__
