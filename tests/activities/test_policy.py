"""A backup policy against what is there: what breaches it is named, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.backups import Backup, Inventory, Range
from activities.holdings import Held, HeldBackup, Unarchived, held
from activities.policy import Away, breaches, intervals, lost_since
from activities.timelines import lsn, segment_name
from runbooks.procedures.restore_verification import Offsite, Policy

MB = 1024 * 1024
SIZE = 16 * MB
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RPO = timedelta(minutes=15)
OLD = str(int((NOW - 400 * DAY).timestamp()) << 32)
QUIET = Unarchived(read=True)


def segment(ago: timedelta) -> int:
    """Return the segment that was written so long ago: one a minute, the thousands so that none is negative."""
    return 1_000_000 - int(ago.total_seconds() // 60)


def backup(ago: timedelta, chain: int = 1, fault: str = "", name: str = "") -> Backup:
    at = SIZE * segment(ago)
    name = name or f"of-{ago // HOUR}h"
    return Backup(
        name=name, path=f"/b/{name}", version=18, timeline=1, start_lsn=lsn(at + 40), stop_lsn=lsn(at + 288),
        stopped_at=NOW - ago, size=MB, fault=fault, chain=tuple(f"/b/{n}" for n in range(chain)),
    )  # fmt: skip


def run(first: timedelta, last: timedelta) -> Range:
    return Range(timeline=1, first=segment(first), last=segment(last), until=NOW - last)


def found(*backups: Backup, log: tuple[Range, ...] = (), system: str = OLD) -> Inventory:
    whole = (run(40 * DAY, timedelta(minutes=1)),)
    return Inventory(
        now=NOW, live=True, timeline=1, system=system, segment=SIZE, backups=backups, ranges=log or whole
    )  # fmt: skip


DAILY = tuple(backup(n * DAY + HOUR) for n in range(32))
HOURLY = (*DAILY, backup(timedelta(minutes=30), 2))


def said(policy: Policy, inventory: Inventory, log: Unarchived = QUIET, away: Away | None = None) -> list[str]:
    return list(breaches(policy, inventory, log, away, NOW, RPO))


def named(lines: list[str]) -> list[str]:
    return [line.partition(":")[0].removeprefix("policy.") for line in lines]


def test_what_is_as_it_has_to_be_breaches_nothing() -> None:
    assert said(Policy(), found(*HOURLY)) == []


# --- how old the newest one is -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("hours", "late"), [(23, False), (24.2, False), (24.3, True), (50, True)])
def test_full_backup_may_be_late_by_its_grace(hours: float, late: bool) -> None:
    policy = Policy(incremental_every=None, keep_for=None)
    lines = said(policy, found(backup(hours * HOUR), backup(70 * HOUR)))
    assert named(lines) == (["full_every"] if late else [])
    assert not late or "the newest full backup that can be used is of 2026-11-2" in lines[0]


def test_incremental_backup_is_no_full_one() -> None:
    lines = said(Policy(keep_for=None), found(backup(30 * HOUR), backup(timedelta(minutes=5), 2)))
    assert named(lines) == ["full_every"]


def test_full_backup_counts_where_any_is_wanted() -> None:
    assert said(Policy(keep_for=None), found(backup(HOUR))) == []
    assert named(said(Policy(keep_for=None), found(backup(2 * HOUR)))) == ["incremental_every"]


def test_backup_that_cannot_be_used_counts_for_nothing_and_says_why() -> None:
    lines = said(Policy(keep_for=None), found(backup(timedelta(minutes=9), fault="not complete", name="half")))
    assert named(lines) == ["full_every", "incremental_every", "log_within"]
    assert "(half: not complete); take one now" in lines[0]


@given(st.timedeltas(timedelta(0), 60 * DAY), st.timedeltas(timedelta(minutes=1), 3 * DAY))
def test_age_is_breached_exactly_beyond_interval_and_grace(ago: timedelta, every: timedelta) -> None:
    policy = Policy(full_every=every, incremental_every=None, keep_for=None, grace=HOUR)
    log = (run(100 * DAY, timedelta(0)),)
    lines = said(policy, found(backup(ago + timedelta(seconds=2)), log=log))
    assert ("full_every" in named(lines)) == (ago + timedelta(seconds=2) > every + HOUR)


@given(st.lists(st.timedeltas(2 * HOUR, 80 * DAY), min_size=1, max_size=8), st.timedeltas(HOUR, 80 * DAY))
def test_another_backup_breaches_nothing_that_was_kept(ages: list[timedelta], more: timedelta) -> None:
    log = (run(100 * DAY, timedelta(0)),)
    before = named(said(Policy(), found(*map(backup, ages), log=log)))
    after = named(said(Policy(), found(*map(backup, ages), backup(more), log=log)))
    assert set(after) <= set(before)


# --- the log -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "late"), [(4, False), (14, False), (16, True)])
def test_commit_that_is_not_archived_may_wait_for_as_long_as_the_tier_allows(minutes: int, late: bool) -> None:
    log = Unarchived(read=True, first=NOW - timedelta(minutes=minutes))
    lines = said(Policy(), found(*HOURLY), log)
    assert named(lines) == (["log_within"] if late else [])
    assert not late or "16 min ago, cannot be restored, and 15 min is allowed" in lines[0]
    assert not late or "pg_stat_archiver" in lines[0]


def test_policy_may_be_stricter_than_the_tier() -> None:
    log = Unarchived(read=True, first=NOW - timedelta(minutes=6))
    assert named(said(Policy(log_within=timedelta(minutes=5)), found(*HOURLY), log)) == ["log_within"]


def test_quiet_database_lacks_nothing_in_an_archive_that_is_old() -> None:
    old = found(*DAILY, log=(run(40 * DAY, 20 * timedelta(minutes=1)),))
    assert lost_since(old, QUIET) is None
    assert said(Policy(incremental_every=None), old) == []


def test_log_that_nobody_can_read_counts_from_the_last_that_is_archived() -> None:
    old = found(*DAILY, log=(run(40 * DAY, timedelta(minutes=20)),))
    assert lost_since(old, Unarchived()) == NOW - timedelta(minutes=20)
    lines = said(Policy(incremental_every=None), old, Unarchived())
    assert named(lines) == ["log_within"]
    assert "the log of the running database cannot be read" in lines[0]


def test_hole_after_the_newest_backup_is_named() -> None:
    log = (run(40 * DAY, timedelta(minutes=25)), run(timedelta(minutes=22), timedelta(minutes=1)))
    lines = said(Policy(incremental_every=None), found(*DAILY, log=log))
    assert named(lines) == ["log_within"]
    names = [segment_name(1, segment(timedelta(minutes=minute)), SIZE) for minute in (24, 23)]
    assert f"the log {names[0]} to {names[1]} is missing in the archive" in lines[0]


# --- for how long ------------------------------------------------------------------------------------------------


def test_oldest_moment_has_to_be_as_old_as_is_wanted() -> None:
    lines = said(Policy(), found(*HOURLY[:20], HOURLY[-1]))
    assert named(lines) == ["keep_for"]
    assert "the oldest moment that can be restored is 2026-11-10T" in lines[0]
    assert "and 30 d is wanted" in lines[0]


def test_young_database_cannot_have_older_backups_than_itself() -> None:
    made = NOW - 3 * DAY - HOUR
    young = str(int(made.timestamp()) << 32)
    assert said(Policy(), found(*HOURLY[:4], HOURLY[-1], system=young)) == []
    assert named(said(Policy(), found(HOURLY[0], HOURLY[-1], system=young))) == ["keep_for"]


def test_hole_between_backups_is_named_while_it_is_wanted() -> None:
    log = (run(40 * DAY, 4 * DAY), run(4 * DAY - 10 * timedelta(minutes=1), timedelta(minutes=1)))
    lines = said(Policy(), found(*HOURLY, log=log))
    assert named(lines) == ["keep_for"]
    assert "no moment from 2026-11-25T12:00:00Z to 2026-11-26T11:00:01Z" in lines[0]
    assert "is missing in the archive; bring back from off-site" in lines[0]
    assert said(Policy(keep_for=2 * DAY), found(*HOURLY, log=log)) == []


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=6))
def test_intervals_are_apart_and_hold_what_each_backup_gives(ends: list[tuple[int, int]]) -> None:
    edges = sorted({minute for pair in ends for minute in pair}, reverse=True)
    log = tuple(run(timedelta(minutes=a), timedelta(minutes=b)) for a, b in zip(edges[::2], edges[1::2], strict=False))
    backups = [backup(timedelta(minutes=edge), name=str(edge)) for edge in edges[::2]]
    whole = intervals(found(*backups, log=log or (run(DAY, HOUR),)))
    assert all(a[1] < b[0] for a, b in pairwise(whole))
    assert all(first <= last for first, last in whole)


# --- off-site ----------------------------------------------------------------------------------------------------

OFFSITE = Policy(offsite=Offsite(host="vault", backups="/v/backups", archive="/v/archive"))


def holding(backups: tuple[Backup, ...], *log: Range, digest: str = "d") -> Held:
    kept = (HeldBackup(name=one.name, manifest=f"{digest} of {one.name}", files=3, size=99) for one in backups)
    return Held(backups=tuple(kept), log=log)


HOME = holding(HOURLY, run(40 * DAY, HOUR))


def test_copy_that_is_whole_breaches_nothing() -> None:
    assert said(OFFSITE, found(*HOURLY), away=Away(HOME, HOME)) == []


def test_copy_may_have_more_than_home() -> None:
    there = holding((*HOURLY, backup(90 * DAY)), run(100 * DAY, timedelta(0)))
    assert said(OFFSITE, found(*HOURLY), away=Away(HOME, there)) == []


def test_what_is_older_than_is_wanted_need_not_be_off_site() -> None:
    there = holding((*DAILY[:31], HOURLY[-1]), run(30 * DAY + 2 * HOUR, HOUR))
    assert said(OFFSITE, found(*HOURLY), away=Away(HOME, there)) == []
    lacks = holding((*DAILY[:30], HOURLY[-1]), run(30 * DAY + 2 * HOUR, HOUR))
    lines = said(OFFSITE, found(*HOURLY), away=Away(HOME, lacks))
    assert named(lines) == ["offsite"]
    assert "backup of-721h is not in vault:/v/backups, and has been here for more than 1 h; copy it there" in lines[0]


def test_copy_of_another_backup_is_told_by_its_manifest() -> None:
    lines = said(OFFSITE, found(*HOURLY), away=Away(HOME, holding(HOURLY, run(40 * DAY, HOUR), digest="e")))
    assert "is another one, its manifest differs" in lines[0]


def test_copy_that_was_cut_short_is_told_by_its_files() -> None:
    short = [one.model_copy(update={"files": 2}) if one.name == "of-25h" else one for one in HOME.backups]
    lines = said(OFFSITE, found(*HOURLY), away=Away(HOME, HOME.model_copy(update={"backups": tuple(short)})))
    assert named(lines) == ["offsite"]
    assert "backup of-25h in vault:/v/backups has 2 files of 99 bytes, and 3 of 99 at home" in lines[0]


def test_log_that_is_not_off_site_is_named_run_by_run() -> None:
    there = holding(HOURLY, run(40 * DAY, 5 * HOUR), run(5 * HOUR - timedelta(minutes=2), 3 * HOUR))
    lines = said(OFFSITE, found(*HOURLY), away=Away(HOME, there))
    assert named(lines) == ["offsite", "offsite"]
    assert f"the log {segment_name(1, segment(5 * HOUR) + 1, SIZE)} is missing in vault:/v/archive" in lines[0]
    assert f"{segment_name(1, segment(3 * HOUR) + 1, SIZE)} to {segment_name(1, segment(HOUR), SIZE)}" in lines[1]


def test_how_the_log_came_to_a_timeline_has_to_be_off_site_too() -> None:
    home = HOME.model_copy(update={"histories": ("00000002.history",)})
    (line,) = said(OFFSITE, found(*HOURLY), away=Away(home, HOME))
    assert line.startswith("policy.offsite: 00000002.history is not in vault:/v/archive, and has been here for more")


@pytest.mark.parametrize("side", ["home", "there"])
def test_what_cannot_be_seen_is_a_breach(side: str) -> None:
    unseen = Held(faults=("host 10.0.0.9:22: cannot be reached",))
    away = Away(unseen, HOME) if side == "home" else Away(HOME, unseen)
    (line,) = said(OFFSITE, found(*HOURLY), away=away)
    where = "at home" if side == "home" else "on vault"
    assert line.startswith(f"policy.offsite: what is {where} cannot be seen: host 10.0.0.9:22: cannot be reached; see")


@given(st.sets(st.integers(0, 400)), st.sets(st.integers(0, 400)))
def test_each_segment_that_lacks_is_in_one_run_that_is_named(home: set[int], there: set[int]) -> None:
    log = [
        held("".join(f"wal\t{segment_name(1, n, SIZE)}\t{SIZE}\n" for n in sorted(numbers)), SIZE)
        for numbers in (home, there)
    ]
    only = Policy(full_every=None, incremental_every=None, keep_for=None, offsite=OFFSITE.offsite)
    lines = said(only, found(*HOURLY), away=Away(*log))
    numbers: list[int] = []
    for line in lines:
        names = [word for word in line.split() if len(word) == 24 and word.startswith("00000001")]
        ends = [int(name[8:16], 16) * 256 + int(name[16:], 16) for name in names]
        numbers += range(ends[0], ends[-1] + 1)
    assert sorted(numbers) == sorted(home - there)


def test_what_a_host_says_is_read() -> None:
    text = (
        f"backup\tmonday\tabc\t12\t3456\nwal\t{segment_name(1, 7, SIZE)}\t{SIZE}\n"
        f"wal\t{segment_name(1, 8, SIZE)}\t17\nwal\t00000002.history\t40\nfault\tthe folder /x cannot be read\n"
    )
    assert held(text, SIZE) == Held(
        backups=(HeldBackup(name="monday", manifest="abc", files=12, size=3456),),
        log=(Range(timeline=1, first=7, last=7),),
        histories=("00000002.history",),
        faults=("the folder /x cannot be read",),
    )
