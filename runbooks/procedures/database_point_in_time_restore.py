"""What a runbook may say to DatabasePointInTimeRestore."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from recovery.models import Authored, Name, Text

GATES = ("keep the copy", "cut over", "copy back")
OF = {"none": ("keep the copy",), "replace": ("cut over",), "extract": ("copy back",)}
Table = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$]*\.[A-Za-z_][A-Za-z0-9_$]*$", max_length=130)]


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to."""
    return OF.get(parameters.get("cutover", "none"), ())


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a run with ``parameters`` passes a point of no return: then a hold has to say who is asked."""
    return bool(parameters.get("cutover", "none") != "none")


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

    ``cutover`` says what becomes of the proven copy. "none": it stays beside the running database, which is only read.
    "replace": it takes the running database's place, which is exported and put aside. "extract": chosen rows go back
    into the running database. ``await_write`` is how long the first client of a replaced database is waited for.
    """

    target_time: AwareDatetime
    queries: tuple[Query, ...] = ()
    tables: tuple[Table, ...] = ()
    amcheck: bool = True
    cutover: Literal["none", "replace", "extract"] = "none"
    await_write: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(seconds=1), le=timedelta(minutes=4))
