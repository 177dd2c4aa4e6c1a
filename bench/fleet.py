"""A fleet of hosts on loopback: many SSH servers in one process. ``python -m bench.fleet ROOT FIRST COUNT``"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import asyncssh

from lab.place import Place, runner
from lab.sshd import Door


def place(root: Path, number: int) -> Place:
    """Return where the files of one host are."""
    return Place(root, site=f"host-{number}")


def make(root: Path, first: int, count: int) -> None:
    """Make the folders of all hosts, one key for all servers, and one for their client."""
    who = runner()
    (root / "ssh").mkdir(mode=0o755)
    for name in ("server", "client_key"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(root / "ssh" / name))
        (root / "ssh" / name).chmod(0o600)
        key.write_public_key(str(root / "ssh" / f"{name}.pub"))
    (root / "ssh" / "authorized_keys").write_text((root / "ssh" / "client_key.pub").read_text())
    key_of_all = (root / "ssh" / "server.pub").read_text().strip()
    known = [f"[127.0.0.1]:{first + number} {key_of_all}\n" for number in range(count)]
    (root / "ssh" / "known_hosts").write_text("".join(known))
    for at in (place(root, number) for number in range(count)):
        for folder in (at.folder, at.jobs, at.home, at.folder / "conf"):
            folder.mkdir(mode=0o755)
            who.own(folder)


async def serve(root: Path, first: int, count: int) -> None:
    """Serve all of them until killed."""
    who = runner()
    for number in range(count):
        at = place(root, number)
        # fmt: off
        await asyncssh.listen(
            "127.0.0.1", first + number, server_factory=lambda at=at: Door(at, who), encoding=None,
            server_host_keys=[str(root / "ssh" / "server")], public_key_auth=True, password_auth=False,
            kbdint_auth=False, gss_host=None, allow_pty=False, allow_scp=False, sftp_factory=None, backlog=500,
            login_timeout=120)
        # fmt: on
    (root / "ready").touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    os.chdir("/")
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
