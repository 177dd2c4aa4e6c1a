"""Every runbook that is shipped, found by itself."""

from __future__ import annotations

import pytest

import worker
from recovery.models import Mode, Start
from runbooks.library import Library
from tests.runbooks.samples import ROOT, parameters, values

LIBRARY = Library(ROOT, values())
NAMES = LIBRARY.names()


def test_no_catalog_is_missed() -> None:
    files = {f"{p.parent.name}/{p.stem}" for p in ROOT.rglob("*.y*ml") if p.name != "estate.yaml"}
    assert files == set(NAMES), "a file in runbooks/ is no runbook that can be started: see its name and folder"


@pytest.mark.parametrize("name", NAMES)
def test_runbook_is_valid(name: str) -> None:
    assert LIBRARY.runbook(name).title


@pytest.mark.parametrize("mode", ["check", "drill", "live"])
@pytest.mark.parametrize("name", NAMES)
def test_runbook_can_be_frozen(name: str, mode: Mode) -> None:
    runbook = LIBRARY.runbook(name)
    start = Start(runbook=name, reason="a test", mode=mode, parameters=parameters(runbook))
    frozen = LIBRARY.freeze(start, runbook.procedure)
    assert frozen.digest
    assert set(runbook.parameters) <= set(frozen.parameters)


@pytest.mark.parametrize("name", NAMES)
def test_procedure_is_a_registered_workflow(name: str) -> None:
    assert LIBRARY.runbook(name).procedure in [workflow.__name__ for workflow in worker.WORKFLOWS]


@pytest.mark.parametrize("name", NAMES)
def test_gates_can_be_passed(name: str) -> None:
    """As many distinct people as a gate asks for have the role, and one more where the starter is one of them."""
    runbook, estate = LIBRARY.runbook(name), LIBRARY.estate(name.split("/")[0])
    for gate in runbook.gates.values():
        able = [person for person in estate.people.values() if set(person.roles) & set(gate.roles)]
        assert len(able) >= gate.approvals + (not gate.starter_may_approve)
