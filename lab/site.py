"""One site of the lab: its database, its session store, its order application, its SSH host."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import addresses, daemons, ports, workers
from lab.addresses import linked, of
from lab.interpreter import interpreter, program, script
from lab.models import Program
from lab.place import LabError, Place, Runner
from lab.postgres import Postgres
from lab.processes import Process
from lab.services import Service
from lab.valkey import Valkey


@dataclass(frozen=True)
class Site:
    """Everything at one site; `ports` are all ports of the lab."""

    place: Place
    who: Runner
    ports: Mapping[str, int]
    passwords: Mapping[str, str]
    postgres: Postgres

    @property
    def name(self) -> str:
        """Its name."""
        return self.place.site

    def port(self, name: str) -> int:
        """Return the port of something at this site."""
        return self.ports[of(self.name, name)]

    @property
    def valkey(self) -> Valkey:
        """Its session store."""
        other = self.ports[linked(addresses.other(self.name), "valkey")]
        return Valkey(self.place, self.who, self.port("valkey"), other, self.passwords["valkey"])

    @property
    def service(self) -> Service:
        """Its order application."""
        return Service(self.place, self.who)

    def start_ssh(self) -> None:
        """Start the SSH server unless it runs."""
        sshd = of(self.name, "sshd")
        daemons.start(self.place, sshd, "sshd", self.name, str(self.port("ssh")), site=self.name)

    def await_ssh(self) -> None:
        """Wait until the SSH server answers. Raises LabError."""
        if not ports.greeting(self.port("ssh"), 15).startswith(b"SSH-"):
            raise LabError(f"no SSH server at {self.name}, see {daemons.log(self.place, of(self.name, 'sshd'))}")

    def start_applications(self, runs: Path, active: str) -> None:
        """Make the session store and the order application unless they are there, and start what is wanted.

        `runs` is the program of the application, `active` the site whose store is the primary, if they are new.
        """
        self.valkey.create(follows=self.name != active)
        # fmt: off
        self.service.create(
            runs, self.port("orders"), self.port("postgres"), self.passwords["app"], self.port("valkey"),
            self.passwords["valkey"])
        # fmt: on
        self.revive_applications()

    def revive_applications(self, *, serves: bool = True) -> None:
        """Start the session store, and the order application where it is wanted, unless they run. Raises LabError.

        A site that does not serve (`Lab.boots`) starts its store alone, which takes no write there.
        """
        self.valkey.start(takes=serves)
        if self.service.wanted and serves:
            self.service.start()

    def programs(self, whole: bool) -> Iterator[Program]:
        """Look at what runs here; `whole` if there is more than a database and a host."""
        role = "standby" if self.postgres.standby() else "primary"
        yield self._program("postgres", self.postgres.running(), self.port("postgres"), role)
        yield self._program("sshd", daemons.running(self.place, of(self.name, "sshd")), self.port("ssh"))
        if whole:
            yield self._program("valkey", self.valkey.running(), self.port("valkey"), self.valkey.role())
            yield self._program("orders", self.service.running(), self.port("orders"), None, self.service.wanted)
        if daemons.known(self.place, workers.name(self.name)):
            yield self._program("worker", daemons.running(self.place, workers.name(self.name)), None)

    def _program(
        self, name: str, process: Process | None, port: int | None, state: str | None = None, wanted: bool = True
    ) -> Program:
        return Program.of(name, process.pid if process else None, port, site=self.name, state=state, wanted=wanted)


def host_programs(place: Place, who: Runner) -> Path:
    """Make the lab's own programs for its hosts, and return the order application's. Raises LabError."""
    python = interpreter(place, who)
    script(place, python, "valkey-cli", Path(__file__).with_name("valkey_cli.py"))
    return program(place, python, "orders", "lab.orders")
