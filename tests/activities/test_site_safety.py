"""What the safety rules make of what was seen: of a database, and of the move as a whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.databases import DatabaseSeen, known
from activities.director import Pointed
from activities.director import Seen as DirectorSeen
from activities.sites import Found, Sites
from activities.stores import Replication
from recovery.models import Start
from recovery.safety import Fence
from runbooks.library import Library
from runbooks.procedures.data_center_activation import Parameters
from tests.runbooks.samples import ROOT, values

NOW = datetime(2026, 12, 24, 18, tzinfo=UTC)
STOPPED = {"system": "7", "control": "shut down", "serving": False}


@pytest.mark.parametrize(
    ("seen", "writable", "fence", "said"),
    [
        ({"role": "primary", "serving": True}, True, "none", "is a primary"),
        ({"role": "primary", "serving": True, "signal": True}, True, "none", "is a primary"),
        ({"role": "standby", "serving": True, "signal": True}, False, "none", "is a standby"),
        (STOPPED | {"serving": True}, None, "none", "does not answer"),
        (STOPPED | {"serving": True, "signal": True}, None, "none", "does not answer"),
        (STOPPED, None, "none", "would come up as a primary"),
        (STOPPED | {"signal": True}, False, "proven", "is fenced"),
        ({}, None, "none", "is not to be found"),
        ({"signal": True}, False, "proven", "is fenced"),
    ],
)
def test_what_is_known_of_a_database(seen: dict[str, Any], writable: bool | None, fence: Fence, said: str) -> None:
    found = known("orders", DatabaseSeen.model_validate(seen))
    assert (found.name, found.writable, found.fence) == ("orders", writable, fence)
    assert said in found.seen


def sites(**safety: Any) -> Sites:
    start = Start(runbook="lab/activate-south", reason="a test", mode="check")
    frozen = Library(ROOT, values()).freeze(start, "DataCenterActivation")
    estate = frozen.estate | {"safety": safety} if safety else frozen.estate
    return Sites(frozen.systems, estate, Parameters.model_validate(frozen.parameters), "a")


def found(old: dict[str, Any] | None = None, new: dict[str, Any] | None = None, **more: Any) -> Found:
    """Return what is found where nothing stands in the way, but for what a test says."""
    usual: dict[str, Any] = {"system": "7", "serving": True, "version": "18", "timeline": 1, "rewinds": True}
    usual |= {"flushed": "0/10", "reached": "7", "settings": {}}
    one = DatabaseSeen.model_validate(usual | {"role": "primary"} | (old or {}))
    where = {"role": "standby", "streaming": True, "of": "/srv/lab_north_pg_upstream"}
    other = DatabaseSeen.model_validate(usual | where | {"signal": True} | (new or {}))
    view = {"orders": one, "orders-south": other}
    stores = {"sessions": Replication(role="primary", writes="taken"), "sessions-south": Replication(role="replica")}
    director = DirectorSeen(pointed=Pointed(at="site", site="north"), epoch=0, keeps=True)
    return Found(views={"north": view, "south": view}, stores=stores, directors={"front": director}, **more)


def said(moving: Sites, what: Found, now: datetime = NOW) -> str:
    return "\n".join(moving.blockers(what, now))


def freeze(begins: datetime, ends: datetime) -> dict[str, Any]:
    return {"freeze": [{"from": begins.isoformat(), "to": ends.isoformat(), "why": "the end of the year"}]}


def test_rules_are_frozen_with_the_runbook() -> None:
    assert sites().rules.max_fenced == 1


def test_start_within_a_freeze_window_is_named() -> None:
    hour = timedelta(hours=1)
    assert "the end of the year; wait, or change" in said(sites(**freeze(NOW - hour, NOW + hour)), found())
    for begins, ends in ((NOW - hour, NOW), (NOW + hour, NOW + 2 * hour)):
        assert "the end of the year" not in said(sites(**freeze(begins, ends)), found())


def test_freeze_window_is_nothing_to_an_action() -> None:
    moving = sites(**freeze(NOW - timedelta(hours=1), NOW + timedelta(hours=1)))
    assert moving.of_old(moving.databases[0]).rules.freeze == ()


def test_kill_switch_is_named_with_its_site() -> None:
    halted = {"north": "", "south": "/var/kill-switch: bob: stop"}
    assert "kill switch is on (at south: /var/kill-switch: bob: stop)" in said(sites(), found(halted=halted))
    assert "kill switch" not in said(sites(), found(halted={"north": ""}))


@pytest.mark.parametrize("seen", [{"role": "down"}, {"role": "down", "serving": False}, STOPPED | {"role": "down"}])
def test_never_no_site_is_named_with_what_was_found(seen: dict[str, Any]) -> None:
    assert "north would be shut, and nothing else could serve: south orders-south " in said(sites(), found(new=seen))


def test_nothing_may_be_fenced_where_the_rules_say_so() -> None:
    assert "at most 0 may be at a time" in said(sites(max_fenced=0), found())
    assert "may be at a time" not in said(sites(), found())
