"""What a restore of sessions needs is named before anything is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.estate import Lab
from recovery.errors import Invalid
from recovery.models import Frozen, Start
from runbooks.library import Library, library
from runbooks.procedures.session_recovery import faults
from tests.running import ROOT


@pytest.fixture
def catalogs(lab: Lab) -> Library:
    return library(ROOT / "runbooks", lab.state / "estate.env")


def frozen(catalogs: Library, runbook: str, **parameters: object) -> Frozen:
    given = {"runbook": f"lab/{runbook}", "reason": "a test", "parameters": parameters}
    return catalogs.freeze(Start.model_validate(given), "SessionRecovery")


def test_lab_restores_from_its_folder_for_copies(lab: Lab, catalogs: Library) -> None:
    found = frozen(catalogs, "restore-sessions", snapshot=f"{lab.place.copies}/lost.rdb", version="seen")
    assert found.parameters["snapshot"] == f"{lab.place.copies}/lost.rdb"
    assert Path(found.estate["stores"]["sessions"]["server"]).name == "valkey-server"
    assert set(found.gates) == {"restore the sessions"}


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("restore", {}, "parameters.snapshot: is missing"),
        ("restore", {"snapshot": "/etc/passwd"}, "parameters.snapshot: lies outside"),
        ("restore", {"snapshot": "{copies}"}, "parameters.snapshot: lies outside"),
        ("restore", {"snapshot": "{copies}-of-another/lost.rdb"}, "parameters.snapshot: lies outside"),
        ("restore", {"snapshot": "{copies}/../secret"}, "parameters.snapshot: lies outside"),
        ("restore", {"snapshot": "{copies}/$(id)"}, "parameters.snapshot: "),
        ("restore", {"how": "promote", "snapshot": "{copies}/lost.rdb"}, "parameters.how: the runbook sets it"),
        ("reattach", {"snapshot": "{copies}/lost.rdb"}, "parameters.snapshot: is for restore alone"),
        ("promote", {"version": "seen"}, "parameters.version: is for restore alone"),
    ],
)
def test_what_does_not_fit_is_named(lab: Lab, catalogs: Library, name: str, given: dict[str, str], says: str) -> None:
    parameters = {field: value.format(copies=lab.place.copies) for field, value in given.items()}
    with pytest.raises(Invalid, match=says):
        frozen(catalogs, f"{name}-sessions", **parameters)


@pytest.mark.parametrize("field", ["server", "copies"])
def test_store_that_cannot_restore_is_named(catalogs: Library, field: str) -> None:
    estate = catalogs.estate("lab")
    store = estate.stores["sessions"].model_copy(update={field: None})
    estate = estate.model_copy(update={"stores": {**estate.stores, "sessions": store}})
    systems, parameters = ("sessions", "sessions-south"), {"how": "restore", "store": "sessions"}
    (fault,) = faults(systems, parameters, estate)
    assert fault.startswith(f"stores.sessions.{field}: is missing; name ")
    assert faults(systems, {"how": "reattach", "store": "sessions"}, estate) == []
