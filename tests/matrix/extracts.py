"""Words for rows that go back: accidents to tables of a lab under load, and what the tables then hold."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from activities.extraction import CopiedBack, CopyBack, Preview, copy_back, copying_back, preview, previewing
from lab.estate import Lab
from recovery.actions import agrees
from runbooks.procedures.database_point_in_time_restore import Parameters
from tests.copies import end_jobs
from tests.matrix.scenes import Stage

Row = tuple[Any, ...]


@dataclass
class Extract:
    """A copy in which everything is whole, and a running database in which it is not."""

    stage: Stage

    @property
    def lab(self) -> Lab:
        """Return the lab."""
        return self.stage.lab

    def run(self, sql: str) -> list[Row]:
        """Run ``sql`` in the running database, and return the rows of its last statement."""
        with self.lab.postgres.connect("orders") as connection:
            found = connection.execute(cast(Any, sql))
            return found.fetchall() if found.description else []

    def rows(self, table: str) -> list[Row]:
        """Return every row of ``table``, whole, in one order."""
        return self.run(f"select t::text from {table} t order by 1")

    def schema(self, *tables: str) -> str:
        """Return what pg_dump says of ``tables``, without the word that each dump makes up."""
        postgres, wanted = self.lab.postgres, [f"--table={table}" for table in tables]
        where: list[str | Path] = ["-h", self.lab.place.sockets, "-p", str(postgres.port), "-U", "postgres"]
        text = postgres.run("pg_dump", "--schema-only", *where, "-d", "orders", *wanted)
        return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))

    def spec(self, *wanted: str | Mapping[str, str]) -> CopyBack:
        """Return what nobody has copied back yet: tables, or tables with a condition."""
        self.forget()
        return copying_back(self._copy(wanted), self.stage.port)

    async def preview(self, *wanted: str | Mapping[str, str], **changes: Any) -> Preview:
        """Look what would go back."""
        self.forget()
        return await preview.observe(previewing(self._copy(wanted), self.stage.port).model_copy(update=changes))

    def _copy(self, wanted: tuple[str | Mapping[str, str], ...]) -> Any:
        extract = [{"table": each} if isinstance(each, str) else each for each in wanted]
        given = {"target_time": self.stage.copy.wanted.target_time, "cutover": "extract", "extract": extract}
        return dataclasses.replace(self.stage.copy, wanted=Parameters.model_validate(given))

    def forget(self) -> None:
        """Take away jobs, and what is kept of rows that went."""
        end_jobs(self.lab)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Return where is kept what went."""
        return Path(copying_back(self.stage.copy, self.stage.port).copy_dir, "extract")

    async def apply(self, spec: CopyBack) -> CopiedBack:
        """Put everything back, as the engine does, and return what is seen then."""
        before = await copy_back.observe(spec)
        await copy_back.apply(spec, before)
        await copy_back.halt(spec)
        after = await copy_back.observe(spec)
        assert agrees(copy_back.desired(spec, before), after)
        return after

    async def undo(self, spec: CopyBack) -> CopiedBack:
        """Take everything out again, and return what is seen then."""
        await copy_back.halt(spec)
        await copy_back.undo(spec, CopiedBack())
        return await copy_back.observe(spec)
