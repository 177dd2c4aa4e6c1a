"""What two sites show: who is active, what the other one is to it, and whether anything is left lying about."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg
import valkey
from valkey.exceptions import ValkeyError

from activities.store_roles import CLOSED
from lab import addresses, daemons, ledger, processes
from lab.addresses import linked, of
from lab.estate import Lab
from lab.place import SITES
from lab.processes import Process
from lab.site import Site
from tests.copies import command
from tests.matrix.scenes import digest
from tests.running import eventually

DAEMONS = ("sshd", "south-sshd", "load", "link", "director")
ROLE = "select case when pg_is_in_recovery() then 'standby' else 'primary' end"
FOLLOWS = "select status || ' ' || sender_host || ':' || sender_port from pg_stat_wal_receiver"
LINE = "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"


def told(site: Site, query: str) -> str:
    """Return the one value that a site's database answers; "" for none, "down" where it does not answer."""
    try:
        with site.postgres.connect("orders") as connection:
            row = connection.execute(query.encode()).fetchone()
            return str(row[0]) if row else ""
    except psycopg.Error:
        return "down"


def active(lab: Lab) -> str:
    """Return the site whose database takes writes. There has to be one."""
    found = [name for name, site in lab.sites.items() if told(site, ROLE) == "primary"]
    assert len(found) == 1, f"primaries: {found}"
    return found[0]


def timeline(lab: Lab) -> int:
    """Return the timeline on which the primary writes."""
    return int(told(lab.sites[active(lab)], LINE))


def shown(lab: Lab) -> dict[str, object]:
    """Return all that a switch changes, and all that it must leave as it was."""
    found: dict[str, object] = {"director": lab.director.site(), "others": sorted(strangers(lab))}
    for name, site in lab.sites.items():
        found[name] = {
            "database": told(site, ROLE),
            "replicates": told(site, FOLLOWS),
            "signals": sorted(path.name for path in site.place.data.glob("*.signal")),
            "settings": {f: digest(site.place.data / f"{f}.conf") for f in ("postgresql", "pg_hba", "pg_ident")},
            "store": _store(site),
            "runs": site.service.running() is not None,
            "wanted": site.service.wanted,
            "folders": sorted(path.name for path in site.place.folder.iterdir() if path.is_dir()),
            "jobs": sorted(path.name for path in site.place.jobs.glob("[!.]*")),
        }
    return found


def proper(lab: Lab, where: str, at_first: Mapping[str, Any]) -> dict[str, object]:
    """Return what there has to be where ``where`` is active; ``at_first`` is what was shown on the new lab."""
    found: dict[str, object] = {"director": where, "others": []}
    for name in SITES:
        here, other = name == where, addresses.other(name)
        postgres, store = (lab.ports[linked(other, kind)] for kind in ("postgres", "valkey"))
        found[name] = {
            "database": "primary" if here else "standby",
            "replicates": "" if here else f"streaming 127.0.0.1:{postgres}",
            "signals": [] if here else ["standby.signal"],
            "settings": at_first[name]["settings"],
            "store": {
                "role": "master" if here else "slave",
                "of": "" if here else f"127.0.0.1:{store} up",
                "least": 0,
                "lasting": [] if here else [f"replicaof 127.0.0.1 {store}"],
            },
            "runs": here,
            "wanted": here,
            "folders": at_first[name]["folders"],
            "jobs": [],
        }
    return found


def differs(wanted: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, object]:
    """Return what is not as wanted, by its path: what it is, and what it has to be."""
    wrong: dict[str, object] = {}
    for key, value in wanted.items():
        if isinstance(value, Mapping):
            wrong |= {f"{key}.{path}": how for path, how in differs(value, now[key]).items()}
        elif value != now[key]:
            wrong[key] = f"{now[key]}, not {value}"
    return wrong


def session_store(site: Site) -> valkey.Valkey:
    """Connect to the store of a site as an application does."""
    return valkey.Valkey(
        port=site.port("valkey"), password=site.passwords["valkey"], socket_timeout=2, socket_connect_timeout=2,
        decode_responses=True,
    )  # fmt: skip


def _store(site: Site) -> dict[str, object]:
    lines = [*site.valkey.configuration.read_text().splitlines()]
    try:
        with session_store(site) as client:
            info: Any = client.info("replication")
            least: Any = client.config_get("min-replicas-to-write")
    except ValkeyError as error:
        return {"role": type(error).__name__, "of": "", "least": None, "lasting": []}
    of = f"{info['master_host']}:{info['master_port']} {info['master_link_status']}" if info["role"] == "slave" else ""
    return {
        "role": info["role"],
        "of": of,
        "least": int(least["min-replicas-to-write"]),
        "lasting": [line for line in lines if re.match("replicaof|min-replicas-to-write [1-9]", line)],
    }


def counted(lab: Lab) -> int:
    """Return how many orders the session store of the active site has counted."""
    with session_store(lab.sites[active(lab)]) as client:
        found: Any = client.get("orders")
        return int(found or 0)


def strangers(lab: Lab) -> list[str]:
    """Return the command lines of processes of the lab that are none of its programs."""
    found = processes.members(lab.place.root)  # first: a session that begins later must not be taken for a stranger
    known: set[Process | None] = {daemons.running(lab.place, name) for name in DAEMONS}
    for site in lab.sites.values():
        known |= {*processes.postgres_in(site.place.data), *processes.valkey_in(site.place.valkey)}
        known.add(site.service.running())
    return [said for process in found if process not in known and (said := command(process.pid))]


# --- orders ------------------------------------------------------------------------------------------------


def rows(lab: Lab, site: str) -> list[int]:
    """Return the number of every order that a site's database has."""
    with lab.sites[site].postgres.connect("orders") as connection:
        return [int(str(row[0])) for row in connection.execute("select number from orders")]


async def orders_are_right(lab: Lab, since: int) -> None:
    """Assert that every acknowledged order is there once, at both sites, and none that nobody was told of.

    Before that more than ``since`` orders have to be acknowledged: clients are in.
    """
    log = lab.place.load / "acknowledged.jsonl"
    await eventually(lambda: ledger.count(log) > since + 20, "orders are taken", 40)
    acknowledged = {row.number for row in ledger.acknowledged(lab.place.load)}
    here = active(lab)
    there = rows(lab, here)
    assert len(there) == len(set(there)), "orders are doubled"
    lost = acknowledged - set(there)
    assert not lost, f"{len(lost)} acknowledged orders are lost, from {min(lost)} to {max(lost)}"
    other = addresses.other(here)
    await eventually(lambda: acknowledged <= set(rows(lab, other)), f"{other} has all of it, too", 20, pause=0.2)

    def of_nobody() -> set[int]:
        unsure = {row.number for row in ledger.refused(lab.place.load) if row.error == ledger.UNKNOWN}
        return set(there) - {row.number for row in ledger.acknowledged(lab.place.load)} - unsure

    await eventually(lambda: not of_nobody(), f"somebody was told of {sorted(of_nobody())}", 10)


@contextlib.asynccontextmanager
async def never_two(lab: Lab) -> AsyncIterator[None]:
    """Look all the time that never two databases, and never two stores, would take a write."""
    twice: list[str] = []

    def look() -> None:
        for takes in (_database_takes, _store_takes):
            # Seen one after the other: only what still holds when all were asked held at the same time.
            if all(takes(lab, site) for site in (*SITES, SITES[0])):
                twice.append(f"{datetime.now(UTC)}: {takes.__name__.strip('_')} writes at both sites")

    async def watch() -> None:
        while True:
            await asyncio.to_thread(look)
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    try:
        yield
        assert not twice, twice
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _database_takes(lab: Lab, site: str) -> bool:
    where = psycopg.conninfo.make_conninfo(
        host="127.0.0.1", port=lab.ports[of(site, "postgres")], dbname="orders", user="app",
        password=lab.passwords["app"], connect_timeout=2,
    )  # fmt: skip
    with contextlib.suppress(psycopg.Error), psycopg.connect(where) as connection:
        return connection.execute("select pg_is_in_recovery()").fetchone() == (False,)
    return False


def _store_takes(lab: Lab, site: str) -> bool:
    with contextlib.suppress(ValkeyError), session_store(lab.sites[site]) as client:
        least: Any = client.config_get("min-replicas-to-write")
        info: Any = client.info("replication")
        return bool(info["role"] == "master" and int(least["min-replicas-to-write"]) < CLOSED)
    return False
