"""What a switch knows as its own half-done work: a job that was cut anywhere is finished, not called drift."""

from __future__ import annotations

import pytest

from activities.databases import DatabaseAt, DatabaseSeen
from activities.ssh import HostAt
from activities.switching import PairSpec, follow, forget_role, keep_role, retire
from recovery.actions import agrees

HOST = HostAt(address="127.0.0.1", port=22, user="u", known_hosts="k", key="k", jobs="/j")


def database(name: str, port: int) -> DatabaseAt:
    upstream = f"host=10.0.0.1 port={port} user=replicator"
    return DatabaseAt(
        name=name, host=HOST, bin="/b", data="/d", sockets="/s", port=port, dbname="o", dbuser="p", upstream=upstream
    )


SPEC = PairSpec(system="north", database=database("north", 1), owner="0", other=database("south", 2))
PRIMARY = DatabaseSeen(role="primary", serving=True, listening=True)


@pytest.mark.parametrize(
    "now",
    [
        PRIMARY.model_copy(update={"kept": "half"}),
        PRIMARY.model_copy(update={"kept": "yes", "signal": True}),
        DatabaseSeen(kept="yes", serving=True),
    ],
)
def test_half_retired_is_its_own_work(now: DatabaseSeen) -> None:
    before = retire.state(SPEC, PRIMARY)
    assert retire.partial(SPEC, before, retire.state(SPEC, now))
    assert retire.state(SPEC, now) != retire.desired(SPEC, before)


def test_standby_with_its_settings_beside_it_is_not_done() -> None:
    before = follow.state(SPEC, DatabaseSeen(kept="yes", signal=True))
    there = DatabaseSeen(role="standby", serving=True, of="10.0.0.1:2", streaming=True)
    assert follow.state(SPEC, there) == follow.desired(SPEC, before)
    half = follow.state(SPEC, there.model_copy(update={"kept": "half"}))
    assert half != follow.desired(SPEC, before)
    assert follow.partial(SPEC, before, half)


def test_half_forgotten_role_is_forgotten_to_the_end() -> None:
    before = forget_role.state(SPEC, PRIMARY.model_copy(update={"kept": "yes"}))
    half = forget_role.state(SPEC, PRIMARY.model_copy(update={"kept": "half"}))
    assert half != forget_role.desired(SPEC, before)
    assert forget_role.partial(SPEC, before, half)


@pytest.mark.parametrize("lost", [True, False])
def test_link_to_a_lost_one_that_ends_by_itself_is_nobodys_doing(lost: bool) -> None:
    spec = SPEC.model_copy(update={"lost": lost})
    standby = DatabaseSeen(role="standby", serving=True, of="10.0.0.1:2", streaming=True)
    before, now = keep_role.state(spec, standby), keep_role.state(spec, standby.model_copy(update={"streaming": False}))
    assert agrees(before, now) == lost
    kept = keep_role.state(spec, DatabaseSeen(role="standby", serving=True, kept="yes"))
    assert agrees(keep_role.desired(spec, before), kept) == lost
