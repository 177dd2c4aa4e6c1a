"""Who decides about a shortage, and what the estate may say of connections."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery.errors import Invalid
from recovery.models import Frozen, Start
from runbooks.library import Library
from runbooks.procedures import failback
from runbooks.procedures.data_center_activation import LOSS, SHORTAGE, gates
from tests.runbooks.samples import ROOT, values


def frozen(folder: Path, runbook: str = "take-over-south", **changes: dict[str, Any]) -> Frozen:
    """Return the lab's runbook with other gates, and databases that say more."""
    shutil.copytree(ROOT / "lab", folder / "lab")
    file = folder / "lab" / f"{runbook}.yaml"
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    content["gates"] |= changes.get("gates", {})
    file.write_text(yaml.safe_dump(content))
    estate = folder / "lab" / "estate.yaml"
    said: dict[str, Any] = yaml.safe_load(estate.read_text())
    for kind in ("databases", "stores"):
        for name, more in changes.get(kind, {}).items():
            said[kind][name] |= more
    estate.write_text(yaml.safe_dump(said))
    start = Start(runbook=f"lab/{runbook}", reason="a test")
    return Library(folder, values()).freeze(start, content["procedure"])


@pytest.mark.parametrize("runbook", ["take-over-south", "activate-south"])
def test_who_decides_about_the_loss_decides_about_a_shortage_of_which_a_runbook_says_nothing(
    tmp_path: Path, runbook: str
) -> None:
    found = frozen(tmp_path, runbook).gates
    assert found[SHORTAGE] == found[LOSS]


def test_runbook_may_have_others_decide(tmp_path: Path) -> None:
    own = {"roles": ["incident-commander"], "approvals": 1, "within": "PT2M", "valid": "PT15M"}
    found = frozen(tmp_path, gates={SHORTAGE: own}).gates
    assert found[SHORTAGE].roles == ("incident-commander",)
    assert found[SHORTAGE] != found[LOSS]


def test_nobody_is_asked_where_a_shortage_stands_in_the_way() -> None:
    assert SHORTAGE not in gates({})
    assert SHORTAGE not in failback.gates({})
    assert SHORTAGE in gates({"fence_by": "lab/fence-north"})  # it may turn to taking over


@pytest.mark.parametrize("kind", [("databases", "orders"), ("stores", "sessions")])
@pytest.mark.parametrize("said", [0, -1, "many", 10_000_000])
def test_connections_are_a_number_of_clients(tmp_path: Path, kind: tuple[str, str], said: object) -> None:
    with pytest.raises(Invalid, match=rf"{kind[0]}\.{kind[1]}\.connections"):
        frozen(tmp_path, "take-over-south", **{kind[0]: {kind[1]: {"connections": said}}})
