"""Sessions in tables of PostgreSQL that a standby replays: how long a commit takes, and whether both hold the same.

What a session holds never leaves its database: digests do, which the database itself computes. A standby has each row
where its primary has it, block by block: so all of a table is compared in pieces, of which those alike are only summed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from activities import tables
from activities.comparing import MOST, NAMED, Compared, Difference, Row, compared, difference, goes, named, soon
from activities.databases import DatabaseAt
from activities.sightings import LOGIN, answering
from activities.tables import DIGEST, SETTLED, Replicating, Side, TableAt, TableSeen
from recovery.actions import Probe, Spec
from recovery.errors import Refused, Transient
from recovery.models import Wire

PIECE = 1024
"""Blocks that are compared at once."""
PART = 32
"""Blocks of one sum: where that is not the same, the rows are asked for."""
READ = 30
"""Seconds in which a piece is read."""
ALL = 400
"""Seconds in which all of a table is compared."""
FEW = 20
"""Blocks that are drawn at the least; from each come some rows."""


class TablesSpec(Spec):
    """A database, and its tables of sessions."""

    database: DatabaseAt
    tables: tuple[TableAt, ...]


class DatabaseSighting(Wire):
    """What was seen of a database; ``why`` nothing could be seen where it did not answer."""

    answered: bool = False
    why: str = ""
    seen: Replicating = Replicating()


class SeeDatabase(Probe[TablesSpec, DatabaseSighting]):
    """Look at a database by itself; one that does not let us in is what was found out, too."""

    name = "sessions.database"
    limit = timedelta(seconds=17)
    patience = timedelta(0)

    def title(self, spec: TablesSpec) -> str:
        """Say what is looked at."""
        return f"see {spec.system}"

    async def observe(self, spec: TablesSpec) -> DatabaseSighting:
        """Look, once."""
        try:
            async with answering(spec.database.host, LOGIN):
                seen = await tables.look(spec.database, spec.tables, tables.moment())
                return DatabaseSighting(answered=True, seen=seen)
        except (Transient, Refused) as error:
            return DatabaseSighting(why=error.message)


see_database = SeeDatabase()


class PairOfDatabases(Spec):
    """A primary and its standby; ``seconds`` are allowed for a commit to be replayed. ``writes`` has one be made."""

    primary: DatabaseAt
    standby: DatabaseAt
    seconds: float = 5
    writes: bool = False


class Replayed(Wire):
    """Whether a standby replayed all that its primary had, after how many seconds at the most, and what it lacked then.

    0 seconds: nothing was written, and it had all of it when it was asked. ``failed`` is why that could not be tried.
    """

    arrived: bool = False
    seconds: float = 0
    lacks: int = 0
    failed: str = ""


class WriteMessage(Probe[PairOfDatabases, Replayed]):
    """Have a primary commit a message in its log, which is in no table; wait until its standby has replayed that.

    Without ``writes`` nothing is written, and it is waited for what the log held: of an idle one that proves little.
    """

    name = "sessions.replayed"
    limit = timedelta(seconds=90)
    patience = timedelta(0)

    def title(self, spec: PairOfDatabases) -> str:
        """Say what is tried."""
        return f"see a commit of {spec.primary.name} replayed at {spec.standby.name}"

    async def observe(self, spec: PairOfDatabases) -> Replayed:
        """Write, wait; a database that is gone meanwhile is what was found out."""
        clock = asyncio.get_running_loop().time
        message = ["select pg_logical_emit_message(true, 'recovery', 'canary');"] if spec.writes else []
        try:
            began = clock()
            wanted = (await tables.ask(spec.primary, [*message, SETTLED])).offset
            found = await tables.ask(spec.standby, [], upto=wanted, seconds=spec.seconds)
        except (Transient, Refused) as error:
            return Replayed(failed=error.message)
        at_once = not spec.writes and not found.waited and found.reached >= wanted
        return Replayed(
            arrived=found.reached >= wanted,
            seconds=0 if at_once else round(clock() - began, 3),
            lacks=max(wanted - found.reached, 0),
        )


write_message = WriteMessage()


class TableComparison(PairOfDatabases):
    """Compare so many sessions of a table, at random, or every one (``whole``); ``seen`` is the table at the primary.

    Of a standby that does not ``keep up`` nothing is waited for: what it lacks now is counted.
    """

    table: TableAt
    seen: TableSeen
    sample: int = 1000
    whole: bool = False
    keeps_up: bool = True


class CompareTables(Probe[TableComparison, Compared]):
    """Compare what two databases hold in a table; what clients just write is looked at again, and no difference."""

    name = "sessions.rows"
    limit = timedelta(minutes=8)
    patience = timedelta(0)

    def title(self, spec: TableComparison) -> str:
        """Say what is compared."""
        what = "every session" if spec.whole else f"{spec.sample} sessions"
        return f"compare {what} in {spec.table.table} of {spec.primary.name} with those of {spec.standby.name}"

    async def observe(self, spec: TableComparison) -> Compared:
        """Compare; a database that is gone meanwhile is what was found out."""
        first, second = (Side(one, spec.table, spec.seen) for one in (spec.primary, spec.standby))
        try:
            async with asyncio.timeout(ALL):
                return await (_whole if spec.whole or not spec.keeps_up else _sampled)(spec, first, second)
        except (Transient, Refused) as error:
            return Compared(failed=error.message)
        except TimeoutError:
            return Compared(failed=f"not all of {spec.table.table} was read within {ALL} s; compare a sample")


compare_tables = CompareTables()


async def _sampled(spec: TableComparison, first: Side, second: Side) -> Compared:
    """Draw keys at both, for each may have what the other one lacks; where these have not as many, compare all."""
    drawn = await asyncio.gather(*(_drawn(one, spec.sample // 2) for one in (first, second)))
    found = await compared(first, second, sorted(set().union(*drawn)), spec.seconds)
    return found if found.even else await _whole(spec, first, second)


async def _drawn(side: Side, many: int) -> set[str]:
    """Return keys from blocks that chance chose: more of them, where many are empty."""
    share = 100 * (FEW + many / 10) / max(side.seen.blocks, 1)
    while True:
        now, share = tables.moment(), min(share, 100)
        source = f"{side.table.source} t tablesample system ({share:.9f})"
        where = f"{side.table.alive(now)} order by random() limit {many}"
        found = tables.rows(
            await tables.ask(side.database, [f"select 'row', {side.table.row} from {source} where {where};"])
        )
        if share == 100 or len(found) > many / 2:
            return set(found)
        share *= 8


async def _whole(spec: TableComparison, first: Side, second: Side) -> Compared:
    """Compare piece by piece; what differs is asked for again, by its key: it may lie elsewhere by now."""
    now, total, unlike, lost = tables.moment(), 0, dict[str, None](), _Lost()
    more = 0  # clients may just have written so many: nobody is accused of them
    for at in range(0, max(spec.seen.longest, 1), PIECE):
        sums = await asyncio.gather(*(_sums(side, at, now) for side in (first, second)))
        differing = [part for part in sorted(sums[0].keys() | sums[1].keys()) if sums[0].get(part) != sums[1].get(part)]
        rows = await asyncio.gather(*(_parts(side, differing, now) for side in (first, second)))
        total += sum(count for part, (count, _) in sums[0].items() if part not in differing) + len(rows[0])
        keys = sorted(key for key in rows[0].keys() | rows[1].keys() if rows[0].get(key) != rows[1].get(key))
        if not spec.keeps_up:  # it stands where it stood
            await lost.look(first, second, keys)
            continue
        room = max(MOST - len(unlike), 0)
        unlike |= dict.fromkeys(keys[:room])
        more += len(keys[room:])
    if not spec.keeps_up:
        return Compared(
            compared=total + lost.differences["left over"], differences=dict(lost.differences), named=named(lost.some)
        )
    found = await compared(first, second, list(unlike), spec.seconds)
    undecided = found.undecided + more
    total += found.differences.get("left over", 0)
    return found.model_copy(update={"compared": max(total - undecided, 0), "undecided": undecided})


class _Lost:
    """What a standby that stands still lacks, or has otherwise; each key is counted once, also one that moved."""

    def __init__(self) -> None:
        self.differences, self.some, self._known = Counter[Difference](), list[tuple[str, Difference]](), set[int]()

    async def look(self, first: Side, second: Side, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), MOST):
            some = keys[at : at + MOST]
            ours, theirs, until = (await first.read(some)).rows, (await second.read(some)).rows, soon()
            for key in some:
                one, other = ours.get(key), theirs.get(key)
                how = None if goes(one, other, until) else difference(one, other)
                if how and hash(key) not in self._known:
                    self._add(key, how)

    def _add(self, key: str, how: Difference) -> None:
        self._known.add(hash(key))
        self.differences[how] += 1
        if len(self.some) < NAMED:
            self.some.append((key, how))


async def _sums(side: Side, at: int, now: datetime) -> Mapping[int, tuple[int, str]]:
    """Return of each part of a piece, which begins at a block, how many sessions there are, and a sum of digests."""
    where = f"{_blocks(at, at + PIECE)} and {side.table.alive(now)}"
    part = f"(t.ctid::text::point)[0]::bigint / {PART}"
    asked = f"select 'sum', {part}, count(*), sum({DIGEST}) from {side.table.source} t where {where} group by 2;"
    told = await tables.ask(side.database, [asked], READ)
    return {int(number): (int(count), total) for number, count, total in told.of("sum")}


async def _parts(side: Side, parts: Sequence[int], now: datetime) -> Mapping[str, Row]:
    """Return all rows of some parts."""
    if not parts:
        return {}
    told = await tables.ask(side.database, [side.selected(where, now) for where in _ranges(parts)], READ)
    return tables.rows(told)


def _ranges(parts: Sequence[int]) -> Iterator[str]:
    """Return the conditions for rows in some parts, in order, those side by side in one."""
    begin = parts[0]
    for part, then in zip(parts, [*parts[1:], None], strict=True):
        if then != part + 1:
            yield _blocks(begin * PART, (part + 1) * PART)
            begin = then or 0


def _blocks(first: int, end: int) -> str:
    return f"t.ctid >= '({first},0)' and t.ctid < '({end},0)'"
