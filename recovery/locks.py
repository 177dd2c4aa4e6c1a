"""Locks between processes: a file's flock, which the kernel lets go when its last holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def grab(path: Path, how: int) -> int | None:
    """Return a descriptor that locks ``path``, or None when another process is in the way."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if take(descriptor, how):
        return descriptor
    os.close(descriptor)
    return None


def take(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
