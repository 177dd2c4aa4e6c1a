"""Recoveries from the command line: a real lab, a real worker, the embedded Temporal."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab import ledger
from lab.estate import Lab
from tests.console.conftest import ROOT, Done, Starter
from tests.copies import drop_all, in_copies
from tests.labs import RATE
from tests.running import SLOWER

pytestmark = pytest.mark.drawn

NAME = "lab/restore-orders"
ID = "lab/orders"


def within(seconds: float, look: Callable[[], Any], what: str) -> Any:
    """Wait for a true answer; after each look rest as long as it took, for the command line is a process to start."""
    deadline = time.monotonic() + seconds * SLOWER
    while True:
        began = time.monotonic()
        if answer := look():
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(max(0.05, time.monotonic() - began))


@pytest.fixture(scope="module")
def worker(lab: Lab) -> Iterator[subprocess.Popen[bytes]]:
    lab.state.mkdir(exist_ok=True)
    log = lab.state / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, str(ROOT / "worker.py")], cwd=ROOT, stdout=out, stderr=out)
    try:
        within(40, lambda: "polling" in log.read_text(), "the worker polls")
        yield process
    finally:
        process.terminate()
        process.wait(15)


@pytest.fixture(scope="module")
def target(lab: Lab) -> str:
    """A moment that can be restored, after some orders."""
    within(30, lambda: ledger.count(lab.place.load / "acknowledged.jsonl") > 2 * RATE, "two seconds of orders")
    moment = datetime.now(UTC)
    time.sleep(1.2)  # a moment is final a second later
    return f"target_time={moment.isoformat()}"


@pytest.fixture(autouse=True)
def _no_copies(lab: Lab) -> Iterator[None]:
    yield
    drop_all(lab)


Begun = Callable[[], dict[str, Any]]


@pytest.fixture
def at_gate(starter: Starter, worker: object, target: str) -> Iterator[Begun]:
    """Start a recovery by alice and wait for its gate; what is still open after the test is cancelled."""

    def begin() -> dict[str, Any]:
        done = starter("start", NAME, "--reason", "dropped table", "--by", "alice", "-p", target, "--json")
        assert done.code == 0, done
        assert done.json["worker"]
        within(40, lambda: status(starter)["needs"] == "dba", "the gate")
        found: dict[str, Any] = done.json
        return found

    yield begin
    starter("cancel", ID, "--wait")


def without_ui(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "ui"}  # a server that was stopped may move


def status(starter: Starter, name: str = ID) -> dict[str, Any]:
    found: dict[str, Any] = starter("status", name, "--json").json
    return found


def decide(starter: Starter, verb: str, by: str, *more: str, text: str = "") -> Done:
    return starter(verb, ID, "--by", by, "--reason", "looked at the rows", *more, text=text)


def test_check_shows_the_plan_and_changes_nothing(starter: Starter, worker: object, target: str, lab: Lab) -> None:
    done = starter("check", NAME, "-p", target, "--json")
    assert done.code == 0
    report = done.json["report"]
    assert [line["state"] for line in report["steps"]][2:] == [
        "would change",
        "would change",
        "would look",
        "would look",
    ]
    assert report["gates"][0]["closed"].startswith("would ask 1 × dba")
    assert in_copies(lab) == []


def test_check_with_blockers_is_no_success(starter: Starter, worker: object, lab: Lab) -> None:
    done = starter("check", NAME, "-p", "target_time=2001-01-01T00:00:00Z")
    assert done.code == 1
    assert "! blocker: parameters.target_time: 2001-01-01T00:00:00.000000Z cannot be restored" in done.out
    assert in_copies(lab) == []


def test_bad_input_starts_nothing(starter: Starter, worker: object) -> None:
    before = starter("list", "--all", "--json").json
    done = starter("start", NAME, "--reason", "x", "-p", "target_time=secret", "--json")
    assert done.code == 2
    kind, message = done.error
    assert (kind, message.split(":")[0]) == ("Invalid", "parameters.target_time")
    assert "secret" not in message
    assert starter("list", "--all", "--json").json == before


def test_a_second_recovery_of_a_system_is_refused(starter: Starter, at_gate: Begun, target: str) -> None:
    begun = at_gate()
    done = starter("start", NAME, "--reason", "again", "-p", target, "--json")
    assert done.code == 3
    kind, message = done.error
    assert kind == "Refused"
    assert begun["run"] in message
    assert begun["ui"] in message


def test_an_approved_recovery_is_recovered(starter: Starter, at_gate: Begun) -> None:
    begun = at_gate()
    listed = starter("list", "--json").json
    assert [(row["workflow"], row["needs"], row["ui"]) for row in listed] == [(ID, "dba", begun["ui"])]
    done = decide(starter, "approve", "bob", "--yes", "--json")
    assert (done.code, done.json["verdict"], done.json["needed"]) == (0, "approve", 0)
    watched = starter("watch", NAME, "--json")
    assert watched.code == 0
    changes = [json.loads(line) for line in watched.out.splitlines()]
    assert changes[-1]["outcome"] == "recovered"
    assert {"kind": "decision", "state": "approve"}.items() <= next(
        c for c in changes if c["kind"] == "decision"
    ).items()
    assert status(starter, NAME)["delivered"]["copy"].startswith("psql -h ")
    assert starter("list").out == "no recovery runs\n"
    late = decide(starter, "approve", "carol", "--yes", "--json")
    assert (late.code, late.error[0]) == (3, "Refused")


def test_a_rejected_recovery_is_no_success(starter: Starter, at_gate: Begun, lab: Lab) -> None:
    begun = at_gate()
    assert decide(starter, "reject", "bob", "--yes").code == 0
    watched = starter("watch", ID, "--run-id", begun["run"])
    assert watched.code == 1
    assert "bob rejects “keep the copy”: looked at the rows" in watched.out
    assert status(starter)["outcome"] == "compensated"
    assert in_copies(lab) == []


def test_the_gate_refuses_what_does_not_count(starter: Starter, at_gate: Begun) -> None:
    at_gate()
    gate = status(starter)["gates"][0]
    for words, said in (
        (("alice", "--yes"), "by: this person has not the role dba"),
        (("mallory", "--yes"), "by: this name is not among the people of the estate"),
        (("bob", "--plan", "0", "--evidence", gate["evidence"]), "plan: this is not the digest"),
        (("bob", "--plan", gate["plan"]), "evidence: this is not the digest"),
        (("bob", "--yes", "--gate", "nix"), "gate: this one is not open now"),
    ):
        done = decide(starter, "approve", *words, "--json")
        assert (done.code, done.error[0]) == (3, "Refused")
        assert done.error[1].startswith(said)
    done = decide(starter, "approve", "bob", "--plan", gate["plan"], "--evidence", gate["evidence"], "--json")
    assert done.code == 0


def test_a_person_is_asked_on_the_evidence(starter: Starter, at_gate: Begun) -> None:
    at_gate()
    gate = status(starter)["gates"][0]
    declined = decide(starter, "approve", "bob", text="n\n")
    assert declined.code == 3
    assert f"plan {gate['plan']}  evidence {gate['evidence']}" in declined.out
    assert "answers the customers are all there: 200" in declined.out
    unanswered = decide(starter, "approve", "bob", "--json")
    assert (unanswered.code, unanswered.error[0]) == (2, "Invalid")
    assert status(starter)["needs"] == "dba"
    assert decide(starter, "approve", "bob", text="y\n").code == 0
    assert starter("watch", ID).code == 0


def test_a_cancelled_recovery_leaves_nothing(starter: Starter, at_gate: Begun, lab: Lab) -> None:
    at_gate()
    done = starter("cancel", ID, "--wait", "--json")
    assert done.code == 0
    assert done.json["report"]["outcome"] == "cancelled"
    assert in_copies(lab) == []
    again = starter("cancel", ID, "--json")
    assert (again.code, again.error[0]) == (3, "Refused")
    assert starter("watch", ID).code == 1


def leases(starter: Starter) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = starter("leases", "--json").json
    return found


def test_a_terminated_run_says_that_nothing_was_undone(starter: Starter, at_gate: Begun, target: str) -> None:
    at_gate()
    temporal = Path(sys.executable).parent / "temporal"
    address = starter("server", "status", "--json").json["address"]
    command = [temporal, "workflow", "terminate", "--address", address, "-w", ID, "--reason", "by mistake"]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    found = status(starter)
    assert (found["outcome"], found["kind"], found["failure"]) == ("failed", "Terminated", "by mistake")
    assert found["remark"] == "ended from outside: nothing was undone"
    assert starter("watch", ID).code == 1
    held = {"system": ID, "state": "orphaned (terminated)", "holder": ID, "epoch": 1, "waiting": ""}
    within(10, lambda: held in [row | {"epoch": 1} for row in leases(starter)], "an orphan")
    refused = starter("start", NAME, "--reason", "x", "--by", "alice", "-p", target, "--wait", "--json")
    assert (refused.code, refused.json["report"]["kind"]) == (1, "Refused")
    assert f"starter.py undo {ID}" in refused.json["report"]["failure"]
    assert starter("free", "orders", "--reason", "x").code == 2
    assert starter("free", "lab/nothing", "--reason", "x").code == 3
    assert starter("free", ID, "--reason", "dropped the copy by hand", "--by", "bob").code == 0
    assert [row["state"] for row in leases(starter) if row["system"] == ID] == ["free"]
    assert starter("free", ID, "--reason", "x").code == 3


def test_start_waits_for_the_outcome(starter: Starter, worker: object, target: str, lab: Lab) -> None:
    words = ("start", NAME, "--reason", "practice", "--mode", "drill", "-p", target, "--wait")
    done = starter(*words, "--json")
    assert (done.code, done.json["report"]["outcome"]) == (0, "drilled")
    assert in_copies(lab) == []


def test_who_starts_is_the_named_user(starter: Starter, worker: object, target: str) -> None:
    done = starter("check", NAME, "-p", target, "--json", RECOVERY_USER="carol")
    assert done.json["report"]["requested_by"] == "carol"


def test_an_unknown_recovery_is_bad_input(starter: Starter, worker: object) -> None:
    for words in (("status", "nix"), ("watch", "nix"), ("cancel", "nix"), ("approve", "nix", "--yes")):
        done = starter(*words, "--json")
        assert (done.code, done.error) == (
            2,
            ("Invalid", "ID: there is no recovery of this id; `starter.py list --all` shows them"),
        )
    assert starter("status", ID, "--run-id", "nonsense").code == 2


def test_an_unreachable_temporal_is_its_own_exit_code(starter: Starter, target: str, lab: Lab) -> None:
    for words in (("list",), ("status", ID), ("start", NAME, "--reason", "x", "-p", target)):
        done = starter(*words, "--json", TEMPORAL_ADDRESS="127.0.0.1:1")
        assert (done.code, done.error[0]) == (4, "NotReachable")
        assert "127.0.0.1:1" in done.error[1]
    assert starter("server", "up", TEMPORAL_ADDRESS="127.0.0.1:1").code == 2


def test_a_server_kept_by_a_worker_is_not_stopped(starter: Starter, worker: object) -> None:
    done = starter("server", "down", "--json")
    assert (done.code, done.error[0]) == (3, "Refused")
    assert starter("server", "status", "--json").json["kept_by_worker"]


def test_watching_survives_the_death_of_the_server(
    starter: Starter, at_gate: Begun, worker: subprocess.Popen[bytes]
) -> None:
    at_gate()
    server = starter("server", "status", "--json").json["pid"]
    command = [sys.executable, str(ROOT / "starter.py"), "watch", ID]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as watching:
        told = heard(watching)
        told("waits for")
        worker.send_signal(signal.SIGSTOP)  # it would have the server back before anybody had missed it
        try:
            os.kill(server, signal.SIGKILL)
            told("! Temporal is not reachable, retrying")
        finally:
            worker.send_signal(signal.SIGCONT)
        told("connected again")
        within(40, lambda: decide(starter, "approve", "bob", "--yes").code == 0, "the approval")
        out, _ = watching.communicate(timeout=40)
    assert watching.returncode == 0
    assert "recovered" in out


def heard(watching: subprocess.Popen[str]) -> Callable[[str], None]:
    """Return what reads on until a line with these words comes; the process is ended if none comes within 40 s."""
    assert watching.stdout is not None
    lines = watching.stdout

    def until(words: str) -> None:
        limit = threading.Timer(40, watching.kill)
        limit.start()
        try:
            assert any(words in line for line in lines), f"{words!r} did not come"
        finally:
            limit.cancel()

    return until


def test_a_terminal_is_redrawn_to_the_outcome(starter: Starter, at_gate: Begun) -> None:
    at_gate()
    assert decide(starter, "approve", "bob", "--yes").code == 0
    leader, follower = pty.openpty()
    command = [sys.executable, str(ROOT / "starter.py"), "watch", ID]
    process = subprocess.Popen(command, cwd=ROOT, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm"})
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # how a terminal says that its last writer is gone
            break
        shown += piece
    os.close(leader)
    assert process.wait(20) == 0
    assert b"recovered" in shown
    assert b"\x1b[" in shown


@pytest.fixture
def alone(lab: Lab, tmp_path: Path, starter: Starter) -> Iterator[dict[str, str]]:
    """The environment of an installation that knows the lab and has no worker."""
    shutil.copy(lab.state / "estate.env", tmp_path)
    environment = {"RECOVERY_STATE": str(tmp_path)}
    yield environment  # the server of this one is stopped, whatever the test made of it
    assert starter("server", "down", **environment).code == 0


def test_a_start_without_a_worker_says_so(starter: Starter, alone: dict[str, str], target: str) -> None:
    words = ("start", NAME, "--reason", "x", "-p", target)
    begun = starter(*words, "--json", **alone)
    assert (begun.code, begun.json["worker"]) == (0, False)
    again = starter(*words, **alone)
    assert again.code == 3
    listed = within(10, lambda: starter("list", "--json", **alone).json, "it is listed")
    assert [(row["runbook"], row["phase"]) for row in listed] == [(NAME, "not started")]
    found = starter("status", ID, "--json", **alone)
    assert (found.code, found.json["outcome"]) == (0, "running")
    assert found.json["remark"].startswith("no worker answers")
    decision = starter("approve", ID, "--by", "bob", "--yes", "--json", **alone)
    assert (decision.code, decision.error[0]) == (4, "Transient")
    checked = starter("start", NAME, "--reason", "x", "--mode", "drill", "-p", target, **alone)
    assert checked.code == 3


def test_the_server_goes_up_and_down(starter: Starter, alone: dict[str, str]) -> None:
    assert starter("server", "status", "--json", **alone).code == 4
    up = starter("server", "up", "--json", **alone)
    assert (up.code, up.json["running"]) == (0, True)
    assert starter("server", "status", **alone).code == 0
    assert starter("list", "--json", **alone).json == []
    down = starter("server", "down", "--json", **alone)
    assert (down.code, down.json["running"]) == (0, False)


def test_a_closed_run_is_reported_without_a_worker(
    starter: Starter, at_gate: Begun, worker: subprocess.Popen[bytes], target: str
) -> None:
    at_gate()
    assert decide(starter, "reject", "bob", "--yes").code == 0
    assert starter("watch", ID).code == 1
    assert starter("check", NAME, "-p", target).code == 0
    with_worker = [without_ui(status(starter, name)) for name in (ID, f"{ID}/check")]
    worker.terminate()
    worker.wait(15)
    try:
        assert [without_ui(status(starter, name)) for name in (ID, f"{ID}/check")] == with_worker
        assert starter("watch", ID).code == 1
    finally:
        starter("server", "down")


def test_the_lab_is_reached_through_the_same_door(starter: Starter, lab: Lab) -> None:
    done = starter("lab", "status", "--json")
    assert (done.code, done.json["root"]) == (0, str(lab.place.root))
    assert starter("lab", "--help").out.strip().startswith("Usage: starter.py lab")
