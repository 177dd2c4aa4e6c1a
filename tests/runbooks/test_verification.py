"""What a runbook may say to RestoreVerification, and what is said of a fault in it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery.errors import Invalid
from recovery.models import Frozen, Start
from runbooks.library import Library, workflow_id
from runbooks.procedures.restore_verification import Parameters
from tests.runbooks.samples import ROOT, values

NAME = "lab/verify-orders"
AWAY = {"host": "south-db", "backups": "/srv/backups", "archive": "/srv/archive"}


def library(folder: Path, parameters: dict[str, Any] | None = None, **more: object) -> Library:
    """Return the lab's catalog with the verification changed."""
    (folder / "lab").mkdir()
    (folder / "lab" / "estate.yaml").write_text((ROOT / "lab" / "estate.yaml").read_text())
    text = yaml.safe_load((ROOT / f"{NAME}.yaml").read_text()) | more
    text["parameters"] |= parameters or {}
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(text))
    return Library(folder, values())


def frozen(found: Library, **given: Any) -> Frozen:
    start = Start(runbook=NAME, reason="a test", parameters=given)
    return found.freeze(start, "RestoreVerification")


def test_nobody_is_asked_and_no_recovery_waits(tmp_path: Path) -> None:
    found = library(tmp_path)
    plan = frozen(found)
    assert (plan.gates, plan.hold) == ({}, None)
    assert (plan.systems, plan.hands) == (("orders",), ("orders.verification",))
    assert workflow_id(NAME, plan, "live") == NAME


def test_policy_without_a_word_is_daily_hourly_and_thirty_days() -> None:
    policy = Parameters().policy
    assert (policy.full_every, policy.incremental_every) == (timedelta(days=1), timedelta(hours=1))
    assert (policy.keep_for, policy.log_within, policy.offsite) == (timedelta(days=30), None, None)


def test_policy_may_want_less(tmp_path: Path) -> None:
    plan = frozen(library(tmp_path, {"policy": {"incremental_every": None, "keep_for": None}}))
    policy = Parameters.model_validate(plan.parameters).policy
    assert (policy.incremental_every, policy.keep_for) == (None, None)


def test_copy_at_another_site_is_taken(tmp_path: Path) -> None:
    plan = frozen(library(tmp_path, {"policy": {"offsite": AWAY}}))
    assert plan.parameters["policy"]["offsite"]["within"] == "PT1H"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offsite": AWAY | {"host": "nowhere"}}, "parameters.policy.offsite.host: the estate has no such host"),
        ({"offsite": AWAY | {"host": "north-db"}}, "parameters.policy.offsite.host: is at north, too"),
        ({"offsite": {"host": "south-db"}}, "parameters.policy.offsite.backups: Field required"),
        ({"full_every": "PT0S"}, "parameters.policy.full_every: Input should be greater than 0"),
        ({"weekly": "P7D"}, "parameters.policy.weekly: Extra inputs are not permitted"),
    ],
)
def test_fault_of_a_policy_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        frozen(library(tmp_path, {"policy": change}))
    assert said in refused.value.message


def test_two_databases_need_two_runbooks(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="systems: name one database"):
        library(tmp_path, systems=["orders", "orders-south"]).runbook(NAME)


@pytest.mark.parametrize("field", ["queries", "policy"])
def test_who_starts_it_cannot_have_less_proven(tmp_path: Path, field: str) -> None:
    with pytest.raises(Invalid, match=rf"parameters.{field}: only the runbook may say that"):
        frozen(library(tmp_path), **{field: []})
