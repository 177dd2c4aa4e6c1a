"""Which backup is chosen for a moment, and what is said when there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities import restorable
from activities.backups import SETTLE, Backup, Inventory, Range, inventory, runs
from activities.restorable import Choice
from activities.targets import Target
from activities.timelines import lsn, position
from activities.timelines import segment_name as named
from tests.activities.captured import captured

MB = 1024 * 1024
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def choose(found: Inventory, moment: datetime) -> Choice | str:
    return restorable.choose(found, Target.at(moment))


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def backup(name: str, segment: int, stopped: float, fault: str = "", timeline: int = 1) -> Backup:
    """Return a backup that lies in one segment of 16 MB and ended ``stopped`` minutes after noon."""
    start = segment * 16 * MB
    return Backup(
        name=name, path=f"/b/{name}", version=18, timeline=timeline, start_lsn=lsn(start + 40),
        stop_lsn=lsn(start + 288), stopped_at=at(stopped), size=MB, fault=fault,
    )  # fmt: skip


def found(*backups: Backup, ranges: tuple[Range, ...] = (), faults: tuple[str, ...] = ()) -> Inventory:
    """Return what a live database shows an hour after noon, in segment 60."""
    default = (Range(timeline=1, first=1, last=60, until=at(60) - SETTLE, open_ended=True),)
    return Inventory(
        now=at(60), live=True, flush_lsn=lsn(60 * 16 * MB + 4711), timeline=1, backups=backups,
        ranges=ranges or default, faults=faults,
    )  # fmt: skip


def run(first: int, last: int, until: float | None, open_ended: bool = False) -> Range:
    return Range(timeline=1, first=first, last=last, until=None if until is None else at(until), open_ended=open_ended)


MONDAY, TUESDAY = backup("monday", 10, 10), backup("tuesday", 20, 20)


# --- which one ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "name"), [(11, "monday"), (19, "monday"), (20, "monday"), (20.1, "tuesday"), (59, "tuesday")]
)
def test_newest_backup_before_the_target_is_chosen(target: float, name: str) -> None:
    chosen = choose(found(TUESDAY, MONDAY), at(target))
    assert isinstance(chosen, Choice)
    assert chosen.backup.name == name


def test_choice_goes_as_far_as_the_log_surely_does() -> None:
    chosen = choose(found(MONDAY), at(30))
    assert isinstance(chosen, Choice)
    assert (chosen.timeline, chosen.enough) == (1, lsn(60 * 16 * MB + 4711))
    closed = choose(found(MONDAY, ranges=(run(1, 40, 40),)), at(30))
    assert isinstance(closed, Choice)
    assert closed.enough == lsn(41 * 16 * MB)


def test_choice_names_the_whole_span() -> None:
    chosen = choose(found(MONDAY, TUESDAY), at(30))
    assert isinstance(chosen, Choice)
    assert (chosen.earliest, chosen.latest) == (at(10) + timedelta(seconds=1), at(60) - SETTLE)


def test_end_of_a_backup_is_known_to_the_second() -> None:
    """It may have ended anywhere in the second in which it did."""
    first = at(10) + timedelta(seconds=1)
    assert isinstance(choose(found(MONDAY), first), Choice)
    assert isinstance(choose(found(MONDAY), first - TICK), str)


def test_end_of_the_log_is_known_to_the_microsecond() -> None:
    last = at(60) - SETTLE
    assert isinstance(choose(found(MONDAY), last), Choice)
    assert isinstance(choose(found(MONDAY), last + TICK), str)


def test_backup_is_changed_to_the_microsecond() -> None:
    first = at(20) + timedelta(seconds=1)
    chosen = [choose(found(MONDAY, TUESDAY), target) for target in (first - TICK, first)]
    assert [c.backup.name for c in chosen if isinstance(c, Choice)] == ["monday", "tuesday"]


def test_target_of_another_zone_is_the_same_moment() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    assert choose(found(MONDAY), at(30).astimezone(there)) == choose(found(MONDAY), at(30))
    assert str(choose(found(MONDAY), at(90).astimezone(there))) == str(choose(found(MONDAY), at(90)))


def test_backup_beyond_a_hole_is_passed_over() -> None:
    """The newest one before the target may lie after a hole, and the target too: both sides are tried."""
    ranges = (run(1, 14, 14), run(18, 60, 59, open_ended=True))
    targets = {target: choose(found(MONDAY, TUESDAY, ranges=ranges), at(target)) for target in (12, 14, 21, 59)}
    names = {t: c.backup.name for t, c in targets.items() if isinstance(c, Choice)}
    assert names == {12: "monday", 14: "monday", 21: "tuesday", 59: "tuesday"}


def test_backup_across_a_hole_is_no_backup() -> None:
    """It ends in another run than it begins in: what it copied meanwhile cannot be made whole."""
    across = backup("across", 14, 14).model_copy(update={"stop_lsn": lsn(18 * 16 * MB + 288)})
    ranges = (run(1, 14, 40), run(18, 60, 59, open_ended=True))
    said = choose(found(across, ranges=ranges), at(30))
    assert said == "backups: none can be used: across: the log holds nothing that was committed after it"


def test_database_that_is_down_is_restored_to_its_last_commit() -> None:
    down = found(MONDAY, ranges=(run(1, 40, 40),)).model_copy(update={"live": False, "flush_lsn": ""})
    assert isinstance(choose(down, at(40)), Choice)
    assert "cannot be restored" in str(choose(down, at(40) + TICK))


# --- none --------------------------------------------------------------------------------------------------------


def test_no_backup_is_said() -> None:
    assert choose(found(), at(30)) == "backups: none can be used: there are none"


def test_faulty_backups_are_each_named() -> None:
    bad = (backup("a", 10, 10, "not complete"), backup("b", 11, 11, "incremental"))
    assert choose(found(*bad), at(30)) == "backups: none can be used: a: not complete; b: incremental"


def test_unreadable_folders_are_named() -> None:
    assert choose(found(faults=("archive: the folder cannot be read",)), at(30)) == (
        "backups: none can be used: archive: the folder cannot be read"
    )


@pytest.mark.parametrize("until", [None, 10, 10.01])
def test_backup_without_later_log_is_named(until: float | None) -> None:
    said = choose(found(MONDAY, ranges=(run(1, 40, until),)), at(30))
    assert said == "backups: none can be used: monday: the log holds nothing that was committed after it"


@pytest.mark.parametrize("target", [-600, 9, 10, 60, 600])
def test_target_outside_names_what_can_be(target: float) -> None:
    said = str(choose(found(MONDAY, TUESDAY), at(target)))
    asked = f"{at(target):%Y-%m-%dT%H:%M:%S.%f}Z"
    assert said == (
        f"parameters.target_time: {asked} cannot be restored;"
        " what can is 2026-11-21T12:10:01.000000Z to 2026-11-21T12:59:59.000000Z"
    )


def test_faulty_backup_that_would_fit_is_named() -> None:
    said = str(choose(found(backup("old", 5, 5, "not complete"), MONDAY), at(7)))
    assert said.endswith("; not usable: old: not complete")


@pytest.mark.parametrize("target", [15, 17.5, 20.5])
def test_hole_in_the_log_is_named(target: float) -> None:
    """A target in the hole, and one after it that has no backup of its own side yet."""
    ranges = (run(1, 14, 14), run(18, 60, 59, open_ended=True))
    said = str(choose(found(MONDAY, backup("late", 30, 30), ranges=ranges), at(target)))
    assert "what can is 2026-11-21T12:10:01.000000Z to 2026-11-21T12:59:00.000000Z" in said
    assert "the log has holes: 00000001000000000000000F to 000000010000000000000011" in said


def test_holes_are_all_named() -> None:
    ranges = (run(1, 14, 14), run(16, 20, 20), run(300, 301, 59, open_ended=True))
    said = str(choose(found(MONDAY, ranges=ranges), at(30)))
    first, second = said.split("holes: ")[1].split(", ")
    assert first == "00000001000000000000000F to 00000001000000000000000F"
    assert second == "000000010000000000000015 to 00000001000000010000002B"


def test_other_timeline_is_no_hole() -> None:
    other = Range(timeline=2, first=80, last=90, until=at(59))
    said = str(choose(found(MONDAY, ranges=(run(1, 40, 40), other)), at(50)))
    assert said.endswith("; the log has holes: 000000010000000000000029 to 00000001000000000000003C")


def test_log_of_another_timeline_carries_nothing() -> None:
    other = Range(timeline=2, first=1, last=60, until=at(59), open_ended=True)
    assert "none can be used" in str(choose(found(MONDAY, ranges=(other,)), at(30)))


# --- as captured -------------------------------------------------------------------------------------------------


def dated(name: str, *untils: datetime) -> Inventory:
    """Return a captured inventory, each run of its timeline with the end that the probe would find."""
    read = inventory(captured(name))
    ranges = [r for r in read.ranges if r.timeline == read.timeline]
    ends = zip(ranges, untils, strict=True)
    return read.model_copy(update={"ranges": tuple(r.model_copy(update={"until": until}) for r, until in ends)})


def test_captured_hole_is_kept_away_from() -> None:
    before, after = datetime(2026, 11, 22, 1, 59, tzinfo=UTC), datetime(2026, 11, 22, 2, 4, tzinfo=UTC)
    real = dated("inventory_holes", before, after)
    assert isinstance(choose(real, before), Choice)
    assert isinstance(choose(real, after), Choice)
    said = str(choose(real, before + TICK))
    assert "holes: 000000010000000000000040 to 000000010000000000000042; not usable: cut.partial: not complete" in said
    assert "2026-11-22T01:52:53.000000Z to 2026-11-22T02:04:00.000000Z" in said


def test_captured_later_timeline_is_restored() -> None:
    end = datetime(2026, 11, 22, 2, 6, tzinfo=UTC)
    hole = datetime(2026, 11, 22, 1, 59, tzinfo=UTC)
    chosen = choose(dated("inventory_second_timeline", hole, end), end)
    assert isinstance(chosen, Choice)
    assert (chosen.timeline, chosen.backup.timeline) == (2, 2)


# --- whatever there is -------------------------------------------------------------------------------------------


class World:
    """Segments around the end of a log file, backups anywhere in them, ends of runs anywhere in time."""

    def __init__(self, data: st.DataObject) -> None:
        draw = data.draw
        self.size = draw(st.sampled_from((MB, 16 * MB)))
        base = 2**32 // self.size - 6
        numbers = st.integers(base, base + 12)
        self.there = {(t, n) for t in (1, 2) for n in range(base, base + 13)} - draw(
            st.sets(st.tuples(st.just(1), numbers))
        )
        live = draw(st.booleans())
        present = base + 12 if live else None
        files = [(named(t, n, self.size), self.size) for t, n in sorted(self.there)]
        minutes = st.integers(0, 60)
        ranges = tuple(
            r.model_copy(update={"until": draw(st.none() | minutes.map(at))})
            for r in runs(files, self.size, None if present is None else (1, present))
            if r.timeline == 1
        )
        self.backups = tuple(
            Backup(
                name=f"b{n}", path="/b", version=18, timeline=1, start_lsn=lsn(start * self.size + 40),
                stop_lsn=lsn((start + length) * self.size + 288), stopped_at=at(draw(minutes)), size=1,
                fault=draw(st.sampled_from(("", "", "", "", "bad"))),
            )
            for n, (start, length) in enumerate(draw(st.lists(st.tuples(numbers, st.integers(0, 2)), max_size=4)))
        )  # fmt: skip
        self.found = Inventory(
            now=at(61), live=live, flush_lsn=lsn((base + 12) * self.size + 300) if live else "", timeline=1,
            segment=self.size, backups=self.backups, ranges=ranges,
        )  # fmt: skip

    def end(self, backup: Backup) -> datetime | None:
        """Return how far ``backup`` can be carried on, counted segment by segment."""
        number, last = (position(p) // self.size for p in (backup.start_lsn, backup.stop_lsn))
        if any((1, n) not in self.there for n in range(number, last + 1)):
            return None
        while (1, number + 1) in self.there:
            number += 1
        return next(r.until for r in self.found.ranges if r.last == number)

    def able(self, target: datetime) -> list[Backup]:
        """Return the backups that can give ``target`` back."""
        return [
            b
            for b in self.backups
            if not b.fault
            and b.stopped_at is not None
            and (end := self.end(b)) is not None
            and b.stopped_at + timedelta(seconds=1) <= target <= end
        ]


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_choice_can_always_be_replayed(data: st.DataObject) -> None:
    world = World(data)
    edges = [*(b.stopped_at for b in world.backups), *(r.until for r in world.found.ranges), NOON]
    near = data.draw(st.sampled_from([edge for edge in edges if edge is not None]))
    target = near + data.draw(st.sampled_from((-1, 0, 1, 60))) * timedelta(seconds=1)
    chosen, able = choose(world.found, target), world.able(target)
    if isinstance(chosen, str):
        assert able == []
        return
    assert chosen.backup in able
    assert chosen.backup.stopped_at == max(b.stopped_at for b in able if b.stopped_at)
    assert chosen.backup.stopped_at < target
    assert chosen.earliest is not None
    assert chosen.latest is not None
    assert chosen.earliest <= target <= chosen.latest
    first, last = position(chosen.backup.start_lsn) // world.size, (position(chosen.enough) - 1) // world.size
    assert {(1, n) for n in range(first, last + 1)} <= world.there
    assert position(chosen.enough) > position(chosen.backup.stop_lsn)
