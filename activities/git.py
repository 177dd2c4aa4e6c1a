"""Git: repositories that hold a configuration, read through a mirror beside the worker and changed by compare-and-swap.

Everything is done by the ``git`` of the worker. What a mirror holds is only ever fetched: it may be thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import fnmatch
import hashlib
import os
import re
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from recovery.errors import Fatal, Invalid, RecoveryError, Refused, Transient
from recovery.models import Wire
from recovery.settings import Settings
from runbooks.schema import Configuration

SECONDS = 60.0
"""How long one command of Git may take; a server that hangs is told by it."""
MOST_BYTES = 16 * 2**20
"""Of the contents of one folder, all files together."""
KEPT = 8
"""Of how many folders the contents are kept in memory: hundreds of hosts have the same."""
_ALWAYS = (
    "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.quotePath=false",
    "-c", "commit.gpgSign=false", "-c", "core.logAllRefUpdates=false",
)  # fmt: skip
_WHO = {"GIT_AUTHOR_NAME": "recovery", "GIT_COMMITTER_NAME": "recovery"}
_WHO |= {"GIT_AUTHOR_EMAIL": "recovery@localhost", "GIT_COMMITTER_EMAIL": "recovery@localhost"}
_SAYS: tuple[tuple[str, type[RecoveryError], str], ...] = (
    (r"host key verification failed", Refused, "the server's key is not the one in known_hosts; find out why"),
    (r"permission denied|authentication failed|could not read (username|password)|403|401",
     Refused, "the login was refused; check the key, and what it may do there"),
    (r"couldn't find remote ref", Invalid, "has no such branch; name one that is there"),
    (r"does not appear to be a git repository|not found|does not exist", Invalid,
     "is no Git repository; name one in the estate"),
    (r"dubious ownership", Refused, "belongs to another user of this machine; give it to the worker's"),
    (r"checked out", Refused, "has the branch checked out, and takes no push to it; name a bare repository"),
    (r"hook declined|protected branch|gh0\d\d", Refused, "its rules refuse the push; see what they ask for"),
    (r"could not resolve|connection|timed out|unable to access|could not read from remote|hung up|early eof",
     Transient, "cannot be reached"),
    (r"no space left|disk quota", Transient, "cannot be fetched: the disk is full"),
)  # fmt: skip


class Repository(Wire):
    """Where a configuration lives; ``path`` is the folder in it that is this configuration, "" for all of it."""

    url: str
    branch: str = "main"
    path: str = ""
    key: str = ""
    known_hosts: str = ""
    deployments: str = "refs/notes/deployments"

    @classmethod
    def of(cls, found: Configuration) -> Self:
        """Return the repository of a configuration of the estate."""
        return cls(
            url=found.repository, branch=found.branch, path=found.path, key=found.key or "",
            known_hosts=found.known_hosts or "", deployments=found.deployments,
        )  # fmt: skip


class Source(Wire):
    """A ``folder`` of a configuration, as it was in ``revision`` (the whole id of a commit)."""

    repository: Repository
    revision: str
    folder: str = ""

    @property
    def path(self) -> str:
        """The folder from the root of the repository."""
        return "/".join(part for part in (self.repository.path, self.folder) if part)


class Entry(NamedTuple):
    """A file in a revision: its rights as Git knows them ("100644", "100755"; "120000" is a link), and its content."""

    mode: str
    blob: str


class Moved(Exception):
    """Somebody has pushed meanwhile, or holds what would be written."""


class Said(NamedTuple):
    """How a command of Git ended."""

    status: int
    out: bytes
    err: str


async def refresh(repository: Repository) -> str:
    """Fetch branch, tags and notes, and return the branch's newest commit. Raises Transient, Refused or Invalid."""
    async with _alone(repository):
        branch = f"refs/heads/{repository.branch}"
        wanted = [f"+{branch}:{branch}", "+refs/tags/*:refs/tags/*", "+refs/notes/*:refs/notes/*"]
        await run(repository, "fetch", "--quiet", "--prune", "--no-tags", "--force", repository.url, *wanted)
        return await head(repository)


async def head(repository: Repository) -> str:
    """Return the newest commit of the branch, as it was last fetched."""
    found = await text(repository, "rev-parse", "--verify", f"refs/heads/{repository.branch}^{{commit}}")
    return found.strip()


async def tree(repository: Repository, revision: str) -> str:
    """Return the tree of the configuration in a revision, "" where it has none."""
    found = await _said(repository, ("rev-parse", "--verify", "--quiet", f"{revision}:{repository.path}"))
    return found.out.decode().strip() if found.status == 0 else ""


async def listing(source: Source) -> dict[str, Entry]:
    """Return every file below the folder, by its path from there; none where the revision has no such folder."""
    where = f"{source.revision}:{source.path}"
    found = await _said(source.repository, ("ls-tree", "-r", "-z", where))
    if found.status:
        return {}
    entries = {}
    for line in found.out.decode(errors="surrogateescape").split("\0")[:-1]:
        about, _, path = line.partition("\t")
        mode, _, blob = about.split(" ")
        entries[path] = Entry(mode, blob)
    return entries


_contents: dict[tuple[asyncio.AbstractEventLoop, Source], asyncio.Task[dict[str, bytes]]] = {}


async def contents(source: Source) -> dict[str, bytes]:
    """Return the content of every file below the folder, by its path from there.

    Read once for all who ask for it. Raises Invalid where there is more than a configuration has.
    """
    key = (asyncio.get_running_loop(), source)
    task = _contents.get(key)
    if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
        while len(_contents) >= KEPT:
            _contents.pop(next(iter(_contents)))
        task = _contents[key] = asyncio.create_task(_read(source))
    return await asyncio.shield(task)


async def _read(source: Source) -> dict[str, bytes]:
    await have(source.repository, source.revision)
    entries = {path: one for path, one in (await listing(source)).items() if one.mode.startswith("100")}
    blobs = sorted({one.blob for one in entries.values()})
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    sizes = (await run(source.repository, "cat-file", "--batch-check=%(objectsize)", stdin=asked)).split()
    if sum(map(int, sizes)) > MOST_BYTES:
        raise Invalid(
            f"folder: {source.path or 'the repository'} holds more than {MOST_BYTES} bytes; name a smaller one"
        )
    found = dict(zip(blobs, await blobs_of(source.repository, blobs), strict=True))
    return {path: found[one.blob] for path, one in entries.items()}


async def blobs_of(repository: Repository, names: Sequence[str]) -> list[bytes]:
    """Return the content of each object, with one command for all of them."""
    if not names:
        return []
    asked = "".join(f"{name}\n" for name in names).encode()
    out, found, at = await run(repository, "cat-file", "--batch", stdin=asked), [], 0
    for _ in names:
        start = out.index(b"\n", at) + 1
        size = int(out[at : start - 1].rsplit(b" ", 1)[1])
        found.append(out[start : start + size])
        at = start + size + 1
    return found


def matches(path: str, folder: str, patterns: Sequence[str]) -> bool:
    """Tell whether a file, by its path below ``folder``, is one of those that are not shown."""
    whole = f"{folder}/{path}" if folder else path
    return any(fnmatch.fnmatchcase(whole, pattern.replace("**", "*")) for pattern in patterns)


async def have(repository: Repository, revision: str) -> None:
    """Fetch, unless this worker has the revision: another one may have looked at the repository."""
    if (await _said(repository, ("cat-file", "-e", f"{revision}^{{commit}}"))).status:
        await refresh(repository)


async def push(repository: Repository, ref: str, expected: str, commit: str) -> None:
    """Have ``ref`` of the repository point at ``commit``, if it points at ``expected`` ("": if there is none).

    Raises Moved where it does not, and where nobody knows: then it has to be looked at again.
    """
    words = ("push", "--porcelain", f"--force-with-lease={ref}:{expected}", repository.url, f"{commit}:{ref}")
    said = await _said(repository, words)
    if said.status == 0:
        return
    told = f"{said.err}\n{said.out.decode(errors='replace')}"
    if re.search(
        r"stale info|fetch first|non-fast-forward|cannot lock ref|failed to update ref|remote rejected.*lock", told
    ):
        raise Moved
    raise _failure(repository, Said(said.status, said.out, told))


async def pushable(repository: Repository) -> None:
    """See that a push would be taken as far as that can be seen without one. Raises what stands in its way."""
    words = ("push", "--dry-run", "--porcelain", repository.url, f"refs/heads/{repository.branch}")
    if (said := await _said(repository, words)).status:
        raise _failure(repository, said)
    if not repository.url.startswith("/"):
        return
    bare = await _said(repository, ("-C", repository.url, "rev-parse", "--is-bare-repository"), there=True)
    if bare.out.strip() == b"true":
        return
    now = (await _said(repository, ("-C", repository.url, "symbolic-ref", "--quiet", "HEAD"), there=True)).out
    if now.decode().strip() != f"refs/heads/{repository.branch}":
        return
    dirty = (await _said(repository, ("-C", repository.url, "status", "--porcelain"), there=True)).out.decode()
    if dirty.strip():
        names = ", ".join(line[3:] for line in dirty.splitlines()[:5])
        raise Refused(f"repository: its working copy has changes that are not committed: {names}; commit or undo them")
    taken = await _said(repository, ("-C", repository.url, "config", "receive.denyCurrentBranch"), there=True)
    if taken.out.strip() != b"updateInstead":
        raise Refused(
            f"repository: has {repository.branch} checked out, and takes no push to it; name a bare repository, or set"
            " receive.denyCurrentBranch=updateInstead there"
        )


async def planted(repository: Repository, parent: str, wanted: str, message: str, at: int) -> str:
    """Return a new commit on ``parent`` in which the configuration has the tree ``wanted``, and all else stays.

    The same commit whoever makes it again; ``at`` is its time, in seconds since 1970.
    """
    whole = wanted if not repository.path else await _with(repository, parent, wanted)
    when = {"GIT_AUTHOR_DATE": f"{at} +0000", "GIT_COMMITTER_DATE": f"{at} +0000"}
    words = ("commit-tree", whole, "-p", parent, "-F", "-")
    return (await run(repository, *words, stdin=message.encode(), extra=_WHO | when)).decode().strip()


async def _with(repository: Repository, parent: str, wanted: str) -> str:
    """Return the tree of ``parent`` with that of the configuration replaced."""
    with tempfile.TemporaryDirectory(prefix="index-", dir=_mirror(repository)) as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        await run(repository, "read-tree", parent, extra=index)
        await run(repository, "rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--", repository.path, extra=index)
        if wanted:
            await run(repository, "read-tree", f"--prefix={repository.path}/", wanted, extra=index)
        return (await run(repository, "write-tree", extra=index)).decode().strip()


async def note(repository: Repository, commit: str) -> str:
    """Return the note of deployments on a commit, "" where there is none."""
    said = await _said(repository, ("notes", f"--ref={repository.deployments}", "show", commit))
    return said.out.decode(errors="replace") if said.status == 0 else ""


async def noted(repository: Repository, commit: str, line: str) -> tuple[str, str]:
    """Return the notes as they are ("": none) and a commit of them with one line more in the note on ``commit``."""
    ref, own = repository.deployments, f"refs/notes/adding/{secrets.token_hex(8)}"
    before = (await text(repository, "for-each-ref", "--format=%(objectname)", ref)).strip()
    try:
        if before:
            await run(repository, "update-ref", own, before)
        old = (await note(repository, commit)).rstrip("\n")
        words = ("notes", f"--ref={own}", "add", "--force", "-F", "-", commit)
        await run(repository, *words, stdin=f"{old}\n{line}\n".lstrip("\n").encode(), extra=_WHO)
        return before, (await text(repository, "rev-parse", own)).strip()
    finally:
        await _said(repository, ("update-ref", "-d", own))


async def text(repository: Repository, *words: str, stdin: bytes = b"") -> str:
    """Return what a command of Git prints."""
    return (await run(repository, *words, stdin=stdin)).decode(errors="replace")


async def run(repository: Repository, *words: str, stdin: bytes = b"", extra: Mapping[str, str] | None = None) -> bytes:
    """Run a command of Git in the mirror of a repository. Raises Transient, Refused, Invalid or Fatal."""
    said = await _said(repository, words, stdin, extra or {})
    if said.status:
        raise _failure(repository, said)
    return said.out


async def _said(
    repository: Repository,
    words: Sequence[str],
    stdin: bytes = b"",
    extra: Mapping[str, str] | None = None,
    *,
    there: bool = False,
) -> Said:
    """Run Git; ``there`` is in the folder that the words name, not in the mirror."""
    mirror = _mirror(repository)
    where = [] if there else [f"--git-dir={mirror}"]
    try:
        process = await asyncio.create_subprocess_exec(
            "git", *_ALWAYS, *where, *words, env=_environment(repository) | dict(extra or {}), cwd=mirror,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise Fatal("git: there is none on this worker's PATH; install it (Debian: git)") from None
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        raise Transient(f"{_named(repository)}: no answer within {SECONDS:g} s") from None
    finally:  # with what it has started, ssh among it: nothing of it may push once it was given up
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    return Said(process.returncode or 0, out, err.decode(errors="replace"))


def _environment(repository: Repository) -> dict[str, str]:
    ssh = "ssh -o BatchMode=yes -o ConnectTimeout=5 -o ServerAliveInterval=3 -o ServerAliveCountMax=3"
    ssh += " -o StrictHostKeyChecking=yes"
    ssh += f" -o 'UserKnownHostsFile={repository.known_hosts}'" if repository.known_hosts else ""
    ssh += f" -o IdentitiesOnly=yes -i '{repository.key}'" if repository.key else ""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return mine | {
        "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": ssh, "GIT_ALLOW_PROTOCOL": "file:ssh:https", "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
    }  # fmt: skip


def _mirror(repository: Repository) -> Path:
    name = hashlib.sha256(f"{repository.url}\n{repository.branch}".encode()).hexdigest()[:16]
    folder = Settings.from_environment().folder("git") / f"{name}.git"
    if not (folder / "HEAD").exists():  # all that Git asks of a repository
        for part in ("objects", "refs"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = folder / f"HEAD.{os.getpid()}"
        partial.write_text("ref: refs/heads/none\n")
        partial.replace(folder / "HEAD")
    return folder


_turns: dict[tuple[asyncio.AbstractEventLoop, Path], asyncio.Lock] = {}


@contextlib.asynccontextmanager
async def _alone(repository: Repository) -> AsyncIterator[None]:
    """Be the only one who fetches into a mirror; what a Git that was killed has left locked is opened."""
    mirror = _mirror(repository)
    async with _turns.setdefault((asyncio.get_running_loop(), mirror), asyncio.Lock()):
        with (mirror / "turn").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:  # another worker of this machine
                    await asyncio.sleep(0.05)
            for left in [*mirror.glob("*.lock"), *mirror.glob("refs/**/*.lock")]:
                left.unlink(missing_ok=True)
            yield


def _failure(repository: Repository, said: Said) -> RecoveryError:
    """Return what a failed command means to people; what it said is told where nobody knows better."""
    for pattern, kind, words in _SAYS:
        if re.search(pattern, said.err, re.IGNORECASE):
            return kind(f"repository: {_named(repository)}, {repository.branch}: {words}")
    last = " / ".join(line.strip() for line in said.err.strip().splitlines()[-2:])[-300:]
    return Fatal(f"repository: {_named(repository)}: git ended with {said.status}: {last or 'no output'}")


def _named(repository: Repository) -> str:
    return re.sub(r"//[^/@]*@", "//", repository.url)
