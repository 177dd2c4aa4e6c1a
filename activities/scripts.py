"""The shell that runs on hosts: the same text for the engine, for ``print``, and for a person by hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "scripts"
TAKEN = re.compile(r"^\. \./([a-z_]+)\.sh\n", re.MULTILINE)
"""A line by which a script takes another one's functions: alone on a host there is no file beside it."""
NATIVE = "native"
"""The kind of backups that PostgreSQL's own tools make."""


@cache
def text(name: str, kind: str = NATIVE) -> str:
    """Return the script ``name`` (without ``.sh``) with what it takes from others.

    What it takes of ``backups`` are the functions for backups of that ``kind``.
    """
    return TAKEN.sub(lambda found: text(found[1], kind), own(f"{name}_{kind}" if name == "backups" else name))


@cache
def lua(name: str) -> str:
    """Return the text ``name`` (without ``.lua``) that a store runs, on one line: so it is a word of a command.

    It begins with what all of them share: what a row tells of a key.
    """
    files = [FOLDER / f"{one}.lua" for one in ("rows", name)]
    return " ".join(line.strip() for file in files for line in file.read_text().splitlines())


def own(name: str) -> str:
    """Return the script ``name`` as it lies beside this module."""
    return (FOLDER / f"{name}.sh").read_text()


def script(name: str, values: Mapping[str, object]) -> str:
    """Return the script ``name`` headed by its ``values`` as quoted shell variables.

    Among these ``backups_of`` is the kind of backups that it works on, if it does.
    """
    return "\n".join([*heads(values), text(name, str(values.get("backups_of", NATIVE)))])


def heads(values: Mapping[str, object]) -> list[str]:
    """Return ``values`` as quoted shell variables, one a line."""
    return [f"{key.upper()}={shlex.quote(str(value))}" for key, value in values.items()]
