"""What the worker registers is what the harness tries: nobody has to remember to add it."""

from __future__ import annotations

import pytest

import worker
from tests.matrix import theatre
from tests.matrix.theatre import SCENES
from tests.matrix.trial import ACTIVITIES
from tests.sharing import group

NAMES = [action.name for action in worker.ACTIONS]


def test_every_apply_belongs_to_an_action() -> None:
    applies = [name for name in ACTIVITIES if name.endswith(".apply")]
    assert sorted(applies) == sorted(f"{name}.apply" for name in NAMES)
    assert len(applies) == len(worker.ACTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_every_action_has_a_scene(name: str) -> None:
    assert name in SCENES, f"{name} is registered in worker.py, and no scene in {theatre.__name__} tries it"


def test_every_scene_has_an_action() -> None:
    assert set(SCENES) <= set(NAMES)


def test_what_disturbs_one_procedure_is_run_in_one_process(request: pytest.FixtureRequest) -> None:
    found = [item for item in request.session.items if isinstance(item, pytest.Function)]
    disturbing = {item.nodeid: item.callspec.params["calm"] for item in found if "calm" in item.fixturenames}
    assert {name: group(name) for name in disturbing} == disturbing
