"""Commands that may not write as fast as they could: real processes, judged by the bytes that lie there."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from activities import scripts
from lab import processes
from lab.processes import Process
from tests.copies import parent
from tests.running import SLOWER

MIB = 1 << 20
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
RATES = ["", str(16 * MIB)]
pytestmark = pytest.mark.drawn

MARK = "RECOVERY_JOB=paced"


def body(folder: Path, rate: str, command: str, total: int = 0) -> str:
    """Return a script that runs ``command``, paced, while it fills ``folder``."""
    values = {"folder": folder, "rate": rate, "total": total}
    return "\n".join([*scripts.heads(values), scripts.text("paced"), f'paced "$TOTAL" "$FOLDER" {command}'])


def run(text: str, shell: str = "sh") -> subprocess.CompletedProcess[str]:
    words = ["busybox", "sh"] if shell == "busybox" else [shell]
    return subprocess.run([*words, "-s"], input=text, capture_output=True, text=True, timeout=60)


def size(folder: Path) -> int:
    """Return how many bytes lie in ``folder``, while they become more."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def writing(megabytes: int, files: int = 1) -> str:
    """Return a command with children of its own, which writes ``files`` of so many megabytes as fast as a disk."""
    each = f'dd if=/dev/zero of="$1/$i" iflag=fullblock bs=512 count={megabytes * 2048} 2>/dev/null'
    return f"""sh -c 'i=0; while [ $i -lt {files} ]; do i=$((i + 1)); {each}; done' sh "$FOLDER" """


# --- what the command is, it stays --------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("ends", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137)])
def test_exit_code_and_output_are_the_commands(tmp_path: Path, shell: str, rate: str, ends: str, code: int) -> None:
    done = run(body(tmp_path, rate, f"sh -c 'echo out; echo err >&2; {ends}'"), shell)
    assert (done.returncode, done.stdout) == (code, "out\n")
    assert [line for line in done.stderr.splitlines() if "Killed" not in line] == ["err"]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shell", SHELLS)
def test_output_is_kept_for_whoever_asks(tmp_path: Path, shell: str, rate: str) -> None:
    text = body(tmp_path, rate, "sh -c 'echo \"$1\"; echo err >&2; exit 4' sh \"a  'b'\" 2>&1")
    head, _, command = text.rpartition("\n")
    done = run(f"{head}\nset -eu\nif ! said=$({command}); then printf '%s' \"$said\"; else exit 1; fi", shell)
    assert (done.returncode, done.stdout) == (0, "a  'b'\nerr")


@pytest.mark.parametrize("rate", RATES)
def test_command_that_is_not_there_is_told(tmp_path: Path, rate: str) -> None:
    assert run(body(tmp_path, rate, "/nowhere/cp -a")).returncode == 127


def test_without_a_rate_nothing_stands_between(tmp_path: Path) -> None:
    done = run(body(tmp_path, "", "sh -c 'echo $PPID'") + '\necho "$$"')
    child_of, shell = done.stdout.split()
    assert child_of == shell


# --- the rate -----------------------------------------------------------------------------------------------------


def test_rate_is_kept(tmp_path: Path) -> None:
    """At no moment more than it may, but for what the storage takes before its speed is known; and not much less."""
    rate, total = 16 * MIB, 96 * MIB
    began = time.monotonic()
    running = subprocess.Popen(["sh", "-c", body(tmp_path, str(rate), writing(6, 16))])
    counts: list[tuple[float, int]] = []
    while running.poll() is None:
        counts.append((time.monotonic() - began, size(tmp_path)))
        time.sleep(0.05)
    assert running.returncode == 0
    assert size(tmp_path) == total
    ahead = [(round(at, 2), count) for at, count in counts if count > rate * at + 2 * rate]
    assert ahead == []
    assert counts[-1][0] < SLOWER * 1.5 * total / rate
    quarters = [next(count for at, count in counts if at >= counts[-1][0] * part / 4) for part in (1, 2, 3)]
    assert all(total * (part - 0.7) / 4 < count < total * (part + 1.2) / 4 for part, count in enumerate(quarters, 1)), (
        quarters
    )


def test_rate_that_is_never_reached_stops_nothing(tmp_path: Path) -> None:
    done = run(body(tmp_path, str(1 << 40), writing(2, 4)))
    assert done.returncode == 0
    assert size(tmp_path) == 8 * MIB


def test_what_writes_nothing_is_not_held_up(tmp_path: Path) -> None:
    """A tool that works a second before it writes must not need ten."""
    began = time.monotonic()
    spin = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done'"
    assert run(body(tmp_path, str(MIB), spin)).returncode == 0
    assert time.monotonic() - began < SLOWER * 12


@pytest.mark.parametrize(("takes", "rest"), [("0", 20), ("0.2", 200)])
def test_looking_costs_a_tenth_at_most(tmp_path: Path, takes: str, rest: int) -> None:
    program = tmp_path / "du"
    program.write_text(f"#!/bin/sh\nsleep {takes}\nprintf '7\\t%s\\n' \"$2\"\n")
    program.chmod(0o755)
    done = run(f'PATH={tmp_path}:$PATH\n{scripts.text("grown")}grown /srv\necho "$kilobytes $rest"')
    kilobytes, rested = done.stdout.split()
    assert kilobytes == "7"
    assert int(rested) >= rest


# --- what is told -------------------------------------------------------------------------------------------------


def job(jobs: Path, text: str) -> subprocess.Popen[str]:
    """Begin the job, or attach to it."""
    check = hashlib.sha256(text.encode()).hexdigest()
    command = ["sh", "-c", scripts.text("job"), "job", str(jobs), "paced", check, "", "0 0 0"]
    found = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert found.stdin is not None
    found.stdin.write(text)
    found.stdin.close()
    found.stdin = None
    return found


def said(running: subprocess.Popen[str]) -> list[list[str]]:
    """Wait for the end of a job, and return what it said of its progress."""
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, ""), err
    lines = err.strip().splitlines()
    assert all(line.startswith("progress\t") for line in lines)
    return [line.removeprefix("progress\t").split(maxsplit=2) for line in lines]


def test_folder_that_grows_is_told_while_somebody_waits(tmp_path: Path) -> None:
    grows = tmp_path / "a b"
    grows.mkdir()
    slow = 'sh -c \'for i in 1 2 3 4 5; do head -c 1000000 /dev/zero >"$1/$i"; sleep 1; done\' sh "$FOLDER"'
    found = said(job(tmp_path / "jobs", body(grows, "", slow, 5_000_000)))
    done = [int(row[0]) for row in found]
    assert {row[1] for row in found} == {"5000000"}
    assert all(len(row) == 2 for row in found)
    assert done == sorted(done)
    assert len(set(done)) > 1
    assert done[-1] > 2_000_000


def test_paced_command_tells_how_far_it_is(tmp_path: Path) -> None:
    grows = tmp_path / "grows"
    grows.mkdir()
    done = [int(row[0]) for row in said(job(tmp_path / "jobs", body(grows, str(16 * MIB), writing(6, 16), 96 * MIB)))]
    assert done == sorted(done)
    assert len(set(done)) > 1
    assert done[-1] <= 97 * MIB


def test_who_attaches_hears_it_too(tmp_path: Path) -> None:
    slow = "sh -c 'sleep 5'"
    text = body(tmp_path, "", slow, 7)
    first = job(tmp_path / "jobs", text)
    time.sleep(0.5)  # that the first one has begun it is none of what is tested
    found = said(job(tmp_path / "jobs", text))
    assert found
    assert said(first)


@pytest.mark.parametrize("rate", RATES)
def test_full_disk_does_not_fail_the_command(tmp_path: Path, rate: str) -> None:
    (tmp_path / "progress").symlink_to("/dev/full")
    (tmp_path / "body").write_text(body(tmp_path, rate, "sh -c 'sleep 0.7; echo done'", 7))
    done = subprocess.run(["sh", tmp_path / "body"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


LOG = {
    ("0/3000060", "0/9000000"): f"{0x1000038} {0x6FFFFD8} of log; its target may come sooner",
    ("1/0", "1/10"): f"{(1 << 32) - 0x2000028} {(1 << 32) + 0x10 - 0x2000028} of log; its target may come sooner",
    ("0/3000060", "FFFFFFFF/FFFFFFFF"): f"{0x1000038} 0 of log; its target may come sooner",
    ("0/0", "0/9000000"): "",
    ("", "0/9000000"): "",
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("now", "enough"), LOG)
def test_replay_is_told_in_bytes_of_log(tmp_path: Path, now: str, enough: str, shell: str) -> None:
    label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000080\n"
    (tmp_path / "backup_label.old").write_text(label)
    (tmp_path / "body").write_text(f"set -eu\n{scripts.text('paced')}told_log '{tmp_path}' '{now}' '{enough}'\n")
    words = ["busybox", "sh"] if shell == "busybox" else [shell]
    done = subprocess.run([*words, tmp_path / "body"], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (0, "")
    progress = tmp_path / "progress"
    told = progress.read_text().rstrip("\n") if progress.exists() else ""
    assert told == LOG[now, enough]


# --- killed anywhere ----------------------------------------------------------------------------------------------


def marked() -> list[Process]:
    """Return every process of the job, but for those who only wait for it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and MARK.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(processes.look(int(entry.name)))
        except OSError:
            continue
    return [one for one in found if one is not None]


def stopped() -> list[int]:
    """Return the processes of the job that stand still."""
    return [one.pid for one in marked() if state(one.pid) == "T"]


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def until(condition: object, what: str, seconds: float = 20) -> None:
    """Wait for a condition of a few milliseconds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds * SLOWER
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


@pytest.fixture
def _none_left() -> object:
    """Whatever fails, nothing of a job goes on."""
    yield
    for one in marked():
        os.kill(one.pid, signal.SIGKILL)


@pytest.mark.usefixtures("_none_left")
def test_watcher_that_is_killed_leaves_nothing_stopped(tmp_path: Path) -> None:
    """Nobody comes after it: what it had stopped must not stand there for ever."""
    (tmp_path / "grows").mkdir()
    running = job(tmp_path / "jobs", body(tmp_path / "grows", str(MIB), writing(64)))
    for _ in range(3):
        until(stopped, "it is stopped")
        if watchers := {parent(pid) for pid in stopped()} - set(stopped()):
            break
    for pid in watchers:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not stopped(), "what was stopped has gone on, or has ended", 5)
    running.communicate(timeout=20)
    assert running.returncode == 137


@pytest.mark.usefixtures("_none_left")
@pytest.mark.parametrize("which", range(12))
def test_job_that_is_killed_anywhere_has_one_successor(tmp_path: Path, which: int, chance: random.Random) -> None:
    grows, pids = tmp_path / "grows", tmp_path / "pids"
    grows.mkdir()
    # The command says when it finds another one of its kind at work.
    works = "grep -qs ^State:.[^ZX] /proc/$p/status"
    alone = f"while read -r p; do ! {works} || echo beside >>{tmp_path}/beside; done <{pids}; echo $$ >>{pids}"
    pids.touch()
    text = body(
        grows,
        str(8 * MIB),
        f"""sh -c '{alone}; dd if=/dev/zero of={grows}/f iflag=fullblock bs=64k count=128 2>/dev/null'""",
    )
    first = job(tmp_path / "jobs", text)
    time.sleep(chance.uniform(0.05, 1))
    victims = marked()
    if victims:
        processes.send(chance.choice(victims), signal.SIGKILL)
    killed = first.communicate(timeout=30)[1]
    second = job(tmp_path / "jobs", text)
    assert second.communicate(timeout=30)[1] is not None
    assert second.returncode == 0, killed
    until(lambda: not marked(), "nothing of it is left")
    assert not (tmp_path / "beside").exists()
    assert size(grows) == 8 * MIB


@pytest.mark.usefixtures("_none_left")
def test_job_that_is_ended_is_gone_though_it_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "grows").mkdir()
    running = job(tmp_path / "jobs", body(tmp_path / "grows", str(MIB), writing(64)))
    until(stopped, "it is stopped")
    values = {"jobs": tmp_path / "jobs", "name": "paced", "lease": "", "hand": "0 0 0"}
    ended = subprocess.run(["sh", "-c", scripts.script("end_job", values)], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert marked() == []
    running.communicate(timeout=10)
    assert list((tmp_path / "jobs").iterdir()) == []
