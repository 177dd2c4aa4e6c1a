"""The command line as its own process, and a catalog that needs no lab."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> tuple[str, str]:
        """Kind and message of an error under --json; its process wrote nothing else."""
        assert self.err == ""
        return self.json["error"]["kind"], self.json["error"]["message"]


class Starter(Protocol):
    """Run starter.py with these words and wait for its end."""

    def __call__(self, *words: str, text: str = "", **environment: str) -> Done:
        """Run."""


@pytest.fixture(scope="session")
def starter() -> Starter:
    """Return the function that runs the command line; it never takes longer than it may."""

    def run(*words: str, text: str = "", **environment: str) -> Done:
        done = subprocess.run(
            [sys.executable, str(ROOT / "starter.py"), *words],
            env={**os.environ, **environment},
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def catalogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lab's catalog in a folder of its own, every placeholder filled by the environment."""
    folder = tmp_path / "catalogs"
    (folder / "lab").mkdir(parents=True)
    for name in ("estate.yaml", "restore-orders.yaml"):
        shutil.copy(ROOT / "runbooks" / "lab" / name, folder / "lab")
    for name in re.findall(r"\$\{([A-Z0-9_]+)\}", (folder / "lab" / "estate.yaml").read_text()):
        monkeypatch.setenv(name, "5432" if name.endswith("PORT") else "/srv/x")
    monkeypatch.setenv("RECOVERY_CATALOGS", str(folder))
    monkeypatch.setenv("RECOVERY_STATE", str(tmp_path / "state"))
    return folder
