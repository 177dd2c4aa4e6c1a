"""DataCenterActivation, planned, with two real sites under load: nothing lost, nothing doubled, there and back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import pytest
import pytest_asyncio

from lab import daemons, ledger, processes
from lab.addresses import of
from lab.director import UPSTREAMS
from lab.estate import Lab
from lab.place import SITES
from recovery.report import Report
from tests.copies import command
from tests.lab.pairs import ask, http, on_host
from tests.labs import lab_apart
from tests.matrix.twins import settings, signal_file
from tests.running import Running, eventually
from tests.switches import activate, at_both_sites

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with lab_apart() as lab:
        lab.up(south=True, rate=60)
        yield lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(two: Lab) -> AsyncIterator[Running]:
    async with at_both_sites(two) as found:
        yield found


async def switched(engine: Running, site: str) -> Report:
    recovery = await activate(engine, site)
    await recovery.approve()
    return await recovery.ended(120)


def roles(lab: Lab, *sites: str) -> dict[str, str]:
    """Return what each site's database says that it is."""
    query = "select case when pg_is_in_recovery() then 'standby' else 'primary' end"
    return {site: ask(lab.databases[site], query) for site in sites or SITES}


async def settled(lab: Lab) -> set[int]:
    """Return the orders that were acknowledged so far, once some more have been since now."""
    count = len(ledger.acknowledged(lab.place.load))
    await eventually(lambda: len(ledger.acknowledged(lab.place.load)) > count + 20, "orders are taken", 30)
    return {row.number for row in ledger.acknowledged(lab.place.load)}


async def nothing_lost(lab: Lab) -> None:
    known = await settled(lab)
    primary = next(database for database in lab.databases.values() if not database.standby())
    rows = [int(number) for number in ask(primary, "select number from orders").split()]
    assert len(set(rows)) == len(rows)
    assert known - set(rows) == set()


def untouched(lab: Lab) -> dict[str, object]:
    """Return all that a move changes, but for rows and log, which clients change meanwhile."""
    found: dict[str, object] = {}
    if lab.director.running():
        found["director"] = http("GET", f"http://127.0.0.1:{lab.ports['director-admin']}/config/")
    for name, site in lab.sites.items():
        place = site.place
        found[name] = {
            "role": site.postgres.running() and roles(lab, name),
            "settings": settings(place.data),
            "files": sorted(path.name for path in place.data.iterdir() if not path.name.startswith("pg_stat")),
            "folders": sorted(path.name for path in place.folder.iterdir()),
            "jobs": sorted(path.name for path in place.jobs.iterdir()),
            "timelines": sorted({path.name[:8] for path in place.archive.glob("[!.]*")}),
            "server": site.postgres.running(),
            "store": (site.valkey.role(), site.valkey.configuration.read_text(), site.valkey.running()),
            "service": (site.service.running(), site.service.wanted),
        }  # fmt: skip
    return found


@contextlib.contextmanager
def kill_switch(lab: Lab) -> Iterator[None]:
    file = lab.place.at("north").jobs / "kill-switch"
    file.write_text("bob: not today")
    yield
    file.unlink()


@contextlib.contextmanager
def signal_in_the_primary(lab: Lab) -> Iterator[None]:
    signal_file(lab.databases["north"])
    yield
    (lab.place.at("north").data / "standby.signal").unlink()


@contextlib.contextmanager
def service_at_both_sites(lab: Lab) -> Iterator[None]:
    service = lab.sites["south"].service
    service.start()
    yield
    on_host(lab, "south", str(service.script), "stop")


@contextlib.contextmanager
def director_elsewhere(lab: Lab) -> Iterator[None]:
    upstreams = f"http://127.0.0.1:{lab.ports['director-admin']}{UPSTREAMS}"
    before = http("GET", upstreams)[1]
    http("PATCH", upstreams, [{"dial": "127.0.0.1:1"}])
    yield
    http("PATCH", upstreams, before)


@contextlib.contextmanager
def receiver_that_stands_still(lab: Lab) -> Iterator[None]:
    found = [one for one in processes.postgres_in(lab.place.at("south").data) if "walreceiver" in command(one.pid)]
    for receiver in found:
        processes.send(receiver, signal.SIGSTOP)
    before = ask(lab.databases["north"], "select pg_current_wal_flush_lsn()")
    while ask(lab.databases["north"], f"select pg_current_wal_flush_lsn() > '{before}'") != "t":
        time.sleep(0.05)  # orders are taken all the time
    yield
    for receiver in found:
        processes.send(receiver, signal.SIGCONT)


@contextlib.contextmanager
def login_refused(lab: Lab) -> Iterator[None]:
    file = lab.place.at("north").passfile
    text = file.read_text()
    file.write_text("")
    yield
    file.write_text(text)


@contextlib.contextmanager
def standby_stopped(lab: Lab) -> Iterator[None]:
    lab.databases["south"].stop(quick=True)
    yield
    lab.databases["south"].start()
    streaming = "select count(*) from pg_stat_replication where state = 'streaming'"
    await_that(lambda: ask(lab.databases["north"], streaming) == "1")


@contextlib.contextmanager
def setting_of_the_standby(lab: Lab) -> Iterator[None]:
    for statement in ("alter system set full_page_writes = off", "select pg_reload_conf()"):
        ask(lab.databases["south"], statement)
    await_that(lambda: ask(lab.databases["south"], "show full_page_writes") == "off")
    yield
    for statement in ("alter system reset full_page_writes", "select pg_reload_conf()"):
        ask(lab.databases["south"], statement)
    await_that(lambda: ask(lab.databases["south"], "show full_page_writes") == "on")


@contextlib.contextmanager
def timeline_in_the_archive(lab: Lab) -> Iterator[None]:
    file = lab.place.at("south").archive / "000000FF.history"
    file.touch()
    yield
    file.unlink()


@contextlib.contextmanager
def jobs_that_nobody_may_write(lab: Lab) -> Iterator[None]:
    jobs = lab.place.at("south").jobs
    mode = jobs.stat().st_mode
    jobs.chmod(0o500)
    yield
    jobs.chmod(mode)


@contextlib.contextmanager
def ssh_server_killed(lab: Lab) -> Iterator[None]:
    running = daemons.running(lab.place, of("south", "sshd"))
    processes.stop([running] if running else [], signal.SIGKILL, 5)
    yield
    lab.sites["south"].start_ssh()
    lab.sites["south"].await_ssh()


@contextlib.contextmanager
def store_on_its_own(lab: Lab) -> Iterator[None]:
    of = stored(lab, "south", "config", "get", "replicaof").split()[1:]
    stored(lab, "south", "replicaof", "no", "one")
    yield
    stored(lab, "south", "replicaof", *of)
    await_that(lambda: "master_link_status:up" in stored(lab, "south", "info", "replication"))


@contextlib.contextmanager
def store_that_is_fenced(lab: Lab) -> Iterator[None]:
    stored(lab, "north", "config", "set", "min-replicas-to-write", "99")
    yield
    stored(lab, "north", "config", "set", "min-replicas-to-write", "0")


@contextlib.contextmanager
def store_without_room(lab: Lab) -> Iterator[None]:
    stored(lab, "south", "config", "set", "maxmemory", "1000")
    yield
    stored(lab, "south", "config", "set", "maxmemory", "0")


@contextlib.contextmanager
def service_stopped(lab: Lab) -> Iterator[None]:
    service = lab.sites["north"].service
    on_host(lab, "north", str(service.script), "stop")
    yield
    on_host(lab, "north", str(service.script), "start")


@contextlib.contextmanager
def director_killed(lab: Lab) -> Iterator[None]:
    running = lab.director.running()
    processes.stop([running] if running else [], signal.SIGKILL, 5)
    yield
    lab.director.start("north")


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stored(lab: Lab, site: str, *words: str) -> str:
    """Ask a store by its own command line."""
    password = f"REDISCLI_AUTH={lab.passwords['valkey']}"
    cli, port = str(lab.place.programs / "valkey-cli"), str(lab.sites[site].port("valkey"))
    code, told = on_host(lab, site, "env", password, cli, "-p", port, *words)
    assert code == 0, told
    return told


PLANTED: dict[str, tuple[Callable[[Lab], AbstractContextManager[None]], str]] = {
    "kill switch": (kill_switch, "orders: the kill switch"),
    "standby.signal": (signal_in_the_primary, "orders: standby.signal lies in its data"),
    "service": (service_at_both_sites, "orders-app-south: runs at south already"),
    "service stopped": (service_stopped, "orders-app-north: does not run at north"),
    "director": (director_elsewhere, "front: points at elsewhere, not at north"),
    "director killed": (director_killed, "see where front points: "),
    "lag": (receiver_that_stands_still, "bytes of log, 0 are allowed"),
    "login": (login_refused, "orders: its host cannot replicate orders-south"),
    "standby stopped": (standby_stopped, "orders-south: is down, no standby"),
    "setting": (setting_of_the_standby, "orders-south: full_page_writes is 'off', at orders 'on'"),
    "timeline": (timeline_in_the_archive, "holds timeline 000000FF"),
    "jobs": (jobs_that_nobody_may_write, "cannot be written to"),
    "sshd": (ssh_server_killed, "look at orders-south from north: host 127.0.0.1:"),
    "store alone": (store_on_its_own, "sessions-south: is no replica of sessions"),
    "store fenced": (store_that_is_fenced, "sessions: refuses writes already"),
    "store small": (store_without_room, "sessions-south: may use 1000 bytes"),
}
AT_ONCE = ("kill switch", "sshd", "director", "service stopped", "store fenced")


@pytest.mark.drawn
@pytest.mark.parametrize("name", PLANTED)
async def test_check_names_what_stands_in_the_way(two: Lab, engine: Running, name: str) -> None:
    await blocked(two, engine, [name])


async def test_check_names_all_that_stands_in_the_way(two: Lab, engine: Running) -> None:
    await blocked(two, engine, AT_ONCE)


async def blocked(two: Lab, engine: Running, names: Sequence[str]) -> None:
    """Plant what stands in the way, and see that a check names each, and changes nothing."""
    await settled(two)
    with contextlib.ExitStack() as planted:
        for name in names:
            await asyncio.to_thread(planted.enter_context, PLANTED[name][0](two))
        before = untouched(two)
        report = await (await activate(engine, "south", "check", parameters={"max_lag": 0})).ended(90)
        assert untouched(two) == before
    assert report.outcome == "checked", report.failure
    for name in names:
        assert any(PLANTED[name][1] in blocker for blocker in report.blockers), report.blockers


async def test_check_changes_nothing(two: Lab, engine: Running) -> None:
    before = untouched(two)
    report = await (await activate(engine, "south", "check")).ended(60)
    assert (report.outcome, report.blockers) == ("checked", ()), report.failure
    assert untouched(two) == before


async def test_there_and_back_under_load(two: Lab, engine: Running) -> None:
    for site, other in (("south", "north"), ("north", "south")):
        await settled(two)
        report = await switched(engine, site)
        assert report.outcome == "recovered", (report.failure, await asyncio.to_thread(engine.log))
        assert await asyncio.to_thread(roles, two) == {site: "primary", other: "standby"}
        await nothing_lost(two)
