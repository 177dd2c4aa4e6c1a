"""How two databases that replicate each other, and their tables of sessions, are looked at; pure: specs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from activities.databases import DatabaseAt
from activities.session_tables import PairOfDatabases, TableComparison, TablesSpec
from activities.table_verdict import SeenTables, faults, linked, roles
from activities.tables import TableAt
from runbooks.procedures.session_replication_check import Parameters
from runbooks.schema import Database, Host


class DatabasePair:
    """Two databases of the estate, each the peer of the other one, and what a runbook says of tables in them."""

    def __init__(self, both: Sequence[DatabaseAt], wanted: Parameters) -> None:
        self.both, self.wanted = both, wanted
        names = {one.name for one in both}
        self.tables = tuple(TableAt.of(one) for one in wanted.tables if one.database in names)

    @classmethod
    def all(cls, systems: Sequence[str], estate: Mapping[str, Any], wanted: Parameters) -> Iterator[DatabasePair]:
        """Return each pair of the databases among ``systems`` once."""

        def known(name: str) -> DatabaseAt:
            found = Database.model_validate(estate["databases"][name])
            return DatabaseAt.of(name, found, Host.model_validate(estate["hosts"][found.host]))

        named = [name for name in systems if name in estate.get("databases", {})]
        for number, name in enumerate(named):
            peer = estate["databases"][name]["peer"]
            if peer in named[number:]:
                yield cls((known(name), known(peer)), wanted)

    def sees(self, one: DatabaseAt) -> TablesSpec:
        """Return how one of them is looked at by itself."""
        return TablesSpec(system=one.name, database=one, tables=self.tables)

    def replays(self, seen: SeenTables, *, writes: bool) -> PairOfDatabases | None:
        """Return what is waited for, where one replays what the other one commits; a cut link is not written to."""
        if (found := roles(self.both, seen)) is None:
            return None
        primary, standby = found
        return PairOfDatabases(
            system=standby.name, primary=primary, standby=standby, seconds=self.wanted.lag.total_seconds(),
            writes=writes and linked(primary, seen.databases[standby.name]),
        )  # fmt: skip

    def compares(self, seen: SeenTables, given: PairOfDatabases) -> Iterator[TableComparison]:
        """Return how each table is compared that can be; where the standby does not keep up, as a whole, as it is."""
        if seen.replayed is None or seen.replayed.failed:  # one of them is gone by now
            return
        link = linked(given.primary, seen.databases[given.standby.name])
        well = link and seen.replayed.arrived
        first, second = (seen.databases[one.name].seen.tables for one in (given.primary, given.standby))
        for table in self.tables:
            if table.table in faults(self.both, seen):
                continue
            ours, theirs = first[table.table], second[table.table]
            yield TableComparison(
                **given.model_dump(), table=table, sample=self.wanted.sample, whole=self.wanted.whole or not well,
                seen=ours.model_copy(update={"longest": max(ours.longest, theirs.longest)}), keeps_up=well,
            )  # fmt: skip
