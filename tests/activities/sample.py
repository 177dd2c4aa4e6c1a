"""A side copy of a made-up database, as a recovery would want it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from activities.backups import Backup, Choice
from activities.replacing import Replacing
from activities.side_copy import SideCopy
from activities.standing import Standing
from runbooks.procedures.database_point_in_time_restore import Parameters, Query
from runbooks.schema import Database, Host

TARGET = datetime(2026, 11, 21, 22, 30, 15, 250000, tzinfo=UTC)
HOST = Host(
    site="north", address="192.0.2.7", port=2222, user="dr", known_hosts="/etc/dr/known", key="/etc/dr/key",
    jobs="/srv/jobs",
)  # fmt: skip
DATABASE = Database(
    host="north-db", tier="gold", bin="/opt/pg/bin", data="/srv/pg data", sockets="/run/pg", port=5432, name="orders",
    user="postgres", backups="/srv/backups", archive="/srv/archive", copies="/srv/copies", copy_ports=(6001, 6002),
    drill=True,
)  # fmt: skip
BACKUP = Backup(
    name="monday", path="/srv/backups/monday", version=18, timeline=3, start_lsn="0/2000028", stop_lsn="0/2000120",
    stopped_at=datetime(2026, 11, 21, 20, tzinfo=UTC), size=1 << 30,
)  # fmt: skip
CHOICE = Choice(backup=BACKUP, timeline=3, enough="0/9000000", earliest=TARGET, latest=TARGET)
QUERIES = (
    Query(name="all there", sql="select count(*) from t", expect="7"),
    Query(name="b", sql="select 1", expect="1"),
)


STANDING = Standing(
    identity="65024:77", serving=True, live=True, version=18, timeline=3, rule="peer map=dba", rules="b" * 64,
    free=1 << 40, size=1 << 30, log="/var/log/pg.log", parent="systemd",
)  # fmt: skip


def replacing(**wanted: Any) -> Replacing:
    """Return the cut-over to the copy."""
    return Replacing(copy(**wanted))


def copy(database: dict[str, Any] | None = None, **wanted: Any) -> SideCopy:
    """Return the copy, with changes to its database and its parameters."""
    given = {"target_time": TARGET, "queries": QUERIES, "tables": ("public.orders", "public.t")} | wanted
    return SideCopy(
        "orders", DATABASE.model_copy(update=database or {}), HOST, Parameters.model_validate(given), "lab/orders",
        "019e0000-0000-7000-8000-00000a1b2c3d",
    )  # fmt: skip
