"""What the scripts printed on a lab, captured there once; the addresses in it are made up."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parent / "data"


def captured(name: str) -> str:
    """Return the captured text ``name``."""
    return (DATA / f"{name}.txt").read_text()


def lines(name: str, *beginnings: str) -> list[str]:
    """Return the lines of the captured text ``name`` that begin so."""
    return [line for line in captured(name).splitlines() if line.startswith(beginnings)]
