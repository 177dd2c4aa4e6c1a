"""What the command line loads, and how long that takes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"workflows", "activities", "asyncssh", "azure", "psycopg", "kubernetes", "opentelemetry"}


def loaded(*words: str) -> set[str]:
    command = [sys.executable, "-X", "importtime", "starter.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    rows = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {name.partition(".")[0] for name in rows}


@pytest.mark.parametrize("words", [("--help",), ("start", "--help"), ("runbooks",), ("runbooks", "--json")])
def test_reading_loads_no_workflow_and_no_driver(words: tuple[str, ...]) -> None:
    assert HEAVY.isdisjoint(loaded(*words))


def test_help_loads_nothing_of_temporal() -> None:
    assert {"temporalio", "pydantic", "yaml", "asyncio", "lab", "recovery"}.isdisjoint(loaded("--help"))
