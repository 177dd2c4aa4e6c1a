"""The cut-over of a PostgreSQL database: fence the running one, promote the side copy, put it in its place."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import ClassVar, Literal, TypeVar

from activities import ssh
from activities.postgres import CopySpec
from activities.sources import Source
from recovery.actions import Action
from recovery.errors import Refused, Transient
from recovery.models import Wire


class CutSpec(CopySpec):
    """A side copy and the running database whose place it takes.

    ``fenced`` is where the data directory goes, beside ``data``; ``identity`` (device:inode) tells the running one
    from any other wherever it lies. ``rule`` lets this login in over the socket (method and options of pg_hba.conf),
    ``rules`` is the SHA-256 of the running database's pg_hba.conf. ``source`` is who keeps its backups and log; of
    PostgreSQL's own tools these are in the folders ``backups`` and ``archive``.
    """

    data: str
    archive: str
    backups: str
    sockets: str
    port: int
    fenced: str
    identity: str
    rule: str
    rules: str
    source: Source = Source()

    @property
    def guard(self) -> str:
        """The pg_hba.conf that lets nobody in but this login, over the socket."""
        role, database = (f'"{name}"' for name in (self.dbuser, self.dbname))
        return (
            f"# A recovery ({self.owner}) refuses clients.\n"
            f"# The rules that belong here: {self.copy_dir}/kept/pg_hba.conf\n"
            f"local {database} {role} {self.rule}\n"
        )

    @property
    def shut(self) -> str:
        """The SHA-256 of the guard."""
        return hashlib.sha256(self.guard.encode()).hexdigest()

    def values(self) -> dict[str, object]:
        """Return the shell variables that every script about a cut-over takes."""
        return super().values() | self.source.values() | {
            "data": self.data, "archive": self.archive, "backups": self.backups, "sockets": self.sockets,
            "port": self.port, "fenced": self.fenced, "identity": self.identity, "guard": self.guard, "shut": self.shut,
            "rules": self.rules,
        }  # fmt: skip


S = TypeVar("S", bound=CutSpec)
T = TypeVar("T", bound=Wire)
Seen = dict[str, set[str]]
"""What was seen: the words that were told of each subject."""


async def look(spec: CutSpec, asked: str = "") -> Seen:
    """Look at everything that a cut-over moves, into the archive, too, if that is ``asked`` for; one command."""
    return seen(await ssh.look(spec.host, "cut_state", spec.values() | {"asked": asked}))


def seen(text: str) -> Seen:
    """Return what the script ``cut_state`` printed."""
    found: Seen = {}
    for subject, _, word in (line.partition("\t") for line in text.splitlines()):
        found.setdefault(subject, set()).add(word)
    return found


def only(found: Seen, subject: str) -> str:
    """Return the one word that was told of ``subject``, "" if none was."""
    return next(iter(found.get(subject, ())), "")


class CutAction(Action[S, T]):
    """An action whose apply and undo are one named job each, called ``what``, that runs a script on the host."""

    name = ""
    limit = timedelta(hours=1)
    does: ClassVar[str]
    undoes: ClassVar[str] = ""

    async def apply(self, spec: S, before: T) -> None:
        """Run the script that does it."""
        await self._run(spec, self.does, spec.values())

    async def undo(self, spec: S, before: T) -> None:
        """Run the script that takes it back."""
        await self._back(spec, spec.values())

    async def _back(self, spec: S, values: dict[str, object]) -> None:
        async with self.ending(spec):
            await self._run(spec, self.undoes, values)

    async def halt(self, spec: S) -> None:
        """End the job, and remove its traces; a server that it started stays."""
        await ssh.end_job(spec.host, self._job(spec))

    async def _run(self, spec: S, script: str, values: dict[str, object]) -> None:
        await ssh.job(spec.host, self._job(spec), script, values)

    def _job(self, spec: S) -> str:
        return spec.job(self.name.removeprefix("postgres."))


class Fenced(Wire):
    """Where the running database's data is, whether anything serves it, and whether anything listens at its address.

    "leaving" is one at home whose fencing, or its undo, was begun and not ended.
    """

    at: Literal["home", "leaving", "aside", "gone"] = "gone"
    serving: bool = False
    listening: bool = False


class Fence(CutAction[CutSpec, Fenced]):
    """Stop the running database, whatever state it is in, and put its data where nobody starts it by mistake."""

    name = "postgres.fence"
    does, undoes = "fence", "unfence"
    undo_patience = timedelta(hours=2)  # a server that was killed recovers from that first

    def title(self, spec: CutSpec) -> str:
        """Say what is fenced."""
        return f"fence the running {spec.system}"

    async def observe(self, spec: CutSpec) -> Fenced:
        """Look where it is, who works in it, and who listens."""
        return fenced(await look(spec))

    def desired(self, spec: CutSpec, before: Fenced) -> Fenced:
        """Want it stopped, aside, and a write refused."""
        return Fenced(at="aside")

    def partial(self, spec: CutSpec, before: Fenced, now: Fenced) -> bool:
        """Know one that stops, is moved, or comes up again."""
        return now.at in ("leaving", "aside") and before.at == "home"

    async def undo(self, spec: CutSpec, before: Fenced) -> None:
        """Put it back; started only if it served."""
        await self._back(spec, spec.values() | {"served": "yes" if before.serving else "no"})


def fenced(found: Seen) -> Fenced:
    """Return what was seen of the running database."""
    running = found.get("running", set())
    at = "aside" if "aside" in found else "gone"
    if only(found, "home") == "running":
        at = "leaving" if "leaves" in running else "home"
    return Fenced.model_validate({"at": at, "serving": "serves" in running, "listening": "listening" in found})


fence = Fence()


class Promoted(Wire):
    """What the copy is, whether anybody else may come in, and on which timeline it writes (0 for a standby).

    "promoting" is a primary whose timeline was not noted yet, which is the end of promoting it.
    """

    role: Literal["absent", "standby", "promoting", "primary"] = "absent"
    clients: Literal["admitted", "refused"] = "admitted"
    timeline: int | None = 0


class Promote(CutAction[CutSpec, Promoted]):
    """Make the copy a database of its own, with nobody let in."""

    name = "postgres.promote"
    does = "promote_copy"
    kept: ClassVar[str] = "the copy is this recovery's own and is dropped as a whole"

    def title(self, spec: CutSpec) -> str:
        """Say what is promoted."""
        return f"promote the copy of {spec.system}"

    async def observe(self, spec: CutSpec) -> Promoted:
        """Look what the copy says of itself; one that runs and says nothing is asked again."""
        return promoted(await look(spec))

    def desired(self, spec: CutSpec, before: Promoted) -> Promoted:
        """Want a primary into which nobody comes; its timeline is known after."""
        return Promoted(role="primary", clients="refused", timeline=None)

    def partial(self, spec: CutSpec, before: Promoted, now: Promoted) -> bool:
        """Know one that is shut already, and one that was promoted behind the guard."""
        return now.clients == "refused" and now.role != "absent"

    async def undo(self, spec: CutSpec, before: Promoted) -> None:
        """Refuse: there is no way back, and none is needed."""
        raise Refused(self.kept)


def promoted(found: Seen) -> Promoted:
    """Return what was seen of the copy. Raises Transient if it runs and did not answer."""
    if "role" not in found:
        return Promoted()
    role, _, timeline = only(found, "role").partition(" ")
    if not role:
        raise Transient("the copy runs and does not answer")
    clients = "refused" if "shut" in found.get("copy", ()) else "admitted"
    return Promoted.model_validate({"role": role, "clients": clients, "timeline": int(timeline or 0)})


promote = Promote()


class Installed(Wire):
    """Where the copy's data is, and whether its server runs.

    "barred" is one in whose way something else stands, "moving" one whose move was begun and not ended.
    """

    at: Literal["absent", "copy", "moving", "home", "barred"] = "absent"
    serving: bool = False


class Install(CutAction[CutSpec, Installed]):
    """Put the copy in the place of the running database: its folder, configuration and addresses."""

    name = "postgres.install"
    does, undoes = "install_copy", "uninstall_copy"
    undo_patience = timedelta(hours=2)  # a copy that was killed recovers from that first

    def title(self, spec: CutSpec) -> str:
        """Say what takes whose place."""
        return f"put the copy in the place of {spec.system}"

    async def observe(self, spec: CutSpec) -> Installed:
        """Look where the copy is."""
        return installed(await look(spec))

    def desired(self, spec: CutSpec, before: Installed) -> Installed:
        """Want it at home, running; who is let in is another step's."""
        return Installed(at="home", serving=True)

    def partial(self, spec: CutSpec, before: Installed, now: Installed) -> bool:
        """Know one on its way, one in its place whatever has become of its server, and one that died beside it."""
        return before.at == "copy" and (now.at in ("moving", "home") or now == Installed(at="copy"))

    def begun(self, spec: CutSpec, before: Installed, now: Installed) -> bool:
        """Know it by the move alone: a copy may have died before anybody moved it."""
        return before.at == "copy" and now.at in ("moving", "home")

    async def undo(self, spec: CutSpec, before: Installed) -> None:
        """Put it back beside that place; started only if it served there."""
        await self._back(spec, spec.values() | {"copyserved": "yes" if before.serving else "no"})


def installed(found: Seen) -> Installed:
    """Return what was seen of the copy's place."""
    home, copy = only(found, "home"), found.get("copy", set())
    at = "absent"
    if home == "copy":
        at = "moving" if "moves" in copy else "home"
    elif "there" in copy:
        at = "barred" if home != "nothing" else "moving" if "moves" in copy else "copy"
    return Installed.model_validate({"at": at, "serving": "serves" in copy})


install = Install()
