"""What would be lost with the running PostgreSQL database: exported before it is put aside."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from activities import ssh
from activities.cut_over import CutAction, CutSpec
from recovery.models import Wire

SHOWN = 100
"""Tables, and notes, that a state names; the manifest beside the export names all."""


class SalvageSpec(CutSpec):
    """Export into ``out``; no tables means all. ``down`` tells that the running database was seen to be down."""

    out: str
    tables: tuple[str, ...] = ()
    down: bool = False

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``salvage``."""
        more = {"out": self.out, "tables": "\n".join(self.tables), "down": "yes" if self.down else "no"}
        return super().values() | more


class SalvagedTable(Wire):
    """Rows of one table that the copy lacks or has in another form; ``keys`` where the key is one whole number."""

    table: str
    rows: int
    keys: str
    file: str
    digest: str


class Salvaged(Wire):
    """What was exported, by whom; ``notes`` is what rows cannot tell. The manifest's SHA-256 stands for all of it.

    None is known after apply. An export whose files are not as long as its manifest says is "damaged".
    """

    stage: Literal["absent", "partial", "exported", "damaged"] = "absent"
    owner: str = ""
    rows: int | None = 0
    tables: tuple[SalvagedTable, ...] | None = ()
    notes: tuple[str, ...] | None = ()
    manifest: str | None = ""


class Salvage(CutAction[SalvageSpec, Salvaged]):
    """Export every row of the running database that the copy lacks."""

    name = "postgres.salvage"
    limit = timedelta(hours=4)
    does, undoes = "salvage", "drop_salvage"
    guards: ClassVar[bool] = False  # an export that is left behind must not keep clients shut out
    skip: ClassVar[str] = (
        "what the copy lacks is not exported: those rows then exist only in the database that is put aside"
    )

    def title(self, spec: SalvageSpec) -> str:
        """Say what is exported."""
        return f"export what the copy of {spec.system} lacks"

    async def observe(self, spec: SalvageSpec) -> Salvaged:
        """Look at the export and its manifest."""
        return salvaged(await ssh.look(spec.host, "salvage_state", spec.values()))

    def desired(self, spec: SalvageSpec, before: Salvaged) -> Salvaged:
        """Want it whole, of this recovery; what is in it is known after."""
        return Salvaged(stage="exported", owner=spec.owner, rows=None, tables=None, notes=None, manifest=None)

    def partial(self, spec: SalvageSpec, before: Salvaged, now: Salvaged) -> bool:
        """Know an unfinished export of this recovery, or one whose owner was not written yet."""
        return now.stage == "partial" and now.owner in ("", spec.owner)


salvage = Salvage()


def salvaged(text: str) -> Salvaged:
    """Return what the script ``salvage_state`` printed."""
    rows = [line.split("\t") for line in text.splitlines()]
    facts = {row[0]: row[1] for row in rows if row[0] in ("stage", "owner", "manifest")}
    tables = [
        SalvagedTable(table=name, rows=int(count), file=file, digest=digest, keys=keys)
        for kind, name, count, file, _, digest, keys in (row for row in rows if len(row) == 7)
        if kind == "table"
    ]
    notes = [row[1] for row in rows if row[0] == "note"]
    if len(notes) > SHOWN:
        notes[SHOWN:] = [f"{len(notes) - SHOWN} more notes are in the manifest"]
    if len(tables) > SHOWN:
        notes.append(f"{len(tables) - SHOWN} more tables are in the manifest")
    damaged = any(row[0] == "damaged" for row in rows)
    return Salvaged.model_validate(
        facts
        | {"rows": sum(table.rows for table in tables), "tables": tables[:SHOWN], "notes": notes}
        | ({"stage": "damaged"} if damaged else {})
    )
