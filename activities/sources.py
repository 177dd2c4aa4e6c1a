"""Where backups and log of a PostgreSQL database come from: folders of its host, or the repository of a tool."""

from __future__ import annotations

from typing import Self

from recovery.models import Wire
from runbooks.schema import Database


class Source(Wire):
    """Backups and log: of PostgreSQL's own tools in the folders ``backups`` and ``archive``, or of a tool's ``server``.

    ``restore_command`` fetches a file of the log where the archive's cannot be read as they are.
    """

    kind: str = "native"
    backups: str = ""
    archive: str = ""
    restore_command: str = ""
    cli: str = ""
    server: str = ""
    configuration: str = ""
    repository: str = ""

    @classmethod
    def of(cls, database: Database) -> Self:
        """Return what the estate says."""
        has = database.backups
        return cls(
            kind=has.kind, backups=has.folder or "", archive=database.archive or "",
            restore_command=database.restore_command or "", cli=has.cli or CLI.get(has.kind, ""),
            server=has.server or "", configuration=has.configuration or "", repository=str(has.repository or ""),
        )  # fmt: skip

    def values(self) -> dict[str, object]:
        """Return the shell variables of the functions that list, lay down and fetch."""
        told = self.model_dump(exclude={"kind", "restore_command"})
        return told | {"backups_of": self.kind, "restore": self.restore_command}


CLI = {"barman": "/usr/bin/barman", "pgbackrest": "/usr/bin/pgbackrest"}
"""Where packages of the distributions put them."""
