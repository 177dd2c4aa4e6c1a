"""Cut-overs on a lab: hung and dead servers, clients that push in, rows of every kind, and the whole way under load."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import dataclasses
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from activities import ssh
from activities.backups import backups
from activities.cut_over import CutAction, CutSpec, Fenced, fence, install, promote
from activities.door import Doors, FirstWrite, close, first_write_seen, open_doors
from activities.redundancy import archive, base_backup
from activities.restorable import choose
from activities.salvage import Salvaged, salvage
from activities.standing import cut_over_blockers, look_at_standing
from activities.targets import Target
from lab import ledger, processes
from lab.estate import Lab
from lab.place import LabError
from recovery.actions import Order, agrees
from recovery.errors import Fatal, Transient
from tests.conftest import FreshLab
from tests.copies import ask_copy
from tests.matrix.relay import relay
from tests.matrix.scenes import quiet
from tests.matrix.scenes_cut_over import CutStage, carried_back, carried_out
from tests.matrix.theatre import written
from tests.running import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ODD = """
create table odd ("Key" text, n int, b bytea, f float8, a text[], j jsonb, g int generated always as (n * 2) stored);
insert into odd values ('null', null, null, null, null, null), ('', 0, '', 'NaN', '{}', '{}'),
    (E'tab\\tline\\nreturn\\r"quote" \\\\ \\\\n , \\b\\f\\v', 1, '\\x00ff', 0.1, array['a,b', '"', null], '{"k": "n"}'),
    ('twice', 2, null, 1e300, null, null), ('twice', 2, null, 1e300, null, null), (E'\\\\.', 3, null, 0, null, null),
    ('\\N', 4, null, 0, null, null), (repeat('long ', 10000), 5, null, 0, null, null);
create table "Up per"."T,1" (id int primary key, v text);
create table parts (id int, v text) partition by list (id);
create table parts_1 partition of parts for values in (1);
create unlogged table fleeting (id int);
"""
"""What differs before and after the target, in tables that stood before it."""

SECRETS = ("hush-before", "hush-after")
STOOD = f"""
create role leaver login password '{SECRETS[0]}'; create role changed login password '{SECRETS[0]}'; create role same;
create role promoted; grant same to leaver;
select lo_from_bytea(70001, 'stays'); select lo_from_bytea(70002, 'is overwritten'); select lo_from_bytea(70003, 'goes')
"""
CAME = f"""
drop role leaver; alter role changed password '{SECRETS[1]}'; grant same to promoted; create role newcomer;
select lo_put(70002, 0, 'as'), lo_unlink(70003), lo_from_bytea(70004, 'new')
"""
"""What is no row of a table, before and after the target; there are as many large objects."""
NOTES = {
    "sequence public.numbers stands at 1, and is not in use in the copy",
    "only in the running database: the role newcomer",
    "only in the copy, so it comes back with its password and rights: the role leaver",
    "other in the copy: password, attributes or memberships of the role changed",
    "other in the copy: password, attributes or memberships of the role promoted",
    "not exported: large objects that the copy lacks, or has in another form: 70002, 70004",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(fresh_labs: FreshLab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[CutStage]:
    """A copy beside a database whose later rows it lacks; nobody writes."""
    lab = fresh_labs()
    await asyncio.to_thread(lab.up, load=False)
    with lab.postgres.connect("orders") as connection:
        connection.execute('create schema "Up per"')
        for statement in ODD.split(";\n"):
            if not statement.lstrip().startswith("insert"):
                connection.execute(statement.encode())
        connection.execute("insert into odd values ('twice', 2, null, 1e300, null, null)")
        connection.execute(STOOD.encode())
    target = await asyncio.to_thread(written, lab)
    with lab.postgres.connect("orders") as connection:
        connection.execute(ODD.split(";\n")[1].encode())
        connection.execute("""insert into "Up per"."T,1" select n, 'v' from generate_series(-3, 900, 2) n""")
        connection.execute("insert into parts values (1, 'x'); insert into fleeting values (7)")
        connection.execute("update customers set name = 'changed' where id in (3, 4, 5, 9)")
        connection.execute("alter table later add column more text; create sequence numbers")
        connection.execute("select nextval('numbers')")
        connection.execute(CAME.encode())
    async with relay(lab.ports["ssh"]) as between:
        found = await CutStage.built(lab, between, target, tmp_path_factory.mktemp("stage"))
        await found.prepare()
        yield found
        await ssh.close()


def exported(stage: CutStage) -> dict[str, Path]:
    """Return the exported files by table."""
    folder = Path(stage.replacing.salvage(stage.port, stage.standing).out)
    rows = [line.split("\t") for line in (folder / "manifest.tsv").read_text().splitlines()]
    return {row[1]: folder / row[3] for row in rows if row[0] == "table"}


async def test_nothing_stands_in_the_way_on_the_lab(stage: CutStage) -> None:
    assert cut_over_blockers(await look_at_standing.observe(stage.replacing.look())) == []


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("radius radiusservers=127.0.0.1 radiussecrets=hush", "radius"),
        ("peer map=lab", "peer map=lab"),
        ("scram-sha-256", "scram-sha-256"),
    ],
)
async def test_password_in_the_rules_of_a_server_is_not_told(stage: CutStage, rule: str, told: str) -> None:
    rules = stage.lab.place.data / "pg_hba.conf"
    whole = rules.read_text()
    try:
        rules.write_text(f"local orders postgres {rule}\n{whole}")  # the server tells what lies there, read or not
        found = await look_at_standing.observe(stage.replacing.look())
    finally:
        rules.write_text(whole)
    assert found.live
    assert (found.rule, "hush" in found.model_dump_json()) == (told, False)


async def test_every_row_that_the_copy_lacks_is_exported(stage: CutStage) -> None:
    spec = stage.replacing.salvage(stage.port, stage.standing)
    await carried_out(salvage, spec)
    try:
        found = await salvage.observe(spec)
        keys = {table.table: table.keys for table in found.tables or ()}
        assert keys["public.orders"] == "5-9, 1001-1500"
        assert keys["public.customers"] == "3-5, 9"
        assert len(keys['"Up per"."T,1"']) < 400
        assert keys['"Up per"."T,1"'].startswith("-3, -1, 1, 3")
        assert keys['"Up per"."T,1"'].endswith(" more")
        assert set(found.notes or ()) == NOTES
        for table, file in exported(stage).items():
            with file.open(newline="") as text:
                columns = ", ".join(f'"{name}"' for name in next(csv.reader(text)))
            assert taken_back(stage.lab, table, columns, file) == beyond(stage, table, columns), table
        assert exported(stage).keys() == {
            "public.orders", "public.customers", "public.later", "public.odd", '"Up per"."T,1"', "public.parts_1",
            "public.fleeting",
        }  # fmt: skip
        assert "CREATE TABLE public.later" in exported(stage)["public.later"].with_suffix(".sql").read_text()
    finally:
        await carried_back(salvage, spec, await salvage.observe(spec))


async def test_export_holds_no_password(stage: CutStage) -> None:
    spec = stage.replacing.salvage(stage.port, stage.standing)
    await carried_out(salvage, spec)
    try:
        with stage.lab.postgres.connect("orders") as connection:
            query = "select unnest(array[rolpassword, md5(rolpassword)]) from pg_authid where rolpassword is not null"
            kept = [str(row[0]) for row in connection.execute(query)]
        assert len(kept) >= 4
        texts = [file.read_text() for file in Path(spec.out).iterdir()]
        texts.append((await salvage.observe(spec)).model_dump_json())
        assert [secret for secret in (*SECRETS, *kept) if any(secret in text for text in texts)] == []
    finally:
        await carried_back(salvage, spec, await salvage.observe(spec))


async def test_table_that_is_locked_is_waited_for(stage: CutStage) -> None:
    spec = stage.replacing.salvage(stage.port, stage.standing)
    try:
        with stage.lab.postgres.connect("orders") as holding, holding.transaction():
            holding.execute("lock table customers in access exclusive mode")
            with pytest.raises(Transient, match=r"the rows of public\.customers cannot be read now: .*lock timeout"):
                await ssh.job(spec.host, spec.job("salvage"), "salvage", spec.values() | {"lockwait": "100ms"})
            assert not Path(spec.out).exists()
        await carried_out(salvage, spec)
        assert "public.customers" in exported(stage)
    finally:
        await carried_back(salvage, spec, await salvage.observe(spec))


async def test_table_that_cannot_be_read_is_not_passed_over(stage: CutStage) -> None:
    spec = stage.replacing.salvage(stage.port, stage.standing)
    with stage.lab.postgres.connect("orders") as connection:
        connection.execute("create type mood as enum ('well'); create table moods as select 'well'::mood as mood")
        connection.execute("delete from pg_enum where enumlabel = 'well'")  # damage that no retry mends
        try:
            with pytest.raises(Fatal, match=r"the rows of public\.moods cannot be read: .*enum"):
                await carried_out(salvage, spec)
            assert not Path(spec.out).exists()
        finally:
            connection.execute("drop table moods; drop type mood")
            await salvage.halt(spec)
            await carried_back(salvage, spec, Salvaged())
    assert await salvage.observe(spec) == Salvaged()


def taken_back(lab: Lab, table: str, columns: str, file: Path) -> list[str]:
    """Return the rows in an exported file, as the database itself reads them."""
    with lab.postgres.connect("orders") as connection, connection.transaction(force_rollback=True):
        connection.execute(f"create temp table back as select {columns} from {table} limit 0".encode())
        with connection.cursor().copy(b"copy back from stdin (format csv, header)") as into:
            into.write(file.read_bytes())
        return sorted(str(row[0]) for row in connection.execute("select taken::text from back taken"))


def beyond(stage: CutStage, table: str, columns: str) -> list[str]:
    """Return the rows of the running database that the copy lacks, counted one by one."""
    with stage.lab.postgres.connect("orders") as connection:
        query = f"select r::text from (select {columns} from {table}) r"
        running = [str(row[0]) for row in connection.execute(query.encode())]
    query = f"select encode(convert_to(r::text, 'UTF8'), 'hex') from (select {columns} from {table}) r"
    try:
        in_copy = [bytes.fromhex(row).decode() for row in ask_copy(stage.lab, query)]
    except LabError as error:  # in the copy there is no such table, or column, or an unlogged one
        if not re.search("does not exist|unlogged", str(error)):
            raise
        in_copy = []
    for text in in_copy:
        if text in running:
            running.remove(text)
    return sorted(running)


@pytest.mark.parametrize("cancelled", [False, True], ids=["too long", "cancelled"])
async def test_look_that_is_over_asks_nothing_more(stage: CutStage, cancelled: bool) -> None:
    spec, asked = stage.copy.verify(stage.port), "select 'a query without end', pg_sleep(1000)"
    values = spec.values() | {"amcheck": "no", "queries": 1, "query_1": asked}
    looking = asyncio.create_task(ssh.look(spec.host, "verify_copy", values, 600 if cancelled else 2))
    count = "select count(*) from pg_stat_activity where query like '%without end%' and pid <> pg_backend_pid()"
    await eventually(lambda: ask_copy(stage.lab, count) == ["1"], "the copy is asked")
    if cancelled:
        looking.cancel()
    else:
        with pytest.raises(Transient, match="the look took longer than 2 s"):
            await looking
    await eventually(lambda: ask_copy(stage.lab, count) == ["0"], "the copy is not asked any more", 5)
    await quiet(stage.lab)


async def test_clients_that_push_in_are_ended(stage: CutStage) -> None:
    refused, numbers = threading.Event(), iter(range(10_000, 99_999))

    def push() -> None:
        while not refused.is_set():
            with contextlib.suppress(psycopg.OperationalError), app(stage.lab) as connection:
                while True:
                    connection.execute("insert into orders values (%s, 'x', 1)", (next(numbers),))

    pushing = [asyncio.create_task(asyncio.to_thread(push)) for _ in range(4)]
    before = await close.observe(stage.cut)
    try:
        await close.apply(stage.cut, before)
        with stage.lab.postgres.connect("orders") as connection:
            count = connection.execute("select count(*) from orders").fetchone()
            await asyncio.sleep(0.5)  # the time in which they try
            assert connection.execute("select count(*) from orders").fetchone() == count
    finally:
        refused.set()
        await asyncio.gather(*pushing)
        await carried_back(close, stage.cut, before)
    with stage.lab.postgres.connect("orders") as connection:
        connection.execute("delete from orders where number >= 10000")
    assert await close.observe(stage.cut) == before


async def test_login_on_its_way_by_the_rules_before_is_ended(stage: CutStage) -> None:
    before, data = await close.observe(stage.cut), stage.lab.place.data
    told = Order[CutSpec, Doors](
        spec=stage.cut, before=before, mode="live", not_after=datetime.now(UTC) + timedelta(minutes=5)
    )
    rules = (data / "pg_hba.conf").read_bytes()
    try:
        with await knocks(stage.lab) as early:
            # As an attempt leaves it that is cut once the server has read the guard.
            kept = Path(stage.cut.copy_dir, "kept", "pg_hba.conf")
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(rules)
            for path in (kept.parent, kept):
                stage.lab.postgres.who.own(path)
            (data / "pg_hba.conf").write_text(stage.cut.guard)
            await eventually(lambda: reread(stage.lab), "the guard is read")
            after = await close.carry_out(told)
            assert after == close.desired(stage.cut, before)
            early.settimeout(5)
            assert early.recv(1) == b""
        with await knocks(stage.lab):  # clients knock at shut doors all the time
            assert await close.observe(stage.cut) == after
    finally:
        await carried_back(close, stage.cut, before)
    assert (data / "pg_hba.conf").read_bytes() == rules


async def knocks(lab: Lab) -> socket.socket:
    """Begin to log in, and do not say as whom."""
    known = len(processes.postgres_in(lab.place.data))
    found = socket.create_connection(("127.0.0.1", lab.ports["postgres"]))
    await eventually(lambda: len(processes.postgres_in(lab.place.data)) > known, "the server takes the connection")
    return found


def reread(lab: Lab) -> bool:
    """Let the server read its rules, and tell whether it has read those that lie there."""
    server = lab.postgres.running()
    assert server is not None
    processes.send(server, signal.SIGHUP)
    put = (lab.place.data / "pg_hba.conf").stat().st_ctime
    with lab.postgres.connect("orders") as connection:
        row = connection.execute("select extract(epoch from pg_conf_load_time())::float > %s", (put + 0.02,)).fetchone()
    return row == (True,)


def app(lab: Lab) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect as an application does."""
    return psycopg.connect(
        host="127.0.0.1", port=lab.ports["postgres"], dbname="orders", user="app", password=lab.passwords["app"],
        connect_timeout=5, autocommit=True,
    )  # fmt: skip


async def test_server_that_stands_still_is_fenced(stage: CutStage) -> None:
    before, server = await fence.observe(stage.cut), stage.lab.postgres.running()
    assert server is not None
    processes.send(server, signal.SIGSTOP)
    assert cut_over_blockers(await look_at_standing.observe(stage.replacing.look()))
    began = time.monotonic()
    await carried_out(fence, stage.cut)
    assert time.monotonic() - began < 10
    assert await fence.observe(stage.cut) == fence.desired(stage.cut, before)
    await carried_back(fence, stage.cut, before)
    assert await fence.observe(stage.cut) == before


async def test_dead_server_is_shut_and_fenced_and_stays_dead(stage: CutStage) -> None:
    stage.lab.break_("postgres")
    doors, before = await close.observe(stage.cut), await fence.observe(stage.cut)
    assert before == Fenced(at="home")
    await carried_out(close, stage.cut)
    assert await close.observe(stage.cut) == close.desired(stage.cut, doors)
    await carried_out(fence, stage.cut)
    assert await fence.observe(stage.cut) == fence.desired(stage.cut, before)
    await carried_back(fence, stage.cut, before)
    await carried_back(close, stage.cut, doors)
    assert (await fence.observe(stage.cut), await close.observe(stage.cut)) == (before, doors)
    spec = stage.replacing.salvage(stage.port, stage.standing)
    with pytest.raises(Transient, match="does not answer"):
        await carried_out(salvage, spec)
    await salvage.halt(spec)
    known = spec.model_copy(update={"down": True})
    await carried_out(salvage, known)
    assert (await salvage.observe(known)).notes[0].startswith("nothing was exported: ")  # type: ignore[index]
    await carried_back(salvage, known, await salvage.observe(known))
    stage.lab.postgres.start()


async def test_whole_way_loses_no_acknowledged_order(fresh_lab: FreshLab, tmp_path: Path) -> None:
    lab = fresh_lab()
    await asyncio.to_thread(lab.up, rate=40)
    await eventually(lambda: len(ledger.acknowledged(lab.place.load)) > 40, "some orders")
    target = datetime.now(UTC)
    await asyncio.sleep(1.2)  # a moment is final a second later
    kept = {name: (lab.place.data / name).read_bytes() for name in ("pg_hba.conf", "postgresql.auto.conf")}
    async with relay(lab.ports["ssh"]) as between:
        stage = await CutStage.built(lab, between, target, tmp_path)
        await stage.prepare()
        export = stage.replacing.salvage(stage.port, stage.standing)
        await carried_out(close, stage.cut)
        await carried_out(salvage, export)
        steps: tuple[CutAction[CutSpec, Any], ...] = (fence, promote, install, archive, open_doors)
        for action in steps:
            before = await action.observe(stage.cut)
            await carried_out(action, stage.cut)
            assert agrees(action.desired(stage.cut, before), await action.observe(stage.cut))
        opened = datetime.now(UTC)
        first = await first_write_seen.observe(stage.replacing.first_write(stage.port, stage.standing))
        assert first.exact
        assert first.at is not None
        assert first.at > opened - timedelta(seconds=1)
        assert {name: (lab.place.data / name).read_bytes() for name in kept} == kept
        with exported(stage)["public.orders"].open(newline="") as text:
            saved = {int(row["number"]) for row in csv.DictReader(text)}
        acknowledged = {a.number: a.acknowledged_at for a in ledger.acknowledged(lab.place.load)}
        with lab.postgres.connect("orders") as connection:
            restored = {row[0] for row in connection.execute("select number from orders")}
            left = connection.execute("select nspname from pg_namespace where nspname ~ '^recovery'").fetchall()
        assert left == []
        assert acknowledged.keys() <= saved | restored
        assert not {n for n in saved if acknowledged.get(n, target) < target}
        await safe_again(stage)
        await ssh.close()


async def safe_again(stage: CutStage) -> None:
    """Show that the database can be restored to a moment after the cut-over."""
    await carried_out(base_backup, stage.replacing.base_backup(stage.port, stage.standing, datetime.now(UTC)))
    taken = datetime.now(UTC)
    await eventually(lambda: datetime.now(UTC) > taken + timedelta(seconds=1.2), "a second after the backup")
    later = datetime.now(UTC)
    await eventually(lambda: datetime.now(UTC) > later + timedelta(seconds=1.2), "the moment is final")
    wanted = stage.copy.wanted.model_copy(update={"target_time": later})
    copy = dataclasses.replace(stage.fresh(), wanted=wanted)
    chosen = choose(await backups.observe(copy.find()), Target.at(later))
    assert not isinstance(chosen, str), chosen
    assert chosen.timeline == 2
    stage.choice = chosen
    await stage.raise_copy(copy, copy.database.copy_ports[-1])
    newest = ask_copy(
        stage.lab, "select max(placed_at) > now() - interval '1 minute' from orders", Path(copy.directory())
    )
    assert newest == ["t"]


async def test_idle_database_has_no_first_write(stage: CutStage) -> None:
    spec = stage.replacing.first_write(stage.port, stage.standing).model_copy(update={"seconds": 1})
    assert await first_write_seen.observe(spec) == FirstWrite()
