"""What there is to restore from, read from what a real host said."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import chain
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.backups import Backup, Inventory, Range, inventory, runs
from activities.timelines import lsn, position, segment_name
from tests.activities.captured import captured, lines

MB = 1024 * 1024
SIZES = (MB, 16 * MB, 64 * MB, 1024 * MB)
FIRST, SECOND = "20261122T015250.249524Z", "20261122T020316.367837Z"


def named(*numbers: int, timeline: int = 1, size: int = 16 * MB) -> list[tuple[str, int]]:
    return [(segment_name(timeline, number, size), size) for number in numbers]


def spans(found: list[Range]) -> list[tuple[int, int, int]]:
    return [(r.timeline, r.first, r.last) for r in found]


# --- positions and names of segments -----------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1))
def test_position_comes_back(at: int) -> None:
    assert position(lsn(at)) == at


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_lsn_comes_back(high: int, low: int) -> None:
    text = f"{high:X}/{low:X}"
    assert lsn(position(text)) == text


@given(st.integers(1, 2**32 - 1), st.integers(0, 2**33), st.sampled_from(SIZES))
def test_segment_comes_back(timeline: int, number: int, size: int) -> None:
    name = segment_name(timeline, number, size)
    assert re.fullmatch("[0-9A-F]{24}", name)
    assert spans(runs([(name, size)], size, None)) == [(timeline, number, number)]


@given(st.integers(0, 2**64 - 2**31), st.sampled_from(SIZES))
def test_segment_of_a_position_holds_it(at: int, size: int) -> None:
    """The name's halves are the position's high half and how many segments lie below it in the low half."""
    name = segment_name(1, at // size, size)
    assert int(name[8:16], 16) == at >> 32
    assert int(name[16:], 16) == (at & 0xFFFFFFFF) // size


@pytest.mark.parametrize(
    ("at", "size", "name"),
    [
        ("0/E00028", MB, "00000001000000000000000E"),
        ("0/FFFFFFFF", MB, "000000010000000000000FFF"),
        ("1/0", MB, "000000010000000100000000"),
        ("0/2000028", 16 * MB, "000000010000000000000002"),
        ("0/FFFFFFFF", 16 * MB, "0000000100000000000000FF"),
        ("1/0", 16 * MB, "000000010000000100000000"),
        ("2A/3000000", 16 * MB, "000000010000002A00000003"),
    ],
)
def test_segment_is_named_as_the_server_does(at: str, size: int, name: str) -> None:
    assert segment_name(1, position(at) // size, size) == name


# --- runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ([], []),
        ([7], [(7, 7)]),
        ([1, 2, 3], [(1, 3)]),
        ([3, 1, 2, 2], [(1, 3)]),
        ([1, 3], [(1, 1), (3, 3)]),
        ([1, 2, 4, 5, 9], [(1, 2), (4, 5), (9, 9)]),
    ],
)
def test_run_ends_at_a_gap(numbers: list[int], found: list[tuple[int, int]]) -> None:
    assert spans(runs(named(*numbers), 16 * MB, None)) == [(1, *run) for run in found]


@pytest.mark.parametrize("size", SIZES)
def test_run_goes_on_across_a_log_file(size: int) -> None:
    last = 2**32 // size
    assert spans(runs(named(*range(last - 2, last + 3), size=size), size, None)) == [(1, last - 2, last + 2)]
    assert spans(runs(named(last - 1, last + 1, size=size), size, None)) == [
        (1, last - 1, last - 1),
        (1, last + 1, last + 1),
    ]


@pytest.mark.parametrize("length", [0, 1, 16 * MB - 1, 16 * MB + 1, MB])
def test_wrong_size_is_a_gap(length: int) -> None:
    segments = [*named(1, 3), (segment_name(1, 2, 16 * MB), length)]
    assert spans(runs(segments, 16 * MB, None)) == [(1, 1, 1), (1, 3, 3)]


@pytest.mark.parametrize(
    "name",
    [
        "000000010000000000000002.partial", "000000010000000000000002.00000028.backup", "00000002.history",
        "000000010000000000000002.ready", "archive_status", ".000000010000000000000002.partial", "", "0" * 23, "0" * 25,
        "00000001000000000000000a", "00000001000000000000000G", "0000000100000000 0000002",
    ],
)  # fmt: skip
def test_other_files_are_no_segments(name: str) -> None:
    assert runs([(name, 16 * MB)], 16 * MB, None) == []


def test_recycled_segments_are_not_there_yet() -> None:
    found = runs(named(1, 2, 3, 4, 5), 16 * MB, (1, 3))
    assert spans(found) == [(1, 1, 3)]
    assert found[0].open_ended


def test_only_the_present_run_is_open_ended() -> None:
    found = runs(named(1, 2, 4, 5), 16 * MB, (1, 5))
    assert [r.open_ended for r in found] == [False, True]
    assert [r.open_ended for r in runs(named(1, 2), 16 * MB, (1, 3))] == [False]
    assert [r.open_ended for r in runs(named(1, 2), 16 * MB, None)] == [False]


def test_timelines_are_told_apart() -> None:
    found = runs(named(1, 2, 3) + named(3, 4, timeline=2) + named(5, timeline=10), 16 * MB, (10, 5))
    assert spans(found) == [(1, 1, 3), (2, 3, 4), (10, 5, 5)]


segments = st.lists(st.tuples(st.integers(1, 3), st.integers(4090, 4105)), max_size=30)


@given(segments, st.sampled_from((MB, 16 * MB)), st.none() | st.integers(4088, 4106))
@settings(deadline=None)
def test_runs_are_what_is_there(found: list[tuple[int, int]], size: int, present: int | None) -> None:
    """Across the boundary of a log file (4096 at 1 MB): every segment in one run, no run next to another."""
    files = [(segment_name(timeline, number, size), size) for timeline, number in found]
    told = runs(files, size, None if present is None else (2, present))
    there = {(t, n) for t, n in found if present is None or t != 2 or n <= present}
    assert sorted(there) == list(chain(*([(r.timeline, n) for n in range(r.first, r.last + 1)] for r in told)))
    assert all((r.timeline, r.last + 1) not in there and (r.timeline, r.first - 1) not in there for r in told)
    assert [(r.timeline, r.last) == (2, present) for r in told] == [r.open_ended for r in told]


# --- what a host said --------------------------------------------------------------------------------------------


def read(name: str, *without: str, **instead: str) -> Inventory:
    """Read a captured inventory, some lines left out, and what ``instead`` names put in another's place."""
    text = "\n".join(line for line in captured(name).splitlines() if not line.startswith(without or ("\n",)))
    for old, new in instead.items():
        text = text.replace(old, new)
    return inventory(text)


def test_running_database_is_read() -> None:
    found = read("inventory_live")
    assert (found.live, found.down, found.flush_lsn, found.timeline) == (True, "", "0/FC4548", 1)
    assert (found.segment, found.system, found.archiving, found.amcheck) == (MB, "7710807909777939785", True, True)
    assert found.ranges == (Range(timeline=1, first=1, last=15, open_ended=True),)
    assert found.faults == ()
    assert found.backups == (
        Backup(
            name=FIRST,
            path=f"/srv/north/backups/{FIRST}",
            version=18,
            timeline=1,
            start_lsn="0/E00028",
            stop_lsn="0/E00120",
            stopped_at=datetime(2026, 11, 22, 1, 52, 52, tzinfo=UTC),
            size=30140 * 1024,
            laid=30140 * 1024,
        ),
    )


def test_now_is_when_the_position_was_read() -> None:
    """Commits after it are not covered by the position, however long the rest of the look takes."""
    slow = captured("inventory_live").replace("now\t1795312401.213040936", "now\t1795312999.0")
    assert inventory(slow).now == datetime(2026, 11, 22, 1, 53, 21, 176731, tzinfo=UTC)


def test_position_at_a_boundary_is_the_segment_before() -> None:
    """After a switch of the log the next segment need not exist; the run is open-ended all the same."""
    found = read("inventory_boundary")
    assert found.flush_lsn == "0/2000000"
    assert spans(list(found.ranges)) == [(1, 1, 31)]
    assert found.ranges[0].open_ended
    assert read("inventory_boundary", *(f"wal\tlive\t{n:024X}" for n in range(2**64 + 32, 2**64 + 64))) == found


def test_database_that_is_down_is_read() -> None:
    found = read("inventory_down")
    assert (found.live, found.flush_lsn, found.timeline, found.segment) == (False, "", 1, MB)
    assert found.down == "Is the server running locally and accepting connections on that socket?"
    assert found.now == datetime.fromtimestamp(float(lines("inventory_down", "now")[0].split("\t")[1]), UTC)
    assert [(r.last, r.open_ended) for r in found.ranges] == [(0xF3, False)]  # recycled ones cannot be told apart here
    assert [b.fault for b in found.backups] == [""]


def test_every_fault_of_a_backup_is_told() -> None:
    assert {b.name: b.fault for b in read("inventory_holes").backups} == {
        FIRST: "",
        SECOND: "",
        "cut.partial": "not complete: label or manifest is missing",
        "without-label": "not complete: label or manifest is missing",
        "without-manifest": "not complete: label or manifest is missing",
        "foreign": "of another database system",
        "incremental": "incremental: the backup that began at 0/4200028 is missing",
        "old-timeline": "of timeline 7, which does not lead to timeline 1",
        "tablespaces": "the links of its tablespaces 16400 lead into the original",
    }


def test_hole_in_the_log_is_read() -> None:
    found = read("inventory_holes")
    assert [(r.first, r.last, r.open_ended) for r in found.ranges] == [(1, 0x3F, False), (0x43, 0xB9, True)]


def test_log_of_a_backup_must_be_whole() -> None:
    """Without the segment in which it ends, or the one in which it begins, it is a heap of files."""
    for gone in ("0000000000E", "000000000B5"):
        found = read("inventory_holes", *(f"wal\t{where}\t0000000100000{gone}" for where in ("archive", "live")))
        faults = {b.fault for b in found.backups if b.name in (FIRST, SECOND)}
        assert faults == {"", "the log that belongs to it is not complete"}


def test_later_timeline_has_its_own_backups() -> None:
    found = read("inventory_second_timeline")
    assert found.timeline == 2
    assert [b.fault for b in found.backups if b.timeline == 2] == [""]
    assert [(r.timeline, r.open_ended) for r in found.ranges][-1] == (2, True)


def test_backup_of_the_timeline_before_leads_on() -> None:
    """Its log goes over into that of the later timeline, whose first segment has the end of the one before."""
    found = read("inventory_second_timeline")
    assert [(line.timeline, line.begin, line.end) for line in found.path] == [
        (1, "0/0", "0/BB00120"),
        (2, "0/BB00120", ""),
    ]
    assert [b.fault for b in found.backups if b.timeline == 1] == ["", ""]
    assert [(r.first, r.last) for r in found.ranges if r.timeline == 2][-1][0] < 0xB5
    earlier = inventory(captured("inventory_second_timeline"), wanted=1)
    assert [b.fault for b in earlier.backups if b.timeline == 2] == ["of timeline 2, which does not lead to timeline 1"]


def test_backup_after_the_branch_is_of_no_use() -> None:
    text = captured("inventory_second_timeline").replace("1\t0/BB00120", "1\t0/B500100")
    faults = [b.fault for b in inventory(text).backups if b.timeline == 1]
    assert faults[-1] == "was taken on timeline 1 after 0/B500100, where timeline 2 left it"


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ("", "archive: 00000002.history is missing, so nobody knows what led to timeline 2; copy it back"),
        ("?\t?", "archive: 00000002.history is damaged; copy it from another place where the log is"),
        ("2\t0/BB00120", "archive: 00000002.history is damaged; copy it from another place where the log is"),
        ("1\t0/BB00128", "archive: 00000002.history is not as the running database has it; copy it from there"),
    ],
)
def test_history_file_that_is_wrong_is_named(told: str, fault: str) -> None:
    rows = [line for line in captured("inventory_second_timeline").splitlines() if not line.startswith("history")]
    rows += [f"history\tarchive\t00000002\t{told}", "history\tlive\t00000002\t1\t0/BB00120"] if told else []
    assert inventory("\n".join(rows)).faults == (fault,)


def test_unreadable_folders_are_faults() -> None:
    found = read("inventory_unreadable")
    assert found.faults == ("backups: the folder cannot be read", "archive: the folder cannot be read")
    assert found.backups == ()


def test_system_is_compared_where_it_is_known() -> None:
    """Manifests before version 17 do not tell it."""
    assert [b.fault for b in read("inventory_live", f"backup\t{FIRST}\tsystem").backups] == [""]
    assert [b.fault for b in read("inventory_live", "system").backups] == [""]


@pytest.mark.parametrize("key", ["version", "start_lsn", "stop_lsn", "stopped"])
def test_backup_that_tells_less_is_not_used(key: str) -> None:
    found = read("inventory_live", f"backup\t{FIRST}\t{key}")
    assert [b.fault for b in found.backups] == ["not complete: label or manifest is missing"]


DAMAGED = ["9.6", "garbage", "0", "-1", "0/", "/", "0/xyz", "0/1/2", "1 2", "9" * 30, "²", "incremental", "0/2000028"]


@given(st.dictionaries(st.sampled_from(lines("inventory_holes", "backup\tforeign")), st.sampled_from(DAMAGED)))
@settings(deadline=None)
def test_damaged_backup_hides_no_other(damage: dict[str, str]) -> None:
    text = captured("inventory_holes")
    for line, value in damage.items():
        text = text.replace(line, f"{line.rpartition(chr(9))[0]}\t{value}")
    others = [b for b in read("inventory_holes").backups if b.name != "foreign"]
    assert [b for b in inventory(text).backups if b.name != "foreign"] == others


def test_switches_of_the_server_are_read() -> None:
    off = {'"archiving" : true': '"archiving" : false', '"amcheck" : true': '"amcheck" : false'}
    found = read("inventory_live", **off)
    assert (found.archiving, found.amcheck) == (False, False)


def test_strange_files_are_left_alone() -> None:
    more = ["wal\tarchive\ta\tb\t7", "wal\tarchive\tnew", "line\t7", "odd", "", "wal\tarchive\tREADME\t12"]
    found = inventory("\n".join([*more, captured("inventory_live")]))
    assert found == read("inventory_live")


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=20)
def test_order_of_lines_means_nothing(chance: Random) -> None:
    rows = captured("inventory_holes").splitlines()
    chance.shuffle(rows)
    assert inventory("\n".join(rows)) == read("inventory_holes")


def test_inventory_survives_the_wire() -> None:
    found = read("inventory_holes")
    assert Inventory.model_validate_json(found.model_dump_json()) == found
