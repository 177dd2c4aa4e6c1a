"""How each action on the copy that takes the running database's place is tried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from activities.cut_over import CutSpec, Installed, Promoted, install, promote
from activities.door import Doors, open_doors
from activities.redundancy import Archived, archive
from activities.replacing import Replacing
from activities.side_copy import SideCopy
from tests.copies import ask_copy, end_jobs, postmasters
from tests.matrix.scenes import around
from tests.matrix.scenes_cut_over import C, CutScene, Fallen, T, rows, settings


class PromoteScene(CutScene[CutSpec, Promoted]):
    """Promote a copy; there is no way back, so each trial has a copy of its own."""

    action = promote
    what = "promote"
    often = "job's shell killed"
    copy: SideCopy

    @property
    def port(self) -> int:
        """A port that the stage's own copy does not use."""
        return self.stage.copy.database.copy_ports[-1]

    async def prepared(self) -> CutSpec:
        """Lay a copy down."""
        self.copy = self.stage.fresh()
        self.kept = Path(self.copy.directory(), "kept")
        await self.stage.raise_copy(self.copy, self.port)
        return Replacing(self.copy).promote(self.port, self.stage.standing)

    def shows(self, spec: CutSpec) -> Mapping[str, object]:
        """Return what the copy is, whether a client gets in, and its rows."""
        folder = Path(spec.copy_dir)
        servers = postmasters(self.lab, folder)
        return {
            "servers": servers,
            "copy": ask_copy(self.lab, "select pg_is_in_recovery(), max(number) from orders", folder)
            if servers
            else [],
            "in": self.admitted(spec.copy_port),
            "rules": self.rules(folder / "data"),
            **around(self.lab),
        }

    def begun(self, spec: CutSpec) -> bool:
        """Tell whether it has begun."""
        return (self.kept / "guard").exists()

    async def meddle_before(self, spec: CutSpec) -> None:
        """Somebody promotes the copy to work in it."""
        ask_copy(self.lab, "select pg_promote(wait => true)", Path(spec.copy_dir))

    async def meddle_after(self, spec: CutSpec) -> None:
        """Nothing comes after: what cannot be undone cannot be undone wrongly."""
        raise AssertionError

    async def clear(self) -> None:
        """Drop the copy."""
        self.release()
        self.stage.relay.cut()
        end_jobs(self.lab)
        await self.stage.drop_copy(self.copy, self.port)


class InstallScene(CutScene[CutSpec, Installed]):
    """Put the copy in the place of the running database."""

    built = Fallen
    stage: Fallen
    action = install
    what = "install"
    often = "job's script killed"

    async def prepared(self) -> CutSpec:
        """Have it beside that place."""
        await self.stage.installed(False)
        return self.stage.cut

    def shows(self, spec: CutSpec) -> Mapping[str, object]:
        """Return where it is, its configuration, whether it serves and whom, and its rows."""
        beside, home = Path(spec.copy_dir, "data"), self.place.data
        return {
            "folders": [(path.name, path.stat().st_ino) for path in (beside, home) if path.exists()],
            "settings": (settings(beside), settings(home)),
            "in": self.admitted(self.address()),
            "beside": rows_of_copy(self) if postmasters(self.lab, beside) else (),
            "home": rows(self.lab.postgres.connect) if self.lab.postgres.running() else (),
            **around(self.lab),
        }

    def begun(self, spec: CutSpec) -> bool:
        """Tell whether it is being moved."""
        return (self.kept / "installing").exists()

    async def meddle_before(self, spec: CutSpec) -> None:
        """Somebody puts another database there."""
        self.occupy(self.place.data)

    async def meddle_after(self, spec: CutSpec) -> None:
        """Somebody stops the restored database and moves it."""
        self.lab.postgres.stop(quick=True)
        self.mends.append(self.lab.postgres.start)
        self.move(self.place.data, self.place.north / "data.moved")


class ArchiveScene(CutScene[CutSpec, Archived]):
    """Let the restored database archive."""

    built = Fallen
    stage: Fallen
    action = archive
    what = "archive"
    often = "job's programs killed"

    async def prepared(self) -> CutSpec:
        """Have it in its place."""
        await self.stage.installed(True)
        return self.stage.cut

    def shows(self, spec: CutSpec) -> Mapping[str, object]:
        """Return what is in the archive, and which schemas and settings there are."""
        own = f"{int((self.kept / 'timeline').read_text(), 16):08X}"
        names = {path.name for path in self.place.archive.iterdir()}
        with self.lab.postgres.connect("orders") as connection:
            schemas = connection.execute("select nspname from pg_namespace order by 1").fetchall()
            command = connection.execute("show archive_command").fetchall()
        return {
            "others": sorted(name for name in names if not name.lstrip(".").startswith(own)),
            "own": (f"{own}.history" in names, any(len(name) == 24 for name in names if name.startswith(own))),
            "begun": sorted(name for name in names if name.startswith(f".{own}")),
            "settings": settings(self.place.data),
            "database": (schemas, command),
            **around(self.lab),
        }

    def begun(self, spec: CutSpec) -> bool:
        """Tell whether it has begun."""
        return (self.kept / "archiving").exists()

    async def meddle_before(self, spec: CutSpec) -> None:
        """Another copy of the same timeline archives."""
        file = self.place.archive / f"{(self.kept / 'timeline').read_text().strip()}.history"
        file.write_text("somebody else's")
        self.mends.append(file.unlink)

    async def meddle_after(self, spec: CutSpec) -> None:
        """Somebody changes a setting."""
        self.edit(self.place.data / "postgresql.auto.conf")


class OpenScene(CutScene[CutSpec, Doors]):
    """Let clients into the restored database."""

    built = Fallen
    stage: Fallen
    action = open_doors
    what = "open"
    often = "connection cut"

    async def prepared(self) -> CutSpec:
        """Have it in its place."""
        await self.stage.installed(True)
        return self.stage.cut

    def shows(self, spec: CutSpec) -> Mapping[str, object]:
        """Return the rules, and whether a client gets in."""
        return {"rules": self.rules(self.place.data), "in": self.admitted(self.address()), **around(self.lab)}

    def begun(self, spec: CutSpec) -> bool:
        """Tell whether what was written before is noted: the rules come a moment later."""
        return (self.kept / "opened").exists()

    async def meddle_before(self, spec: CutSpec) -> None:
        """Somebody changes the guard."""
        self.edit(self.place.data / "pg_hba.conf")

    async def meddle_after(self, spec: CutSpec) -> None:
        """Somebody changes the rules."""
        self.edit(self.place.data / "pg_hba.conf")


def rows_of_copy(scene: CutScene[C, T]) -> tuple[object, ...]:
    """Return what stands for the rows of a copy that serves."""
    return tuple(ask_copy(scene.lab, "select md5(string_agg(o::text, ',' order by number)) from orders o"))
