"""How the ten checks of a site may be written in a runbook."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from recovery.errors import Invalid
from recovery.models import Start
from runbooks.library import Library
from runbooks.procedures import failback
from runbooks.procedures.data_center_activation import ATTEST, SiteCheck, gates
from tests.runbooks.samples import ROOT, values

PEOPLE = {"power and cooling": {"attest": "both feeds are up"}}
COMMAND = {"network": {"host": "south-db", "command": "true"}}


def catalogs(folder: Path, checks: dict[str, Any], **more: Any) -> Library:
    """Return the lab's catalog with these checks in what activates the south."""
    shutil.copytree(ROOT / "lab", folder / "lab")
    file = folder / "lab" / "activate-south.yaml"
    runbook: dict[str, Any] = yaml.safe_load(file.read_text())
    runbook["parameters"]["checks"] = checks
    runbook["gates"] |= more
    file.write_text(yaml.safe_dump(runbook))
    return Library(folder, values())


def start(**parameters: Any) -> Start:
    return Start.model_validate({"runbook": "lab/activate-south", "reason": "a test", "parameters": parameters})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "say one of command, url and attest, not none"),
        ({"attest": "x", "url": "http://a"}, "say one of command, url and attest, not url and attest"),
        ({"command": "true"}, "a command needs a host"),
        ({"attest": "x", "host": "south-db"}, "a command needs a host, and a host a command"),
        ({"url": "ftp://a"}, "pattern"),
        ({"url": "http://a", "slowest": "PT0S"}, "greater than"),
        ({"attest": ""}, "at least 1 character"),
    ],
)
def test_check_is_made_in_one_way(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SiteCheck.model_validate(given)


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ({"weather": COMMAND["network"]}, "checks.weather"),
        ({"network": {"host": "nowhere", "command": "true"}}, "checks.network.host: the estate has no such host"),
        (PEOPLE, f"gates.{ATTEST}: is missing; say who decides there"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, checks: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        catalogs(tmp_path, checks).freeze(start(), "DataCenterActivation")


def test_whoever_starts_does_not_say_what_is_run(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"parameters\.checks: only the runbook may say that"):
        catalogs(tmp_path, {}).freeze(start(checks=COMMAND), "DataCenterActivation")


def test_people_are_asked_where_they_attest() -> None:
    assert ATTEST not in gates({"checks": COMMAND})
    assert gates({"checks": PEOPLE})[-1] == ATTEST
    assert gates({"how": "unplanned", "checks": PEOPLE})[-1] == ATTEST
    assert ATTEST in failback.gates({"checks": PEOPLE})
    assert ATTEST not in gates({})
