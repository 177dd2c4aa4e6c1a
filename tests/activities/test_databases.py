"""What two databases tell of themselves, what of one the other lacks, and what that means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from activities.databases import CaughtUp, DatabaseSeen, missing, position, seen
from activities.switching import _writable, follow, keep_role, promote_standby, retire
from recovery.errors import Invalid
from tests.activities.captured import captured
from tests.activities.sample import moving

PRIMARY = seen(captured("pg_primary"))
STANDBY = seen(captured("pg_standby"))
RETIRED = seen(captured("pg_retired"))
MOVE = moving()
(PAIR,) = MOVE.databases


def test_primary_is_told() -> None:
    assert (PRIMARY.role, PRIMARY.serving, PRIMARY.listening, PRIMARY.signal) == ("primary", True, True, False)
    assert (PRIMARY.system, PRIMARY.reached) == ("7712239944905182425", "7712239944905182425")
    assert (PRIMARY.flushed, PRIMARY.timeline, PRIMARY.version, PRIMARY.followers) == ("0/1100060", 1, "18.6", 1)
    assert (PRIMARY.rewinds, PRIMARY.settings["max_connections"], PRIMARY.free) == (True, "40", 75985328)


def test_standby_is_told() -> None:
    assert (STANDBY.role, STANDBY.signal, STANDBY.streaming) == ("standby", True, True)
    assert (STANDBY.of, STANDBY.follows) == ("192.0.2.1:7000", "192.0.2.1:7000")
    assert (STANDBY.flushed, STANDBY.replayed) == ("0/1102000", "0/1101FD8")


def test_retired_one_is_told() -> None:
    assert (RETIRED.role, RETIRED.serving, RETIRED.signal, RETIRED.kept) == ("down", False, True, "yes")
    assert (RETIRED.control, RETIRED.checkpoint, RETIRED.timeline) == ("shut down", "0/1101F80", 1)


def test_nothing_there_is_told() -> None:
    found = seen("system\t\ncontrol\t\nfree\t\n")
    assert found == DatabaseSeen()
    assert (found.free, found.kept) == (None, "no")


def test_faults_are_told_in_their_order() -> None:
    assert seen("fault\tb: two\nfree\t7\nfault\ta: one\n").faults == ("b: two", "a: one")


def test_what_a_primary_does_not_know_is_left_out() -> None:
    live = {"role": "primary", "flushed": None, "replayed": None, "line": None, "settings": None}
    found = seen(f"timeline\t7\nlive\t{json.dumps(live)}\n")
    assert (found.flushed, found.replayed, found.timeline, found.settings) == ("", "", 7, {})


def test_timeline_it_is_on_goes_before_that_of_its_checkpoint() -> None:
    assert seen('timeline\t7\nlive\t{"line": 8}\n').timeline == 8


@pytest.mark.parametrize(
    ("checksums", "hints", "rewinds"), [("0", "off", False), ("1", "off", True), ("0", "on", True)]
)
def test_whether_it_can_be_rewound_is_told(checksums: str, hints: str, rewinds: bool) -> None:
    live = json.dumps({"settings": {"wal_log_hints": hints}})
    assert seen(f"checksums\t{checksums}\nlive\t{live}\n").rewinds is rewinds


@pytest.mark.parametrize(
    "text", ["live\tnothing", "live\t[]", 'live\t{"role": "king"}', "free\tmuch", "timeline\tfirst", "kept\tmaybe"]
)
def test_strange_answer_is_named(text: str) -> None:
    with pytest.raises(Invalid, match=r"bin: .* as PostgreSQL does"):
        seen(text)


@pytest.mark.parametrize(
    ("lsn", "bytes_"), [("", 0), ("0/0", 0), ("0/16B3748", 0x16B3748), ("1/0", 2**32), ("A/FFFFFFFF", 11 * 2**32 - 1)]
)
def test_position_is_in_bytes(lsn: str, bytes_: int) -> None:
    assert position(lsn) == bytes_


def _first(**more: Any) -> DatabaseSeen:
    return DatabaseSeen.model_validate({"role": "primary", "serving": True, "system": "7", "flushed": "0/100"} | more)


def _second(**more: Any) -> DatabaseSeen:
    return DatabaseSeen.model_validate({"role": "standby", "serving": True, "system": "7", "flushed": "0/100"} | more)


STOPPED = {"role": "down", "serving": False, "control": "shut down", "checkpoint": "0/100", "flushed": ""}


@pytest.mark.parametrize(
    ("primary", "standby", "found"),
    [
        (_first(), _second(), CaughtUp(left=0, last="0/100")),
        (_first(flushed="0/120"), _second(), CaughtUp(left=32, last="0/120")),
        (_first(), _second(flushed="0/140"), CaughtUp(left=0, last="0/100")),
        (_first(), _second(flushed=""), CaughtUp()),
        (_first(), _second(system="8"), CaughtUp()),
        (_first(), _second(role="down"), CaughtUp()),
        (_first(), _second(role="primary"), CaughtUp()),
        (_first(role="standby"), _second(), CaughtUp()),
        (_first(role="down", control="in production"), _second(), CaughtUp()),
        (_first(role="down", serving=False, control="in production"), _second(), CaughtUp()),
        (_first(**STOPPED), _second(), CaughtUp(left=1, last="0/100", stopped=True)),
        (_first(**STOPPED), _second(flushed="0/101"), CaughtUp(left=0, last="0/100", stopped=True)),
        (_first(**STOPPED), _second(flushed="0/E0"), CaughtUp(left=33, last="0/100", stopped=True)),
        (_first(**STOPPED), _second(flushed=""), CaughtUp(last="0/100", stopped=True)),
        (_first(**STOPPED | {"serving": True}), _second(), CaughtUp()),
        (_first(**STOPPED | {"control": "shutting down"}), _second(), CaughtUp()),
    ],
)
def test_what_is_missing_is_told(primary: DatabaseSeen, standby: DatabaseSeen, found: CaughtUp) -> None:
    assert missing(primary, standby) == found


def test_record_of_the_shutdown_must_have_come() -> None:
    """It begins at the last checkpoint: who has everything before it may lack it, and a commit just before."""
    assert missing(RETIRED, STANDBY.model_copy(update={"flushed": RETIRED.checkpoint})).left == 1
    assert missing(RETIRED, STANDBY).left == 0


@pytest.mark.parametrize(
    ("found", "writable"),
    [
        (PRIMARY, True),
        (STANDBY, False),
        (RETIRED, False),
        (DatabaseSeen(serving=True), True),
        (DatabaseSeen(serving=True, signal=True), False),
        (DatabaseSeen(), False),
    ],
    ids=["primary", "standby", "retired", "does not say", "does not say, as a standby", "nothing there"],
)
def test_who_may_take_writes_is_known(found: DatabaseSeen, writable: bool) -> None:
    assert _writable(found) is writable


# --- whose work it is ------------------------------------------------------------------------------------------------


def test_retired_by_somebody_else_is_not_own_work() -> None:
    before = retire.state(MOVE.of_old(PAIR), PRIMARY)
    for now in (STANDBY, RETIRED.model_copy(update={"kept": "no"}), RETIRED.model_copy(update={"system": "8"})):
        assert not retire.partial(MOVE.of_old(PAIR), before, retire.state(MOVE.of_old(PAIR), now))
    assert retire.partial(MOVE.of_old(PAIR), before, retire.state(MOVE.of_old(PAIR), RETIRED))


def test_promoted_by_somebody_else_is_not_own_work() -> None:
    spec = MOVE.of_new(PAIR)
    before, now = promote_standby.state(spec, STANDBY), promote_standby.state(spec, PRIMARY)
    assert not promote_standby.partial(spec, before, now)
    assert now != promote_standby.desired(spec, before)
    half = promote_standby.state(spec, PRIMARY.model_copy(update={"promoted": True}))
    assert promote_standby.partial(spec, before, half)
    assert half != promote_standby.desired(spec, before)
    own = promote_standby.state(spec, PRIMARY.model_copy(update={"promoted": True, "written": True}))
    assert own == promote_standby.desired(spec, before)


def test_primary_is_never_taken_for_a_standby_half_way_back() -> None:
    spec = MOVE.of_new(PAIR)
    before = keep_role.state(spec, STANDBY)
    for now, own in ((PRIMARY, False), (RETIRED, True)):
        kept = keep_role.state(spec, now.model_copy(update={"kept": "yes"}))
        assert keep_role.partial(spec, before, kept) is own


def test_primary_is_never_taken_for_a_standby_to_be() -> None:
    spec = MOVE.of_old(PAIR)
    before = follow.state(spec, RETIRED)
    assert not follow.partial(spec, before, follow.state(spec, PRIMARY))
    assert not follow.partial(spec, before, follow.state(spec, STANDBY))  # of another one
    assert follow.partial(spec, before, follow.state(spec, STANDBY.model_copy(update={"streaming": False})))


def test_nothing_done_is_not_begun() -> None:
    spec = MOVE.of_old(PAIR)
    before = follow.state(spec, RETIRED)
    assert not follow.begun(spec, before, before)
    assert follow.begun(spec, before, before.model_copy(update={"joining": True}))
