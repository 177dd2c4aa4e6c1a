"""The shell that runs on hosts: the same text for the engine, for ``print``, and for a person by hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

TAKEN = re.compile(r"^\. \./([a-z_]+)\.sh\n", re.MULTILINE)
"""A line by which a script takes another one's functions: alone on a host there is no file beside it."""


@cache
def text(name: str) -> str:
    """Return the script ``name`` (without ``.sh``) as it lies beside this module, with what it takes from others."""
    own = (Path(__file__).parent / "scripts" / f"{name}.sh").read_text()
    return TAKEN.sub(lambda found: text(found[1]), own)


def script(name: str, values: Mapping[str, object]) -> str:
    """Return the script ``name`` headed by its ``values`` as quoted shell variables."""
    heads = [f"{key.upper()}={shlex.quote(str(value))}" for key, value in values.items()]
    return "\n".join([*heads, text(name)])
