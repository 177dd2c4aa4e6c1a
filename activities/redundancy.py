"""What makes a restored PostgreSQL database safe again: its log in the archive, and a base backup."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from activities import ssh
from activities.cut_over import CutAction, CutSpec, Seen, look, only
from activities.scripts import NATIVE
from recovery.models import Wire


class Archived(Wire):
    """Whether the restored database archives, by which settings, and what of its own timeline is in the archive.

    ``settings`` are "whole" where they are the running database's to the byte, "muted" where they archive nothing.
    "another's" are settings, and files of that timeline, that this recovery has not put there.
    """

    archiving: bool = False
    settings: Literal["none", "muted", "whole", "another's"] = "none"
    timeline: Literal["nothing", "begun", "history", "history and log", "another's"] = "nothing"


class Archive(CutAction[CutSpec, Archived]):
    """Try the restored database with a row of the engine's own, and let it archive as the running one did."""

    name = "postgres.archive"
    limit = timedelta(minutes=15)
    does, undoes = "archive_log", "unarchive_log"

    def title(self, spec: CutSpec) -> str:
        """Say what is archived."""
        return f"write into the restored {spec.system}, and archive its log"

    async def observe(self, spec: CutSpec) -> Archived:
        """Look at the setting, and into the archive."""
        return archived(await look(spec, "archive"))

    def desired(self, spec: CutSpec, before: Archived) -> Archived:
        """Want it to archive, and its timeline to begin in the archive."""
        return Archived(archiving=True, settings="whole", timeline="history and log")

    def partial(self, spec: CutSpec, before: Archived, now: Archived) -> bool:
        """Know an archive that is being filled, or emptied, by this recovery."""
        return now.timeline in ("begun", "history", "history and log") and now.settings in ("muted", "whole")


def archived(found: Seen) -> Archived:
    """Return what was seen of the archive."""
    files, timeline = found.get("archive", set()), "nothing"
    if "begun" in files:
        timeline = "begun" if "history" not in files else "history and log" if "log" in files else "history"
    elif files:
        timeline = "another's"
    settings = only(found, "settings") or "none"
    return Archived.model_validate({"archiving": "archiving" in found, "settings": settings, "timeline": timeline})


archive = Archive()


class BackUp(CutSpec):
    """Take a base backup called ``backup``; a tool that takes it has a name of its own for it."""

    backup: str

    @property
    def label(self) -> str:
        """What the backup says of itself."""
        return f"recovery {self.owner}"

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``base_backup``."""
        return super().values() | {"backup": f"{self.backups}/{self.backup}", "label": self.label}


class BackedUp(Wire):
    """The base backup that stands, "" if none does, and its label; an unfinished one is ``partial``.

    What a tool calls it is known after it was taken.
    """

    backup: str | None = ""
    label: str = ""
    partial: bool = False


class BaseBackup(CutAction[BackUp, BackedUp]):
    """Take a base backup of the database, or have the tool that keeps its backups take the next full one."""

    name = "postgres.base_backup"
    limit = timedelta(hours=4)
    does, undoes = "base_backup", "drop_backup"
    skip: ClassVar[str] = "there is no base backup on the new timeline until somebody takes one"

    def title(self, spec: BackUp) -> str:
        """Say what is taken."""
        return f"take a base backup of {spec.system}"

    async def observe(self, spec: BackUp) -> BackedUp:
        """Look whether it stands."""
        text = await ssh.look(spec.host, "backup_state", spec.values())
        return BackedUp.model_validate(dict(line.split("\t", maxsplit=1) for line in text.splitlines()))

    def desired(self, spec: BackUp, before: BackedUp) -> BackedUp:
        """Want it whole, labelled by this recovery."""
        return BackedUp(backup=spec.backup if spec.source.kind == NATIVE else None, label=spec.label)

    def partial(self, spec: BackUp, before: BackedUp, now: BackedUp) -> bool:
        """Know an unfinished one; nobody else uses its name."""
        return now.partial and not now.backup


base_backup = BaseBackup()
