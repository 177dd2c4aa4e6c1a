"""A Python for the lab's programs on its hosts, where the runner can execute it."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from re import match, sub

from lab.place import REPOSITORY, LabError, Place, Runner, write_private

NEEDED = ("aiohttp", "psycopg", "psycopg-binary", "valkey")
IMPORTED = ("aiohttp", "psycopg_binary", "valkey", "lab.place")
UNNEEDED = shutil.ignore_patterns(
    "test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "turtledemo", "site-packages", "dist-packages",
    "config-*", "*.a", "_test*",
)  # fmt: skip


def interpreter(place: Place, who: Runner) -> list[str]:
    """Return the words with which the runner calls Python, after `env`; the installed one is copied if it must be.

    Raises LabError when the runner can execute neither.
    """
    head = _direct()
    if not _runs(head, who) and not _runs(head := _copied(place), who):
        raise LabError(f"{who.name} cannot execute Python: {head[-1]}")
    return head


def program(place: Place, head: Sequence[str], name: str, module: str) -> Path:
    """Make a program for the hosts that runs a module of the lab with what it is given, and return its path."""
    path = place.programs / name
    words = " ".join(f"'{word}'" for word in head)
    write_private(path, f'#!/bin/sh\nexec env {words} -m {module} "$@"\n', 0o755)
    path.chmod(0o755)  # whatever the umask
    return path


def script(place: Place, head: Sequence[str], name: str, source: Path) -> Path:
    """Make a program for the hosts of one file that needs the standard library alone, and return its path.

    It starts in a fraction of the time that the others take.
    """
    body = place.programs / source.name
    body.write_text(source.read_text())
    body.chmod(0o644)
    path = place.programs / name
    # -I: it heeds no variables, so none are set.
    write_private(path, f"#!/bin/sh\nexec '{head[-1]}' -I -S '{body}' \"$@\"\n", 0o755)
    path.chmod(0o755)
    return path


def _direct() -> list[str]:
    return ["PYTHONDONTWRITEBYTECODE=1", f"PYTHONPATH={REPOSITORY}", sys.executable]


def _runs(head: list[str], who: Runner) -> bool:
    look = f"import importlib.util as u, sys; sys.exit(None in map(u.find_spec, {IMPORTED}))"
    command = ["env", *head, "-c", look]
    return subprocess.run(command, cwd="/", env={}, capture_output=True, **who.drop()).returncode == 0


def _copied(place: Place) -> list[str]:
    """Return how the copy is called, having made it; all of it or nothing."""
    target = place.root / "python"
    binary = Path(sys.executable).resolve()
    if not target.exists():
        partial = target.with_name("python.partial")
        shutil.rmtree(partial, ignore_errors=True)
        standard = Path(sysconfig.get_path("stdlib"))
        shutil.copytree(standard, partial / "lib" / standard.name, ignore=UNNEEDED, copy_function=_same, symlinks=True)
        (partial / "bin").mkdir()
        _same(binary, partial / "bin/python")
        for library in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*"):
            _same(library, partial / "lib" / library.name)
        _packages(partial / "packages")
        for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        partial.rename(target)
    return [
        "PYTHONDONTWRITEBYTECODE=1", f"PYTHONHOME={target}", f"PYTHONPATH={target / 'packages'}",
        f"LD_LIBRARY_PATH={target / 'lib'}", str(target / "bin/python"),
    ]  # fmt: skip


def _packages(target: Path) -> None:
    for package in sorted(_closure(NEEDED)):
        for file in metadata.files(package) or ():
            if file.parts[0] != "..":  # with what is compiled already: a program for a host starts often
                (target / file.parent).mkdir(parents=True, exist_ok=True)
                _same(Path(str(file.locate())), target / file)
    (target / "lab").mkdir()
    for source in (REPOSITORY / "lab").glob("*.py"):
        _same(source, target / "lab" / source.name)


def _closure(names: Iterable[str]) -> set[str]:
    """Return these packages and all that they need, as far as it is installed."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # needed on other systems only
            continue
        found.add(name)
        left += [word[0] for need in needs if "extra ==" not in need and (word := match(r"[\w.-]+", need))]
    return found


def _same(source: str | Path, target: str | Path) -> object:
    """Link a file that everybody may read, which takes no time and no room; copy any other, readable for all."""
    if Path(source).stat().st_mode & 0o044 == 0o044:
        try:
            os.link(source, target)
        except OSError:  # another file system
            pass
        else:
            return target
    shutil.copy2(source, target)
    Path(target).chmod(0o755 if Path(source).stat().st_mode & 0o100 else 0o644)
    return target
