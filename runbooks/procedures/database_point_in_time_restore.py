"""What a runbook may say to DatabasePointInTimeRestore."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

from recovery.models import Authored, Name, Text

GATES = ("keep the copy",)
NAME = r"(?:[A-Za-z_][A-Za-z0-9_$]*|\"(?:[^\"$\x00-\x1f]|\"\")+\")"
Table = Annotated[str, Field(pattern=rf"^{NAME}\.{NAME}$", max_length=260)]
"""schema.table; as in SQL, a name in double quotes is taken as it is, any other one in lower case."""


class Query(Authored):
    """A question to the copy that proves it: ``sql`` returns one value, which as text must equal ``expect``."""

    name: Name
    sql: Text
    expect: str = Field(max_length=200)


class Extraction(Authored):
    """Rows to bring back into the running database: those of ``table`` in the copy for which ``where`` holds.

    ``where`` is one SQL condition on the table's columns, asked of the copy alone; without it all rows are meant.
    """

    table: Table
    where: str = Field(default="", max_length=2000)


def _once(wanted: tuple[Extraction, ...]) -> tuple[Extraction, ...]:
    if len({extraction.table for extraction in wanted}) < len(wanted):
        raise ValueError("a table is named twice; join its conditions with or")
    return wanted


class Parameters(Authored):
    """Where to go back to, and what proves that it was reached.

    ``target_time`` is inclusive: the copy holds exactly the transactions that were committed up to it, in the order
    of the log. ``tables`` (schema.table) are compared row by row with the running database; empty means all.
    ``amcheck`` can be switched off where the extension cannot be installed; the report says so. ``extract`` names what
    goes back from the copy into the running database.
    """

    target_time: AwareDatetime
    queries: tuple[Query, ...] = ()
    tables: tuple[Table, ...] = ()
    amcheck: bool = True
    extract: Annotated[tuple[Extraction, ...], AfterValidator(_once)] = Field(default=(), max_length=50)
