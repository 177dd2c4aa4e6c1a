"""The order of undoing, over every fate of every entry, also taken up again after any interruption."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import pytest

from recovery.saga import Entry, Fate, following

STACKS = [tuple(Entry(f"step {i}", "toy", None) for i in range(size)) for size in range(5)]
ENDS: tuple[Fate, ...] = ("undone", "failed")


def unwound(
    stack: tuple[Entry, ...], ends: Mapping[str, Fate], fates: dict[str, Fate]
) -> Iterator[tuple[Entry, Fate, bool]]:
    """Yield each entry with its fate and whether its undo was tried, as the engine goes through a stack."""
    while found := following(stack, lambda entry: fates.get(entry.step)):
        entry, blocked = found
        assert len(fates) < len(stack), "an entry that has met its fate came again"
        fates[entry.step] = blocked or ends[entry.step]
        yield entry, fates[entry.step], blocked is None


def every_end(stack: tuple[Entry, ...]) -> Iterator[dict[str, Fate]]:
    for ends in itertools.product(ENDS, repeat=len(stack)):
        yield dict(zip((entry.step for entry in stack), ends, strict=True))


@pytest.mark.parametrize("stack", STACKS, ids=len)
def test_every_entry_meets_its_fate(stack: tuple[Entry, ...]) -> None:
    for ends in every_end(stack):
        fates: dict[str, Fate] = {}
        dealt = [entry for entry, _, _ in unwound(stack, ends, fates)]
        assert dealt == list(reversed(stack))
        assert set(fates) == {entry.step for entry in stack}


@pytest.mark.parametrize("stack", STACKS, ids=len)
def test_nothing_beneath_a_failure_is_tried(stack: tuple[Entry, ...]) -> None:
    for ends in every_end(stack):
        failed = False
        for _, fate, tried in unwound(stack, ends, {}):
            assert tried is not failed
            assert tried or fate == "blocked"
            failed = failed or fate == "failed"


@pytest.mark.parametrize("stack", STACKS, ids=len)
def test_interruption_anywhere_changes_nothing(stack: tuple[Entry, ...]) -> None:
    for ends, moment in itertools.product(every_end(stack), range(len(stack) + 1)):
        whole: dict[str, Fate] = {}
        at_once = list(unwound(stack, ends, whole))
        fates: dict[str, Fate] = {}
        before = list(itertools.islice(unwound(stack, ends, fates), moment))
        assert before + list(unwound(stack, ends, fates)) == at_once
        assert fates == whole


def test_known_fates_of_any_kind_are_kept() -> None:
    """Whatever is known already, also in an order that no run of ours leaves: nothing guarded is tried."""
    known: tuple[Fate | None, ...] = (None, "undone", "failed", "blocked")
    for stack in STACKS:
        for some in itertools.product(known, repeat=len(stack)):
            given = {entry.step: fate for entry, fate in zip(stack, some, strict=True) if fate}
            fates = dict(given)
            for entry, fate, tried in unwound(stack, dict.fromkeys((e.step for e in stack), "undone"), fates):
                above = stack[stack.index(entry) + 1 :]
                assert tried == all(given.get(e.step) not in ("failed", "blocked") for e in above)
                assert fate == ("undone" if tried else "blocked")
            assert fates.keys() == {entry.step for entry in stack}
            assert given.items() <= fates.items()


def test_failure_that_guards_nothing_blocks_nothing() -> None:
    stack = (Entry("a", "toy", None), Entry("b", "toy", None, guards=False), Entry("c", "toy", None))
    for ends in every_end(stack):
        fates: dict[str, Fate] = {}
        tried = {entry.step for entry, _, at_all in unwound(stack, ends, fates) if at_all}
        assert tried == ({"c"} if ends["c"] == "failed" else {"a", "b", "c"})


def test_nothing_done_is_nothing_undone() -> None:
    assert following((), lambda entry: None) is None
