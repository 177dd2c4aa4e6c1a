"""Which log leads to a timeline, and which backups an incremental one is put together from, whatever there is."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from activities.backups import Inventory, Range, along
from activities.chains import chains
from activities.timelines import Line, lines, lsn, position, segment_name, timeline_of

SIZE = 1 << 20


@st.composite
def histories(draw: st.DrawFn) -> dict[int, list[tuple[int, int]]]:
    """Draw a tree of timelines: each but the first branches off an earlier one, after that one's own beginning."""
    tree: dict[int, list[tuple[int, int]]] = {1: []}
    for timeline in range(2, draw(st.integers(2, 7))):
        parent = draw(st.sampled_from(sorted(tree)))
        begin = tree[parent][-1][1] if tree[parent] else SIZE
        tree[timeline] = [*tree[parent], (parent, begin + draw(st.integers(0, 5 * SIZE)))]
    return tree


def written(tree: dict[int, list[tuple[int, int]]]) -> dict[int, list[tuple[str, str]]]:
    return {timeline: [(str(one), lsn(at)) for one, at in rows] for timeline, rows in tree.items() if timeline > 1}


@given(histories(), st.data())
@settings(deadline=None)
def test_path_is_what_history_files_say(tree: dict[int, list[tuple[int, int]]], data: st.DataObject) -> None:
    wanted = data.draw(st.sampled_from(sorted(tree)))
    path = lines(wanted, written(tree))
    assert not isinstance(path, str)
    assert [line.timeline for line in path] == [*(one for one, _ in tree[wanted]), wanted]
    assert [position(line.end) for line in path[:-1]] == [at for _, at in tree[wanted]]
    assert all(a.end == b.begin for a, b in pairwise(path))
    assert (path[0].begin, path[-1].end) == ("0/0", "")


@given(histories(), st.data())
@settings(deadline=None)
def test_each_segment_is_read_of_the_timeline_that_goes_on(
    tree: dict[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    """Never of the branch that was left: a segment in which two part is the later one's."""
    wanted = data.draw(st.sampled_from(sorted(tree)))
    path = lines(wanted, written(tree))
    assert not isinstance(path, str)
    number = data.draw(st.integers(0, 40))
    found = timeline_of(number, path, SIZE)
    begins = [(line.timeline, position(line.begin) // SIZE) for line in path]
    assert found == max(begins[: sum(begin <= number for _, begin in begins)], key=lambda one: one[1:] + one[:1])[0]


@given(histories(), st.data())
@settings(deadline=None)
def test_runs_go_on_over_timelines(tree: dict[int, list[tuple[int, int]]], data: st.DataObject) -> None:
    """A run along the path holds exactly the segments that are there of the right timeline, and none of another."""
    wanted = data.draw(st.sampled_from(sorted(tree)))
    path = lines(wanted, written(tree))
    assert not isinstance(path, str)
    there = data.draw(st.sets(st.tuples(st.sampled_from(sorted(tree)), st.integers(0, 40)), max_size=150))
    ranges = tuple(Range(timeline=t, first=n, last=n) for t, n in sorted(there))
    found = Inventory.model_validate(
        {"now": "2026-11-21T12:00:00Z", "live": False, "segment": SIZE, "ranges": ranges, "path": path}
    )
    led = [run for run in along(found) if run.timeline == wanted]
    numbers = [number for run in led for number in range(run.first, run.last + 1)]
    assert numbers == sorted({n for t, n in there if timeline_of(n, path, SIZE) == t})
    assert all(a.last + 1 < b.first for a, b in pairwise(led))


DAMAGES = st.sampled_from(["?", "", "0", "x/y", "0/", "1"])


@given(histories(), DAMAGES, DAMAGES, st.data())
@settings(deadline=None)
def test_damaged_history_is_never_followed(
    tree: dict[int, list[tuple[int, int]]], timeline: str, at: str, data: st.DataObject
) -> None:
    told = written(tree)
    if not told:
        return
    wanted = data.draw(st.sampled_from(sorted(told)))
    row = data.draw(st.integers(0, len(told[wanted]) - 1))
    told[wanted][row] = (timeline, at)
    assert lines(wanted, told) == (
        f"archive: {wanted:08X}.history is damaged; copy it from another place where the log is"
    )


def test_segment_of_a_branch_at_its_edge_is_the_childs() -> None:
    path = (Line(timeline=1, end=lsn(5 * SIZE)), Line(timeline=2, begin=lsn(5 * SIZE)))
    assert [timeline_of(number, path, SIZE) for number in (4, 5, 6)] == [1, 2, 2]
    assert segment_name(2, 5, SIZE) == "000000020000000000000005"


# --- chains ------------------------------------------------------------------------------------------------------


@st.composite
def backups(draw: st.DrawFn) -> dict[str, dict[str, str]]:
    """Draw backups in the order in which they were taken; an incremental one is of any before it."""
    found: dict[str, dict[str, str]] = {}
    for number in range(draw(st.integers(1, 12))):
        parent = draw(st.sampled_from(["", *found]))
        found[f"b{number:02}"] = {
            "path": f"/b/{number}", "version": "18", "start_lsn": lsn((number + 1) * SIZE), "timeline": "1",
            "stop_lsn": lsn((number + 1) * SIZE + 99), "stopped": str(number), "system": "7",
            "incremental": found[parent]["start_lsn"] if parent else "", "parent": "1" if parent else "",
        }  # fmt: skip
    return found


@given(backups(), st.data())
@settings(deadline=None)
def test_chain_goes_down_to_a_full_backup(rows: dict[str, dict[str, str]], data: st.DataObject) -> None:
    gone = data.draw(st.sets(st.sampled_from(sorted(rows)), max_size=3))
    halved = data.draw(st.sets(st.sampled_from(sorted(rows)), max_size=2))
    there = {name: row | ({"stop_lsn": ""} if name in halved else {}) for name, row in rows.items() if name not in gone}
    at = {row["start_lsn"]: name for name, row in rows.items()}
    for name, chain in chains(there).items():
        expected = [name]
        while rows[expected[0]]["incremental"]:
            expected.insert(0, at[rows[expected[0]]["incremental"]])
        if set(expected) & (gone | halved):
            assert isinstance(chain, str)
        else:
            assert chain == tuple(expected)


def test_long_chain_is_followed() -> None:
    """Hourly for two months, and never a full one in between."""
    rows = {
        f"b{n:05}": {
            "path": "/b", "version": "18", "start_lsn": lsn(n * SIZE + SIZE), "timeline": "1", "stop_lsn": "9/9",
            "stopped": "1", "incremental": lsn(n * SIZE) if n else "", "parent": "1",
        }
        for n in range(1500)
    }  # fmt: skip
    found = chains(rows)["b01499"]
    assert isinstance(found, tuple)
    assert len(found) == 1500


def test_backup_that_leads_to_itself_is_no_chain() -> None:
    row = {
        "path": "/b", "version": "18", "start_lsn": "0/100", "timeline": "1", "stop_lsn": "0/200", "stopped": "1",
        "incremental": "0/100", "parent": "1",
    }  # fmt: skip
    assert chains({"a": row}) == {"a": "incremental: the one before it, a, cannot be used: it leads back to itself"}
