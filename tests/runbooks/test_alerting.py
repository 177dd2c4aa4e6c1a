"""Alertmanagers of an estate: no silence is so wide that it mutes everything, and each fault has its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from recovery.errors import fields
from recovery.models import Start
from runbooks.library import Library
from runbooks.schema import Alertmanager
from tests.runbooks.samples import ROOT, values

GIVEN: dict[str, Any] = {"url": "https://alerts.example.org:9093/alertmanager/", "silence": {"site": "{site}"}}


def matcher(**given: Any) -> dict[str, Any]:
    """Return a silence with one matcher."""
    return {"silence": [{"name": "site", **given}]}


@pytest.mark.parametrize(
    "silence",
    [
        {"site": "{site}"},
        {"site": "{site}", "team": "shop"},
        [{"name": "site", "regex": "{site}(-.*)?"}, {"name": "severity", "value": "page", "unless": True}],
        [{"name": "cluster", "regex": "shop-[0-9]+"}],
    ],
)
def test_what_says_which_alerts_is_taken(silence: Any) -> None:
    assert Alertmanager.model_validate(GIVEN | {"silence": silence}).silence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"silence": {}}, "silence: "),
        ({"silence": []}, "silence: "),
        (matcher(value=""), "silence.0.value: "),
        (matcher(), "silence.0: Value error, give either a value or a regex"),
        (matcher(value="north", regex="north"), "silence.0: Value error, give either a value or a regex"),
        (matcher(regex=".*"), "silence.0: Value error, regex: matches everything"),
        (matcher(regex=".+"), "silence.0: Value error, regex: matches everything"),
        (matcher(regex="north|.+"), "silence.0: Value error, regex: matches everything"),
        (matcher(regex="[^,]*"), "silence.0: Value error, regex: matches everything"),
        (matcher(regex=r"\S+"), "silence.0: Value error, regex: matches everything"),
        (matcher(regex="[a-z0-9-]+"), "silence.0: Value error, regex: matches everything"),
        (matcher(regex="north|"), "silence.0: Value error, regex: matches alerts without this label"),
        (matcher(regex="(?!x).y"), "silence.0: Value error, regex: looks ahead or back"),
        (matcher(regex="(north"), "silence.0: Value error, regex: is no regular expression"),
        (matcher(value="north", unless=True), "input: Value error, silence: says only which alerts are not"),
        ({"silence": [{"name": "a-b", "value": "x"}]}, "silence.0.name: "),
        ({"url": "http://me:secret@alerts"}, "url: "),
        ({"url": "alerts:9093"}, "url: "),
        ({"at_most": "P2D"}, "at_most: "),
        ({"at_most": "PT1S"}, "at_most: "),
        ({"kind": "pagerduty"}, "kind: "),
        ({"secret": "token"}, "secret: "),
        ({"token": "x"}, "token: Extra inputs are not permitted"),
    ],
)
def test_fault_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Alertmanager.model_validate(GIVEN | changes)
    assert fields(caught.value).startswith(said), fields(caught.value)


def authored(folder: Path) -> Library:
    """Return the lab's catalog with an Alertmanager, which one runbook names."""
    (folder / "lab").mkdir()
    for file in (ROOT / "lab").glob("*.yaml"):
        content = yaml.safe_load(file.read_text())
        if file.name == "estate.yaml":
            content["alerting"] = {"alerts": GIVEN}
        if file.name == "activate-south.yaml":
            content["systems"].append("alerts")
        (folder / "lab" / file.name).write_text(yaml.safe_dump(content))
    return Library(folder, values())


def test_nobody_waits_for_an_alertmanager_of_others(tmp_path: Path) -> None:
    library = authored(tmp_path)
    start = Start(runbook="lab/activate-south", reason="a test", mode="check")
    frozen = library.freeze(start, "DataCenterActivation")
    assert "alerts" in frozen.systems
    assert set(frozen.hands) == set(frozen.systems) - {"alerts"}
    assert frozen.estate["alerting"]["alerts"]["at_most"] == "PT4H"
