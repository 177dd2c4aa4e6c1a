"""Tables of sessions in PostgreSQL: how a table is asked, and what it and its database tell of themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Any, Literal, NamedTuple, Self

from activities import ssh
from activities.comparing import Reading, Row
from activities.databases import DatabaseAt
from recovery.errors import Invalid
from recovery.models import Wire
from runbooks.procedures.session_replication_check import SessionTable

LIMIT = 10
"""Seconds in which a database answers one question about some rows."""
MANY = 1000
"""Keys of one statement."""
COUNTED = 8192
"""Blocks up to which a table is counted each time that it is read: some hundredths of a second."""

POSITION = "case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end - '0/0'"
SETTLED = f"""do $$ declare at pg_lsn; until timestamptz; begin
    if pg_is_in_recovery() then return; end if;
    at := pg_current_wal_insert_lsn();
    until := clock_timestamp() + 3 * current_setting('wal_writer_delay')::interval;
    while pg_current_wal_flush_lsn() < at and clock_timestamp() < until loop perform pg_sleep(0.002); end loop;
end $$;
select 'offset', ({POSITION})::bigint;"""
"""Tells where in the log a primary is once all that was seen there is in it.

What commits without waiting for the log is seen before: after three rounds of the WAL writer that is in it, too.
"""

STATE = f"""select 'state', json_build_object(
    'role', case when pg_is_in_recovery() then 'standby' else 'primary' end,
    'system', (select system_identifier::text from pg_control_system()),
    'now', clock_timestamp(),
    'has', ({POSITION})::bigint,
    'received', (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::bigint,
    'committed', pg_last_xact_replay_timestamp(),
    'paused', case when pg_is_in_recovery() then pg_is_wal_replay_paused() else false end,
    'link', (select coalesce(status, 'hidden') from pg_stat_wal_receiver),
    'of', (select sender_host || ':' || sender_port from pg_stat_wal_receiver));"""


class TableAt(Wire):
    """A table of sessions, as its runbook names it, and its columns: the key, and when a session ends ("": never)."""

    table: str
    key: str
    expires: str = ""

    @classmethod
    def of(cls, wanted: SessionTable) -> Self:
        """Return how a table of the runbook is asked."""
        return cls(table=wanted.table, key=wanted.key, expires=wanted.expires or "")

    @property
    def source(self) -> str:
        """The table, quoted as it stands in a statement."""
        return ".".join(quoted(part) for part in re.findall(r'"(?:[^"]|"")+"|[^".]+', self.table))

    def alive(self, now: datetime) -> str:
        """Return the condition for a session that has a name, and has not ended at this moment."""
        named = f"t.{quoted(self.key)} is not null"
        if not self.expires:
            return named
        ends = f"t.{quoted(self.expires)}"
        return f"{named} and ({ends} is null or {ends} > {literal(now.isoformat())}::timestamptz)"

    @property
    def row(self) -> str:
        """What is told of a row: its key in hex, when it ends (ms since 1970; -1: never), a digest of all of it."""
        ends = f"t.{quoted(self.expires)}"
        ms = f"case when isfinite({ends}) then floor(extract(epoch from {ends}) * 1000)::bigint else -1 end"
        key = f"encode(convert_to(t.{quoted(self.key)}::text, getdatabaseencoding()), 'hex')"
        return f"{key}, {ms if self.expires else '-1'}, to_hex({DIGEST})"


DIGEST = 'hashtextextended(row(t.*)::text collate "C", 0)'


class TableSeen(Wire):
    """What a database tells of a table: why it cannot be compared (``fault``), and how many sessions there are.

    ``sessions`` is None where counting took too long. ``type`` is that of the key; ``blocks`` are those of the table,
    ``longest`` those of its longest part.
    """

    fault: str = ""
    sessions: int | None = None
    type: str = ""
    blocks: int = 0
    longest: int = 0


class Replicating(Wire):
    """What a database is, and how far: ``has`` and ``received`` are bytes of the log, replayed and not yet replayed.

    ``link`` is how a standby's receiver is ("": there is none), ``of`` whom it asks (host:port). ``committed`` is when
    the last transaction was committed that it has replayed, by the clock of its primary; ``now`` is its own.
    """

    role: Literal["primary", "standby"] = "standby"
    system: str = ""
    now: datetime | None = None
    has: int = 0
    received: int = 0
    committed: datetime | None = None
    paused: bool = False
    link: str = ""
    of: str = ""
    tables: dict[str, TableSeen] = {}


class Said(NamedTuple):
    """What a database said: how far it had come before, how far it is after, and its lines, word by word.

    ``waited`` tells whether it had not come so far when it was asked first.
    """

    reached: int
    waited: bool
    offset: int
    lines: Sequence[Sequence[str]]

    def of(self, kind: str) -> Iterator[Sequence[str]]:
        """Return the words of each line of this kind."""
        return (words[1:] for words in self.lines if words[0] == kind)


async def ask(
    database: DatabaseAt, statements: Iterable[str], limit: int = LIMIT, *, upto: int = 0, seconds: float = 0,
    stop: bool = True,
) -> Said:  # fmt: skip
    """Ask a database, once it has come to ``upto`` in the log; after ``stop`` an error ends it, else the next is asked.

    Raises Transient where it cannot answer now, Refused where it does not let this login do so.
    """
    values = database.values("") | {
        "sql": "\n".join(statements), "upto": upto, "patience": ceil(seconds), "limit": limit, "stop": int(stop),
    }  # fmt: skip
    return said(await ssh.look(database.host, "table_ask", values, 2 * limit + 4 + ceil(2 * seconds)))


def said(text: str) -> Said:
    """Return what the script ``table_ask`` printed. Raises Invalid if that is none of it."""
    head, *tries = text.split("again\n")
    first, _, rest = head.partition("\n")
    lines = [line.split("\t") for line in (tries[-1] if tries else rest).splitlines()]
    try:
        _, reached, waited = first.split("\t")
        return Said(
            int(reached), waited == "yes", next((int(words[1]) for words in lines if words[0] == "offset"), 0), lines
        )
    except (IndexError, ValueError):
        raise Invalid("bin: what answers does not tell of itself as PostgreSQL does") from None


async def look(database: DatabaseAt, tables: Iterable[TableAt], now: datetime) -> Replicating:
    """Look at a database and its tables, and count their sessions."""
    known = {table.table: table for table in tables}
    told = await ask(database, [STATE, *map(facts, known.values())], 2, stop=False)
    state, found = next(told.of("state"), ["{}"])[0], {name: seen(name, text) for name, text in told.of("table")}
    locked = "cannot be looked at for now; who has it locked?"
    found = {name: found.get(name, TableSeen(fault=f"{name}: {locked}")) for name in known}
    counts = {}
    if well := [table for name, table in known.items() if not found[name].fault]:
        count = [
            f"select 'count', {literal(one.table)}, count(*) from {one.source} t where {one.alive(now)};"
            for one in well
        ]
        counts = {name: int(many) for name, many in (await ask(database, count, 2, stop=False)).of("count")}
    counted = {name: one.model_copy(update={"sessions": counts.get(name)}) for name, one in found.items()}
    try:
        live = {name: value for name, value in json.loads(state).items() if value is not None}
        return Replicating.model_validate(live | {"tables": counted})
    except ValueError:
        raise Invalid("bin: what answers does not tell of itself as PostgreSQL does") from None


def facts(table: TableAt) -> str:
    """Return the statement that tells of a table what decides whether it can be compared."""
    key, ends = literal(plain(table.key)), literal(plain(table.expires))
    column = "from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attname ="
    parts = "(select c.oid union select relid from pg_partition_tree(c.oid))"
    size = f"from pg_class p where p.oid in {parts} and p.relkind = 'r'"
    blocks = "pg_relation_size(p.oid) / current_setting('block_size')::int"
    return f"""select 'table', {literal(table.table)}, (select json_build_object('kind', c.relkind,
        'key', (select format_type(a.atttypid, a.atttypmod) {column} {key}),
        'unique', exists (select {column} {key} and exists (select from pg_index i where i.indrelid = c.oid
            and i.indisunique and i.indisvalid and i.indpred is null and i.indnkeyatts = 1 and i.indkey[0] = a.attnum)),
        'expires', {ends}, 'ends', (select format_type(a.atttypid, -1) {column} {ends}),
        'unlogged', exists (select {size} and p.relpersistence <> 'p'),
        'readable', has_table_privilege(c.oid, 'select') and has_schema_privilege(c.relnamespace, 'usage'),
        'blocks', (select coalesce(sum({blocks}), 0) {size}), 'longest', (select coalesce(max({blocks}), 0) {size}))
    from pg_class c where c.oid = to_regclass({literal(table.source)}));"""


def seen(name: str, text: str) -> TableSeen:
    """Return what is to be known of a table, given what ``facts`` told; nothing is told of one that is not there."""
    told: Mapping[str, Any] = json.loads(text) if text else {}
    fault = _fault(told)
    if fault:
        return TableSeen(fault=f"{name}: {fault}")
    return TableSeen(type=told["key"], blocks=int(told["blocks"]), longest=int(told["longest"]))


def _fault(told: Mapping[str, Any]) -> str:
    kinds = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index"}
    wrong = {
        "there is no such table (table)": not told,
        f"is {kinds.get(told.get('kind', ''), 'something else')}, no table; name the table behind it (table)": (
            told.get("kind") not in ("r", "p")
        ),
        "is unlogged: what it holds is never replicated; alter table … set logged": told.get("unlogged"),
        "there is no such column (key)": not told.get("key"),
        "has no index in which this column alone is unique; several columns together are not known here (key)": (
            not told.get("unique")
        ),
        "there is no such column (expires)": told.get("expires") and not told.get("ends"),
        f"this column is no timestamptz, but {told.get('ends')} (expires)": (
            told.get("expires") and told.get("ends") != "timestamp with time zone"
        ),
        "this login may not read it (user)": not told.get("readable"),
    }
    return next((words for words, so in wrong.items() if so), "")


class Side(NamedTuple):
    """A table at one side, as it is read; ``now`` decides which sessions have ended, in each question alike."""

    database: DatabaseAt
    table: TableAt
    seen: TableSeen

    def keyed(self, keys: Sequence[str], now: datetime) -> Iterator[str]:
        """Return the statements that ask for the rows under these keys (hex)."""
        for at in range(0, len(keys), MANY):
            words = " ".join(keys[at : at + MANY])
            if not re.fullmatch(r"[0-9a-f ]*", words):
                raise ValueError(words)
            asked = f"select convert_from(decode(h, 'hex'), getdatabaseencoding())::{self.seen.type}"
            asked += f" from unnest(string_to_array('{words}', ' ')) h"
            yield self.selected(f"t.{quoted(self.table.key)} = any (array({asked}))", now)

    def selected(self, where: str, now: datetime) -> str:
        """Return the statement that asks for some rows."""
        return f"select 'row', {self.table.row} from {self.table.source} t where {where} and {self.table.alive(now)};"

    async def read(self, keys: Sequence[str], upto: int = 0, seconds: float = 0) -> Reading:
        """Read the rows under these keys, and count all where that is quick."""
        now = moment()
        statements = list(self.keyed(keys, now))
        if self.seen.blocks <= COUNTED:
            statements.append(f"select 'count', count(*) from {self.table.source} t where {self.table.alive(now)};")
        if not upto:
            statements.append(SETTLED)
        told = await ask(self.database, statements, upto=upto, seconds=seconds)
        count = next((int(many) for (many,) in told.of("count")), 0)
        return Reading(rows(told), told.offset, told.reached, count)


def rows(told: Said) -> dict[str, Row]:
    """Return the rows that were told, by key in hex; one whose key is no text is nobody's."""
    return {key: Row("row", int(expires), digest) for key, expires, digest in told.of("row") if key}


def moment() -> datetime:
    """Return now, by the worker's clock: both sides are asked about the same moment, whatever theirs say."""
    return datetime.now().astimezone()


def plain(identifier: str) -> str:
    """Return a name as the catalog has it."""
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier.lower()


def quoted(identifier: str) -> str:
    """Return a name as it stands in a statement, whatever it is."""
    return '"' + plain(identifier).replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as it stands in a statement."""
    return "'" + text.replace("'", "''") + "'"
