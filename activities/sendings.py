"""Remember, beside the worker, which sendings were begun and how they ended, so that none is repeated unsaid."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from recovery.locks import grab

KEPT_SECONDS = 7 * 24 * 3600.0
"""Far beyond the hours for which a sending is retried."""

End = Literal["sent", "failed", "unanswered"]


class Record:
    """One message to one target, a line for each beginning and each end, on the disk before it counts.

    A beginning without an end is a process that died in between, or a target that never answered (``unanswered``):
    the message may have arrived.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines = os.pread(descriptor, 4096, 0).decode().splitlines()

    @property
    def sent(self) -> bool:
        """Tell whether the target has accepted it."""
        return "sent" in self._lines

    @property
    def unanswered(self) -> int:
        """Count the sendings to which the target gave no answer."""
        return self._lines.count("unanswered")

    @property
    def cut(self) -> int:
        """Count the sendings in which the process died."""
        return self._lines.count("begun") - sum(self._lines.count(end) for end in ("sent", "failed", "unanswered"))

    def begin(self) -> None:
        """Write down that it is being sent, before it is."""
        self._write("begun")

    def end(self, how: End) -> None:
        """Write down how the sending ended that was begun last."""
        self._write(how)

    def _write(self, word: str) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_END)
        os.write(self._descriptor, f"{word}\n".encode())
        os.fsync(self._descriptor)
        self._lines.append(word)


@contextmanager
def record(folder: Path, key: str) -> Iterator[Record | None]:
    """Hold the record ``key``; None while another attempt holds it. The kernel lets go of it when its process dies."""
    _sweep(folder)
    descriptor = grab(folder / key, fcntl.LOCK_EX)
    if descriptor is None:
        yield None
        return
    try:
        yield Record(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another attempt sweeps, too
            if time.time() - file.stat().st_mtime > KEPT_SECONDS:
                file.unlink()
