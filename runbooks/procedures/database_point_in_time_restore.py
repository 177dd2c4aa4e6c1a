"""What a runbook may say to DatabasePointInTimeRestore."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, ValidationInfo

from recovery.models import Authored, Name, Text
from runbooks.schema import Estate, Table

SYSTEMS = ("databases",)
ESTATE = ("hosts", "databases")
BY = ("target_time", "target_lsn", "target_xid", "target_name")
GATES = ("keep the copy", "cut over", "copy back")
OF = {"none": ("keep the copy",), "replace": ("cut over",), "extract": ("copy back",)}


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to."""
    return OF.get(parameters.get("cutover", "none"), ())


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a run with ``parameters`` passes a point of no return: then a hold has to say who is asked."""
    return bool(parameters.get("cutover", "none") != "none")


def faults(systems: tuple[str, ...], parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with the systems that a runbook names, for a run with ``parameters``."""
    given = [field for field in BY if parameters.get(field) is not None]
    if set(BY) <= set(parameters) and not given:  # a run; what a runbook leaves to who starts it is not there yet
        return [f"parameters.target_time: say where to go back to by one of {', '.join(BY)}"]
    if len(given) > 1:
        return [f"parameters.{given[1]}: {given[0]} is given, too; say where to go back to in one way"]
    if given == ["target_name"] and parameters.get("inclusive") is False:
        return ["parameters.inclusive: a restore point (target_name) is always part of the copy; leave it out"]
    return []


Lsn = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$"), AfterValidator(str.upper)]
"""A position in the log as PostgreSQL writes it, such as 2A/16B3748."""


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


def _meant(wanted: tuple[Extraction, ...], info: ValidationInfo) -> tuple[Extraction, ...]:
    cutover = info.data.get("cutover")
    if wanted and cutover in ("none", "replace"):
        raise ValueError("rows go back only where cutover is extract; leave it out")
    if not wanted and cutover == "extract":
        raise ValueError("is empty; say which rows go back")
    return wanted


def _once(wanted: tuple[Extraction, ...]) -> tuple[Extraction, ...]:
    if len({extraction.table for extraction in wanted}) < len(wanted):
        raise ValueError("a table is named twice; join its conditions with or")
    return wanted


class Parameters(Authored):
    """Where to go back to, and what proves that it was reached.

    Exactly one target: ``target_time``, ``target_lsn`` (a position in the log), ``target_xid`` (a transaction's id) or
    ``target_name`` (a restore point that pg_create_restore_point made). ``inclusive``: the copy holds exactly the
    transactions that were committed up to it, itself among them, in the order of the log; where it is false, those
    before it. ``timeline`` is the branch of the database's history to restore; the running database's, if not given.

    ``tables`` (schema.table) are compared row by row with the running database; empty means all, and so does a
    ``cutover`` that replaces it, whatever is named.
    ``amcheck`` can be switched off where the extension cannot be installed; the report says so.

    ``cutover`` says what becomes of the proven copy. "none": it stays beside the running database, which is only read.
    "replace": it takes the running database's place, which is exported and put aside. "extract": chosen rows
    (``extract``) go back into the running database. ``await_write`` is how long the first write into a replaced
    database is waited for.
    """

    target_time: AwareDatetime | None = None
    target_lsn: Lsn | None = None
    target_xid: int | None = Field(default=None, ge=3, lt=2**32)
    target_name: str | None = Field(default=None, min_length=1, max_length=63, pattern=r"^[^\x00-\x1f\x7f]*$")
    inclusive: bool = True
    timeline: int | None = Field(default=None, ge=1, lt=2**31)
    queries: tuple[Query, ...] = ()
    tables: tuple[Table, ...] = ()
    amcheck: bool = True
    cutover: Literal["none", "replace", "extract"] = "none"
    await_write: timedelta = Field(default=timedelta(seconds=30), ge=timedelta(seconds=1), le=timedelta(minutes=4))
    extract: Annotated[tuple[Extraction, ...], AfterValidator(_once), AfterValidator(_meant)] = Field(
        default=(), max_length=50, validate_default=True
    )
