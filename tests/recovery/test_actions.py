"""What the engine derives from four functions, on a toy action that writes a real file line by line."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from recovery.actions import Action, Order, Patience, Probe, Spec, agrees, differences
from recovery.errors import Drifted, Fatal, RecoveryError, Refused, Stale, Transient
from recovery.models import Mode, Wire

HOUR = timedelta(hours=1)
LINES = ("one", "two", "three", "four")
Part = Literal["observe", "apply", "undo"]


class Write(Spec):
    """Which lines a file is to hold."""

    path: str
    lines: tuple[str, ...] = LINES


class Written(Wire):
    """What a file holds; None in ``size`` is known after apply."""

    lines: tuple[str, ...] | None = ()
    size: int | None = 0


class Writer(Action[Write, Written]):
    """Write lines, one after the other; ``breaks`` are raised once so many are written."""

    name = "toy.write"
    beat = timedelta(milliseconds=5)

    def __init__(self) -> None:
        self.breaks: dict[tuple[str, int], BaseException] = {}
        self.halted = 0
        self.pause = 0.0
        self.wrong: str | None = None

    async def observe(self, spec: Write) -> Written:
        """Read the file."""
        text = Path(spec.path).read_text()
        return Written(lines=tuple(text.splitlines()), size=len(text))

    def desired(self, spec: Write, before: Written) -> Written:
        """Want the lines; how long they are is known after."""
        return Written(lines=spec.lines, size=None)

    def partial(self, spec: Write, before: Written, now: Written) -> bool:
        """Know a file that holds some of either's lines, from the first on: apply or undo was on its way."""
        ends = (spec.lines, before.lines or ())
        return any(now.lines == lines[:n] for lines in ends for n in range(len(lines)))

    async def apply(self, spec: Write, before: Written) -> None:
        """Write all lines anew."""
        await self._write(spec, "apply", spec.lines if self.wrong is None else (self.wrong,))

    async def undo(self, spec: Write, before: Written) -> None:
        """Write what was there."""
        await self._write(spec, "undo", before.lines or ())

    async def halt(self, spec: Write) -> None:
        """Count."""
        self.halted += 1

    async def _write(self, spec: Write, part: Part, lines: tuple[str, ...]) -> None:
        for number in range(len(lines) + 1):
            Path(spec.path).write_text("".join(f"{line}\n" for line in lines[:number]))
            if found := self.breaks.pop((part, number), None):
                raise found
            await asyncio.sleep(self.pause)


class Desk:
    """One file, one writer, and the activities that a worker would register."""

    def __init__(self, path: Path, content: str = "old\n") -> None:
        self.path, self.writer = path, Writer()
        self.path.write_text(content)
        self.environment = ActivityEnvironment()
        self.activities = {activity._Definition.must_from_callable(a).name: a for a in self.writer.activities()}
        self.before = Written(lines=tuple(content.splitlines()), size=len(content))

    def shows(self) -> tuple[str, ...]:
        return tuple(self.path.read_text().splitlines())

    def run(
        self, part: Part, mode: Mode = "live", valid: timedelta = HOUR, drill: bool = False, commits: str = ""
    ) -> Any:
        write = Write(system="desk", path=str(self.path), drill=drill)
        order: Order[Write, Written] = Order(
            spec=write, before=self.before, mode=mode, not_after=datetime.now(UTC) + valid, commits=commits
        )
        call = self.activities[f"toy.write.{part}"]
        return asyncio.run(self.environment.run(call, write if part == "observe" else order))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "file")


def test_order_of_an_older_history_has_the_time_of_old() -> None:
    assert Patience.model_validate({"step": "put a"}).undo_within == Action.undo_patience


def test_activities_carry_their_types(desk: Desk) -> None:
    definition = {name: activity._Definition.must_from_callable(call) for name, call in desk.activities.items()}
    assert set(definition) == {"toy.write.observe", "toy.write.apply", "toy.write.undo"}
    assert definition["toy.write.observe"].arg_types == [Write]
    assert definition["toy.write.apply"].arg_types == [Order[Write, Written]]
    assert {d.ret_type for d in definition.values()} == {Written}


def test_probe_has_one_activity() -> None:
    class Reader(Probe[Write, Written]):
        name = "toy.read"

        async def observe(self, spec: Write) -> Written:
            return Written()

    assert [activity._Definition.must_from_callable(a).name for a in Reader().activities()] == ["toy.read.observe"]
    assert Reader().title(Write(system="desk", path="")) == "toy.read desk"


def test_observe_changes_nothing(desk: Desk) -> None:
    assert desk.run("observe") == desk.before
    assert desk.shows() == ("old",)


def test_apply_reaches_the_desired(desk: Desk) -> None:
    assert desk.run("apply") == Written(lines=LINES, size=19)
    assert desk.shows() == LINES
    assert desk.writer.halted == 1


def test_desired_is_left_alone(desk: Desk) -> None:
    desk.run("apply")
    desk.writer.breaks = {("apply", 0): AssertionError("applied again")}
    assert desk.run("apply") == Written(lines=LINES, size=19)
    assert desk.writer.halted == 2


def test_beats_while_it_works(desk: Desk) -> None:
    beats: list[tuple[Any, ...]] = []
    desk.environment.on_heartbeat = lambda *details: beats.append(details)
    desk.writer.pause = 0.01
    desk.run("apply")
    assert beats


def test_drifted_is_not_overwritten(desk: Desk) -> None:
    desk.path.write_text("somebody else's\n")
    with pytest.raises(Drifted, match=r"lines is .*somebody else's.*, not .*old.*nothing was overwritten"):
        desk.run("apply")
    assert desk.shows() == ("somebody else's",)


def test_own_half_is_finished(desk: Desk) -> None:
    desk.path.write_text("one\ntwo\n")
    assert desk.run("apply").lines == LINES


def test_late_order_does_nothing(desk: Desk) -> None:
    with pytest.raises(Stale, match="nothing was done"):
        desk.run("apply", valid=-HOUR)
    assert desk.shows() == ("old",)


def test_late_half_is_finished(desk: Desk) -> None:
    desk.path.write_text("one\ntwo\n")
    assert desk.run("apply", valid=-HOUR).lines == LINES


def test_late_half_that_does_not_show_its_beginning_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "begun", lambda *_: False)
    desk.path.write_text("one\ntwo\n")
    with pytest.raises(Stale):
        desk.run("apply", valid=-HOUR)
    assert desk.run("apply").lines == LINES


@pytest.mark.parametrize("content", ["one\n", "one\ntwo\nthree\nfour\n"])
def test_commit_that_took_effect_is_not_taken_back(desk: Desk, content: str) -> None:
    desk.path.write_text(content)
    with pytest.raises(Refused, match="it took effect after it was seen to have changed nothing"):
        desk.run("undo", commits="clients may write")
    assert (desk.path.read_text(), desk.writer.halted) == (content, 1)


def test_commit_that_took_no_effect_is_taken_back(desk: Desk) -> None:
    assert desk.run("undo", commits="clients may write") == desk.before


def test_late_desired_is_done(desk: Desk) -> None:
    desk.run("apply")
    assert desk.run("apply", valid=-HOUR).lines == LINES


def test_late_drift_is_drift(desk: Desk) -> None:
    desk.path.write_text("somebody else's\n")
    with pytest.raises(Drifted):
        desk.run("apply", valid=-HOUR)


@pytest.mark.parametrize("content", ["old\n", "one\n", "one\ntwo\nthree\nfour\n"])
def test_check_is_refused(desk: Desk, content: str) -> None:
    desk.path.write_text(content)
    with pytest.raises(Refused, match="a check changes nothing"):
        desk.run("apply", mode="check", drill=True)
    assert desk.path.read_text() == content


def test_drill_spares_what_is_no_target(desk: Desk) -> None:
    with pytest.raises(Refused, match="desk is no drill target"):
        desk.run("apply", mode="drill")
    assert desk.shows() == ("old",)


def test_drill_changes_its_target(desk: Desk) -> None:
    assert desk.run("apply", mode="drill", drill=True).lines == LINES


def test_wrong_end_is_tried_again(desk: Desk) -> None:
    desk.writer.wrong = "another"
    with pytest.raises(Transient, match=r"applied, but the system shows lines is \['another'\], not \['one', "):
        desk.run("apply")


def test_undo_restores_what_was_there(desk: Desk) -> None:
    desk.run("apply")
    assert desk.run("undo") == desk.before
    assert desk.shows() == ("old",)


def test_undo_twice_is_undo_once(desk: Desk) -> None:
    desk.run("apply")
    desk.run("undo")
    desk.writer.breaks = {("undo", 0): AssertionError("undone again")}
    assert desk.run("undo") == desk.before


def test_undo_without_apply_changes_nothing(desk: Desk) -> None:
    desk.writer.breaks = {("undo", 0): AssertionError("undone")}
    assert desk.run("undo") == desk.before


def test_undo_of_a_half_restores(desk: Desk) -> None:
    desk.path.write_text("one\n")
    assert desk.run("undo") == desk.before


def test_undo_halts_before_it_looks(desk: Desk) -> None:
    desk.run("undo")
    assert desk.writer.halted == 1


def test_late_undo_is_done(desk: Desk) -> None:
    desk.run("apply")
    assert desk.run("undo", valid=-HOUR) == desk.before


def test_drifted_is_not_undone(desk: Desk) -> None:
    desk.run("apply")
    desk.path.write_text("somebody else's\n")
    with pytest.raises(Drifted, match="nothing was overwritten"):
        desk.run("undo")
    assert desk.shows() == ("somebody else's",)


@pytest.mark.parametrize(
    ("failure", "halted"),
    [(Transient("later"), 0), (Refused("no"), 1), (Drifted("no"), 1), (Stale("no"), 1), (Fatal("no"), 1)],
    ids=lambda value: type(value).__name__,
)
def test_final_failure_halts(desk: Desk, failure: RecoveryError, halted: int) -> None:
    """What may be tried again is found again on the target; what ended for good must not go on there."""
    desk.writer.breaks = {("apply", 2): failure}
    with pytest.raises(type(failure)):
        desk.run("apply")
    assert desk.writer.halted == halted


def test_drift_that_a_later_attempt_finds_halts(desk: Desk) -> None:
    """An earlier one may have begun before; where nothing can be undone nobody else would end that."""
    desk.path.write_text("somebody else's\n")
    with pytest.raises(Drifted):
        desk.run("apply")
    assert desk.writer.halted == 1


FAILURES = (Transient, RuntimeError, asyncio.CancelledError, OSError, Fatal)
moments = st.lists(st.tuples(st.integers(0, len(LINES)), st.sampled_from(FAILURES)), max_size=4)


@given(moments, moments, st.sampled_from(["old\n", "", "a\nb\nc\n"]))
@settings(deadline=None)
def test_interrupted_anywhere_converges(
    applies: list[tuple[int, type[BaseException]]], undos: list[tuple[int, type[BaseException]]], content: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder) / "file", content)
        interrupted(desk, "apply", applies)
        assert desk.run("apply").lines == LINES
        assert desk.shows() == LINES
        interrupted(desk, "undo", undos)
        assert desk.run("undo") == desk.before
        assert desk.path.read_text() == content


@given(moments, st.sampled_from(["old\n", "", "a\nb\nc\n"]))
@settings(deadline=None, max_examples=50)
def test_interrupted_apply_can_be_undone(applies: list[tuple[int, type[BaseException]]], content: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder) / "file", content)
        interrupted(desk, "apply", applies)
        assert desk.run("undo") == desk.before
        assert desk.path.read_text() == content


def interrupted(desk: Desk, part: Part, breaks: list[tuple[int, type[BaseException]]]) -> None:
    """Run ``part`` once for each break; it may also be done already."""
    for number, failure in breaks:
        desk.writer.breaks = {(part, number): failure("struck")}
        try:
            desk.run(part)
        except failure:
            assert not desk.writer.breaks
    desk.writer.breaks = {}


SEEN = Written(lines=("a",), size=2)


@pytest.mark.parametrize(
    ("wanted", "same"),
    [
        (Written(lines=("a",), size=2), True),
        (Written(lines=("a",), size=None), True),
        (Written(lines=None, size=None), True),
        (Written(lines=("b",), size=2), False),
        (Written(lines=("a",), size=3), False),
        (Written(lines=(), size=None), False),
    ],
)
def test_agrees_leaves_unknown_aside(wanted: Written, same: bool) -> None:
    assert agrees(wanted, SEEN) is same
    assert (differences(wanted, SEEN) == "") is same


def test_unknown_is_not_seen() -> None:
    assert not agrees(SEEN, Written(lines=("a",), size=None))


def test_differences_name_each_field() -> None:
    assert differences(Written(lines=("b",), size=3), SEEN) == "lines is ['a'], not ['b'], size is 2, not 3"


class Odd(Wire):
    """A state with what JSON has no words for."""

    at: datetime | None = None
    span: timedelta | None = None
    names: frozenset[str] = frozenset()
    inner: Written | None = None


odd = st.builds(
    Odd,
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
    span=st.none() | st.timedeltas(),
    names=st.frozensets(st.sampled_from("abc")),
    inner=st.none() | st.builds(Written, lines=st.sampled_from([(), ("a",)]), size=st.none() | st.integers(0, 2)),
)


@given(odd, odd)
@settings(deadline=None)
def test_difference_is_disagreement(wanted: Odd, seen: Odd) -> None:
    assert agrees(wanted, wanted)
    assert agrees(wanted, seen) == (differences(wanted, seen) == "")


@pytest.mark.parametrize(("until", "final"), [(HOUR, Transient), (-HOUR, Fatal)])
def test_transient_failure_is_final_once_people_have_to_hear(
    desk: Desk, until: timedelta, final: type[RecoveryError]
) -> None:
    desk.writer.breaks = {("apply", 2): Transient("the host is away")}
    order: Order[Write, Written] = Order(
        spec=Write(system="desk", path=str(desk.path)),
        before=desk.before,
        mode="live",
        not_after=datetime.now(UTC) + HOUR,
        give_up=datetime.now(UTC) + until,
    )
    with pytest.raises(final, match="the host is away"):
        asyncio.run(desk.environment.run(desk.activities["toy.write.apply"], order))
