"""Small file systems of their own, where this user may mount: a disk that is really full."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def mounts() -> bool:
    """Tell whether this user may mount: root may, unless it is shut in a container without that right."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        return _mount("-t", "tmpfs", "tmpfs", folder) and _umount(Path(folder))


@contextlib.contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[None]:
    """Have a file system of that size in ``folder``."""
    assert _mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(folder))
    try:
        yield
    finally:
        assert _umount(folder)


def fill(folder: Path) -> None:
    """Leave no room in the file system of ``folder`` but for what is there.

    What is still being written makes it larger between the look and the mount, which is then refused.
    """
    deadline = time.monotonic() + 10
    while not _mount("-o", f"remount,size={_used(folder)}", str(folder)):
        assert time.monotonic() < deadline, f"{folder} does not stop growing"


def _used(folder: Path) -> int:
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, timeout=10).returncode == 0


def _umount(folder: Path) -> bool:
    return subprocess.run(["umount", "--lazy", folder], capture_output=True, timeout=10).returncode == 0
