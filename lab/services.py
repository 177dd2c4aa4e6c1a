"""The order application of a site, as its host starts, stops and looks at it: one script that sh runs."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lab import processes
from lab.place import MEMBER, MEMBER_OF, LabError, Place, Runner, environment, write_private
from lab.processes import Process

SCRIPT = Path(__file__).with_name("service.sh")


@dataclass(frozen=True)
class Service:
    """One site's order application; recoveries start and stop it with its script, and so does the lab."""

    place: Place
    who: Runner

    @property
    def script(self) -> Path:
        """What is called with start, stop or status."""
        return self.place.orders / "orders"

    @property
    def wanted(self) -> bool:
        """Whether it was started and not stopped since, though it may have been killed."""
        return (self.place.orders / "enabled").exists()

    def create(self, program: Path, port: int, database: int, password: str, store: int, store_password: str) -> None:
        """Write the script and the configuration: ports of application, database and store, and passwords."""
        address = psycopg.conninfo.make_conninfo(
            host="127.0.0.1", port=database, dbname="orders", user="app", password=password, sslmode="disable",
            options="-c statement_timeout=5s", application_name="orders",
        )  # fmt: skip
        given = {"port": port, "database": address, "store": store, "store_password": store_password}
        self._write(self.place.orders / "configuration.json", json.dumps(given), 0o600)
        # Marked as members of the lab, whoever calls it.
        marks = f"export {MEMBER}='{self.place.root}' {MEMBER_OF}={self.place.site}\n"
        names = f"FOLDER='{self.place.orders}' PROGRAM='{program}'\n"
        self._write(self.script, f"#!/bin/sh\n{marks}{names}{SCRIPT.read_text()}", 0o700)

    def configure(self, files: Mapping[str, bytes]) -> None:
        """Put its configuration there as a deployment does, and have it read. Raises LabError."""
        for name, content in files.items():
            self._write(self.place.orders / "config" / name, content.decode(), 0o644)
        if self.script.exists() and (done := self._call("reload")).returncode:
            raise LabError(f"the orders of {self.place.site} do not reload: {done.stderr.decode().strip()}")

    def _write(self, path: Path, text: str, mode: int) -> None:
        write_private(path, text, mode)
        self.who.own(path)

    def start(self) -> None:
        """Start it unless it runs, and wait until it listens. Raises LabError."""
        done = self._call("start")
        if done.returncode:
            raise LabError(f"the orders of {self.place.site} do not start: {done.stderr.decode().strip()}")

    def running(self) -> Process | None:
        """Return its process; None when it does not run."""
        if not self.script.exists() or self._call("status").returncode:
            return None
        return processes.look(int((self.place.orders / "pid").read_text()))

    def want(self) -> None:
        """Have it started whenever its site comes up, as if it had been started once."""
        self._write(self.place.orders / "enabled", "", 0o600)

    def _call(self, word: str) -> "subprocess.CompletedProcess[bytes]":
        env = environment(self.place)
        try:
            return subprocess.run(
                [self.script, word], cwd=self.place.home, env=env, capture_output=True, timeout=20, **self.who.drop()
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"the orders of {self.place.site}: no end of {word} after 20 s") from error
