"""Real HAProxy as a traffic director in front of two sites, with its runtime API and its state file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from activities.haproxy import PointBackend
from activities.ssh import HostAt
from lab import ports
from lab.place import Runner

PORTS = ("clients", "north", "south", "other")
CONFIGURATION = """
global
    stats socket {folder}/admin.sock mode 660 level admin
    server-state-file {folder}/state
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    load-server-state-from-file global
frontend clients
    bind 127.0.0.1:{clients}
    default_backend orders
backend orders
    server north 127.0.0.1:{north} check inter 500
    server south 127.0.0.1:{south} check inter 500 disabled
backend other
    server one 127.0.0.1:{other}
"""


class HAProxy:
    """One HAProxy; its folder holds its configuration, its socket, its state file and its log."""

    def __init__(self, folder: Path, who: Runner | None = None, at: Mapping[str, int] | None = None) -> None:
        """Make one before sites at these ports, by default at some that are free."""
        self.folder, self.who, self.ports = folder, who, {**ports.choose(PORTS), **(at or {})}
        self.url, self.state = f"http://{ports.ADDRESS}:{self.ports['clients']}", folder / "state"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "haproxy.cfg").write_text(CONFIGURATION.format(folder=folder, **self.ports))
        for path in (folder, folder / "haproxy.cfg"):
            if who is not None:
                who.own(path)

    def point(self, host: HostAt, site: str = "south", **more: Any) -> PointBackend:
        """Return what moves its traffic."""
        given = {
            "system": "edge", "host": host, "socket": f"{self.folder}/admin.sock", "backend": "orders", "site": site,
            "sites": {"north": ("north",), "south": ("south",)}, "state": str(self.state),
            "configuration": f"{self.folder}/haproxy.cfg", "run": "0a1b2c3d", "drill": True,
        }  # fmt: skip
        return PointBackend.model_validate(given | more)

    def start(self, seconds: float = 10) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, "scripts/debian-packages installs haproxy"
        drop: dict[str, Any] = self.who.drop() if self.who else {}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-db", "-f", self.folder / "haproxy.cfg"], stdout=log, stderr=log, **drop
            )
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                self.tell("show info")
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it with SIGKILL, if it runs."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def tell(self, command: str) -> str:
        """Say something over its runtime API as somebody else would; return its answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self.folder / "admin.sock"))
            client.sendall(f"{command}\n".encode())
            answer = b""
            while more := client.recv(65536):
                answer += more
        return answer.decode()

    def servers(self) -> dict[str, int]:
        """Return the administrative state of each server, in bits."""
        return _rows(self.tell("show servers state orders"))

    def kept(self) -> dict[str, int] | None:
        """Return the same of what the state file has; None where there is none."""
        return _rows(self.state.read_text()) if self.state.exists() else None


def _rows(text: str) -> dict[str, int]:
    rows = [line.split() for line in text.splitlines()]
    return {row[3]: int(row[6]) for row in rows if len(row) > 6 and row[1] == "orders"}


@contextlib.contextmanager
def haproxy(folder: Path, who: Runner | None = None, at: Mapping[str, int] | None = None) -> Iterator[HAProxy]:
    """Run an HAProxy in ``folder``."""
    found = HAProxy(folder, who, at)
    try:
        found.start()
        yield found
    finally:
        found.kill()
