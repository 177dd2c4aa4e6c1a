"""A host that takes every script, runs none, and answers as told: what is sent is looked at, not what it does."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from activities import scripts, ssh
from activities.ssh import HostAt

FOLDER = Path(scripts.__file__).parent / "scripts"
HEAD = re.compile(r"""^([A-Z_0-9]+)=('(?:[^']|'"'"')*'|.*)$""", re.MULTILINE)
NAMES = sorted(path.stem for path in FOLDER.glob("*.sh"))


@dataclass(frozen=True)
class Sent:
    """One script that arrived: its name, the variables before it, its job's name or how many seconds it may look."""

    name: str
    values: dict[str, str]
    job: str = ""
    seconds: float = 0


@dataclass
class Recorder:
    """What arrived, and what is answered by the name of the script: output, complaint, exit status.

    A script that is asked about one of several systems may be answered by the port of that.
    """

    host: HostAt
    sent: list[Sent] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[str, str, int]] = field(default_factory=dict)

    def answer(self, name: str, output: str = "", complaint: str = "", status: int = 0, port: str = "") -> None:
        """Answer the script ``name`` so from now on, about the system at ``port`` alone if that is said."""
        self.answers[name, port] = (output, complaint, status)

    async def take(self, process: asyncssh.SSHServerProcess[str]) -> None:
        """Take one script."""
        body = await process.stdin.read()
        name = max((n for n in NAMES if body.rstrip("\n").endswith(scripts.text(n).rstrip("\n"))), key=len)
        head = body.rstrip("\n").removesuffix(scripts.text(name).rstrip("\n"))
        command = shlex.split(process.command or "")
        values = dict(HEAD.findall(head))
        job = command[7] if command[4:6] == [scripts.text("job"), "job"] else ""
        assert not job or command[:2] == ["env", f"RECOVERY_STARTS={job}"]
        assert job or (command[:2], command[-2:]) == (["exec", "timeout"], ["sh", "-s"]), command
        seconds = 0 if job else float(command[-3])
        self.sent.append(Sent(name, {key: _plain(value) for key, value in values.items()}, job, seconds))
        usual = self.answers.get((name, ""), ("", "", 0))
        output, complaint, status = self.answers.get((name, self.sent[-1].values.get("PORT", "")), usual)
        process.stdout.write(output)
        process.stderr.write(complaint)
        process.exit(status)


@contextlib.asynccontextmanager
async def recorder(folder: Path) -> AsyncIterator[Recorder]:
    """Run a recorder; the keys of both sides are made in ``folder``."""
    for name in ("host", "client"):
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(folder / name))
    (folder / "allowed").write_bytes(asyncssh.read_private_key(str(folder / "client")).export_public_key())

    async def take(process: asyncssh.SSHServerProcess[str]) -> None:
        await found.take(process)

    async with asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[str(folder / "host")], authorized_client_keys=str(folder / "allowed"),
        process_factory=take,
    ) as server:  # fmt: skip
        port = server.get_port()
        key = asyncssh.read_private_key(str(folder / "host")).export_public_key().decode()
        (folder / "known").write_text(f"[127.0.0.1]:{port} {key}")
        at = HostAt(
            address="127.0.0.1", port=port, user="lab", known_hosts=str(folder / "known"), key=str(folder / "client"),
            jobs="/srv/jobs",
        )  # fmt: skip
        found = Recorder(at)
        yield found
        await ssh.close()


def _plain(value: str) -> str:
    """Return what ``shlex.quote`` was given; its own ``split`` takes seconds for a long one."""
    return value[1:-1].replace("'\"'\"'", "'") if value.startswith("'") else value
