"""This build decides as the build did that recorded the histories."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from recovery.facts import Outcome
from recovery.plugin import plugin
from recovery.replay import of_its_run
from tests.running import ROOT
from worker import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent.parent / "histories").glob("*.json"))


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: str(file.stem))
async def test_recorded_history_replays(file: Path) -> None:
    assert await replayed(file) is None


async def replayed(file: Path) -> Exception | None:
    history = WorkflowHistory.from_json(file.stem, file.read_text())
    result = await Replayer(workflows=WORKFLOWS, plugins=[plugin()]).replay_workflow(
        of_its_run(history), raise_on_replay_failure=False
    )
    return result.replay_failure


async def replay_all() -> None:
    """Replay every history; print how many did."""
    print([await replayed(file) for file in HISTORIES].count(None), flush=True)


def test_every_outcome_is_recorded() -> None:
    outcomes = set(get_args(Outcome)) - {"running"}
    assert {file.stem.partition("-")[0] for file in HISTORIES} == outcomes


async def test_workflows_import_nothing_while_they_run() -> None:
    """What is imported in the sandbox is a copy of its own, and what keeps that breaks who is outside of it."""
    words = [sys.executable, "-W", "always::UserWarning", __file__]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{len(HISTORIES)}\n"), done.stderr[-3000:]
    assert [line for line in done.stderr.splitlines() if "imported after initial workflow load" in line] == []


async def test_changed_history_does_not_replay() -> None:
    text = (Path(__file__).parent.parent / "histories" / "recovered.json").read_text()
    assert "postgres.place.apply" in text
    history = WorkflowHistory.from_json("changed", text.replace("postgres.place.apply", "postgres.other.apply"))
    result = await Replayer(workflows=WORKFLOWS, plugins=[plugin()]).replay_workflow(
        history, raise_on_replay_failure=False
    )
    assert result.replay_failure is not None


if __name__ == "__main__":
    asyncio.run(replay_all())
    os._exit(0)  # the SDK's threads may abort an interpreter that shuts down in the ordinary way
