"""What a runbook may say to DatabasePointInTimeRestore."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field

from recovery.models import Authored, Name, Text

GATES = ("keep the copy",)
Table = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$]*\.[A-Za-z_][A-Za-z0-9_$]*$", max_length=130)]


class Query(Authored):
    """A question to the copy that proves it: ``sql`` returns one value, which as text must equal ``expect``."""

    name: Name
    sql: Text
    expect: str = Field(max_length=200)


class Parameters(Authored):
    """Where to go back to, and what proves that it was reached.

    ``target_time`` is inclusive: the copy holds exactly the transactions that were committed up to it, in the order
    of the log. ``tables`` (schema.table) are compared row by row with the running database; empty means all.
    ``amcheck`` can be switched off where the extension cannot be installed; the report says so.
    """

    target_time: AwareDatetime
    queries: tuple[Query, ...] = ()
    tables: tuple[Table, ...] = ()
    amcheck: bool = True
