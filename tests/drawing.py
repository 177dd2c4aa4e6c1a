"""Which tests a commit is tried with: of what takes long `make test` has a part, as the seed says, a soak the rest."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import pytest


def draw(items: Iterable[pytest.Item], seed: str, group: Callable[[pytest.Item], str | None], share: float) -> None:
    """Leave all but a ``share`` of each group to the soak; at least one stays, and what has no group is left alone."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not item.get_closest_marker("soak") and (name := group(item)) is not None:
            groups.setdefault(name, []).append(item)
    for name, found in groups.items():
        for item in random.Random(f"{seed}/{name}").sample(found, len(found) - math.ceil(len(found) * share)):
            item.add_marker(pytest.mark.soak)
