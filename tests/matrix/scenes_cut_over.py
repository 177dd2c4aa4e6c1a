"""How each action of a cut-over is tried: on labs of its own, because it stops the running database."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psycopg

from activities.cut_over import CutAction, CutSpec, Fenced, Installed, fence, install, promote
from activities.door import Doors, close
from activities.postgres import Placed, Replayed, place, replay
from activities.redundancy import BackedUp, BackUp, base_backup
from activities.replacing import Replacing
from activities.salvage import Salvaged, SalvageSpec, salvage
from activities.side_copy import SideCopy
from activities.standing import Standing, look_at_standing
from recovery.actions import Action, Spec
from recovery.models import Wire
from tests.copies import end_jobs
from tests.matrix.scenes import CopyScene, Stage, around, digest, folder_of_another

S = TypeVar("S", bound=Spec)
C = TypeVar("C", bound=CutSpec)
T = TypeVar("T", bound=Wire)


@dataclass
class CutStage(Stage):
    """A copy that stands at its target, beside a database whose later rows it lacks."""

    standing: Standing = field(default_factory=Standing)

    async def prepare(self) -> None:
        """Lay the copy down, replay it, look at the running database."""
        self.standing = await look_at_standing.observe(self.replacing.look())
        await self.raise_copy(self.copy, self.port)

    async def raise_copy(self, copy: SideCopy, port: int) -> None:
        """Lay ``copy`` down and replay it."""
        await carried_out(place, copy.place(self.choice, port))
        await carried_out(replay, copy.replay(self.choice, port))

    async def drop_copy(self, copy: SideCopy, port: int) -> None:
        """Stop ``copy`` and remove it."""
        await replay.undo(copy.replay(self.choice, port), Replayed())
        await place.undo(copy.place(self.choice, port), Placed())

    @property
    def replacing(self) -> Replacing:
        """Return the cut-over to this stage's copy."""
        return Replacing(self.copy)

    @property
    def cut(self) -> CutSpec:
        """Return what most of its steps take."""
        return self.replacing.cut(self.port, self.standing)


class Fallen(CutStage):
    """The running database is fenced, and the copy promoted: it may be put in its place, and taken out again."""

    async def prepare(self) -> None:
        """Shut, fence and promote, too."""
        await super().prepare()
        actions: tuple[CutAction[CutSpec, Any], ...] = (close, fence, promote)
        for action in actions:
            await carried_out(action, self.cut)

    async def installed(self, wanted: bool) -> None:
        """Have the copy in the place of the running database, or not."""
        if ((await install.observe(self.cut)).at == "home") is not wanted:
            await (install.apply if wanted else install.undo)(self.cut, Installed(at="copy", serving=True))
            await install.halt(self.cut)


async def carried_out(action: Action[S, T], spec: S) -> None:
    """Apply ``action`` as it is."""
    await action.apply(spec, await action.observe(spec))
    await action.halt(spec)


async def carried_back(action: Action[S, T], spec: S, before: T) -> None:
    """Undo ``action`` as it is."""
    await action.halt(spec)
    await action.undo(spec, before)


class CutScene(CopyScene[C, T]):
    """An action of a cut-over, tried again and again on one stage; what a trial left is taken back."""

    built: ClassVar[type[CutStage]] = CutStage
    stage: CutStage
    moments = 1
    often: ClassVar[str]
    """The one accident of each action that is not left to a soak; together they are all of them."""

    def __init_subclass__(cls) -> None:
        cls.rarely = tuple(accident for accident in cls.accidents if accident != cls.often)

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        assert isinstance(stage, CutStage)
        self.stage = stage
        self.place, self.kept = self.lab.place, Path(stage.copy.directory(), "kept")
        self.mends: list[Callable[[], object]] = []
        self.spec: C | None = None
        self.before: T | None = None

    async def set(self) -> C:
        """Remember what was there."""
        self.spec = await self.prepared()
        self.before = await self.action.observe(self.spec)
        return self.spec

    async def prepared(self) -> C:
        """Bring the stage to where this action begins, and return its spec."""
        raise NotImplementedError

    async def clear(self) -> None:
        """Mend what was meddled with, then undo what was done."""
        self.release()
        self.stage.relay.cut()
        end_jobs(self.lab)
        while self.mends:
            self.mends.pop()()
        if self.spec is not None and await self.action.observe(self.spec) != self.before:
            await carried_back(self.action, self.spec, self.before)
            assert await self.action.observe(self.spec) == self.before

    def move(self, here: Path, there: Path) -> None:
        """Move a folder as somebody else would, until the trial is over."""
        here.rename(there)
        self.mends.append(lambda: there.rename(here))

    def occupy(self, folder: Path) -> None:
        """Put a folder of somebody else there, until the trial is over."""
        folder_of_another(self.lab, folder)
        self.mends.append(lambda: shutil.rmtree(folder))

    def edit(self, file: Path) -> None:
        """Add a line to a file as somebody else would, until the trial is over."""
        text, stat = file.read_bytes(), file.stat()
        file.write_bytes(text + b"# somebody else was here\n")

        def mend() -> None:
            file.write_bytes(text)
            file.chmod(stat.st_mode)

        self.mends.append(mend)

    def rules(self, data: Path) -> tuple[str, int, int]:
        """Return content, rights and owner of the rules in a data directory."""
        file = data / "pg_hba.conf"
        return (digest(file), file.stat().st_mode, file.stat().st_uid) if file.exists() else ("none", 0, 0)

    def admitted(self, port: int) -> bool:
        """Tell whether a client gets in."""
        with contextlib.suppress(psycopg.OperationalError), client(self, port):
            return True
        return False

    def address(self) -> int:
        """Return the port at which clients look for the database."""
        return self.lab.ports["postgres"]


def client(scene: CutScene[C, T], port: int) -> psycopg.Connection[tuple[object, ...]]:
    """Connect as an application does."""
    return psycopg.connect(
        host="127.0.0.1", port=port, dbname="orders", user="app", password=scene.lab.passwords["app"],
        connect_timeout=5, autocommit=True,
    )  # fmt: skip


class CloseScene(CutScene[CutSpec, Doors]):
    """Refuse clients at the running database."""

    action = close
    what = "close"
    often = "job's shell killed"

    async def prepared(self) -> CutSpec:
        """Nothing has to be done."""
        return self.stage.cut

    def shows(self, spec: CutSpec) -> Mapping[str, object]:
        """Return the rules, and whether a client gets in."""
        return {"rules": self.rules(self.place.data), "in": self.admitted(self.address()), **around(self.lab)}

    def begun(self, spec: CutSpec) -> bool:
        """Tell whether the guard stands."""
        return "A recovery" in (self.place.data / "pg_hba.conf").read_text()

    async def meddle_before(self, spec: CutSpec) -> None:
        """Somebody changes the rules."""
        self.edit(self.place.data / "pg_hba.conf")

    async def meddle_after(self, spec: CutSpec) -> None:
        """Somebody changes the guard."""
        self.edit(self.place.data / "pg_hba.conf")


class SalvageScene(CutScene[SalvageSpec, Salvaged]):
    """Export what the copy lacks."""

    action = salvage
    what = "salvage"
    often = "job's programs killed"

    async def prepared(self) -> SalvageSpec:
        """Nothing has to be done: nobody writes."""
        return self.stage.replacing.salvage(self.stage.port, self.stage.standing)

    def shows(self, spec: SalvageSpec) -> Mapping[str, object]:
        """Return every file beneath the folder of copies that is no copy's, with its inode and content."""
        files = {
            str(file.relative_to(self.place.copies)): (file.lstat().st_ino, digest(file))
            for folder in self.place.copies.glob("*.salvage*")
            for file in sorted(folder.rglob("*"))
        }
        return {"files": files, **around(self.lab)}

    def begun(self, spec: SalvageSpec) -> bool:
        """Tell whether rows are being exported."""
        return Path(f"{spec.out}.partial").exists()

    async def meddle_before(self, spec: SalvageSpec) -> None:
        """Somebody puts something where the export is to stand."""
        self.occupy(Path(spec.out))

    async def meddle_after(self, spec: SalvageSpec) -> None:
        """Somebody puts another export in its place."""
        self.move(Path(spec.out), Path(f"{spec.out}.moved"))
        self.occupy(Path(spec.out))


class FenceScene(CutScene[CutSpec, Fenced]):
    """Stop the running database and put it aside."""

    action = fence
    what = "fence"
    often = "job's script killed"

    async def prepared(self) -> CutSpec:
        """Nothing has to be done."""
        return self.stage.cut

    def shows(self, spec: CutSpec) -> Mapping[str, object]:
        """Return where it is, its configuration, whether it serves, and its rows."""
        return {
            "folders": sorted(path.name for path in self.place.north.glob("data*")),
            "settings": settings(self.place.data),
            "in": self.admitted(self.address()),
            "rows": rows(self.lab.postgres.connect) if self.lab.postgres.running() else (),
            **around(self.lab),
        }

    def begun(self, spec: CutSpec) -> bool:
        """Tell whether it is being stopped."""
        return (self.kept / "fencing").exists()

    async def meddle_before(self, spec: CutSpec) -> None:
        """Somebody stops it and puts it elsewhere."""
        self.lab.postgres.stop(quick=True)
        self.mends.append(self.lab.postgres.start)
        self.move(self.place.data, self.place.north / "data.moved")

    async def meddle_after(self, spec: CutSpec) -> None:
        """Somebody puts another database in its place."""
        self.occupy(self.place.data)


class BaseBackupScene(CutScene[BackUp, BackedUp]):
    """Take a base backup."""

    action = base_backup
    what = "base_backup"
    often = "connection cut"

    async def prepared(self) -> BackUp:
        """Nothing has to be done: any database can be backed up."""
        return self.stage.replacing.base_backup(self.stage.port, self.stage.standing, datetime.now(UTC))

    def shows(self, spec: BackUp) -> Mapping[str, object]:
        """Return every backup with its inode and manifest."""
        found = {path.name: (path.stat().st_ino, digest(path / "backup_manifest")) for path in self.backups()}
        return {"backups": found, **around(self.lab)}

    def backups(self) -> list[Path]:
        """Return the folders of all backups, unfinished ones too."""
        return sorted(self.place.backups.iterdir())

    def begun(self, spec: BackUp) -> bool:
        """Tell whether files are being copied."""
        return (self.place.backups / f"{spec.backup}.partial").exists()

    async def meddle_before(self, spec: BackUp) -> None:
        """Somebody puts something where the backup is to stand."""
        self.occupy(self.place.backups / spec.backup)

    async def meddle_after(self, spec: BackUp) -> None:
        """Somebody puts another backup in its place."""
        self.move(self.place.backups / spec.backup, self.place.backups / f"{spec.backup}.moved")
        self.occupy(self.place.backups / spec.backup)


def settings(data: Path) -> dict[str, str]:
    """Return the configuration in a data directory, by file."""
    return {file.name: digest(file) for file in sorted(data.glob("*.conf"))}


def rows(connect: Callable[[str], psycopg.Connection[tuple[object, ...]]]) -> tuple[object, ...]:
    """Return what stands for the rows of a database that serves."""
    with connect("orders") as connection:
        found = connection.execute("select md5(string_agg(o::text, ',' order by number)) from orders o").fetchone()
    return found or ()
