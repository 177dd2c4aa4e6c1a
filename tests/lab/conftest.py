"""Waiting, with a deadline."""

import time
from collections.abc import Callable
from typing import Protocol

import pytest


class Within(Protocol):
    """Wait until a condition holds, and fail when it does not within that many seconds."""

    def __call__(self, seconds: float, condition: Callable[[], object]) -> None:
        """Wait."""


@pytest.fixture
def within() -> Within:
    """Return the function that waits."""

    def wait(seconds: float, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.02)

    return wait
