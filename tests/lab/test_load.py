"""The load generator ends when it is told to."""

import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from lab import ledger, processes
from lab.estate import Lab

Wait = Callable[[float, Callable[[], object]], None]
FreshLab = Callable[[], Lab]

RENAMED = r"""
select count(*),
       count(*) filter (where their.customer = 'customer ' || one.id),
       count(*) filter (where exists (select from orders old
                                      where old.number < their.number and old.amount = their.amount))
from customers one left join orders their on their.number = substring(one.name from 'of order (\d+)$')::int
where one.name like '%of order%'
"""


def pid_of_load(lab: Lab) -> int:
    return next(program.pid for program in lab.status().programs if program.name == "load") or 0


def test_load_stops_within_a_second(fresh_lab: FreshLab, within: Wait) -> None:
    lab = fresh_lab()
    lab.up(rate=200, writers=4)
    within(10, lambda: lab.status().acknowledged > 100)
    load = processes.look(pid_of_load(lab))
    assert load is not None
    began = time.monotonic()
    processes.send(load, signal.SIGTERM)
    assert processes.gone([load], 2)
    assert time.monotonic() - began < 1
    with lab.postgres.connect("orders") as connection:
        table = {int(str(row[0])) for row in connection.execute("select number from orders")}
    assert {order.number for order in ledger.acknowledged(lab.place.load)} == table
    assert ledger.refused(lab.place.load) == []


def test_load_stops_during_an_outage(fresh_lab: FreshLab, within: Wait) -> None:
    lab = fresh_lab()
    lab.up()
    within(10, lambda: lab.status().acknowledged)
    lab.break_("postgres")
    within(5, lambda: lab.status().refused > 5)
    load = processes.look(pid_of_load(lab))
    assert load is not None
    began = time.monotonic()
    processes.send(load, signal.SIGTERM)
    assert processes.gone([load], 2)
    assert time.monotonic() - began < 1


def test_mixed_load_changes_old_rows(fresh_lab: FreshLab, within: Wait) -> None:
    lab = fresh_lab()
    lab.up(mixed=True)

    def changed() -> tuple[int, ...]:
        """Return how many customers are renamed by an order, by one of theirs, by one whose amount an older one has."""
        with lab.postgres.connect("orders") as connection:
            return tuple(int(str(count)) for count in connection.execute(RENAMED).fetchone() or ())

    within(10, lambda: changed()[2] > 0)
    renamed, by_their_own, repriced = changed()
    assert renamed == by_their_own >= repriced > 0


def test_other_rate_starts_the_load_anew(fresh_lab: FreshLab) -> None:
    lab = fresh_lab()
    lab.up(rate=10)
    first = pid_of_load(lab)
    lab.up(rate=10)
    assert pid_of_load(lab) == first
    lab.up(rate=20)
    assert pid_of_load(lab) != first


def test_refused_time_is_from_the_first_refusal_to_the_first_order_after_the_last(tmp_path: Path) -> None:
    def at(second: int) -> str:
        return f"2026-01-01T00:00:{second:02}.000000+00:00"

    taken, refused = ledger.Log(tmp_path / "acknowledged.jsonl"), ledger.Log(tmp_path / "refused.jsonl")
    for number, second in enumerate([1, 11, 25, 26]):  # at 11 one that was under way
        taken.add(number=number, sent_at=at(second), acknowledged_at=at(second))
    for number, second in enumerate([2, 10, 20]):  # at 2 one of an earlier outage
        refused.add(number=100 + number, at=at(second), error="503")
    assert ledger.refused_for(tmp_path, datetime.fromisoformat(at(5))) == 15
