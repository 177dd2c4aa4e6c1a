"""Answers, holds, notes and undoing from the command line: a real lab, and a worker in which one step fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.estate import Lab
from tests.console.conftest import ROOT, Done, Starter
from tests.console.test_recoveries import ID, NAME, status, target, within
from tests.copies import drop_all, in_copies
from tests.matrix.failing_worker import Failing

pytestmark = pytest.mark.drawn

__all__ = ["target"]
REPLAY = "replay the log into the copy of orders"


@pytest.fixture(scope="module")
def failing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Have a worker of a catalog whose runbook holds; return the file that says what fails."""
    folder = tmp_path_factory.mktemp("holds")
    shutil.copytree(ROOT / "runbooks" / "lab", folder / "catalogs" / "lab")
    runbook = folder / "catalogs" / f"{NAME}.yaml"
    runbook.write_text(yaml.safe_dump(yaml.safe_load(runbook.read_text()) | {"hold": {"roles": ["dba"]}}))
    with pytest.MonkeyPatch.context() as patch, (folder / "worker.log").open("wb") as out:
        patch.setenv("FAILING", str(folder / "failing.json"))
        patch.setenv("RECOVERY_CATALOGS", str(folder / "catalogs"))
        program = [sys.executable, "-m", "tests.matrix.failing_worker"]
        process = subprocess.Popen(program, cwd=ROOT, stdout=out, stderr=out)
        try:
            within(40, lambda: "polling" in (folder / "worker.log").read_text(), "the worker polls")
            yield folder / "failing.json"
        finally:
            process.terminate()
            process.wait(15)


@pytest.fixture
def held(starter: Starter, failing: Path, target: str, lab: Lab) -> Iterator[dict[str, Any]]:
    """Have a recovery that is held, and return its hold; what is still open after the test is cancelled."""
    Failing(activity="replay-the-log-into-the-copy-of-orders.apply", point="before", times=99).write(failing)
    done = starter("start", NAME, "--reason", "dropped table", "--by", "alice", "-p", target, "--json")
    assert done.code == 0, done
    report = within(40, lambda: next(iter(h for h in status(starter)["holds"] if not h["closed"]), None), "it holds")
    yield report
    starter("cancel", ID, "--wait")
    drop_all(lab)


def answer(starter: Starter, said: str, *more: str, by: str = "bob", text: str = "") -> Done:
    return starter("resolve", ID, said, "--by", by, "--reason", "looked at it", *more, text=text)


def test_the_hold_refuses_what_does_not_count(starter: Starter, held: dict[str, Any]) -> None:
    token = ("--hold", held["token"])
    for words, by, code, said in (
        (("retry", *token), "alice", 3, "by: this person has not the role dba"),
        (("retry", *token), "mallory", 3, "by: this name is not among the people of the estate"),
        (("retry", "--hold", "1-abcdef"), "bob", 3, "hold: this is not the token"),
        (("skip", *token), "bob", 3, "answer: skip is not offered here"),
        (("withdraw", *token), "bob", 3, "answer: withdraw is not offered here"),
        (("perhaps", *token), "bob", 2, "answer: "),
        (("retry", "--hold", "x" * 201), "bob", 2, "hold: "),
        (("retry",), "bob", 2, "yes: with --json nobody is asked"),
        (("retry", "--yes", "--run-id", "nowhere"), "bob", 2, "ID: there is no recovery with this run id"),
    ):
        done = answer(starter, *words, "--json", by=by)
        assert (done.code, done.error[0]) == (code, "Refused" if code == 3 else "Invalid"), (words, done)
        assert done.error[1].startswith(said)
    undo = starter("undo", ID, "--reason", "too early", "--json")
    assert (undo.code, undo.error[0]) == (3, "Refused")
    assert "is still running" in undo.error[1]
    assert status(starter)["needs"] == "dba"


def test_a_held_step_is_answered(starter: Starter, held: dict[str, Any], failing: Path, lab: Lab) -> None:
    declined = answer(starter, "retry", text="n\n")
    assert declined.code == 3
    assert "told to fail before it acts" in declined.out
    failing.unlink()
    done = answer(starter, "retry", "--hold", held["token"], "--json")
    assert (done.code, done.json["answer"], done.json["by"]) == (0, "retry", "bob")
    within(40, lambda: status(starter)["phase"].startswith("gate"), "it goes on to the gate")
    late = answer(starter, "retry", "--yes", "--json")
    assert (late.code, late.error[0]) == (3, "Refused")
    assert late.error[1].startswith("hold: nothing is held just now")


def test_a_held_recovery_goes_back(starter: Starter, held: dict[str, Any], lab: Lab) -> None:
    assert answer(starter, "compensate", text="y\n").code == 0
    watched = starter("watch", ID)
    assert watched.code == 1
    assert "bob: compensate (looked at it)" in watched.out
    assert in_copies(lab) == []
    for words in (("resolve", ID, "retry", "--yes"), ("hold", ID, "--reason", "x"), ("note", ID, "x")):
        done = starter(*words, "--by", "bob", "--json")
        assert (done.code, done.error[0]) == (3, "Refused")
        assert "has ended already" in done.error[1]


def test_notes_and_holds_are_taken(starter: Starter, held: dict[str, Any]) -> None:
    assert starter("note", ID, "the vendor was called", "--by", "bob", "--json").json["sent"] == "note"
    assert starter("hold", ID, "--reason", "wait", "--by", "alice", "--json").json["sent"] == "hold"
    assert starter("note", ID, "trust me", "--by", "mallory").code == 0
    assert [(note["by"], note["text"]) for note in status(starter)["notes"]] == [
        ("bob", "the vendor was called"), ("alice", "hold before the next action: wait"),
    ]  # fmt: skip
    assert status(starter)["refusals"] == ["signal note: by: this name is not among the people of the estate"]
    for words, field in (
        (("note", ID, ""), "text: "),
        (("note", ID, "x" * 2001), "text: "),
        (("hold", ID, "--reason", ""), "reason: "),
        (("note", ID, "x", "--by", "x" * 201), "by: "),
    ):
        done = starter(*words, "--json")
        assert (done.code, done.error[0]) == (2, "Invalid"), done
        assert done.error[1].startswith(field)
    assert starter("hold", ID, "--json").code == 2  # without a reason


def test_a_terminated_recovery_is_undone(starter: Starter, held: dict[str, Any], lab: Lab) -> None:
    temporal = Path(sys.executable).parent / "temporal"
    address = starter("server", "status", "--json").json["address"]
    command = [temporal, "workflow", "terminate", "--address", address, "-w", ID, "--reason", "by mistake"]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    assert in_copies(lab) != []
    assert starter("undo", ID, "--json").code == 2  # without a reason
    done = starter("undo", ID, "--reason", "nobody needs it", "--by", "bob", "--json")
    assert (done.code, done.json["report"]["outcome"], done.json["report"]["residual"]) == (0, "compensated", [])
    assert in_copies(lab) == []


def test_an_unknown_recovery_is_neither_answered_nor_undone(starter: Starter, failing: Path) -> None:
    for words in (
        ("resolve", "nowhere", "retry", "--yes"),
        ("hold", "nowhere", "--reason", "x"),
        ("note", "nowhere", "x"),
        ("undo", "nowhere", "--reason", "x"),
    ):
        done = starter(*words, "--by", "bob", "--json")
        assert (done.code, done.error[0]) == (2, "Invalid")
        assert done.error[1].startswith("ID: there is no recovery of this id")
