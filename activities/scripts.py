"""The shell that runs on hosts: the same text for the engine, for ``print``, and for a person by hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "scripts"
PART = re.compile(r"^#with (\w+)\n", re.MULTILINE)


@cache
def text(name: str) -> str:
    """Return the script ``name`` (without ``.sh``) as it lies beside this module, with the parts that it names."""
    whole = (FOLDER / f"{name}.sh").read_text()
    return PART.sub(lambda part: (FOLDER / "parts" / f"{part[1]}.sh").read_text(), whole)


def script(name: str, values: Mapping[str, object]) -> str:
    """Return the script ``name`` headed by its ``values`` as quoted shell variables."""
    heads = [f"{key.upper()}={shlex.quote(str(value))}" for key, value in values.items()]
    return "\n".join([*heads, text(name)])
