"""What a runbook may say to SessionReplicationCheck."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic import Field, field_validator

from recovery.models import Authored, Name, Text
from runbooks.schema import Column, Estate, Keys, Table

SYSTEMS = ("stores", "databases")
ESTATE = ("sites", "hosts", "stores", "databases")
GATES: tuple[str, ...] = ()
AUTHORED = ("commands", "urls", "tables")
"""What only a runbook may say: who starts it must not have hosts run, or databases read, whatever they like."""
BESIDE = True
"""It takes nothing in hand, and goes on beside recoveries: under the id of its runbook, not of a system."""


def gates(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the gates that a run with ``parameters`` comes to: nobody is asked whether one may look."""
    return GATES


def commits(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a hold has to say who is asked."""
    return False


class Status(Authored):
    """What another system says of its own replication: ``replicated`` and ``lagging`` are regular expressions.

    The first that is found in what it says decides; neither is: broken. A command has to end with 0, a URL to answer
    with 200.
    """

    name: Name
    replicated: Text
    lagging: Text | None = None

    @field_validator("replicated", "lagging")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value


class Command(Status):
    """One that a host is asked with a command, run by sh there."""

    host: Name
    run: Text


class Url(Status):
    """One that is asked over HTTP."""

    url: Text = Field(pattern=r"^https?://[^\s]+$")


class SessionTable(Authored):
    """A table of sessions, in a database and the one that replicates it: ``key`` is a column that alone is unique.

    ``expires`` is a column (timestamptz) that says when a session ends; those that have are not there.
    """

    database: Name
    table: Table
    key: Column
    expires: Column | None = None


class Parameters(Authored):
    """Which sessions, how many of them are compared, and how far behind a replica may be.

    ``match`` is a pattern of keys as SCAN knows it; ``sample`` sessions are compared, or all of them (``whole``);
    500 find with 95 % what six of a thousand have.
    A session has to arrive within ``lag``, and no replica may lack more than ``lag_bytes`` of log. ``every`` has it
    look again and again, until it is cancelled. ``tables`` hold sessions in databases; ``commands`` and ``urls`` are of
    systems with a status of their own.
    """

    match: Keys = "*"
    sample: int = Field(default=500, ge=10, le=100_000)
    whole: bool = False
    lag: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(milliseconds=100), le=timedelta(seconds=30))
    lag_bytes: int = Field(default=16 * 1024 * 1024, ge=0)
    every: timedelta | None = Field(default=None, ge=timedelta(seconds=1), le=timedelta(days=1))
    tables: tuple[SessionTable, ...] = Field(default=(), max_length=20)
    commands: tuple[Command, ...] = Field(default=(), max_length=50)
    urls: tuple[Url, ...] = Field(default=(), max_length=50)


def faults(systems: tuple[str, ...], parameters: Mapping[str, Any], estate: Estate) -> list[str]:
    """Return what is wrong with the systems that a runbook names, for a run with ``parameters``."""
    stores = [name for name in systems if name in estate.stores]
    found = []
    if len(systems) < 2 or len(stores) == 1:
        found.append("systems: name the stores, or the databases, of both sites; one alone replicates nobody")
    found += _tables(systems, parameters.get("tables", ()), estate)
    for number, one in enumerate(parameters.get("commands", ())):
        if isinstance(one, Mapping) and one.get("host") not in estate.hosts:
            found.append(f"parameters.commands.{number}.host: the estate has no such host")
    return found


def _tables(systems: tuple[str, ...], tables: object, estate: Estate) -> Iterator[str]:
    """Say of which databases nobody has both, or a table, and which tables are of none of them."""
    databases = {name: estate.databases[name].peer for name in systems if name in estate.databases}
    told = [one for one in tables if isinstance(one, Mapping)] if isinstance(tables, list | tuple) else []
    known = {str(one.get("database")) for one in told}
    for name, peer in databases.items():
        if peer is None:
            yield f"systems: {name} has no peer in the estate; nobody replicates it"
        elif peer not in systems:
            yield f"systems: name {peer}, too, the peer of {name}; one alone replicates nobody"
        elif not {name, peer} & known and systems.index(name) < systems.index(peer):
            yield f"parameters.tables: say in which table of {name} sessions are, or leave it out of systems"
    seen = set()
    for number, one in enumerate(told):
        name, where = str(one.get("database")), f"parameters.tables.{number}"
        if name not in databases:
            yield f"{where}.database: is none of the databases in systems: {', '.join(databases) or 'there is none'}"
            continue
        what = (min(name, databases[name] or name), str(one.get("table")))
        if what in seen:
            yield f"{where}.table: is named twice"
        seen.add(what)
