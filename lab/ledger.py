"""The load generator's own record: what was acknowledged, and what was not."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

TAIL = 65536  # bytes; far more than all writers can have had in flight

# A number whose transaction lost its connection: it may be in the table or not, and both are right.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Acknowledged:
    """An order that the database said it had committed; times are UTC, of the client's clock."""

    number: int
    sent_at: datetime
    acknowledged_at: datetime


@dataclass(frozen=True)
class Refused:
    """An order that was not acknowledged: `error` is an SQLSTATE, a class name, or `unknown`."""

    number: int
    at: datetime
    error: str


def now() -> str:
    """Return the present in UTC, ISO 8601 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Log:
    """A file of JSON lines that is only added to."""

    def __init__(self, path: Path) -> None:
        """Open the file, making it if it is not there."""
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def add(self, **fields: object) -> None:
        """Add one line with one write, so that a killed process leaves whole lines behind."""
        os.write(self._handle, json.dumps(fields).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def _rows(data: bytes) -> Iterator[dict[str, str | int]]:
    for line in data.splitlines(keepends=True):
        if line.startswith(b"{") and line.endswith(b"\n"):
            yield json.loads(line)


def acknowledged(folder: Path) -> list[Acknowledged]:
    """Return every acknowledged order, oldest first."""
    path = folder / "acknowledged.jsonl"
    return [
        Acknowledged(int(row["number"]), _time(row["sent_at"]), _time(row["acknowledged_at"]))
        for row in _rows(path.read_bytes() if path.exists() else b"")
    ]


def refused(folder: Path) -> list[Refused]:
    """Return every order that was not acknowledged, oldest first."""
    path = folder / "refused.jsonl"
    rows = _rows(path.read_bytes() if path.exists() else b"")
    return [Refused(int(row["number"]), _time(row["at"]), str(row["error"])) for row in rows]


def refused_for(folder: Path, since: datetime) -> float:
    """Return the seconds from the first order refused after `since` to the first one taken after the last such.

    Orders that were under way when the doors were shut are answered after the first refusal: those do not count.
    """
    times = [row.at for row in refused(folder) if row.at >= since]
    taken = [row.acknowledged_at for row in acknowledged(folder) if row.acknowledged_at > max(times)]
    return (min(taken) - min(times)).total_seconds()


def _time(text: str | int) -> datetime:
    return datetime.fromisoformat(str(text))


def count(path: Path) -> int:
    """Return how many lines a file has; 0 when it is not there."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _tail(path: Path) -> list[dict[str, str | int]]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        data = file.read()
    if len(data) == TAIL:
        data = data.partition(b"\n")[2]  # the first line may have been cut
    return list(_rows(data))


def last_acknowledged_at(folder: Path) -> datetime | None:
    """Return when the latest acknowledgement came, UTC; None before the first one."""
    times = [_time(row["acknowledged_at"]) for row in _tail(folder / "acknowledged.jsonl")]
    return max(times, default=None)


def highest_number(folder: Path) -> int:
    """Return the highest number ever used, acknowledged or not; 0 before the first one."""
    tails = [_tail(folder / name) for name in ("acknowledged.jsonl", "refused.jsonl")]
    return max((int(row["number"]) for tail in tails for row in tail), default=0)
