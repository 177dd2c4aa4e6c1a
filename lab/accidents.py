"""Accidents, caused on purpose."""

import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import LiteralString

import psycopg

from lab import link, processes
from lab.kinds import Kind
from lab.models import Accident
from lab.place import LabError, Place
from lab.postgres import Postgres
from lab.processes import Process

STATEMENTS: dict[Kind, LiteralString] = {
    Kind.DROP_TABLE: "drop table orders",
    # The older half: newer orders come in meanwhile, and a restore has to keep those too.
    Kind.DELETE_ROWS: """delete from orders where number <=
        (select percentile_disc(0.5) within group (order by number) from orders)""",
}


def destroy(postgres: Postgres, kind: Kind) -> Accident:
    """Drop the table or delete half of its rows, and say when, by the clock of the database.

    A restore to `before` holds every order that was acknowledged by then, and lacks the accident.
    Raises LabError when the database refuses (the table is gone already, or the server does not run).
    """
    try:
        with postgres.connect("orders") as connection:
            before = _time(connection, "select clock_timestamp()")
            with connection.transaction():
                rows = connection.execute(STATEMENTS[kind]).rowcount
                number = connection.execute("select pg_current_xact_id()::xid").fetchone()
            committed = _time(connection, "select pg_xact_commit_timestamp(%s)", number)
    except psycopg.Error as error:
        raise LabError(f"{kind}: {str(error).strip()}") from error
    return Accident(
        kind=kind, site=postgres.place.site, before=before, happened_at=committed, rows=rows if rows >= 0 else None
    )


def kill(kind: Kind, site: str, victims: Sequence[Process]) -> Accident:
    """Kill processes of a site with SIGKILL and wait until they are gone.

    Raises LabError when there is nothing to kill, or one still runs after 5 s.
    """
    if not victims:
        raise LabError(f"{kind}: does not run, so it cannot be killed: start it with `lab up`")
    before = datetime.now(UTC)
    for process in victims:
        processes.send(process, signal.SIGKILL)
    if not processes.gone(victims, 5):
        raise LabError(f"{kind}: still runs 5 s after SIGKILL")
    pids = tuple(process.pid for process in victims)
    return Accident(kind=kind, site=site, before=before, happened_at=datetime.now(UTC), pids=pids)


def lose(kind: Kind, place: Place, more: Sequence[Process]) -> Accident:
    """Kill everything at a site with SIGKILL, and `more`, whoever started it.

    Raises LabError when nothing runs there, or something still does after 5 s.
    """
    before = datetime.now(UTC)
    killed: list[Process] = []
    # Again until nothing is left: what was just about to start something else may have done so.
    while victims := [*processes.members_of(place), *filter(processes.alive, more)]:
        for process in victims:
            processes.send(process, signal.SIGKILL)
        if not processes.gone(victims, 5):
            raise LabError(f"{kind}: still runs 5 s after SIGKILL")
        killed += victims
    if not killed:
        raise LabError(f"{kind}: nothing runs there, so it cannot be killed: `lab heal` starts it")
    pids = tuple(process.pid for process in killed)
    return Accident(kind=kind, site=place.site, before=before, happened_at=datetime.now(UTC), pids=pids)


def cut(place: Place) -> Accident:
    """Cut the link between the sites: what either says to the other is dropped silently. Raises LabError."""
    before = datetime.now(UTC)
    if link.ask(place, "state") != "open":
        raise LabError("partition: the link is cut already: `lab heal` mends it")
    link.ask(place, "dropped")
    return Accident(kind=Kind.PARTITION, site=None, before=before, happened_at=datetime.now(UTC))


def _time(
    connection: psycopg.Connection[tuple[object, ...]],
    query: LiteralString,
    values: Sequence[object] | None = None,
) -> datetime:
    row = connection.execute(query, values).fetchone()
    if row is None or not isinstance(row[0], datetime):
        raise LabError(f"no time from {query!r}")
    return row[0].astimezone(UTC)
