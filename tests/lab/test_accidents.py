"""Accidents do what they say, and `up` heals what is not data."""

import shlex
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from lab import ledger
from lab.estate import Lab
from lab.kinds import Kind
from lab.place import LabError, runner
from tests.labs import RATE

pytestmark = pytest.mark.drawn

Wait = Callable[[float, Callable[[], object]], None]
FreshLab = Callable[[], Lab]


def ask(lab: Lab, query: str, port: str | None = None) -> str:
    """Ask with psql, so that a restored copy on another port is asked the same way."""
    where = ["-h", str(lab.place.sockets), "-p", port or str(lab.ports["postgres"]), "-U", "postgres"]
    return lab.postgres.run("psql", *where, "-XAtc", query, "orders").strip()


def archive_everything(lab: Lab, within: Wait) -> None:
    segment = ask(lab, "select pg_walfile_name(pg_switch_wal())")
    within(10, lambda: segment in lab.postgres.archived())


def restore(lab: Lab, target: datetime, within: Wait) -> str:
    """Restore the first base backup to a time and return the port of the copy."""
    copy, port = lab.place.copies / "by-hand", str(lab.ports["copy_1"])
    backup = lab.place.backups / lab.status().backups[0]
    subprocess.run(["cp", "-a", backup, copy], check=True, cwd="/", **runner().drop())
    subprocess.run(["touch", copy / "recovery.signal"], check=True, cwd="/", **runner().drop())
    settings = {
        "port": port,
        "archive_mode": "off",  # else the copy adds its own WAL to the archive
        "restore_command": f"cp {lab.place.archive}/%f %p",
        "recovery_target_time": target.isoformat(),
        "recovery_target_action": "promote",
    }
    options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in settings.items())
    lab.postgres.run("pg_ctl", "start", "--wait", "-D", copy, "-l", lab.place.north / "copy.log", "-o", options)
    within(30, lambda: ask(lab, "select pg_is_in_recovery()", port) == "f")
    return port


@pytest.mark.parametrize("kind", [Kind.DROP_TABLE, Kind.DELETE_ROWS])
def test_restore_returns_all_acknowledged_orders(fresh_lab: FreshLab, within: Wait, kind: Kind) -> None:
    lab = fresh_lab()
    lab.up(mixed=True)
    within(10, lambda: lab.status().acknowledged > 2 * RATE)
    accident = lab.break_(kind)
    assert lab.place.accidents not in {file.resolve() for file in Path("/proc/self/fd").iterdir()}, "still open"
    archive_everything(lab, within)
    port = restore(lab, accident.before, within)
    restored = {int(number) for number in ask(lab, "select number from orders", port).split()}
    orders = ledger.acknowledged(lab.place.load)
    acknowledged = {order.number for order in orders if order.acknowledged_at <= accident.before}
    assert len(acknowledged) > 2 * RATE
    assert acknowledged <= restored
    assert not {order.number for order in orders if order.sent_at > accident.happened_at} & restored


def test_dropped_table_stays_dropped(fresh_lab: FreshLab, within: Wait) -> None:
    lab = fresh_lab()
    lab.up()
    within(10, lambda: lab.status().acknowledged)
    accident = lab.break_(Kind.DROP_TABLE)
    assert accident.before < accident.happened_at
    lab.up()
    assert ask(lab, "select to_regclass('orders') is null") == "t"
    within(5, lambda: any(order.error == "42P01" for order in ledger.refused(lab.place.load)))
    assert lab.place.accidents.read_text().count("\n") == 1
    with pytest.raises(LabError, match="does not exist"):
        lab.break_(Kind.DROP_TABLE)


def test_half_of_the_orders_is_deleted(fresh_lab: FreshLab, within: Wait) -> None:
    lab = fresh_lab()
    lab.up()
    within(10, lambda: lab.status().acknowledged > 100)
    acknowledged = {order.number for order in ledger.acknowledged(lab.place.load)}
    accident = lab.break_(Kind.DELETE_ROWS)
    left = {int(number) for number in ask(lab, "select number from orders").split()}
    assert accident.rows is not None
    assert abs(accident.rows - len(acknowledged) / 2) < 20
    assert len(acknowledged - left) == accident.rows


def test_killed_programs_are_started_again(fresh_lab: FreshLab, within: Wait) -> None:
    lab = fresh_lab()
    before = {program.name: program.address for program in lab.up().programs}
    within(10, lambda: lab.status().acknowledged > 50)
    for kind in (Kind.SSH, Kind.POSTGRES, Kind.LOAD):
        assert lab.break_(kind).pids
    assert not any(program.running for program in lab.status().programs)
    healed = lab.up()
    assert healed.healthy
    assert {program.name: program.address for program in healed.programs} == before
    began = healed.acknowledged
    within(10, lambda: lab.status().acknowledged > began + 50)
    numbers = [order.number for order in ledger.acknowledged(lab.place.load)]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) <= {int(number) for number in ask(lab, "select number from orders").split()}


def test_outage_is_written_down(fresh_lab: FreshLab, within: Wait) -> None:
    lab = fresh_lab()
    lab.up()
    within(10, lambda: lab.status().acknowledged > 50)
    lab.break_(Kind.POSTGRES)
    within(5, lambda: any(order.error == "OperationalError" for order in ledger.refused(lab.place.load)))
    lab.up()
    began = lab.status().acknowledged
    within(10, lambda: lab.status().acknowledged > began)  # it connects by itself


def test_nothing_to_kill_is_an_error(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    lab.up(load=False)
    with pytest.raises(LabError, match="does not run"):
        lab.break_(Kind.LOAD)


def test_killed_server_leaves_no_shared_memory(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    lab.up(load=False)
    key, number = (lab.place.data / "postmaster.pid").read_text().splitlines()[6].split()
    lab.break_(Kind.POSTGRES)
    lab.down()
    segments = [line.split()[:2] for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    assert [key, number] not in segments
