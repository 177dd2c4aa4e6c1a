"""A side copy of a made-up database, and two made-up sites, as a recovery would want them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from activities.backups import Backup
from activities.replacing import Replacing
from activities.restorable import Choice
from activities.side_copy import SideCopy
from activities.sites import Sites
from activities.standing import Standing
from runbooks.procedures import data_center_activation
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


AT_SITES: dict[str, dict[str, Any]] = {
    "north": {"port": 5432, "store": 6379, "app": 8000, "link": 7000},
    "south": {"port": 5433, "store": 6380, "app": 8001, "link": 7001},
}
SYSTEMS = (
    "orders", "orders-south", "sessions", "sessions-south", "api-north", "mail-north", "api-south", "mail-south",
    "front",
)  # fmt: skip


def estate(host: Host = HOST) -> dict[str, Any]:
    """Return two sites, as history holds them: a database, a store and two services at each, a director before them."""
    found: dict[str, Any] = {kind: {} for kind in ("sites", "hosts", "databases", "stores", "services", "directors")}
    names = {"north": ("orders", "sessions"), "south": ("orders-south", "sessions-south")}
    for (site, at), peer in zip(AT_SITES.items(), reversed(AT_SITES), strict=True):
        on, (database, store), (other, replica) = f"{site}-db", names[site], names[peer]
        found["sites"][site] = {"title": site, "queue": f"recovery-{site}"}
        found["hosts"][on] = host.model_copy(update={"site": site}).model_dump(mode="json")
        upstream = f"host=192.0.2.1 port={at['link']} user=replicator application_name=it's"
        found["databases"][database] = DATABASE.model_dump(mode="json") | {
            "host": on, "port": at["port"], "data": f"/srv/{site}/pg data", "peer": other, "upstream": upstream,
        }  # fmt: skip
        found["stores"][store] = {
            "host": on, "cli": "/opt/valkey-cli", "port": at["store"], "secret": f"/srv/{site}/secret",
            "peer": replica, "upstream": {"address": "192.0.2.1", "port": at["link"]},
        }  # fmt: skip
        for name, after in (("mail", []), ("api", [database, f"mail-{site}"])):
            words = {word: f"systemctl {word} '{name}'" for word in ("start", "stop", "status")}
            url = f"http://192.0.2.1:{at['app']}/ready" if name == "api" else None
            found["services"][f"{name}-{site}"] = {"host": on, **words, "after": after, "url": url}
    found["directors"]["front"] = {
        "admin": "http://192.0.2.9:2019", "server": "clients", "url": "http://192.0.2.9",
        "sites": {site: {"address": "192.0.2.1", "port": at["app"]} for site, at in AT_SITES.items()},
    }  # fmt: skip
    found["directors"]["edge"] = {
        "kind": "haproxy", "host": "south-db", "backend": "orders", "sites": {"north": "n1", "south": "s1"},
        "state": "/var/lib/haproxy/state", "url": "http://192.0.2.9",
    }  # fmt: skip
    found["directors"]["shop"] = {
        "kind": "dns", "server": "192.0.2.53:53", "zone": "example.org", "record": "shop.example.org",
        "type": "CNAME", "sites": {"north": "north.example.org", "south": "south.example.org"},
        "nobody": "sorry.example.org", "key": {"name": "recovery", "secret": "/etc/dr/tsig"},
        "resolvers": ["192.0.2.1:53"], "url": "http://192.0.2.9",
    }  # fmt: skip
    found["directors"]["azure"] = {
        "kind": "traffic-manager", "subscription": "11111111-2222-3333-4444-555555555555", "resource_group": "shop",
        "profile": "orders", "sites": {"north": "to-north", "south": "to-south"}, "url": "http://192.0.2.9",
    }  # fmt: skip
    return found


def moving(host: Host = HOST, owner: str = "0a1b2c3d", systems: tuple[str, ...] = SYSTEMS, **wanted: Any) -> Sites:
    """Return the move of everything from north to south."""
    parameters = data_center_activation.Parameters.model_validate({"site": "south"} | wanted)
    return Sites(systems, estate(host), parameters, owner)
