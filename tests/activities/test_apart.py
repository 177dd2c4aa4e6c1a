"""What a verification makes is apart from the running database, and in nobody's way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from activities.apart import Apart, replayed_bytes, slow
from activities.holdings import held
from activities.postgres import Replayed
from activities.restorable import Choice
from activities.timelines import lsn, position
from runbooks.procedures.restore_verification import Parameters
from runbooks.schema import Database, Host
from tests.activities.test_policy import DAILY, MB, found

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOST = Host(site="north", address="127.0.0.1", user="dba", known_hosts="/k", key="/i", jobs="/srv/jobs")


def apart(*ports: int) -> Apart:
    database = Database(
        host="db", tier="gold", bin="/pg/bin", data="/srv/data", sockets="/run", port=5432, name="orders", user="dba",
        backups="/srv/backups", archive="/srv/archive", copies="/srv/copies", copy_ports=ports,
    )  # fmt: skip
    return Apart("orders", database, HOST, Parameters(), "lab/verify-orders", "01234567-89ab")


def choice() -> Choice:
    return Choice(backup=DAILY[0], timeline=1, enough="0/1", earliest=NOON, latest=NOON)


def test_log_of_the_running_database_is_not_replayed() -> None:
    placed = apart(7001).copy(NOON).place(choice(), 7001)
    assert "/srv/data" not in placed.values().values()


def test_copy_is_of_a_hand_of_its_own() -> None:
    placed = apart(7001).copy(NOON).place(choice(), 7001)
    assert placed.system == "orders.verification"
    assert placed.copy_dir.startswith("/srv/copies/orders_verification-20261121T120000Z-")


@pytest.mark.parametrize(("ports", "taken"), [((1,), (1,)), ((1, 2), (2,)), ((1, 2, 3, 4), (4, 3, 2))])
def test_first_port_is_left_to_a_recovery(ports: tuple[int, ...], taken: tuple[int, ...]) -> None:
    assert apart(*ports).copy(NOON).database.copy_ports == taken


def test_what_is_not_archived_is_asked_for_after_the_last_that_is() -> None:
    asked = apart(7001).unarchived(found(*DAILY))
    assert asked is not None
    assert asked.data == "/srv/data"
    assert int(asked.next[8:16], 16) * 256 + int(asked.next[16:], 16) == found(*DAILY).ranges[0].last + 1
    assert apart(7001).unarchived(found()) is None


def test_log_is_measured_from_the_beginning_of_the_backup() -> None:
    there = lsn(position(DAILY[0].start_lsn) + 5 * MB)
    assert replayed_bytes(choice(), Replayed(stage="ready", lsn=there)) == 5 * MB
    assert replayed_bytes(choice(), Replayed()) is None


def test_restore_that_is_slower_than_the_tier_allows_is_told() -> None:
    assert slow(3600, timedelta(hours=1), "gold") == ()
    (said,) = slow(3661, timedelta(hours=1), "gold")
    assert said.startswith("objectives.rto: the restore alone took 1 h 1 min, and 1 h is the objective of tier gold; ")


def test_packed_log_counts_by_its_names() -> None:
    """Their sizes tell nothing, and what was not written to its end has another name."""
    rows = [
        "wal\t00000001000000000000000A.zst.age\t4711", "wal\t00000001000000000000000B.gz\t99",
        "wal\t00000001000000000000000C.gz.tmp\t5", "wal\t00000001000000000000000D.partial\t16777216",
        "wal\t00000002.history.gz\t40",
    ]  # fmt: skip
    found = held("\n".join(rows), 1 << 24, packed=True)
    assert [(run.first, run.last) for run in found.log] == [(10, 11)]
    assert found.histories == ("00000002.history",)
    assert held("\n".join(rows), 1 << 24).log == ()
