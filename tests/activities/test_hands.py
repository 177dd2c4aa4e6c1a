"""What a host compares before a job may touch a system: the real shell, in a folder of its own."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from activities import scripts
from recovery.fencing import hand_file
from recovery.names import lease_id

HANDS = ["1 1 1", "1 1 2", "1 2 1", "1 10 1", "2 1 1", "10 1 1", "1795649999999 1 1", "1795650000000 1 1"]

ODD = ["Orders", "my orders", "a/b", "..", ".", "-n", "orders@lab", "orders.lock", "bestellungen für alle", "日" * 200]


def lease(system: str = "orders", catalog: str = "lab") -> str:
    """Return the file of a lease, "" of nobody."""
    return hand_file(lease_id(catalog, system)) if system else ""


def job(jobs: Path, hand: str, name: str = "copy.fence", of: str = lease(), body: str = "true") -> str:
    """Run a job to its end; return "" or what the host said against it."""
    check = hashlib.sha256(body.encode()).hexdigest()
    command = ["sh", "-c", scripts.text("job"), "job", str(jobs), name, check, of, hand]
    done = subprocess.run(command, input=body, capture_output=True, text=True, timeout=10)
    assert (done.returncode == 0) == (done.stderr.strip() == "")
    return done.stderr.strip()


def end(jobs: Path, hand: str, name: str = "copy.fence", of: str = lease()) -> str:
    """End a job, and return what the host said against it."""
    text = scripts.script("end_job", {"jobs": jobs, "name": name, "lease": of, "hand": hand})
    return subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=20).stderr.strip()


@pytest.mark.parametrize(("earlier", "later"), list(itertools.product(HANDS, HANDS)))
def test_only_who_is_not_late_acts(tmp_path: Path, earlier: str, later: str) -> None:
    mark = tmp_path / "mark"
    assert job(tmp_path, earlier) == ""
    end(tmp_path, earlier)
    said = job(tmp_path, later, body=f"touch {mark}")
    late = [int(part) for part in later.split()] < [int(part) for part in earlier.split()]
    assert said.startswith("Stale: ") == late == (not mark.exists())


def test_a_later_order_on_one_job_does_not_make_another_job_late(tmp_path: Path) -> None:
    assert job(tmp_path, "3 7 1", "copy.fence") == ""
    assert job(tmp_path, "3 6 1", "copy.salvage") == ""  # side by side, as steps in parallel are
    assert job(tmp_path, "3 6 1", "copy.fence").startswith("Stale: ")


def test_a_new_epoch_is_of_all_jobs_of_the_system_and_of_no_other(tmp_path: Path) -> None:
    assert job(tmp_path, "3 7 1", "copy.fence") == ""
    assert job(tmp_path, "4 1 1", "undo.fence") == ""
    assert job(tmp_path, "3 8 1", "copy.fence").startswith("Stale: ")
    assert job(tmp_path, "3 8 1", "copy.fence", lease("sessions")) == ""
    kept = (tmp_path / ".hands" / "orders@lab").read_text()
    assert len(kept.splitlines()) == 2, "what is refused anyway is forgotten"


def test_system_of_one_name_in_another_catalog_has_hands_of_its_own(tmp_path: Path) -> None:
    assert job(tmp_path, "9 1 1") == ""
    assert job(tmp_path, "3 8 1", of=lease(catalog="tools")) == ""
    assert job(tmp_path, "9 1 2") == ""
    assert job(tmp_path, "3 7 1", of=lease(catalog="tools")).startswith("Stale: a later hand (order 8, attempt 1) has")
    assert job(tmp_path, "8 1 1").startswith("Stale: a later hand (epoch 9) has had orders@lab since")


@pytest.mark.parametrize("system", [*ODD, "orders", "a" * 100, "a" * 101])
def test_leases_of_any_name_have_a_file_of_their_own(tmp_path: Path, system: str) -> None:
    """On a file system where case does not count, too."""
    files = [lease(one).lower() for one in {*ODD, "orders", "a" * 100, "a" * 101}]
    assert len(set(files)) == len(files)
    assert job(tmp_path, "3 1 1", of=lease(system)) == ""
    assert job(tmp_path, "2 1 1", of=lease(system)).startswith("Stale: ")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith((".hands", "copy.fence"))] == []
    assert {
        "/".join(path.relative_to(tmp_path / ".hands").parts[:-1]) for path in (tmp_path / ".hands").rglob("*")
    } == {""}


def test_nobody_acts_where_the_last_hand_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".hands" / "orders@lab").mkdir(parents=True)
    said = job(tmp_path, "1 1 1", body=f"touch {tmp_path}/mark")
    assert "Transient: whose hand was the last cannot be read" in said
    assert not (tmp_path / "mark").exists()


@contextmanager
def lasting(jobs: Path, hand: str) -> Iterator[subprocess.Popen[str]]:
    """Have a job run until its folder has a file ``stop``."""
    body = f"touch {jobs}/begun; while [ ! -e {jobs}/stop ]; do sleep 0.02; done"
    with begun(jobs, hand, body) as running:
        subprocess.run(f"until [ -e {jobs}/begun ]; do sleep 0.02; done", shell=True, timeout=10, check=True)
        yield running


def begun(jobs: Path, hand: str, body: str) -> subprocess.Popen[str]:
    check = hashlib.sha256(body.encode()).hexdigest()
    command = ["sh", "-c", scripts.text("job"), "job", str(jobs), "j", check, lease(), hand]
    found = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
    assert found.stdin is not None
    found.stdin.write(body)
    found.stdin.close()
    return found


def test_late_hand_does_not_end_the_job_of_its_successor(tmp_path: Path) -> None:
    with lasting(tmp_path, "1 1 2") as running:
        assert end(tmp_path, "1 1 1", "j").startswith("Stale: ")
        assert running.poll() is None
        (tmp_path / "stop").touch()
        assert running.wait(10) == 0


def test_later_hand_attaches_to_a_job_that_runs(tmp_path: Path) -> None:
    with lasting(tmp_path, "1 1 1") as running:
        body = (tmp_path / "j" / "body").read_text().rstrip("\n")
        with begun(tmp_path, "1 1 2", body) as second:
            waits = f"until grep -q '^j 1 1 2$' {tmp_path}/.hands/orders@lab; do sleep 0.02; done"
            subprocess.run(waits, shell=True, timeout=10, check=True)
            assert (running.poll(), second.poll()) == (None, None)
            (tmp_path / "stop").touch()
            assert (running.wait(10), second.wait(10)) == (0, 0)


def test_later_hand_ends_a_job_that_runs(tmp_path: Path) -> None:
    with lasting(tmp_path, "1 1 1") as running:
        assert end(tmp_path, "1 2 1", "j") == ""
        assert running.wait(10) != 0
        assert not (tmp_path / "j").exists()


def test_kill_switch_refuses_every_job_and_lets_what_runs_be_ended(tmp_path: Path) -> None:
    assert job(tmp_path, "1 1 1") == ""
    (tmp_path / "kill-switch").write_text("bob: the wrong site\n")
    said = job(tmp_path, "1 2 1", body=f"touch {tmp_path}/mark")
    assert said.startswith("Refused: ")
    assert "bob: the wrong site" in said
    assert not (tmp_path / "mark").exists()
    assert end(tmp_path, "1 2 1") == ""
    assert not (tmp_path / "copy.fence").exists()
    (tmp_path / "kill-switch").unlink()
    assert job(tmp_path, "1 2 1") == ""


def service(jobs: Path, command: str) -> subprocess.Popen[str]:
    """Begin a job that starts a service."""
    body = scripts.script("service", {"command": command, "service": "mail"}).rstrip("\n")
    check = hashlib.sha256(body.encode()).hexdigest()
    words = ["sh", "-c", scripts.text("job"), "job", str(jobs), "mail.service", check, "", "0 0 0"]
    begun = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert begun.stdin is not None
    begun.stdin.write(body)
    begun.stdin.close()
    return begun


def within(holds: Callable[[], bool], what: str) -> None:
    """Wait until ``holds``."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def seen(path: Path) -> str:
    """Wait until a file has something in it, and return that."""
    within(lambda: path.exists() and bool(path.read_text()), str(path))
    return path.read_text().strip()


def killed(begun: subprocess.Popen[str]) -> None:
    with begun:
        assert begun.stderr is not None
        assert "killed on the host" in begun.stderr.read()


@pytest.mark.parametrize("again", [False, True])
def test_command_whose_job_was_killed_does_not_act_on(tmp_path: Path, again: bool) -> None:
    begins, mark = tmp_path / "begins", tmp_path / "mark"
    begun = service(tmp_path, f"echo yes >'{begins}'; sleep 1; touch '{mark}'")
    seen(begins)
    os.kill(int(seen(tmp_path / "mail.service" / "group")), signal.SIGKILL)
    killed(begun)
    if again:
        with service(tmp_path, "true") as second:
            assert second.wait(10) == 0
    assert end(tmp_path, "0 0 0", "mail.service", lease("")) == ""
    time.sleep(1.2)
    assert not mark.exists()


@pytest.mark.parametrize("session", ["setsid", ""])
def test_service_outlives_the_job_that_started_it(tmp_path: Path, session: str) -> None:
    pid = tmp_path / "pid"
    with service(tmp_path, f"{session} sleep 30 >/dev/null 2>&1 & echo $! >'{pid}'") as begun:
        assert begun.wait(10) == 0
    assert end(tmp_path, "0 0 0", "mail.service", lease("")) == ""
    os.kill(int(seen(pid)), signal.SIGKILL)
