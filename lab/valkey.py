"""The session store of a site: a Valkey server that is primary, or replicates the other site's."""

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import processes
from lab.place import LabError, Place, Runner, environment, write_private
from lab.processes import Process
from lab.programs import valkey_server

SHUT = "# shut by the start-up of its site\nmin-replicas-to-write 2147483647\n"
"""What a site that was left behind has in its store's settings: more replicas than there can be (`CLOSED`)."""


@dataclass(frozen=True)
class Valkey:
    """One site's Valkey; `other` is the port of this machine at which it finds the other site's."""

    place: Place
    who: Runner
    port: int
    other: int
    password: str

    @property
    def secret(self) -> Path:
        """The file with the password, 0600, of the runner."""
        return self.place.valkey / "password"

    @property
    def configuration(self) -> Path:
        """The configuration file, which the server itself may rewrite (CONFIG REWRITE)."""
        return self.place.valkey / "valkey.conf"

    def create(self, *, follows: bool) -> None:
        """Write the configuration unless it is there; one that follows replicates the other site's."""
        if self.configuration.exists():
            return
        self._write(self.secret, self.password + "\n")
        settings = self._settings() | ({"replicaof": f"127.0.0.1 {self.other}"} if follows else {})
        self._write(self.configuration, "".join(f"{name} {value}\n" for name, value in settings.items()))

    def _settings(self) -> dict[str, str]:
        return {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.place.valkey),
            "pidfile": str(self._pidfile),
            "logfile": str(self.place.valkey / "valkey.log"),
            "daemonize": "yes",
            "set-proc-title": "no",  # it would be written over the environment, by which the lab knows its own
            "requirepass": self.password,
            "primaryauth": self.password,
            "appendonly": "yes",
            "save": '""',
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            "repl-timeout": "10",  # a link that is cut drops everything silently
        }

    @property
    def _pidfile(self) -> Path:
        return self.place.valkey / "valkey.pid"

    def _write(self, path: Path, text: str) -> None:
        write_private(path, text)
        self.who.own(path)

    def running(self) -> Process | None:
        """Return the server that works in our folder, whoever started it; None when there is none."""
        return next(iter(processes.valkey_in(self.place.valkey)), None)

    def start(self, *, takes: bool = True) -> None:
        """Start the server unless it runs. Raises LabError when it does not start.

        Unless it `takes` writes, a primary refuses each from its first moment on, until it is started to take them.
        """
        shut = SHUT in (settings := self.configuration.read_text())
        if self.running():
            if takes and shut:
                self._open()
            return
        if takes and shut:
            self._write(self.configuration, settings.replace(SHUT, ""))
        if not takes and not shut and "\nreplicaof " not in settings:
            self._write(self.configuration, settings + SHUT)
        command = [valkey_server(self.place, self.who), self.configuration]
        done = subprocess.run(
            command, cwd=self.place.valkey, env=environment(self.place), capture_output=True, **self.who.drop()
        )
        if done.returncode:
            raise LabError(f"valkey-server: {done.returncode}, see {self.place.valkey / 'valkey.log'}")
        deadline = time.monotonic() + 10
        while self.role() is None and time.monotonic() < deadline:  # it reads its log first
            time.sleep(0.02)

    def _open(self) -> None:
        from valkey import Valkey as Client

        with Client(port=self.port, password=self.password, socket_timeout=5) as client:
            client.config_set("min-replicas-to-write", 0)
            client.config_rewrite()
        settings = self.configuration.read_text()
        self._write(self.configuration, settings.replace(SHUT.splitlines()[0] + "\n", ""))

    def role(self) -> str | None:
        """Return "primary" or "replica" as the server itself says; None when it does not answer within a second."""
        # Loaded here: only a lab of two sites needs the client.
        from valkey import Valkey as Client
        from valkey import ValkeyError

        try:
            with Client(port=self.port, password=self.password, socket_timeout=1, socket_connect_timeout=1) as client:
                found: Any = client.execute_command("ROLE")
        except ValkeyError:
            return None
        return "primary" if found[0] in (b"master", b"primary") else "replica"

    def stop(self) -> None:
        """Stop the server, with everything on disk."""
        if found := self.running():
            processes.stop([found], signal.SIGTERM, 10)
