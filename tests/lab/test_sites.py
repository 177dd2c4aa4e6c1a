"""Two sites: one follows the other, takes its place, is lost, and comes back as it was."""

import asyncio
import signal
import subprocess
from collections.abc import Callable

import asyncssh
import pytest

from lab import addresses, ledger, link, processes
from lab.director import UPSTREAMS
from lab.estate import Lab
from lab.kinds import Kind
from lab.models import Program, Status
from lab.place import LabError, environment, runner
from lab.postgres import Postgres
from tests.lab.pairs import ask, http, on_host, replayed

pytestmark = pytest.mark.drawn

Wait = Callable[[float, Callable[[], object]], None]
FreshLab = Callable[[], Lab]


@pytest.fixture(scope="module")
def pair(fresh_labs: FreshLab) -> Lab:
    """A lab of two sites, shared by the tests of this file; each leaves it whole, with north active."""
    lab = fresh_labs()
    assert lab.up(south=True).healthy
    return lab


def found(status: Status, name: str, site: str | None = None) -> Program:
    return next(program for program in status.programs if (program.name, program.site) == (name, site))


# --- databases --------------------------------------------------------------------------------------------------


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
    lines = [ask(database, query).splitlines() for database in pair.databases.values()]
    north, south = [dict(line.split("|", 1) for line in each) for each in lines]
    own = {"cluster_name", "port", "unix_socket_directories", "archive_command"}
    assert {name for name in north if north[name] != south[name]} == own
    assert north.keys() == south.keys()


def test_up_leaves_everything_as_it_is(pair: Lab) -> None:
    before = {(program.name, program.site): program.pid for program in pair.up(south=True).programs}
    assert {(program.name, program.site): program.pid for program in pair.up().programs} == before


@pytest.mark.parametrize("active", ["south", "north"])
def test_roles_are_switched_by_rewinding(pair: Lab, within: Wait, active: str) -> None:
    """Each site in turn is promoted while the other one, killed, still thinks that it is the primary."""
    new, old = pair.databases[active], pair.databases[addresses.other(active)]
    within(10, replayed(old, new))
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


# --- losing and healing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["north", "south"])
def test_lost_site_is_dead_as_a_whole(pair: Lab, within: Wait, site: str) -> None:
    stray = ["setsid", "-f", "sleep", "300"]  # what a remote command left behind goes with its host
    subprocess.run(stray, check=True, env=environment(pair.place.at(site)), cwd="/", **runner().drop())
    before = pair.status()
    accident = pair.break_(site)
    assert (accident.kind, accident.site) == (Kind(site), site)
    assert processes.members_of(pair.place.at(site)) == []
    after = pair.status()
    assert not any(program.running for program in after.programs if program.site == site)
    alive = {(program.name, program.site): program.pid for program in after.programs if program.site != site}
    assert alive == {(p.name, p.site): p.pid for p in before.programs if p.site != site}
    with pytest.raises(LabError, match="nothing runs there"):
        pair.break_(site)
    healed = pair.heal()
    assert healed.healthy
    assert [(p.name, p.state, p.running) for p in healed.programs if p.name != "link"] == [
        (p.name, p.state, p.running) for p in before.programs if p.name != "link"
    ]
    within(15, replayed(pair.databases["north"], pair.databases["south"]))
    began = pair.status().acknowledged
    within(10, lambda: pair.status().acknowledged > began)
    assert found(healed, "orders", "north").running
    assert not found(healed, "orders", "south").running


def test_partition_separates_what_goes_on_living(pair: Lab, within: Wait) -> None:
    north, south = pair.databases["north"], pair.databases["south"]
    within(15, replayed(north, south))
    accident = pair.break_(Kind.PARTITION)
    assert accident.site is None
    ask(north, "create table apart (); drop table apart")
    caught_up = replayed(north, south)
    with pytest.raises(LabError, match="is cut already"):
        pair.break_(Kind.PARTITION)
    assert asyncio.run(greeted(pair, "ssh", 0.4)) is False
    assert asyncio.run(greeted(pair, "south-ssh", 5)) is True
    assert not caught_up()
    status = pair.up()  # starts what does not run, and mends nothing
    assert found(status, "link").state == "dropped"
    assert status.healthy
    assert found(pair.heal(), "link").state == "open"
    within(15, caught_up)
    assert asyncio.run(greeted(pair, "ssh", 5)) is True


async def greeted(lab: Lab, name: str, seconds: float) -> bool:
    """Whether north's host answers from south (`ssh`), or south's host at its own address, with the key expected."""
    site, port = ("north", addresses.linked("north", "ssh")) if name == "ssh" else ("south", name)
    options = asyncssh.SSHClientConnectionOptions(
        known_hosts=str(lab.place.ssh / "known_hosts"), client_keys=[str(lab.place.ssh / "client_key")],
        username=runner().name, connect_timeout=seconds, login_timeout=seconds,
    )  # fmt: skip
    try:
        async with asyncssh.connect("127.0.0.1", lab.ports[port], config=None, options=options) as connection:
            done = await connection.run("pwd")
            return str(done.stdout).strip() == str(lab.place.at(site).home)
    except (OSError, asyncssh.Error):
        return False


def test_killed_link_is_started_again(pair: Lab) -> None:
    process = processes.recall(pair.place.run / "link.json")
    assert process is not None
    processes.stop([process[0]], signal.SIGKILL, 5)
    assert not found(pair.status(), "link").running
    assert pair.heal().healthy
    assert link.ask(pair.place, "state") == "open"


def test_worker_is_lost_with_its_site(pair: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    first = pair.start_worker("south")
    assert pair.start_worker("south") == first
    assert processes.environ(first)["RECOVERY_SITE"] == "south"
    assert first.pid in pair.break_("south").pids
    assert not found(pair.status(), "worker", "south").running
    assert found(pair.heal(), "worker", "south").running
    pair.stop_worker("south")
    assert not any(program.name == "worker" for program in pair.status().programs)


# --- applications -----------------------------------------------------------------------------------------------


def test_orders_through_the_director_are_in_the_table(pair: Lab, within: Wait) -> None:
    before, began = ledger.highest_number(pair.place.load), pair.status().acknowledged
    within(10, lambda: pair.status().acknowledged > began + 50)
    acknowledged = {order.number for order in ledger.acknowledged(pair.place.load) if order.number > before}
    table = {int(number) for number in ask(pair.primary, f"select number from orders where number > {before}").split()}
    assert len(acknowledged) > 50
    assert acknowledged <= table


NUMBER = 9_000_000_000  # above all that the load uses


def test_same_order_counts_once(pair: Lab) -> None:
    order = {"number": NUMBER, "customer": "customer 7", "amount": 12.34}
    url = f"{pair.director.url}/orders"
    assert http("POST", url, order) == (201, {"number": NUMBER, "session": True})
    assert http("POST", url, order) == (200, {"number": NUMBER, "session": True})
    status, told = http("GET", f"{url}/{NUMBER}")
    assert (status, told["customer"], told["amount"]) == (200, "customer 7", "12.34")
    assert http("GET", f"{url}/{NUMBER + 1}")[0] == 404
    cli = [str(pair.place.programs / "valkey-cli"), "-p", str(pair.ports["valkey"]), "-a", pair.passwords["valkey"]]
    assert on_host(pair, "north", *cli, "GET", "session:customer 7")[1].strip() == str(NUMBER)
    ask(pair.primary, f"delete from orders where number >= {NUMBER}")


@pytest.mark.parametrize("order", [{}, [], "x", {"number": "x", "customer": "c", "amount": 1}, {"number": 1}])
def test_order_without_sense_is_refused(pair: Lab, order: object) -> None:
    assert http("POST", f"{pair.director.url}/orders", order)[0] == 400


def test_service_is_started_and_stopped_by_its_host(pair: Lab) -> None:
    script, url = str(pair.sites["south"].service.script), f"http://127.0.0.1:{pair.ports['south-orders']}"
    assert on_host(pair, "south", script, "status") == (1, "does not run\n")
    assert on_host(pair, "south", script, "start")[0] == 0
    first = pair.sites["south"].service.running()
    assert on_host(pair, "south", script, "start")[0] == 0
    assert pair.sites["south"].service.running() == first
    assert on_host(pair, "south", script, "status") == (0, "runs\n")
    assert http("GET", f"{url}/health") == (
        503,
        {"database": "takes no writes", "store": "is a replica", "configuration": "good"},
    )
    status, told = http("POST", f"{url}/orders", {"number": NUMBER, "customer": "c", "amount": 1})
    assert (status, told["error"]) == (503, "25006")
    assert on_host(pair, "south", script, "stop")[0] == 0
    assert on_host(pair, "south", script, "stop")[0] == 0
    assert on_host(pair, "south", script, "status")[0] == 1
    good = (200, {"database": "good", "store": "good", "configuration": "good"})
    assert http("GET", f"http://127.0.0.1:{pair.ports['orders']}/health") == good


def test_director_points_where_it_was_pointed(pair: Lab, within: Wait) -> None:
    upstreams = f"http://127.0.0.1:{pair.ports['director-admin']}{UPSTREAMS}"
    dial = {site: [{"dial": f"127.0.0.1:{pair.sites[site].port('orders')}"}] for site in pair.sites}
    assert http("PATCH", upstreams, dial["south"])[0] == 200
    assert http("GET", f"{pair.director.url}/health")[0] == 502
    process = pair.director.running()
    assert process is not None
    processes.stop([process], signal.SIGKILL, 5)
    assert found(pair.up(), "director").state == "south"
    assert http("PATCH", upstreams, dial["north"])[0] == 200
    assert http("GET", f"{pair.director.url}/health")[0] == 200
    began = pair.status().acknowledged
    within(10, lambda: pair.status().acknowledged > began)
    assert any(order.error == "502" for order in ledger.refused(pair.place.load))


def test_valkey_cli_answers_as_the_real_one(pair: Lab, within: Wait) -> None:
    def cli(site: str, *words: str, password: str = pair.passwords["valkey"]) -> tuple[int, str]:
        where = ["env", f"REDISCLI_AUTH={password}", str(pair.place.programs / "valkey-cli")]
        port = str(pair.sites[site].port("valkey"))
        return on_host(pair, site, *where, "-h", "127.0.0.1", "-p", port, "--no-auth-warning", *words)

    assert cli("north", "SET", "greeting", "good day") == (0, "OK\n")
    within(5, lambda: cli("south", "GET", "greeting") == (0, "good day\n"))
    assert cli("north", "GET", "nothing") == (0, "\n")
    assert cli("north", "RPUSH", "list", "a", "b") == (0, "2\n")
    assert cli("north", "LRANGE", "list", "0", "-1") == (0, "a\nb\n")
    assert cli("north", "DEL", "list", "greeting") == (0, "2\n")
    assert cli("north", "-n", "3", "SET", "elsewhere", "") == (0, "OK\n")
    assert cli("north", "EXISTS", "elsewhere") == (0, "0\n")
    long = "ü" * 50_000
    assert cli("north", "-n", "3", "SET", "elsewhere", long) == (0, "OK\n")
    assert cli("north", "-n", "3", "EVAL", "return {1, {redis.call('get', 'elsewhere'), false}}", "0") == (
        0,
        f"1\n{long}\n\n",
    )
    assert cli("north", "NONSENSE")[1].startswith("ERR unknown command")
    assert cli("north", "-p", "1", "PING")[0] == 1
    code, said = cli("south", "SET", "greeting", "no")
    assert (code, said.split()[0]) == (1, "READONLY")
    code, said = cli("north", "PING", password="guess")
    assert (code, said.split()[0]) == (1, "WRONGPASS")


def test_secrets_of_both_sites_are_private(pair: Lab) -> None:
    for place in (pair.place.at(site) for site in pair.sites):
        given = place.valkey / "valkey.conf", place.orders / "configuration.json"
        for path in (place.passfile, place.valkey / "password", *given):
            assert path.stat().st_mode & 0o777 == 0o600
        for log in (place.valkey / "valkey.log", place.folder / "postgres.log"):
            assert not any(secret in log.read_text() for secret in pair.passwords.values())
