"""The kill switch from the command line: it needs neither Temporal nor a catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from console.app import main
from recovery import kill_switch
from recovery.errors import Refused


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOVERY_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_halt_stops_everything_and_go_lets_it_begin(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = answer(capsys, "halt", "--by", "bob", "--reason", "the wrong site")
    assert code == 0
    assert said["switch"].startswith(f"{state}/kill-switch: bob, ")
    with pytest.raises(Refused, match=r"bob, .*: the wrong site"):
        kill_switch.heed()
    assert main(["go", "--by", "carol"]) == 0
    assert "the wrong site\ntaken away by carol" in capsys.readouterr().out
    kill_switch.heed()
    assert not (state / "kill-switch").exists()


def test_second_halt_does_not_hide_the_first(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["halt", "--by", "bob", "--reason", "one"]) == 0
    assert main(["halt", "--by", "carol", "--reason", "two"]) == 3
    assert "on already" in capsys.readouterr().err
    assert "one" in kill_switch.engaged()


def test_go_without_a_switch_names_where_others_may_be(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = answer(capsys, "go")
    assert code == 3
    assert "hosts have one of their own" in said["error"]["message"]
