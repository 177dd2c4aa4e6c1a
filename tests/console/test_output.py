"""What people are shown."""

from datetime import timedelta

import pytest

from console.output import clean, duration, say, span


def test_control_characters_of_others_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    say("before\x1b[2Jafter\x9b31m\r\n[bold]next[/bold] :tada:")
    assert capsys.readouterr().out == "before�[2Jafter�31m�\n[bold]next[/bold] :tada:\n"
    assert clean("a\tb\nc") == "a\tb\nc"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (185, "3 min 5 s"), (7260, "2 h 1 min")],
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_round_spans_have_no_zeros() -> None:
    lengths = (timedelta(hours=1), timedelta(minutes=30), timedelta(seconds=5), timedelta(minutes=90))
    assert [span(length) for length in lengths] == ["1 h", "30 min", "5 s", "1 h 30 min"]
