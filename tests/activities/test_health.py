"""What counts as well, as unwell, and as worse: over every order of what was seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.configurations import sliced
from activities.health import MISSES, Look, State, unwell, verdict, worse

WELL, ILL = State(well=True), State(well=False, why="exit code 1")


def looks(text: str) -> list[Look]:
    """Return a look a second: + is well."""
    return [Look(float(at), WELL if one == "+" else ILL) for at, one in enumerate(text)]


@pytest.mark.parametrize(
    ("seen", "settle", "seconds", "well"),
    [
        ("+", 0, 0, True), ("-", 0, 0, False), ("-", 5, 0, None), ("-----", 5, 0, None), ("------", 5, 0, False),
        ("--+", 5, 0, True), ("--+", 5, 3, None), ("--++++", 5, 3, True), ("+--+", 0, 3, True), ("+--", 0, 2, None),
        ("+---", 0, 9, False), ("+--+--+", 0, 6, True), ("+++-", 0, 3, None), ("+++---", 0, 3, False),
    ],
)  # fmt: skip
def test_verdict_waits_and_is_not_fooled(seen: str, settle: float, seconds: float, well: bool | None) -> None:
    found = verdict(looks(seen), settle, seconds)
    assert (found.well if found else None) == well


@given(st.text("+-", min_size=1, max_size=30), st.integers(0, 10), st.integers(0, 10))
def test_verdict_follows_from_what_was_seen(seen: str, settle: int, seconds: int) -> None:
    found = verdict(looks(seen), settle, seconds)
    if found is not None and found.well:
        assert seen[-1] == "+"
        assert "+" in seen[: len(seen) - seconds]
    if found is not None and not found.well:
        assert seen.endswith("-" * MISSES) or ("+" not in seen and len(seen) > settle)


def test_worse_is_what_was_well() -> None:
    before = {"a": WELL, "b": ILL, "c": WELL}
    after = {"a": ILL, "b": ILL, "d": ILL}
    assert worse(before, after) == ["a was well, and is not any more (exit code 1)"]
    assert len(unwell(after)) == 3


@given(st.integers(0, 200), st.lists(st.integers(1, 50) | st.sampled_from(["1%", "10%", "50%", "100%"]), min_size=1))
def test_waves_have_each_target_once(count: int, sizes: list[int | str]) -> None:
    targets = [str(number) for number in range(count)]
    waves = sliced(targets, sizes)
    assert [one for wave in waves for one in wave] == targets
    assert all(waves)
    first = sizes[0]
    wanted = first if isinstance(first, int) else -(-count * int(first.rstrip("%")) // 100)
    assert not waves or len(waves[0]) == min(wanted, count)
