"""Timelines of a PostgreSQL log: which parts of which ones lead to the wanted one, and what is there of them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from recovery.models import Wire


class Line(Wire):
    """The part of a timeline that leads to the wanted one, up to the position ``end`` ("": it is the wanted one)."""

    timeline: int
    begin: str = "0/0"
    end: str = ""

    def holds(self, lsn: str) -> bool:
        """Tell whether what was written up to ``lsn`` is part of it."""
        return not self.end or position(lsn) <= position(self.end)


Branches = Mapping[int, Sequence[tuple[str, str]]]
"""By timeline what its history file says: each timeline before it, and where that was left; as text, unproven."""


def lines(wanted: int, branches: Branches) -> tuple[Line, ...] | str:
    """Return what leads to the timeline ``wanted``, oldest first, or a sentence that says why that is not known."""
    if wanted == 1:
        return (Line(timeline=1),)
    file = f"{wanted:08X}.history"
    if wanted not in branches:
        return f"archive: {file} is missing, so nobody knows what led to timeline {wanted}; copy it back"
    try:
        left = [(int(timeline), position(lsn)) for timeline, lsn in branches[wanted]]
    except ValueError:
        return f"archive: {file} is damaged; copy it from another place where the log is"
    row = [*left, (wanted, left[-1][1] if left else 0)]
    if not left or any(a[0] >= b[0] or a[1] > b[1] for a, b in pairwise(row)):
        return f"archive: {file} is damaged; copy it from another place where the log is"
    begins = ["0/0", *(lsn(at) for _, at in left)]
    ends = [*(lsn(at) for _, at in left), ""]
    return tuple(
        Line(timeline=timeline, begin=begin, end=end)
        for (timeline, _), begin, end in zip(row, begins, ends, strict=True)
    )


def timeline_of(number: int, path: Sequence[Line], size: int) -> int:
    """Return the timeline in whose name segment ``number`` is read: of a segment that two share, the later one."""
    return next(line.timeline for line in reversed(path) if position(line.begin) // size <= number)


def segments_on(path: Sequence[Line], size: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield for each timeline that has any its first segment and its last one (None: no end is known)."""
    for line, after in zip(path, [*path[1:], None], strict=True):
        first, last = position(line.begin) // size, position(after.begin) // size - 1 if after else None
        if last is None or first <= last:
            yield line.timeline, first, last


def position(text: str) -> int:
    """Return the byte position of an LSN such as ``0/2000028``."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn(at: int) -> str:
    """Return the LSN of byte position ``at``."""
    return f"{at >> 32:X}/{at & 0xFFFFFFFF:X}"


def segment_name(timeline: int, number: int, size: int) -> str:
    """Return the file name of WAL segment ``number``."""
    per_log = 0x1_0000_0000 // size
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"


def numbered(name: str, size: int) -> tuple[int, int] | None:
    """Return timeline and number of the segment of that file name; None for another file."""
    if len(name) != 24 or set(name) - set("0123456789ABCDEF"):
        return None
    return int(name[:8], 16), int(name[8:16], 16) * (0x1_0000_0000 // size) + int(name[16:], 16)


def unbroken(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and last of each unbroken run of ``numbers``."""
    row = sorted(set(numbers))
    breaks = [i for i, (a, b) in enumerate(pairwise(row), start=1) if b != a + 1]
    edges = [0, *breaks, len(row)]
    return [(row[a], row[b - 1]) for a, b in pairwise(edges) if b > a]
