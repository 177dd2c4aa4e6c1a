"""PostgreSQL side copies: put chosen rows of one back into the running database, in one transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from activities import ssh
from activities.postgres import CopySpec
from activities.side_copy import SideCopy
from recovery.actions import Action, Probe
from recovery.errors import Refused, Transient
from recovery.models import Wire

Rows = list[list[str]]


class Wanted(Wire):
    """Rows of one table of the copy: those for which the SQL condition ``where`` holds, or all."""

    table: str
    where: str = ""


class ExtractSpec(CopySpec):
    """What of the copy goes into the running database at ``sockets``."""

    sockets: str
    port: int
    wanted: tuple[Wanted, ...]

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``extraction``, ``copy_back`` and ``take_back``."""
        more: dict[str, object] = {"sockets": self.sockets, "port": self.port, "tables": len(self.wanted)}
        for number, rows in enumerate(self.wanted):  # as they are counted in parameters.extract
            more |= {f"table_{number}": rows.table, f"where_{number}": rows.where}
        return super().values() | more


async def _told(spec: ExtractSpec, detail: bool, limit: timedelta) -> Rows:
    values = spec.values() | {"detail": "yes" if detail else "no"}
    text = await ssh.look(spec.host, "extraction", values, ssh.within(limit))
    return [line.split("\t") for line in text.splitlines()]


class PreviewExtract(ExtractSpec):
    """What would go back."""


class TablePreview(Wire):
    """One table, rows counted: of those that are wanted, ``missing`` would come back; ``conflicts`` stay as they are.

    Keys are compact ("1-512, 600"). ``differs`` names, of the first conflicts, the columns that differ and never what
    stands in them. ``unmet`` are foreign keys that the rows would miss.
    """

    table: str
    stands: bool
    wanted: int
    missing: int
    same: int
    conflicts: int
    missing_keys: str = ""
    conflict_keys: str = ""
    differs: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()
    without: str = ""
    silent: str = ""


class Preview(Wire):
    """What would go back, and what stands in the way; ``unreachable`` if the running database does not answer."""

    in_words: tuple[str, ...] = ()
    tables: tuple[TablePreview, ...] = ()
    unreachable: str = ""
    blockers: tuple[str, ...] = ()


class PreviewRows(Probe[PreviewExtract, Preview]):
    """Tell which rows would go back, what is there with other content, and what stands in the way."""

    name = "postgres.preview"
    limit = timedelta(hours=2)
    patience = timedelta(hours=4)

    def title(self, spec: PreviewExtract) -> str:
        """Say what is looked at."""
        return f"look which rows would go back into {spec.system}"

    async def observe(self, spec: PreviewExtract) -> Preview:
        """Look; one command."""
        return previewed(await _told(spec, True, self.limit))


preview = PreviewRows()


def previewed(rows: Rows) -> Preview:
    """Return what the script ``extraction`` told in detail."""
    down = _down(rows)
    tables = tuple(_table(row, rows) for row in rows if row[0] == "table")
    unmet = [f"{table.table}: {text}" for table in tables for text in table.unmet]
    faults = [f"the running database does not answer: {down}"] if down else []
    went = tuple(f"{text} went back already" for text in _went(rows))
    return Preview(
        in_words=went or tuple(text for table in tables for text in in_words(table)),
        tables=tables,
        unreachable=down,
        blockers=(*faults, *_blockers(rows), *unmet),
    )


def _table(row: list[str], rows: Rows) -> TablePreview:
    number, name, stands, wanted, missing, same, conflicts, missing_keys, conflict_keys = row[1:10]
    of = [other for other in rows if other[1:2] == [number]]
    unmet = (
        f"{count} rows that {other} lacks are referred to by {constraint} ({keys}); extract those too"
        for kind, _, constraint, other, count, keys in (found for found in of if found[0] == "unmet")
    )
    return TablePreview(
        table=name,
        stands=stands == "yes",
        wanted=int(wanted),
        missing=int(missing),
        same=int(same),
        conflicts=int(conflicts),
        missing_keys=missing_keys,
        conflict_keys=conflict_keys,
        differs=tuple(f"{found[2]}: {found[3]}" for found in of if found[0] == "differs"),
        unmet=tuple(unmet),
        without=next((found[2] for found in of if found[0] == "without"), ""),
        silent=next((found[2] for found in of if found[0] == "silent"), ""),
    )


def in_words(table: TablePreview) -> tuple[str, ...]:
    """Return what would happen to one table, a sentence each."""
    keys = f" ({table.missing_keys})" if table.missing_keys else ""
    if not table.stands:
        lost = f"; it comes back without {table.without}" if table.without else ""
        return (f"{table.table}: does not stand, would be re-created with {table.missing} rows{keys}{lost}",)
    said = [f"{table.table}: {table.missing or 'no'} rows would come back{keys if table.missing else ''}"]
    if table.missing and table.silent:
        said.append(f"{table.table}: its triggers would not fire for them ({table.silent})")
    if table.conflicts:
        differs = f"; {'; '.join(table.differs)}" if table.differs else ""
        said.append(
            f"{table.table}: {table.conflicts} rows are there with other content and stay as they are"
            f" ({table.conflict_keys}{differs})"
        )
    return tuple(said)


class CopyBack(ExtractSpec):
    """What goes back."""


class CopiedBack(Wire):
    """Whether wanted rows are missing in the running database, and what this recovery put there.

    How many are missing is no part of it: whoever writes beside the recovery changes that. ``put`` is the digest of
    the file that names every row that was put, ``rows`` says of each table how many they were and their keys.
    ``uncopied``: no copy stands, so nobody can tell; that is how a check finds it.
    """

    uncopied: bool = False
    absent: tuple[str, ...] = ()
    lacking: bool = False
    put: str | None = ""
    rows: tuple[str, ...] | None = ()


class CopyRowsBack(Action[CopyBack, CopiedBack]):
    """Put the missing rows back, and tables that are gone with them; never touch a row that is there."""

    name = "postgres.copy_back"
    limit = timedelta(hours=4)
    look_limit = timedelta(hours=2)  # it reads every key of both tables, as the preview does
    look_patience = timedelta(hours=4)
    undo_patience = timedelta(hours=4)  # every row is looked at again

    def title(self, spec: CopyBack) -> str:
        """Say what goes back."""
        return f"put rows of {', '.join(rows.table for rows in spec.wanted)} back into {spec.system}"

    async def observe(self, spec: CopyBack) -> CopiedBack:
        """Look whether rows are missing, or what was put."""
        return copied_back(await _told(spec, False, self.look_limit))

    def desired(self, spec: CopyBack, before: CopiedBack) -> CopiedBack:
        """Want nothing to be missing; which rows go in is known after."""
        done = not before.uncopied and not before.lacking and not before.absent
        return before if done else CopiedBack(put=None, rows=None)

    async def apply(self, spec: CopyBack, before: CopiedBack) -> None:
        """Put all in, in one transaction."""
        await ssh.job(spec.host, spec.job("copy_back"), "copy_back", spec.values())

    async def undo(self, spec: CopyBack, before: CopiedBack) -> None:
        """Take exactly those rows out again, if all are as they were put."""
        async with self.ending(spec):
            await ssh.job(spec.host, spec.job("copy_back"), "take_back", spec.values())

    async def halt(self, spec: CopyBack) -> None:
        """End the job and its session in the running database, and remove the job's traces."""
        await ssh.end_job(spec.host, spec.job("copy_back"))
        await ssh.look(spec.host, "end_copy_back", spec.values())


copy_back = CopyRowsBack()


def copied_back(rows: Rows) -> CopiedBack:
    """Return what the script ``extraction`` told in brief. Raises what stands in the way of telling it."""
    if down := _down(rows):
        raise Transient(f"the running database does not answer: {down}")
    if blockers := _blockers(rows):
        raise Refused("; ".join(blockers))
    absent = tuple(row[1] for row in rows if row[0] == "absent")
    put = next((row[1] for row in rows if row[0] == "put"), "")
    return CopiedBack(
        uncopied=["uncopied"] in rows,
        absent=absent,
        lacking=any(int(row[5]) > 0 for row in rows if row[0] == "table"),
        put=put,
        rows=_went(rows),
    )


def _went(rows: Rows) -> tuple[str, ...]:
    return tuple(f"{row[1]}: {row[2]} rows{f' ({row[3]})' if row[3] else ''}" for row in rows if row[0] == "went")


def _down(rows: Rows) -> str:
    return next((" ".join(row[1:]).strip() or "it says nothing" for row in rows if row[0] == "down"), "")


def _blockers(rows: Rows) -> list[str]:
    return [" ".join(row[1:]) for row in rows if row[0] == "blocker"]


def previewing(copy: SideCopy, port: int) -> PreviewExtract:
    """Return which rows of ``copy`` (at ``port``) to look at."""
    return PreviewExtract(**_extract(copy, port))


def copying_back(copy: SideCopy, port: int) -> CopyBack:
    """Return which rows of ``copy`` (at ``port``) go back."""
    return CopyBack(**_extract(copy, port))


def _extract(copy: SideCopy, port: int) -> dict[str, Any]:
    wanted = tuple(Wanted(**extraction.model_dump()) for extraction in copy.wanted.extract)
    compared = copy.compare(port).model_dump(exclude={"tables", "replaces"})
    return compared | {"wanted": wanted}
