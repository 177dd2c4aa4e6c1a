"""A host with the SSH server that hosts really run."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from activities.ssh import HostAt
from lab import ports


@contextmanager
def openssh(folder: Path) -> Iterator[HostAt]:
    """Run sshd for this user, with keys in ``folder``."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "scripts/debian-packages installs openssh-server"
    for name in ("host", "client", "other"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        (folder / name).write_bytes(key.export_private_key())
        (folder / name).chmod(0o600)
        (folder / f"{name}.pub").write_bytes(key.export_public_key())
    port = ports.choose(["ssh"])["ssh"]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "unknown").write_text(f"[127.0.0.1]:{port} {(folder / 'other.pub').read_text()}")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    settings = {
        "ListenAddress": f"127.0.0.1:{port}", "HostKey": folder / "host", "PidFile": "none", "UsePAM": "no",
        "AuthorizedKeysFile": folder / "client.pub", "StrictModes": "no", "PermitRootLogin": "yes",
    }  # fmt: skip
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    process = subprocess.Popen([program, "-D", "-f", folder / "sshd_config", "-E", folder / "log"])
    try:
        assert ports.greeting(port, 10).startswith(b"SSH-2.0-OpenSSH"), (folder / "log").read_text()
        yield HostAt(
            address="127.0.0.1", port=port, user=getpass.getuser(), known_hosts=str(folder / "known"),
            key=str(folder / "client"), jobs=str(folder / "jobs"),
        )  # fmt: skip
    finally:
        process.terminate()
        process.wait(10)
