"""Orders flow, and what was acknowledged is in the table."""

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from lab import ledger
from lab.estate import Lab
from tests.labs import RATE

Wait = Callable[[float, Callable[[], object]], None]


def numbers(lab: Lab) -> set[int]:
    with lab.postgres.connect("orders") as connection:
        return {int(str(row[0])) for row in connection.execute("select number from orders")}


def test_acknowledged_orders_are_in_the_table(lab: Lab, within: Wait) -> None:
    began = lab.status().acknowledged
    within(5, lambda: lab.status().acknowledged > began + 50)
    acknowledged = {order.number for order in ledger.acknowledged(lab.place.load)}
    assert acknowledged <= numbers(lab)


def test_orders_arrive_at_their_rate(lab: Lab, within: Wait) -> None:
    began = lab.status().acknowledged
    some = int(2 * RATE)
    within(10, lambda: lab.status().acknowledged > began + some)
    orders = sorted(ledger.acknowledged(lab.place.load)[-some:], key=lambda order: order.acknowledged_at)
    took = orders[-1].acknowledged_at - orders[0].acknowledged_at
    assert timedelta(seconds=1.5) < took < timedelta(seconds=6)  # two seconds of orders


def test_acknowledged_orders_have_times_in_order(lab: Lab, within: Wait) -> None:
    within(5, lambda: lab.status().acknowledged)
    assert all(order.sent_at <= order.acknowledged_at for order in ledger.acknowledged(lab.place.load))


def test_wal_arrives_in_the_archive(lab: Lab, within: Wait) -> None:
    with lab.postgres.connect("orders") as connection:
        row = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    within(10, lambda: row[0] in lab.postgres.archived())
    assert (lab.place.archive / str(row[0])).stat().st_size == 1024 * 1024


def test_base_backup_is_verified(lab: Lab) -> None:
    backup = lab.base_backup()
    assert backup.name in lab.status().backups
    assert "successfully verified" in lab.postgres.run("pg_verifybackup", "--no-parse-wal", backup)


def test_amcheck_finds_no_damage(lab: Lab) -> None:
    where = ["-h", str(lab.place.sockets), "-p", str(lab.ports["postgres"]), "-U", "postgres"]
    lab.postgres.run("pg_amcheck", *where, "--all", "--heapallindexed")


def test_app_logs_in_by_password_only(lab: Lab) -> None:
    address = {"host": "127.0.0.1", "dbname": "orders", "user": "app"}
    good = psycopg.conninfo.make_conninfo(port=lab.ports["postgres"], password=lab.passwords["app"], **address)
    with psycopg.connect(good) as connection:
        assert connection.execute("select count(*) from customers").fetchone() == (200,)
    bad = psycopg.conninfo.make_conninfo(port=lab.ports["postgres"], password="guess", **address)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(bad)


def test_secrets_are_private(lab: Lab) -> None:
    for path in (lab.place.secrets, lab.place.ssh / "client_key", lab.place.host_key):
        assert path.stat().st_mode & 0o777 == 0o600
    secrets = lab.passwords.values()
    for log in (lab.place.north / "postgres.log", *lab.place.logs.iterdir()):
        assert not any(secret in log.read_text() for secret in secrets)
