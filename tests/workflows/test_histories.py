"""This build decides as the build did that recorded the histories."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from recovery.facts import Outcome
from recovery.plugin import plugin
from recovery.replay import of_its_run
from worker import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent.parent / "histories").glob("*.json"))


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: str(file.stem))
async def test_recorded_history_replays(file: Path) -> None:
    history = WorkflowHistory.from_json(file.stem, file.read_text())
    result = await Replayer(workflows=WORKFLOWS, plugins=[plugin()]).replay_workflow(
        of_its_run(history), raise_on_replay_failure=False
    )
    assert result.replay_failure is None


def test_every_outcome_is_recorded() -> None:
    outcomes = set(get_args(Outcome)) - {"running"}
    assert {file.stem.partition("-")[0] for file in HISTORIES} == outcomes


async def test_changed_history_does_not_replay() -> None:
    text = (Path(__file__).parent.parent / "histories" / "recovered.json").read_text()
    assert "postgres.place.apply" in text
    history = WorkflowHistory.from_json("changed", text.replace("postgres.place.apply", "postgres.other.apply"))
    result = await Replayer(workflows=WORKFLOWS, plugins=[plugin()]).replay_workflow(
        history, raise_on_replay_failure=False
    )
    assert result.replay_failure is not None
