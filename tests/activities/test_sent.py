"""What each step sends to a host: every script gets every variable that it uses, and its answer is understood."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import worker
from activities import scripts, ssh
from activities.backups import REACH_BACK, SETTLE, backups
from activities.databases import caught_up, look_at_database
from activities.divergence import export_divergence, look_for_divergence
from activities.extraction import copy_back, copying_back, preview, previewing
from activities.git import Source
from activities.health import HealthAt, WatchHealth, watch_health
from activities.holdings import AskHoldings, AskUnarchived
from activities.homecoming import parted
from activities.host_files import CompareFiles, FilesAt, Put, PutFiles, compare_files, put_files
from activities.postgres import Placed, Replayed, place, ready, replay
from activities.returning import Return, returns, store_returns
from activities.revision_commands import CommandAt, Told, tell
from activities.services import AwaitReady, await_ready, run_services
from activities.session_keeping import KeepSpec, keep_sessions
from activities.session_restoring import (
    PutSpec,
    ReadSpec,
    SnapshotSpec,
    check_put,
    forget_before,
    put_sessions,
    read_snapshot,
    see_snapshot,
)
from activities.session_tables import (
    PairOfDatabases,
    TableComparison,
    TablesSpec,
    compare_tables,
    see_database,
    write_message,
)
from activities.sessions import Comparison, PairOfStores, compare_sessions, see_store, write_canary
from activities.sightings import Lookout, sight, sight_store
from activities.site_checks import CheckAsked, make_check
from activities.sites import Sites
from activities.ssh import HostAt
from activities.statuses import CommandAsked, ask_command
from activities.store_roles import fence_store, follow_store, promote_store, unfence_store
from activities.stores import StoreAt, look_at_store, replication
from activities.stores import caught_up as store_caught_up
from activities.switching import follow, forget_role, keep_role, promote_standby, retire
from activities.tables import TableAt, TableSeen
from activities.targets import Target
from recovery.actions import Action, Probe
from recovery.errors import Drifted, Fatal, Refused, Stale, Transient, kind
from tests.activities.captured import captured
from tests.activities.recorder import NAMES, Recorder, Sent, recorder
from tests.activities.sample import AT_SITES, CHOICE, HOST, STANDING, SYSTEMS, TARGET, copy, moving, replacing
from tests.shops import Remote

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS = [step for step in (*worker.PROBES, *worker.ACTIONS) if "HostAt" in str(step.spec_type.model_json_schema())]
"""Every step on a host; the others send no script."""
ACTIONS = [step for step in STEPS if isinstance(step, Action)]
WAITS = (
    "postgres.first_write",
    "postgres.caught_up",
    "valkey.caught_up",
    "host.returns",
    "services.ready",
    "files.compare",
    "health.watch",
    "valkey.returns",
    "sessions.canary",
    "sessions.compared",
    "sessions.replayed",
    "sessions.rows",
    "haproxy.drained",
)
FACTS = '{"kind": "r", "key": "uuid", "unique": true, "readable": true, "blocks": 1, "longest": 1}'
OWNERS = ("0a1b2c3d", "4e5f6a7b")
LEADERS = {keep_role.name: "north", follow.name: "south"}
"""At which site there is a primary that a step has the other one follow."""
SHELL = {"PATH", "HOME", "IFS", "ENV", "PS4", "PWD", "TMPDIR", "SHELL", "USER", "LANG", "LC_ALL", "TZ", "CDPATH"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listening(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    async with recorder(tmp_path_factory.mktemp("keys")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def host(listening: Recorder) -> Recorder:
    """A host on which a copy stands, and both sites."""
    listening.sent.clear()
    listening.answers.clear()
    listening.answer("inventory", captured("inventory_down"))
    listening.answer("readiness", captured("readiness"))
    listening.answer("verify_copy", captured("verify_good"))
    listening.answer("store_state", captured("store_primary"))
    listening.answer("service_state", "runs\n")
    listening.answer("store_ask", "reached\t1\noffset\t1\nkeys\t1\n")
    listening.answer("store_all", "offset\t1\ncursor 0\n")
    listening.answer("table_ask", f"reached\t1\tno\nstate\t{{}}\ntable\tpublic.s\t{FACTS}\noffset\t1\n")
    listening.answer("status", "0\nwell\n")
    listening.answer("divergence", "line\t1\nfork\t\n")
    there = "new\t0:0\nkind\tfile\tapp.conf\nstat\t-rw-r--r--\t644\t0:0\tapp.conf\n"
    listening.answer("files_seen", f"{there}{'0' * 64}  app.conf\n")
    listening.answer("revision", "0\n\nold\n")
    listening.answer("haproxy_state", "server\tn1\t0\nserver\ts1\t1\n")
    return listening


def specs(at: HostAt, owner: str = OWNERS[0]) -> dict[str, Any]:
    """Return the specs of a side copy, its cut-over and a move between sites, by step; ``owner`` is the recovery."""
    of = copy(cutover="extract", extract=({"table": "public.orders", "where": "number < 7"}, {"table": "public.t"}))
    of, cut = replace(of, run=f"{of.run[:-8]}{owner}"), replacing()
    cut = replace(cut, copy=replace(cut.copy, run=of.run))
    made: list[Any] = [of.find(), of.room(), of.place(CHOICE, 6001), of.replay(CHOICE, 6001)]
    made += [of.verify(6001), of.compare(6001), previewing(of, 6001), copying_back(of, 6001)]
    made += [cut.look(), cut.cut(6001, STANDING), cut.salvage(6001, STANDING), cut.first_write(6001, STANDING)]
    made.append(cut.base_backup(6001, STANDING, TARGET))
    made.append(AskHoldings(system="orders", host=at, backups="/srv/b", archive="/srv/a", segment=1 << 24, settled=30))
    made.append(AskUnarchived(system="orders", host=at, bin="/opt/pg/bin", data="/srv/pg", next="0" * 24))
    known = {type(spec): spec.model_copy(update={"host": at}) for spec in made}
    of_copies = {step.name: known[step.spec_type] for step in STEPS if step.spec_type in known}
    return of_copies | of_sites(at, owner) | of_shop(at, owner)


@cache
def shop() -> tuple[Remote, str, str]:
    """Return a repository, a good revision of it and its newest one."""
    folder = Path(tempfile.mkdtemp(prefix="sent-"))
    atexit.register(shutil.rmtree, folder)
    remote = Remote.new(folder / "shop.git")
    return remote, remote.commit({"app.conf": "good\n"}), remote.commit({"app.conf": "bad\n"})


def of_shop(at: HostAt, owner: str) -> dict[str, Any]:
    """Return the specs of a rollback."""
    remote, good, head = shop()
    repository, known = remote.repository, {"system": "shop", "run": owner}
    target = FilesAt(name="web@one", host=at, to="/srv/web", reload="true", health="true")
    words = dict.fromkeys(("check", "apply", "verify", "undo"), "true")
    told = CommandAt(name="broker", host=at, **words)
    put = Put(path="app.conf", digest="1" * 64, seen="0" * 64)
    return {
        compare_files.name: CompareFiles(**known, targets=(target,), repository=repository, head=head, good=good),
        put_files.name: PutFiles(
            **known, target=target, source=Source(repository=repository, revision=good), files=(put,), owner="0:0"
        ),
        tell.name: Told(**known, target=told, revision="new"),
        watch_health.name: WatchHealth(
            system="shop", what="it", targets=(HealthAt(target="web@one", host=at, command="true"),)
        ),
    }


def of_sites(at: HostAt, owner: str) -> dict[str, Any]:
    """Return the specs that a move between sites makes, with both of them on this host."""
    sites = moving(
        HOST.model_copy(update=at.model_dump(exclude={"name", "seen_from"})), owner, systems=(*SYSTEMS, "edge")
    )
    table = TableAt(table="public.s", key="id")
    (pair,), (two,), level = sites.databases, sites.stores, sites.levels("south")[0]
    return {
        look_at_database.name: sites.look(pair.old, pair.new),
        sight.name: Lookout.of(sites.look(pair.old, pair.new)),
        sight_store.name: sites.store(two.old),
        store_returns.name: sites.store(two.old),
        returns.name: Return(system="north-db", host=at),
        caught_up.name: sites.catch_up(pair),
        keep_role.name: sites.of_new(pair),
        forget_role.name: sites.of_new(pair),
        retire.name: sites.of_old(pair),
        promote_standby.name: sites.of_new(pair),
        follow.name: sites.of_old(pair),
        look_for_divergence.name: parted(sites, pair),
        export_divergence.name: parted(sites, pair),
        run_services.name: level,
        make_check.name: CheckAsked(system="south", check="network", host=at, command="true"),
        await_ready.name: AwaitReady(
            system="api-south", service=level.services[0].model_copy(update={"ready": "true", "within": 5})
        ),
        look_at_store.name: sites.store(two.old),
        see_store.name: sites.store(two.old),
        keep_sessions.name: KeepSpec(system=two.old.name, store=two.old, run=owner, out="/srv/kept"),
        **of_snapshots(two.old, owner),
        write_canary.name: PairOfStores(system="sessions", primary=two.old, replica=two.new),
        compare_sessions.name: Comparison(system="sessions", primary=two.old, replica=two.new, whole=True),
        see_database.name: TablesSpec(system="orders", database=pair.old, tables=(table,)),
        write_message.name: PairOfDatabases(system="orders", primary=pair.old, standby=pair.new),
        compare_tables.name: TableComparison(
            system="orders", primary=pair.old, standby=pair.new, table=table, seen=TableSeen(type="uuid"), whole=True
        ),
        ask_command.name: CommandAsked(system="elsewhere", host=at, run="true", replicated="."),
        **of_edge(sites),
        store_caught_up.name: sites.copies(two),
        fence_store.name: sites.store(two.old),
        unfence_store.name: sites.unfence(two, replication(captured("store_primary"))),
        promote_store.name: sites.promotes(two).model_copy(update={"peer": None}),
        follow_store.name: sites.follows(two),
    }


def of_edge(sites: Sites) -> dict[str, Any]:
    """Return the specs about an HAProxy on the host."""
    steps = [sites.seen_by("edge"), sites.point("edge", "south"), sites.front("edge").drained("north", 0)]
    return {step.name: spec for step, spec in filter(None, steps)}


def of_snapshots(store: StoreAt, owner: str) -> dict[str, Any]:
    """Return the specs that restore sessions into a store."""
    store = store.model_copy(update={"server": "/usr/bin/valkey-server", "copies": "/srv/copies"})
    of: dict[str, Any] = {"system": store.name, "store": store, "run": owner}
    puts = PutSpec(**of, out="/srv/copies/out", plan="e3b0")
    snapshot: dict[str, Any] = {"snapshot": "/srv/copies/lost.rdb"}
    return {
        see_snapshot.name: SnapshotSpec(**of, **snapshot),
        read_snapshot.name: ReadSpec(**of, **snapshot, out="/srv/copies/out", digest="e3b0", keys=7, version="seen"),
        put_sessions.name: puts,
        check_put.name: puts,
        forget_before.name: puts,
    }


def stand(step: Probe[Any, Any], host: Recorder) -> None:
    """Have the north be stopped for good, and the south have all of it, but where a step needs a primary to follow."""
    usual = {"north": "pg_retired", "south": "pg_standby"}
    for site, found in (usual | {LEADERS[step.name]: "pg_primary"} if step.name in LEADERS else usual).items():
        host.answer("pg_state", captured(found), port=str(AT_SITES[site]["port"]))


async def sent_by(step: Probe[Any, Any], host: Recorder, owner: str = OWNERS[0]) -> list[Sent]:
    """Return what ``step`` sends when it looks and, if it is an action, acts, undoes, halts and tidies up."""
    stand(step, host)
    known = specs(host.host, owner)
    assert step.name in known, f"{step.name} has no sample spec in this test"
    spec = known[step.name]
    before = await step.observe(spec)
    if isinstance(step, Action):
        await step.apply(spec, before)
        if not step.kept:
            await step.undo(spec, before)
        await step.halt(spec)
        await step.tidied(spec)
    return host.sent


FUNCTION = re.compile(r"^([a-z_]+)\(\) \{(?:.*\}(?: +#.*)?$|.*\n(?:.*\n)*?\}$)", re.MULTILINE)


def used_text(name: str) -> str:
    """Return the script ``name`` without the shared functions that it does not call."""
    own = scripts.TAKEN.sub("", scripts.own(name))
    shared = scripts.text(name).replace(own, "")
    functions = {found[1]: found[0] for found in FUNCTION.finditer(shared)}
    for body in functions.values():
        shared = shared.replace(body, "")
    used = shared + own
    while called := [n for n in functions if re.search(rf"\b{n}\b", used)]:
        used += "".join(functions.pop(n) for n in called)
    return used


def shared_scripts() -> set[str]:
    """Return the scripts that others take, and what begins a job."""
    taken = {taken for name in NAMES for taken in scripts.TAKEN.findall(scripts.own(name))} - {"backups"}
    return {"job", *taken, *(name for name in NAMES if name.startswith("backups_"))}


def needed(name: str) -> set[str]:
    """Return the variables that the script ``name`` uses before it sets them, if ever it does, and has no value for."""
    text = "\n".join(line for line in used_text(name).splitlines() if not line.lstrip().startswith("#"))
    used = [(m.start(), m[1]) for m in re.finditer(r"\$\{?([A-Z][A-Z0-9_]*)(?!:?[-=])\b", text)]
    made = {m[1]: m.start() for m in reversed(list(re.finditer(r"(?:^|[\s;(])([A-Z][A-Z0-9_]*)=", text)))}
    return {name for start, name in used if start < made.get(name, len(text))}


async def test_needed_variables_are_found() -> None:
    of_place = {"COPY", "OWNER", "BACKUP", "BIN", "COPYPORT", "ARCHIVE", "DATA", "TARGET", "TIMELINE", "RESTORE"}
    of_place |= {"KIND", "INCLUSIVE"}
    assert needed("place_copy") == of_place
    assert "TABLES" in needed("compare_copy")
    assert {"GUARD", "RULES", "SHUT", "DATA", "IDENTITY"} <= needed("shut_door")
    assert "GUARD" not in needed("standing")
    assert "QUERY_" in needed("verify_copy")
    assert {"UPSTREAM", "FROM", "OWNER", "SOCKETS"} <= needed("follow")
    assert {"ADDRESS", "SECRET", "WANTED"} <= needed("store_role")
    assert "UPSTREAM" not in needed("retire")
    assert "LAST" in needed("promote_standby")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
async def test_script_gets_every_variable(step: Probe[Any, Any], host: Recorder) -> None:
    for sent in await sent_by(step, host):
        missing = {v for v in needed(sent.name) - {"QUERY_", "TABLE_", "WHERE_"} if v not in sent.values}
        assert not missing, f"{sent.name}.sh uses {missing}, which {step.name} does not give it"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
async def test_values_are_no_variables_of_the_shell(step: Probe[Any, Any], host: Recorder) -> None:
    for sent in await sent_by(step, host):
        assert not {v for v in sent.values if v in SHELL or v.startswith("PG")}
        assert "None" not in sent.values.values()


async def test_every_script_is_sent_by_a_step(host: Recorder) -> None:
    for step in STEPS:
        await sent_by(step, host)
    point = {"target": Target(kind="name", value="a point")}  # for which the log is read
    await backups.observe(specs(host.host)["backups"].model_copy(update=point))
    assert {sent.name for sent in host.sent} | shared_scripts() == set(NAMES)
    looks = {
        "nothing", "inventory", "last_commit", "locate", "holdings", "unarchived", "readiness", "copy_state",
        "verify_copy", "compare_copy", "end_job",
        "standing", "cut_state", "salvage_state", "backup_state", "first_write",
        "store_ask", "store_all", "table_ask", "status", "sessions_kept",
        "files_seen", "files_after", "file_read", "revision",
        "see_snapshot", "snapshot_read", "sessions_put", "check_put", "haproxy_state", "haproxy_left",
        "extraction", "end_copy_back", "divergence", "end_reading", "pg_state", "store_state", "service_state",
        "service_ready",
    }  # fmt: skip
    assert {sent.name for sent in host.sent if not sent.job} == looks
    assert not {sent.name for sent in host.sent if sent.job} & looks


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
async def test_look_may_take_as_long_as_its_activity(step: Probe[Any, Any], host: Recorder) -> None:
    """Less what it takes to tell people; together where there are several, but for the ones that wait for something."""
    stand(step, host)
    await step.observe(specs(host.host)[step.name])
    limit = step.look_limit if isinstance(step, Action) else step.limit
    looks = [sent.seconds for sent in host.sent if sent.name != "nothing"]
    assert sum(looks) < limit.total_seconds()
    assert min(looks, default=0) >= (limit / max(len(looks), 1)).total_seconds() - 5 or step.name in WAITS


@pytest.mark.parametrize("step", [caught_up, store_caught_up], ids=lambda step: step.name)
async def test_wait_ends_before_its_activity(step: Probe[Any, Any], host: Recorder) -> None:
    """However long a runbook lets it wait: the last looks may begin in the last moment."""
    longest = timedelta(minutes=10)
    moving(catch_up=longest)
    with pytest.raises(ValueError, match="catch_up"):
        moving(catch_up=longest + timedelta(seconds=1))
    stand(step, host)
    await step.observe(specs(host.host)[step.name])
    assert longest.total_seconds() + sum(sent.seconds for sent in host.sent) < step.limit.total_seconds()


async def test_looks_that_read_much_have_time() -> None:
    assert copy_back.look_limit == preview.limit
    assert backups.limit >= timedelta(minutes=5)


async def jobs_of(step: Action[Any, Any], host: Recorder, owner: str = OWNERS[0]) -> set[str]:
    """Return the names of the jobs that an action begins or ends."""
    host.sent.clear()
    sent = await sent_by(step, host, owner)
    return {one.job or one.values["NAME"] for one in sent if one.job or "NAME" in one.values}


async def test_job_is_of_its_system_and_recovery(host: Recorder) -> None:
    copies = "orders-20261121T223015Z-0a1b2c3d"
    for step in ACTIONS:
        spec, kind, _, what = specs(host.host)[step.name], *step.name.partition(".")
        moves = step.name in of_sites(host.host, OWNERS[0])
        what = "service" if kind == "services" else what
        one = f"{spec.target.name}-0a1b2c3d" if step.name in of_shop(host.host, OWNERS[0]) else copies
        assert await jobs_of(step, host) == {f"{spec.system}-0a1b2c3d.{what}" if moves else f"{one}.{what}"}


async def test_no_two_steps_share_a_job(host: Recorder) -> None:
    found = [job for step in ACTIONS for owner in OWNERS for job in await jobs_of(step, host, owner)]
    assert sorted(found) == sorted(set(found))


async def test_what_is_wanted_arrives(host: Recorder) -> None:
    for step in STEPS:
        await sent_by(step, host)
    placed, replayed, verified, compared, copied = (
        next(sent.values for sent in host.sent if sent.name == name)
        for name in ("place_copy", "replay_copy", "verify_copy", "compare_copy", "copy_back")
    )
    assert placed["TARGET"] == "2026-11-21 22:30:15.250000+00"
    assert (placed["BACKUP"], placed["TIMELINE"], placed["DATA"]) == ("/srv/backups/monday", "3", "/srv/pg data")
    assert (placed["COPY"], placed["COPYPORT"]) == ("/srv/copies/orders-20261121T223015Z-0a1b2c3d", "6001")
    assert placed["OWNER"] == "lab/orders@019e0000-0000-7000-8000-00000a1b2c3d"
    assert replayed["ENOUGH"] == "0/9000000"
    assert (verified["AMCHECK"], verified["QUERIES"]) == ("yes", "2")
    assert (verified["QUERY_1"], verified["QUERY_2"]) == ("select count(*) from t", "select 1")
    assert (compared["TABLES"], compared["SOCKETS"], compared["PORT"]) == ("public.orders\npublic.t", "/run/pg", "5432")
    assert (copied["TABLES"], copied["SOCKETS"], copied["PORT"]) == ("2", "/run/pg", "5432")
    assert [copied[f"{what}_{n}"] for n in range(2) for what in ("TABLE", "WHERE")] == [
        "public.orders", "number < 7", "public.t", "",
    ]  # fmt: skip
    reached, kept, promoted, undone, followed, started = (
        next(sent.values for sent in host.sent if sent.name == name)
        for name in ("pg_state", "keep_role", "promote_standby", "unretire", "follow", "service")
    )
    assert kept["DATA"] == promoted["DATA"] == "/srv/south/pg data"
    assert (kept["COPY"], kept["OWNER"]) == ("/srv/south/pg data.switch-0a1b2c3d", "0a1b2c3d")
    assert (promoted["LAST"], undone["SERVED"]) == ("0/1101F80", "no")
    assert followed["DATA"] == "/srv/north/pg data"
    assert followed["UPSTREAM"] == "host=192.0.2.1 port=7001 user=replicator application_name=it's"
    assert reached["REACH"] == followed["UPSTREAM"]
    assert followed["FROM"] == "192.0.2.1:7001"
    assert (started["COMMAND"], started["SERVICE"]) == ("systemctl start 'mail'", "mail-south")
    assert started["MARK"] == "/srv/jobs/.begun/mail-south-0a1b2c3d"


# --- what is answered --------------------------------------------------------------------------------------------

NAME = "20261122T015250.249524Z"


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("", Placed()),
        (captured("state_partial"), Placed(stage="partial", owner="lab/orders@0a1b2c3d")),
        ("stage\tpartial\nowner\t\n", Placed(stage="partial")),
        (captured("state_placed"), Placed(stage="placed", owner="lab/orders@0a1b2c3d", backup=NAME)),
        (captured("state_paused"), Placed(stage="placed", owner="lab/orders@0a1b2c3d", backup=NAME)),
    ],
    ids=["absent", "partial", "just begun", "placed", "running"],
)
async def test_placed_copy_is_told(host: Recorder, state: str, seen: Placed) -> None:
    host.answer("copy_state", state)
    spec = specs(host.host)[place.name]
    assert await place.observe(spec) == seen


STOOD = {"lsn": "0/1C36A18", "last_commit": "2026-11-22 01:58:28.999606"}


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("", Replayed()),
        (captured("state_placed"), Replayed()),
        ("stage\tplaced\nserver\trunning\n", Replayed(stage="replaying")),
        ("server\trunning\nreplay\tnot paused\t0/1C36A18\t\n", Replayed(stage="replaying")),
        ("server\trunning\nreplay\tpause requested\t0/1C36A18\t\n", Replayed(stage="replaying")),
        ("server\trunning\nreplay\tlocked\t0/1C36A18\t\n", Replayed(stage="replaying")),
        (captured("state_paused"), Replayed(stage="ready", how="paused", **STOOD)),
        (captured("state_promoted"), Replayed(stage="ready", how="promoted", **STOOD)),
        ("server\trunning\nreplay\ttaken\t0/1C36A18\t\n", Replayed(stage="taken")),
        ("server\trunning\nreplay\tpaused\t0/2000060\t\n", Replayed(stage="ready", how="paused", lsn="0/2000060")),
    ],
    ids=[
        "absent",
        "stopped",
        "starting",
        "on its way",
        "stopping",
        "locked",
        "paused",
        "promoted",
        "taken",
        "no commit",
    ],
)
async def test_replayed_copy_is_told(host: Recorder, state: str, seen: Replayed) -> None:
    host.answer("copy_state", state)
    spec = specs(host.host)[replay.name]
    assert await replay.observe(spec) == seen


async def test_end_of_a_closed_run_is_before_its_last_commit(host: Recorder) -> None:
    """A later commit must be met, else replay waits for log that never comes."""
    host.answer("last_commit", "record\t0/0F3FFF0\ncommit\t2026-11-22 02:02:17.183528\n")
    found = await backups.observe(specs(host.host)[backups.name])
    assert [r.until for r in found.ranges] == [datetime(2026, 11, 22, 2, 2, 17, 183527, tzinfo=UTC)]
    assert [r.end for r in found.ranges] == ["0/F3FFF0"]


async def test_run_without_a_commit_has_no_end(host: Recorder) -> None:
    found = await backups.observe(specs(host.host)[backups.name])
    assert [r.until for r in found.ranges] == [None]


async def test_open_run_ends_a_moment_before_now(host: Recorder) -> None:
    host.answer("inventory", captured("inventory_live"))
    found = await backups.observe(specs(host.host)[backups.name])
    assert [r.until for r in found.ranges] == [found.now - SETTLE]
    assert [sent.name for sent in host.sent] == ["inventory"]


async def test_last_commit_is_looked_for_newest_first(host: Recorder) -> None:
    await backups.observe(specs(host.host)[backups.name])
    numbers = [int(name, 16) % 2**32 for name in host.sent[-1].values["SEGMENTS"].split()]
    assert numbers == list(range(0xF3, 0, -1))
    assert max(0xF3 - REACH_BACK, 0) == 0


async def test_runs_of_other_timelines_are_left_aside(host: Recorder) -> None:
    host.answer("inventory", captured("inventory_second_timeline"))
    found = await backups.observe(specs(host.host)[backups.name])
    assert {r.timeline for r in found.ranges if r.until} == {2}


async def test_clock_of_the_host_is_compared(host: Recorder) -> None:
    found = await ready.observe(specs(host.host)[ready.name])
    there = float(captured("readiness").splitlines()[0].split("\t")[1])
    assert abs(found.skew - (there - datetime.now(UTC).timestamp())) < 5
    assert [sent.name for sent in host.sent] == ["nothing", "readiness"]


@pytest.mark.parametrize("error", [Transient, Refused, Drifted, Stale, Fatal])
async def test_script_says_what_to_do_next(host: Recorder, error: type[Exception]) -> None:
    host.answer("nothing", complaint=f"noise\n{error.__name__}: the disk is full\n", status=3)
    with pytest.raises(error, match=r"host 127.0.0.1:\d+: the disk is full$"):
        await ssh.look(host.host, "nothing", {})


@pytest.mark.parametrize("complaint", ["", "sh: 1: not found\n", "stale: x\n", "Invalid: x\n", " Fatal: x\n", "\xff\n"])
async def test_any_other_end_is_tried_again(host: Recorder, complaint: str) -> None:
    host.answer("nothing", complaint=complaint, status=127)
    with pytest.raises(Transient, match=r"a command ended with 127: ") as raised:
        await ssh.look(host.host, "nothing", {})
    assert kind(raised.value) == Transient.__name__


async def test_large_script_arrives_whole(host: Recorder) -> None:
    long = "x" * 100_000
    await ssh.look(host.host, "nothing", {"long": long})
    await ssh.job(host.host, "j", "stop_copy", {"long": long})
    assert [(sent.name, sent.job, len(sent.values["LONG"])) for sent in host.sent] == [
        ("nothing", "", 100_000), ("stop_copy", "j", 100_000),
    ]  # fmt: skip
