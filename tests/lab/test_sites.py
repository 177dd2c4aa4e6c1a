"""The second site follows the first, takes its place, and is followed by it."""

import subprocess
from collections.abc import Callable

import pytest

from lab import addresses, link
from lab.estate import Lab
from lab.place import LabError, runner
from lab.postgres import Postgres

Wait = Callable[[float, Callable[[], object]], None]
FreshLab = Callable[[], Lab]


@pytest.fixture(scope="module")
def pair(fresh_labs: FreshLab) -> Lab:
    """A lab of two sites, shared by the tests of this file; each leaves north the primary and the link open."""
    lab = fresh_labs()
    lab.up(south=True)
    return lab


def ask(database: Postgres, query: str) -> str:
    where = ["-h", str(database.place.sockets), "-p", str(database.port), "-U", "postgres"]
    return database.run("psql", *where, "-XAtc", query, "orders").strip()


def replayed(primary: Postgres, standby: Postgres) -> Callable[[], bool]:
    """Return whether a standby has everything that the primary has now."""
    present = ask(primary, "select pg_current_wal_lsn()")
    return lambda: ask(standby, f"select pg_last_wal_replay_lsn() >= '{present}'") == "t"


def test_standby_follows_through_the_link(pair: Lab, within: Wait) -> None:
    north, south = pair.databases["north"], pair.databases["south"]
    within(10, lambda: ask(north, "select state from pg_stat_replication where application_name = 'south'"))
    within(5, replayed(north, south))
    assert ask(south, "select pg_is_in_recovery()") == "t"
    assert ask(south, "select slot_name from pg_replication_slots") == ""
    port = ask(south, "select sender_port from pg_stat_wal_receiver")
    assert int(port) == pair.ports[addresses.linked("north", "postgres")]


def test_sites_differ_in_their_places_only(pair: Lab) -> None:
    query = "select name, setting from pg_settings where sourcefile like '%/postgresql.conf'"
    settings = [
        dict(line.split("|", 1) for line in ask(pair.databases[site], query).splitlines()) for site in pair.sites
    ]
    own = {"cluster_name", "port", "unix_socket_directories", "archive_command"}
    assert {name for name in settings[0] if settings[0][name] != settings[1][name]} == own
    assert settings[0].keys() == settings[1].keys()


def test_dropped_link_stops_replication(pair: Lab, within: Wait) -> None:
    north, south = pair.databases["north"], pair.databases["south"]
    within(5, replayed(north, south))
    assert link.ask(pair.place, "dropped") == "dropped"
    ask(north, "create table apart (); drop table apart")
    caught_up = replayed(north, south)
    assert not caught_up()
    assert link.ask(pair.place, "open") == "open"
    within(10, caught_up)


def test_up_leaves_roles_as_they_are(pair: Lab, within: Wait) -> None:
    before = {program.pid for program in pair.up(south=True).programs}
    assert {program.pid for program in pair.up().programs} == before


@pytest.mark.parametrize("active", ["south", "north"])
def test_roles_are_switched_by_rewinding(pair: Lab, within: Wait, active: str) -> None:
    """Each site in turn is promoted while the other one, killed, still thinks that it is the primary."""
    new, old = pair.databases[active], pair.databases[addresses.other(active)]
    within(5, replayed(old, new))
    pair.break_("postgres")
    assert ask(new, "select pg_promote()") == "t"
    within(10, lambda: pair.primary is new)
    old.start()
    ask(old, "create table lost ()")
    old.stop(quick=False)
    kept = {name: (old.place.data / name).read_bytes() for name in ("postgresql.conf", "postgresql.auto.conf")}
    old.run("pg_rewind", "-D", old.place.data, f"--source-server={new.upstream(old.place)}")
    for name, content in kept.items():  # it brings those of its source
        (old.place.data / name).write_bytes(content)
    follow(old, new)
    old.start()
    within(10, replayed(new, old))
    assert ask(old, "select to_regclass('lost') is null and pg_is_in_recovery()") == "t"
    roles = {program.site: program.state for program in pair.status().programs if program.name == "postgres"}
    assert roles == {active: "primary", old.place.site: "standby"}
    pair.down(purge=False)
    assert pair.up().healthy
    within(10, replayed(new, old))


def follow(standby: Postgres, primary: Postgres) -> None:
    with (standby.place.data / "postgresql.auto.conf").open("a") as file:
        file.write(f"primary_conninfo = '{primary.upstream(standby.place)}'\n")
    subprocess.run(["touch", standby.place.data / "standby.signal"], check=True, cwd="/", **runner().drop())


def test_site_without_primary_is_not_cloned(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    lab.up(load=False)
    (lab.place.data / "standby.signal").touch()
    with pytest.raises(LabError, match="no primary"):
        lab.up(load=False, south=True)
