"""Files that hosts have from a configuration: how they differ from it, and how they are replaced."""

from __future__ import annotations

import asyncio
import base64
import difflib
import hashlib
import io
import re
import tarfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, NamedTuple, Self, TypeVar

from activities import git, ssh
from activities.finding import HIDDEN
from activities.git import Entry, Repository, Source
from activities.ssh import HostAt
from recovery.actions import Action, Probe, Spec
from recovery.errors import Drifted, RecoveryError
from recovery.models import Wire
from runbooks.schema import Files, Host

AT_ONCE = 25
"""Hosts that are asked at a time by one activity."""
MOST_FILES = 500
"""That one host may get from one rollback."""
SHOWN = 4000
"""Characters of a hand-made change that are shown, of each file; at most of so many files."""
SHOWN_FILES = 5
PATH = re.compile(r"[^\x00-\x1f\x7f\\-][^\x00-\x1f\x7f\\]*")
KINDS = {
    "odd": "is a link or no file; replaced, it would be one: see to it by hand",
    "unreadable": "cannot be read by the login",
    "shut": "is read-only for the login; allow it to be written, or see why it is not",
    "foreign": "belongs to another user, and would not any more; use the login of that user, or of root",
}

T = TypeVar("T")


class FilesAt(Wire):
    """A host that has files: by which name it is told, where they are, and what has them read again."""

    name: str
    host: HostAt
    folder: str = ""
    to: str
    reload: str = ""
    health: str = ""

    @classmethod
    def of(cls, name: str, files: Files, host: str, known: Host) -> Self:
        """Return one host of a group of the estate."""
        at = HostAt.model_validate(known.model_dump() | {"name": host})
        return cls(
            name=f"{name}@{host}", host=at, folder=files.folder, to=files.to, reload=files.reload or "",
            health=files.health or "",
        )  # fmt: skip

    def keep(self, run: str) -> str:
        """Return where on the host is kept what there was before a recovery."""
        return f"{self.host.jobs}/.configurations/{self.name}-{run}"


class Put(Wire):
    """A file as it is to be: the SHA-256 of its content ("" for none), and the rights of a new one.

    ``seen`` is that of what was there when people decided.
    """

    path: str
    digest: str
    seen: str = ""
    executable: bool = False


class FilesCompared(Wire):
    """What a host has: ``changes`` make it have the good revision, ``drift`` is what was changed there by hand.

    ``owner`` is whose a new file will be.
    """

    target: str
    changes: tuple[Put, ...] = ()
    drift: tuple[str, ...] = ()
    shown: str = ""
    owner: str = ""
    faults: tuple[str, ...] = ()


class HostsCompared(Wire):
    """The same of each host of a group."""

    hosts: tuple[FilesCompared, ...] = ()


class CompareFiles(Spec):
    """Compare hosts with what they should have now (``head``), and with what they are to have (``good``)."""

    targets: tuple[FilesAt, ...]
    repository: Repository
    head: str
    good: str
    run: str
    secret: tuple[str, ...] = ()


class FilesLook(Probe[CompareFiles, HostsCompared]):
    """Ask each host; what is wrong with one is told, so that all of it is known at once."""

    name = "files.compare"
    limit = timedelta(minutes=5)
    patience = timedelta(minutes=6)

    def title(self, spec: CompareFiles) -> str:
        """Say what is compared."""
        return f"compare {names(spec.targets)} with its repository"

    async def observe(self, spec: CompareFiles) -> HostsCompared:
        """Look at every file of both revisions."""
        await git.have(spec.repository, spec.good)
        folders = {folder: await _revisions(spec, folder) for folder in {one.folder for one in spec.targets}}

        async def one(target: FilesAt) -> FilesCompared:
            revisions = folders[target.folder]
            if revisions.faults:
                return FilesCompared(target=target.name, faults=revisions.faults)
            try:
                found = compared(target, await _seen(target, revisions.paths, spec.run), revisions)
                return found.model_copy(update={"shown": await _by_hand(spec, target, found.drift)})
            except RecoveryError as error:
                return FilesCompared(target=target.name, faults=(f"{target.name}: {error.message}",))

        return HostsCompared(hosts=tuple(await bounded(spec.targets, one)))


compare_files = FilesLook()


class Row(Wire):
    """A file on a host: ``kind`` ("file", "none", or what keeps it from being replaced), digest and rights."""

    kind: str
    digest: str = ""
    rights: str = ""


class Seen(Wire):
    """What a host told."""

    files: dict[str, Row] = {}
    owner: str = ""
    pending: bool = False


def unfit(good: Mapping[str, Entry]) -> list[str]:
    """Return what is in a revision, and cannot be put on a host; pure."""
    wrong = [f"folder: {path} in the good revision is a link or a submodule, not a file" for path, one in good.items()
             if not one.mode.startswith("100")]  # fmt: skip
    wrong += [f"folder: {path!r} in the good revision has a name that no host takes" for path in good
              if not PATH.fullmatch(path)]  # fmt: skip
    if len(good) > MOST_FILES:
        wrong.append(f"folder: has {len(good)} files in the good revision, more than {MOST_FILES}; name a smaller one")
    return wrong[:10] if good else ["folder: the good revision has no files there; name the right one in the estate"]


def sums(contents: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}


class Revisions(NamedTuple):
    """A folder in both revisions: the SHA-256 of each file ``wanted``, and of each that should be there ``now``."""

    wanted: Mapping[str, str] = {}
    now: Mapping[str, str] = {}
    executable: frozenset[str] = frozenset()
    faults: tuple[str, ...] = ()

    @property
    def paths(self) -> list[str]:
        """Every file of either."""
        return sorted({*self.wanted, *self.now})


async def _revisions(spec: CompareFiles, folder: str) -> Revisions:
    head, good = (
        Source(repository=spec.repository, revision=revision, folder=folder) for revision in (spec.head, spec.good)
    )
    listed = await git.listing(good)
    if wrong := unfit(listed):
        return Revisions(faults=tuple(wrong))
    executable = frozenset(path for path, one in listed.items() if one.mode == "100755")
    return Revisions(sums(await git.contents(good)), sums(await git.contents(head)), executable)


def compared(target: FilesAt, seen: Seen, revisions: Revisions) -> FilesCompared:
    """Return how a host differs from what it is to have, and from what it should have now; pure."""
    wanted, now, paths = revisions.wanted, revisions.now, revisions.paths
    rows = {path: seen.files.get(path, Row(kind="none")) for path in paths}
    changes = [path for path in paths if rows[path].digest != wanted.get(path, "")]
    faults = [f"{target.name}: {target.to}/{path} {KINDS[rows[path].kind]}" for path in changes
              if rows[path].kind in KINDS]  # fmt: skip
    return FilesCompared(
        target=target.name, owner=seen.owner, faults=tuple(faults[:20]),
        changes=tuple(
            Put(
                path=path, digest=wanted.get(path, ""), seen=rows[path].digest,
                executable=path in revisions.executable,
            ) for path in changes
        ),
        drift=tuple(
            f"{path}: {'is not there' if rows[path].kind == 'none' else 'has other content'}"
            for path in paths if rows[path].digest != now.get(path, "")
        ),
    )  # fmt: skip


class PutFiles(Spec):
    """Have ``files`` on a host as they are in ``source``; ``owner`` is whose a new one is.

    ``tolerant`` says that what reads them was not well before: going back it need not reload.
    """

    target: FilesAt
    source: Source
    files: tuple[Put, ...]
    owner: str
    run: str
    tolerant: bool = False


class Placed(Wire):
    """The files of a host that a rollback is about, each with digest and rights ("" for none), and whether all is done.

    ``pending`` is what was begun and has not come to its end: a file may be replaced and not yet read again.
    """

    files: dict[str, str] = {}
    pending: bool = False


class PlacesFiles(Action[PutFiles, Placed]):
    """Replace files on one host, each whole or not at all, and have them read again; what was there is kept."""

    name = "files.put"
    beat = timedelta(seconds=2)  # many at a time on a small worker: each is slower, and none is lost
    limit = timedelta(minutes=2)
    look_limit: ClassVar[timedelta] = timedelta(seconds=30)
    look_patience: ClassVar[timedelta] = timedelta(seconds=20)
    expires: ClassVar[timedelta] = timedelta(minutes=1)
    skip: ClassVar[str] = "this host keeps what it has, whatever that is"

    def title(self, spec: PutFiles) -> str:
        """Say what is put where."""
        return f"put {spec.source.revision[:12]} on {spec.target.name}"

    async def observe(self, spec: PutFiles) -> Placed:
        """Look at these files."""
        return placed(await _seen(spec.target, [one.path for one in spec.files], spec.run))

    def desired(self, spec: PutFiles, before: Placed) -> Placed:
        """Want the content of the revision; what is there already keeps owner and rights."""
        return Placed(files={one.path: _wanted(one, before.files.get(one.path, ""), spec.owner) for one in spec.files})

    def partial(self, spec: PutFiles, before: Placed, now: Placed) -> bool:
        """Know one that was begun, with each file as it was or as it is to be."""
        ends = [before.files, self.desired(spec, before).files]
        return now.pending and all(row in [end.get(path) for end in ends] for path, row in now.files.items())

    async def apply(self, spec: PutFiles, before: Placed) -> None:
        """Send them, and have them put there, unless one was changed since people decided."""
        now = {path: row.partition(" ")[0] for path, row in before.files.items()}
        if others := [one.path for one in spec.files if now.get(one.path) not in (one.seen, one.digest)]:
            names = ", ".join(others[:5])
            raise Drifted(f"{spec.target.name}: somebody else has changed {names} since; nothing was overwritten")
        content = await git.contents(spec.source)
        archive = await asyncio.to_thread(packed, {one.path: content[one.path] for one in spec.files if one.digest})
        await self._run(spec, before, self.desired(spec, before), archive)

    async def undo(self, spec: PutFiles, before: Placed) -> None:
        """Put there what was kept."""
        async with self.ending(spec):
            await self._run(spec, self.desired(spec, before), before, "", back=True)

    async def halt(self, spec: PutFiles) -> None:
        """End the job, and remove its traces."""
        await ssh.end_job(spec.target.host, self.job(spec))

    async def tidied(self, spec: PutFiles) -> Placed:
        """Do both in one command: there may be hundreds of hosts."""
        values = _looks(spec.target, [one.path for one in spec.files], spec.run)
        values |= ssh.ending(spec.target.host, self.job(spec))
        return placed(seen(await ssh.look(spec.target.host, "files_after", values)))

    def job(self, spec: PutFiles) -> str:
        """Return the name of its job on the host."""
        return f"{spec.target.name}-{spec.run}.put"

    async def _run(self, spec: PutFiles, here: Placed, there: Placed, archive: str, *, back: bool = False) -> None:
        values = {
            "to": spec.target.to, "keep": spec.target.keep(spec.run), "before": _rows(here),
            "wanted": _changes(here, there),
            "archive": archive, "reload": spec.target.reload, "back": "yes" if back else "no",
            "tolerant": "yes" if back and spec.tolerant else "no",
        }  # fmt: skip
        await ssh.job(spec.target.host, self.job(spec), "files_put", values)


put_files = PlacesFiles()


def _wanted(one: Put, before: str, owner: str) -> str:
    if not one.digest:
        return ""
    rights = before.partition(" ")[2] or f"{'755' if one.executable else '644'} {owner}"
    return f"{one.digest} {rights}"


def _rows(placed: Placed) -> str:
    """Return the files as the script reads them: digest, mode, owner, path, none of them empty."""
    return "".join("\t".join([*_row(row), path]) + "\n" for path, row in placed.files.items())


def _changes(here: Placed, there: Placed) -> str:
    """Return the same of the files as they are to be, each with the digest that it has before the path."""
    return "".join(
        "\t".join([*_row(row), _row(here.files.get(path, ""))[0], path]) + "\n" for path, row in there.files.items()
    )


def _row(row: str) -> list[str]:
    return row.split(" ") if row else ["-", "-", "-"]


def packed(contents: Mapping[str, bytes]) -> str:
    """Return files as a tar archive in base64."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in contents.items():
            about = tarfile.TarInfo(path)
            about.size, about.mode = len(content), 0o600
            archive.addfile(about, io.BytesIO(content))
    return base64.b64encode(buffer.getvalue()).decode()


def names(targets: Sequence[FilesAt]) -> str:
    """Return the targets as people call them."""
    shown = ", ".join(one.name for one in targets[:3])
    return f"{shown} and {len(targets) - 3} more" if len(targets) > 3 else shown


async def bounded(items: Iterable[FilesAt], work: Callable[[FilesAt], Awaitable[T]]) -> list[T]:
    """Do ``work`` for each, so many at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(item: FilesAt) -> T:
        async with turns:
            return await work(item)

    return await asyncio.gather(*map(one, items))


async def _seen(target: FilesAt, paths: Sequence[str], run: str) -> Seen:
    return seen(await ssh.look(target.host, "files_seen", _looks(target, paths, run)))


def _looks(target: FilesAt, paths: Sequence[str], run: str) -> dict[str, object]:
    return {"to": target.to, "keep": target.keep(run), "paths": "".join(f"{path}\n" for path in paths)}


def placed(found: Seen) -> Placed:
    """Return what a host told, as an action compares it; pure."""
    rows = {path: f"{row.digest} {row.rights}".strip() for path, row in found.files.items()}
    return Placed(files=rows, pending=found.pending)


def seen(text: str) -> Seen:
    """Return what the script ``files_seen`` printed; pure."""
    rows: dict[str, Row] = {}
    owner, pending = "", False
    for line in text.splitlines():
        match line.split("\t"):
            case ["new", owner]:
                pass
            case ["pending"]:
                pending = True
            case ["kind", kind, path]:
                rows[path] = Row(kind=kind)
            case ["stat", letters, mode, who, path]:
                shut = rows[path].kind == "file" and "w" not in letters  # root could all the same: somebody means it
                kind = "shut" if shut else rows[path].kind
                rows[path] = Row(kind=kind, rights=f"{mode} {who}")
            case [line]:
                digest, _, path = line.partition("  ")
                rows[path] = rows[path].model_copy(update={"digest": digest})
    return Seen(files=rows, owner=owner, pending=pending)


async def _by_hand(spec: CompareFiles, target: FilesAt, drift: Sequence[str]) -> str:
    """Return what was changed by hand, as differences from the repository; of a secret file only that it was."""
    paths = [line.partition(": ")[0] for line in drift if line.endswith("has other content")]
    open_ones = [path for path in paths if not git.matches(path, target.folder, spec.secret)][:SHOWN_FILES]
    if not open_ones:
        return ""
    head = await git.contents(Source(repository=spec.repository, revision=spec.head, folder=target.folder))
    parts = []
    for path in open_ones:
        live = await ssh.look(target.host, "file_read", {"path_of": f"{target.to}/{path}", "most": SHOWN})
        was = head.get(path, b"").decode(errors="replace").splitlines()
        there = f"{path} on {target.name}"
        lines = difflib.unified_diff(was, live.splitlines(), f"{path} in the repository", there, lineterm="", n=1)
        parts.append(HIDDEN.sub(r"\1(not shown)", "\n".join(lines))[:SHOWN])
    return "\n".join(parts)
