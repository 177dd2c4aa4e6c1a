"""Which revision is the last known good one: every way to find it, and every way in which there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.revisions import Commit, Deployment, History, Wanted, choose, deployments, newer

NOW = datetime(2026, 11, 29, 3, 0, tzinfo=UTC)


def commit(number: int, tree: str = "", *tags: str) -> Commit:
    """Return the commit of this age in hours."""
    name = f"{number:x}" * 40
    return Commit(name[:40], tree or f"tree-{number}", NOW - timedelta(hours=number), "carol", f"change {number}", tags)


LINE = (commit(1), commit(2), commit(3, "", "good-7"), commit(4), commit(5, "", "good-6"))
IDS = [one.id for one in LINE]
NOTES = {
    IDS[0]: (Deployment(id="d-5", health="unhealthy"),),
    IDS[1]: (Deployment(id="d-4", health="healthy"), Deployment(id="d-4b", health="unhealthy")),
    IDS[2]: (Deployment(id="d-3", health="unknown"),),
    IDS[3]: (Deployment(id="d-2", health="unhealthy"), Deployment(id="d-2b", health="healthy", at=NOW)),
}
HISTORY = History(LINE, NOTES, IDS)

FOUND = {
    "its digits": (Wanted(revision=IDS[3][:8]), 3, "was named"),
    "its digits in capitals": (Wanted(revision=("a" * 40)[:9].upper()), None, "does not contain it"),
    "its tag": (Wanted(revision="good-6"), 4, "was named"),
    "a pattern": (Wanted(tag="good-*"), 2, "is tagged good-7"),
    "a time": (Wanted(before=NOW - timedelta(hours=3, minutes=30)), 3, "was there at"),
    "the very time": (Wanted(before=NOW - timedelta(hours=3)), 2, "was there at"),
    "its health": (Wanted(healthy=True), 3, "recorded as healthy by deployment d-2b at 2026-11-29 03:00:00Z"),
    "what failed": (Wanted(deployment="d-5"), 3, "it came before d-5"),
    "too few digits": (Wanted(revision=IDS[3][:6]), None, "no 7 or more digits"),
    "an unknown one": (Wanted(revision="deadbeef"), None, "does not contain it"),
    "the newest one": (Wanted(revision=IDS[0]), None, "nothing to roll back"),
    "no such tag": (Wanted(tag="best-*"), None, "tag: no revision"),
    "no such deployment": (Wanted(deployment="d-9"), None, "no note"),
    "an older deployment": (Wanted(deployment="d-4b"), None, "has gone on since d-4b"),
    "a healthy deployment": (Wanted(deployment="d-2b"), None, "was recorded as healthy"),
    "before everything": (Wanted(before=NOW - timedelta(days=9)), None, "before: no revision"),
}


@pytest.mark.parametrize("how", FOUND)
def test_revision_is_found_or_said_why_not(how: str) -> None:
    wanted, place, said = FOUND[how]
    found = choose(wanted, HISTORY)
    assert found.revision == ("" if place is None else IDS[place])
    assert any(said in text for text in (found.why, *found.faults)), found


def test_ambiguous_digits_are_told() -> None:
    reached = [*IDS, "3333333a" + "0" * 32]
    (fault,) = choose(Wanted(revision="3333333"), HISTORY._replace(reached=reached)).faults
    assert "ambiguous: 333333333333, 3333333a0000" in fault


def test_tag_beats_digits_that_look_alike() -> None:
    line = (LINE[0], commit(2, "", IDS[3][:8]), *LINE[2:])
    assert choose(Wanted(revision=IDS[3][:8]), HISTORY._replace(line=line)).revision == IDS[1]


def test_same_content_is_no_rollback() -> None:
    line = (LINE[0], commit(2, LINE[0].tree, "good-8"), *LINE[2:])
    assert choose(Wanted(tag="good-*"), HISTORY._replace(line=line)).revision == IDS[2]


def test_empty_branch_and_folder_are_told() -> None:
    assert choose(Wanted(healthy=True), History(())).faults == ("branch: it has no commit",)
    gone = (LINE[0]._replace(tree=""), *LINE[1:])
    assert "path: " in choose(Wanted(healthy=True), HISTORY._replace(line=gone)).faults[0]


def test_deployment_of_two_commits_is_told() -> None:
    notes = {**NOTES, IDS[1]: NOTES[IDS[0]]}
    assert "several commits" in choose(Wanted(deployment="d-5"), HISTORY._replace(deployments=notes)).faults[0]


def test_deployment_of_another_branch_is_told() -> None:
    notes = {"f" * 40: (Deployment(id="d-x", health="unhealthy"),)}
    assert "not of this branch" in choose(Wanted(deployment="d-x"), HISTORY._replace(deployments=notes)).faults[0]


def test_unreadable_lines_are_counted() -> None:
    note = '{"id": "a", "health": "healthy"}\nrubbish\n{"health": "healthy"}\n{"id": "b", "health": "odd"}\n\n[1]\n'
    found, unread = deployments(note)
    assert ([one.id for one in found], unread) == (["a"], 4)


def test_what_is_taken_back_is_what_is_newer() -> None:
    assert [one.id for one in newer(HISTORY, IDS[2])] == IDS[:2]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["healthy", "unhealthy", "unknown", None])), min_size=1))
def test_healthy_choice_is_the_newest_that_is_one(rows: list[tuple[int, str | None]]) -> None:
    line = [
        Commit(f"{number:040x}", f"tree-{tree}", NOW - timedelta(hours=number)) for number, (tree, _) in enumerate(rows)
    ]
    notes = {
        one.id: (Deployment.model_validate({"id": "d", "health": health}),)
        for one, (_, health) in zip(line, rows, strict=True)
        if health
    }
    found = choose(Wanted(healthy=True), History(line, notes, [one.id for one in line]))
    good = [
        one.id for one, (_, health) in zip(line, rows, strict=True) if health == "healthy" and one.tree != line[0].tree
    ]
    assert found.revision == (good[0] if good else "")
    assert bool(found.faults) == (not good)
