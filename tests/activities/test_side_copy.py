"""What stands in the way of a side copy: each thing named, none hidden behind another."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from activities.backups import SETTLE, Inventory, Range
from activities.postgres import Readiness
from activities.side_copy import BUSY, MARGIN, Assessment, assess, utc
from activities.targets import Target
from tests.activities.sample import BACKUP, CHOICE, DATABASE, HOST, TARGET, copy

GIB = 1 << 30
SEGMENT = 16 << 20
NOW = TARGET + timedelta(hours=1)
RANGE = Range(timeline=3, first=1, last=9, until=NOW - SETTLE, open_ended=True)
FOUND = Inventory(
    now=NOW,
    live=True,
    flush_lsn="0/9000000",
    timeline=3,
    system="7",
    segment=SEGMENT,
    backups=(BACKUP,),
    ranges=(RANGE,),
)
ROOM = Readiness(free=100 * GIB, version=18, skew=0.1, listening=(22, 5432), faults=())
Change = dict[str, dict[str, Any]]
PLANTED: dict[str, tuple[Change, str]] = {
    "fault of the host": ({"room": {"faults": ("jobs: cannot be written to",)}}, "jobs: "),
    "second fault of the host": ({"room": {"faults": ("x: y", "bin: psql is missing")}}, "bin: psql"),
    "fault of a folder": ({"found": {"faults": ("archive: the folder cannot be read",)}}, "archive: the folder"),
    "ports": ({"room": {"listening": (6002, 6001)}}, "copy_ports: all are in use"),
    "clock": ({"room": {"skew": -2.5}}, "clock: the host's is -2.5 s off"),
    "archiving": ({"found": {"archiving": False}}, "archive: archive_mode is off"),
    "amcheck": ({"found": {"amcheck": False}}, "amcheck: the extension is not installed"),
    "version": ({"room": {"version": 17}}, "bin: is PostgreSQL 17, the backup is of 18"),
    "disk": ({"room": {"free": GIB}}, "disk: 1024 MiB are free for copies, 1424 MiB are needed"),
    "target": ({"found": {"backups": ()}}, "backups: none can be used"),
}
# What a copy needs is only known of a backup that was chosen.
OF_A_CHOICE = {"version", "disk"}


def assessed(*planted: str, amcheck: bool = True, **more: Any) -> Assessment:
    """Return what is said when these are planted together."""
    found, room = FOUND, ROOM
    faults: dict[str, tuple[str, ...]] = {"found": (), "room": ()}
    for name in planted:
        for where, update in PLANTED[name][0].items():
            faults[where] += update.get("faults", ())
            if where == "found":
                found = found.model_copy(update=update | {"faults": faults["found"]})
            else:
                room = room.model_copy(update=update | {"faults": faults["room"]})
    return assess(copy(amcheck=amcheck), found.model_copy(update=more.get("found", {})), room)


def test_nothing_in_the_way_is_a_choice() -> None:
    told = assessed()
    assert told.blockers == ()
    assert told.choice is not None
    assert (told.choice.backup, told.choice.enough, told.port) == (BACKUP, "0/9000000", 6001)


@pytest.mark.parametrize("name", PLANTED)
def test_blocker_is_named(name: str) -> None:
    said = [b for b in assessed(name).blockers if b.startswith(PLANTED[name][1])]
    assert len(said) == 1


@pytest.mark.parametrize("together", list(itertools.combinations(PLANTED, 2)), ids=", ".join)
def test_no_blocker_hides_another(together: tuple[str, ...]) -> None:
    assert not unnamed(together)


def test_all_blockers_are_named_at_once() -> None:
    assert not unnamed(tuple(PLANTED))
    assert not unnamed(tuple(name for name in PLANTED if name != "target"))


def unnamed(together: tuple[str, ...]) -> list[str]:
    said = assessed(*together).blockers
    known = [n for n in together if "target" not in together or n not in OF_A_CHOICE]
    return [name for name in known if not any(b.startswith(PLANTED[name][1]) for b in said)]


@pytest.mark.parametrize("name", PLANTED)
def test_blocker_says_what_to_do(name: str) -> None:
    """Each begins with the field that it is about."""
    assert all(b.split(": ")[0].replace("_", "").isalpha() for b in assessed(name).blockers)


def test_target_out_of_reach_is_a_blocker() -> None:
    told = assess(copy(target_time=NOW + timedelta(days=1)), FOUND, ROOM)
    assert told.choice is None
    assert [b.split(":")[0] for b in told.blockers] == ["parameters.target_time"]


@pytest.mark.parametrize(
    ("skew", "blocked"), [(2.0, False), (-2.0, False), (2.001, True), (-2.001, True), (3600, True)]
)
def test_clocks_may_differ_a_little(skew: float, blocked: bool) -> None:
    told = assess(copy(), FOUND, ROOM.model_copy(update={"skew": skew}))
    assert any(b.startswith("clock: ") for b in told.blockers) is blocked


def test_amcheck_that_is_not_wanted_may_be_missing() -> None:
    assert assessed("amcheck", amcheck=False).blockers == ()


def test_database_that_is_down_shows_no_switches() -> None:
    down = {"live": False, "flush_lsn": "", "archiving": False, "amcheck": False}
    assert assessed(found=down).blockers == ()


def down(said: str) -> Assessment:
    return assessed(found={"live": False, "flush_lsn": "", "down": said})


@pytest.mark.parametrize(
    "said", ['FATAL:  role "postgres" does not exist', "FATAL:  no pg_hba.conf entry", "x: FATAL: y"]
)
def test_login_that_is_refused_is_a_blocker(said: str) -> None:
    assert down(said).blockers == (f"credentials: the running database refuses postgres: {said}",)


@pytest.mark.parametrize(
    "said",
    ["", "Is the server running locally and accepting connections on that socket?", "ERROR:  recovery is in progress"]
    + [f"FATAL:  the database system is {busy}" for busy in BUSY],
)
def test_server_that_is_away_is_no_blocker(said: str) -> None:
    assert down(said).blockers == ()


def test_unknown_version_is_not_compared() -> None:
    """The programs are missing then, which the host says itself."""
    assert assess(copy(), FOUND, ROOM.model_copy(update={"version": 0})).blockers == ()


# --- room --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "log"), [(1, SEGMENT), (9, 9 * SEGMENT), (128, 2 * GIB), (129, 2 * GIB), (100_000, 2 * GIB)]
)
def test_room_is_for_backup_log_and_margin(segments: int, log: int) -> None:
    """The log is fetched segment by segment and recycled, so there is never more than so much of it."""
    found = FOUND.model_copy(update={"ranges": (RANGE.model_copy(update={"first": 1, "last": segments}),)})
    found = found.model_copy(
        update={"backups": (BACKUP.model_copy(update={"stop_lsn": "0/1000120", "start_lsn": "0/1000028"}),)}
    )
    needed = BACKUP.size + log + MARGIN
    for free, blocked in ((needed, False), (needed - 1, True), (None, False)):
        told = assess(copy(), found, ROOM.model_copy(update={"free": free}))
        assert any(b.startswith("disk: ") for b in told.blockers) is blocked


def test_log_of_other_timelines_needs_no_room() -> None:
    other = RANGE.model_copy(update={"timeline": 2, "last": 100})
    needed = BACKUP.size + 9 * SEGMENT + MARGIN
    found = FOUND.model_copy(update={"ranges": (other, RANGE)})
    assert assess(copy(), found, ROOM.model_copy(update={"free": needed})).blockers == ()


# --- ports -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listening", "port"), [((), 6001), ((6001,), 6002), ((6002,), 6001), ((60011, 600), 6001), ((6001, 6002), 0)]
)
def test_first_free_port_is_taken(listening: tuple[int, ...], port: int) -> None:
    assert assess(copy(), FOUND, ROOM.model_copy(update={"listening": listening})).port == port


# --- specs -------------------------------------------------------------------------------------------------------


def test_specs_are_of_one_copy() -> None:
    of = copy()
    specs = [of.place(CHOICE, 6002), of.replay(CHOICE, 6002), of.verify(6002), of.compare(6002)]
    assert {s.copy_dir for s in specs} == {"/srv/copies/orders-20261121T223015Z-0a1b2c3d"}
    assert {s.owner for s in specs} == {"lab/orders@019e0000-0000-7000-8000-00000a1b2c3d"}
    assert {s.copy_port for s in specs} == {6002}
    told = [spec.model_dump() for spec in (*specs, of.find(), of.room())]
    assert all((t["system"], t["drill"], t["bin"]) == ("orders", True, "/opt/pg/bin") for t in told)
    host = HOST.model_dump(exclude={"site"}) | {"name": "north-db", "seen_from": ()}
    assert all(t["host"] == host for t in told)


def test_copy_is_laid_down_no_faster_than_its_estate_says() -> None:
    assert copy().place(CHOICE, 6001).values() | {"rate": "", "total": 1 << 30} == copy().place(CHOICE, 6001).values()
    limited = copy({"io_rate": 50 << 20}).place(CHOICE, 6001).values()
    assert (limited["rate"], limited["total"]) == (50 << 20, 1 << 30)


def test_specs_carry_what_was_chosen() -> None:
    placed = copy().place(CHOICE, 6001)
    assert (placed.backup, placed.timeline, placed.target) == ("/srv/backups/monday", 3, Target.at(TARGET))
    assert (placed.source.archive, placed.data) == (DATABASE.archive, DATABASE.data)
    assert copy().replay(CHOICE, 6001).enough == "0/9000000"


def test_specs_survive_the_wire() -> None:
    of = copy()
    specs = (of.find(), of.room(), of.place(CHOICE, 1), of.replay(CHOICE, 1), of.verify(1), of.compare(1))
    for spec in specs:
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_place_that_is_no_drill_target_says_so() -> None:
    of = copy(database={"drill": False})
    assert not any(s.drill for s in (of.find(), of.room(), of.place(CHOICE, 1), of.replay(CHOICE, 1)))


def test_address_is_what_psql_takes() -> None:
    folder = "/srv/copies/orders-20261121T223015Z-0a1b2c3d"
    assert copy().address(6001) == f"psql -h {folder}/run -p 6001 -U postgres -d orders"


def test_utc_is_utc() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    assert utc(TARGET) == utc(TARGET.astimezone(there)) == "2026-11-21T22:30:15Z"
    assert utc(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"
