"""The record of sendings: who holds it, what it counts, and that it does not grow for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path

from activities.sendings import KEPT_SECONDS, End, Record, record


def test_record_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with record(tmp_path, "a") as first, record(tmp_path, "a") as second, record(tmp_path, "b") as other:
        assert isinstance(first, Record)
        assert second is None
        assert isinstance(other, Record)


def test_record_outlives_its_holder(tmp_path: Path) -> None:
    ends: tuple[End | None, ...] = ("failed", "unanswered", None, "sent")
    for end in ends:
        with record(tmp_path, "a") as told:
            assert told
            assert not told.sent
            told.begin()
            if end:
                told.end(end)
    with record(tmp_path, "a") as told:
        assert told
        assert (told.sent, told.unanswered, told.cut) == (True, 1, 1)


def test_old_records_are_swept(tmp_path: Path) -> None:
    for name in ("old", "young"):
        with record(tmp_path, name):
            pass
    os.utime(tmp_path / "old", (time.time() - KEPT_SECONDS - 1,) * 2)
    with record(tmp_path, "new"):
        assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "young"]
