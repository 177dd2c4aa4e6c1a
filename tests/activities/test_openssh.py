"""The lab's SSH server is asyncssh; this is the one that hosts really run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities import ssh
from activities.ssh import HostAt
from recovery.errors import Refused, Transient
from tests.hosts import openssh
from tests.running import eventually


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[HostAt]:
    with openssh(tmp_path) as found:
        yield found


async def test_job_runs_once_and_leaves_nothing(sshd: HostAt, tmp_path: Path) -> None:
    values = {"jobs": tmp_path, "name": "none"}
    assert await ssh.job(sshd, "a-job", "end_job", values) == ""
    assert (Path(sshd.jobs) / "a-job" / "rc").read_text() == "0\n"
    await ssh.end_job(sshd, "a-job")
    assert list(Path(sshd.jobs).iterdir()) == []
    await ssh.close()


async def test_output_of_a_look_arrives_whole(sshd: HostAt) -> None:
    values = {"bin": "/nonexistent", "copies": sshd.jobs, "jobs": sshd.jobs}
    text = await ssh.look(sshd, "readiness", values)
    assert text.startswith("now\t")
    assert f"listening\t{sshd.port:04X}" in text
    await ssh.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"known_hosts": "unknown"}, "is not the one in known_hosts"), ({"key": "other"}, "the login of")],
)
async def test_wrong_key_is_refused(sshd: HostAt, tmp_path: Path, change: dict[str, str], said: str) -> None:
    wrong = sshd.model_copy(update={field: str(tmp_path / name) for field, name in change.items()})
    with pytest.raises(Refused, match=said):
        await ssh.look(wrong, "nothing", {})


async def test_connection_is_kept(sshd: HostAt, tmp_path: Path) -> None:
    for _ in range(5):
        await ssh.look(sshd, "nothing", {})
    assert (tmp_path / "log").read_text().count("Accepted publickey") == 1
    await ssh.close()


async def test_as_many_commands_as_are_wanted_run_beside_each_other(sshd: HostAt, tmp_path: Path) -> None:
    """It lets ten be open in one connection."""
    go_on, begun = tmp_path / "go on", tmp_path / "begun"
    begun.mkdir()
    command = f"touch '{begun}'/$$; until [ -e '{go_on}' ]; do sleep 1; done"
    values = {"command": command, "service": "a", "mark": ""}
    looks = [asyncio.create_task(ssh.look(sshd, "service_state", values, 60)) for _ in range(40)]

    def at_work() -> bool:
        return len(list(begun.iterdir())) == 40 or any(one.done() for one in looks)

    await eventually(at_work, "all are at work", 40)
    go_on.touch()
    assert await asyncio.gather(*looks) == ["runs\n"] * 40
    assert (tmp_path / "log").read_text().count("Accepted publickey") == 5
    await ssh.close()


def commands(sshd: HostAt) -> list[str]:
    """Return the command lines of what was started over this server, by the environment that it gives them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = re.search(rb"SSH_CONNECTION=[^\0]* %d\0" % sshd.port, (folder / "environ").read_bytes())
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended meanwhile
            continue
        if mine and line:
            found.append(line)
    return found


def reading(folder: Path, name: str, program: str) -> dict[str, object]:
    """Return what has the script ``last_commit`` read its log by ``program``, in a new folder of this name."""
    (folder / name).mkdir()
    (folder / name / "segment").touch()
    (folder / name / "pg_waldump").write_text(f"#!/bin/sh\n{program}\n")
    (folder / name / "pg_waldump").chmod(0o755)
    return {
        "bin": folder / name, "archive": folder / name, "data": folder, "segments": "segment", "timeline": "1",
        "size": 0, "restore": "",
    }  # fmt: skip


async def test_look_that_takes_too_long_ends_alone(sshd: HostAt, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    waiting = f"until [ -e '{go_on}' ]; do sleep 0.05; done; echo ' COMMIT 2026-11-22 02:05:56'"
    beside = asyncio.create_task(ssh.look(sshd, "last_commit", reading(tmp_path, "beside", waiting), 60))
    await eventually(lambda: any("beside" in line for line in commands(sshd)), "the other look is at work")
    with pytest.raises(Transient, match=r"the look took longer than 0\.5 s"):
        await ssh.look(sshd, "last_commit", reading(tmp_path, "endless", "exec sleep 1000"), 0.5)
    await eventually(lambda: "sleep 1000 " not in commands(sshd), "what it started has ended", 5)
    go_on.touch()
    assert await beside == "commit\t2026-11-22 02:05:56\n"
    assert (tmp_path / "log").read_text().count("Accepted publickey") == 1
    await eventually(lambda: commands(sshd) == [], "nothing is left on the host", 5)
    await ssh.close()


async def test_look_that_does_not_hear_is_killed(sshd: HostAt, tmp_path: Path) -> None:
    deaf = reading(tmp_path, "deaf", "trap '' INT; sleep 1000; sleep 1000")
    with pytest.raises(Transient, match=r"the look took longer than 0\.5 s"):
        await ssh.look(sshd, "last_commit", deaf, 0.5)
    await eventually(lambda: commands(sshd) == [], "nothing is left on the host", 5)
    await ssh.close()
