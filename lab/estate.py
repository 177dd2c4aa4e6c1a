"""The lab as a whole: brought up, looked at, broken, taken down."""

import json
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from lab import accidents, ledger, ports, processes
from lab.kinds import Kind
from lab.models import Accident, Program, Status
from lab.place import (
    REPOSITORY,
    LabError,
    Place,
    Runner,
    environment,
    lab_root,
    runner,
    state_dir,
    write_private,
)  # fmt: skip
from lab.postgres import Postgres, discard_memory
from lab.programs import binaries
from lab.ssh import make_keys

COPIES = tuple(f"copy_{number}" for number in range(1, 5))
PORTS = ("ssh", "postgres", *COPIES)


class Lab:
    """An embedded estate in one folder: site `north` with PostgreSQL, an SSH host and a load of orders."""

    def __init__(self, root: Path | None = None, state: Path | None = None) -> None:
        """Take the lab of this checkout, or the one in `root` whose addresses go to `state`/estate.env."""
        self.place = Place(root or lab_root())
        self.state = state or state_dir()
        self._timings: dict[str, float] = {}

    def up(self, load: bool = True, rate: float = 100, writers: int = 2, mixed: bool = False) -> Status:
        """Make the lab if it is not there, start whatever does not run, and say how long each part took.

        `rate` is in orders per second, of all writers together; a load that runs with other numbers is
        started anew. Data that was destroyed stays destroyed.
        Raises BadPlace when no lab can live in that folder, LabError when something does not start.
        """
        began = time.monotonic()
        with self.place.locked():
            self._timings = {}
            who = runner()
            self._prepare(who)
            with ThreadPoolExecutor(1) as beside:
                ssh = beside.submit(self._start_ssh)
                self._start_postgres()
                ssh.result()
            self._write_env(who)
            if load:
                order = [
                    "--rate",
                    str(float(rate)),
                    "--writers",
                    str(writers),
                    *(["--mixed"] if mixed else []),
                ]
                self._start("load", str(self.ports["postgres"]), *order)
            self._timings["all"] = round(time.monotonic() - began, 2)
            return self.status()

    def _prepare(self, who: Runner) -> None:
        place = self.place
        if not place.marker.exists():
            write_private(place.marker, json.dumps({"ports": ports.choose(PORTS)}))
        if not place.secrets.exists():
            words = {role: secrets.token_urlsafe(24) for role in ("postgres", "app")}
            write_private(place.secrets, json.dumps(words))
        place.make(who)
        if not processes.can_enter(place.north, who):
            raise LabError(f"{who.name} cannot enter {place.north}: set RECOVERY_LAB to where everyone may go")
        with self._timed("programs"):
            self.postgres  # noqa: B018  finds or copies the programs

    def _start_ssh(self) -> None:
        with self._timed("ssh"):
            port = self.ports["ssh"]
            make_keys(self.place, port)
            self._start("sshd", str(port))
            if not ports.greeting(port, 15).startswith(b"SSH-"):
                raise LabError(f"no SSH server on port {port}, see {self.place.logs / 'sshd.log'}")

    def _start_postgres(self) -> None:
        with self._timed("initdb"):
            self.postgres.create()
        with self._timed("postgres"):
            self.postgres.start()
            self.postgres.seed()
        if not self.postgres.backed_up():
            with self._timed("base backup"):
                self.postgres.backup()

    def _start(self, name: str, *arguments: str) -> None:
        """Start one of the lab's own programs, unless it runs with the same arguments."""
        argv = [sys.executable, "-m", f"lab.{name}", str(self.place.root), *arguments]
        record = self.place.run / f"{name}.json"
        if found := processes.recall(record):
            if found[1] == argv:
                return
            processes.stop([found[0]], signal.SIGTERM, 2)
        env = environment(self.place, {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"})
        processes.remember(record, processes.spawn(argv, env, self.place.logs / f"{name}.log"), argv)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._timings[name] = round(time.monotonic() - began, 2)

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports by name: ssh, postgres, copy_1 and on. Raises LabError when there is no lab."""
        try:
            found: dict[str, int] = json.loads(self.place.marker.read_text())["ports"]
        except FileNotFoundError:
            raise LabError(f"no lab in {self.place.root}: `lab up` makes one") from None
        return found

    @property
    def passwords(self) -> Mapping[str, str]:
        """The passwords of the roles `postgres` and `app`; never print them."""
        found: dict[str, str] = json.loads(self.place.secrets.read_text())
        return found

    @cached_property
    def postgres(self) -> Postgres:
        """PostgreSQL of north."""
        who = runner()
        return Postgres(self.place, who, binaries(self.place, who), self.ports["postgres"], self.passwords)

    def _write_env(self, who: Runner) -> None:
        place, addresses = self.place, self.ports
        values = {
            "LAB_NORTH_SSH_PORT": addresses["ssh"],
            "LAB_SSH_USER": who.name,
            "LAB_KNOWN_HOSTS": place.ssh / "known_hosts",
            "LAB_SSH_KEY": place.ssh / "client_key",
            "LAB_PG_BIN": self.postgres.binaries,
            "LAB_NORTH_PG_DATA": place.data,
            "LAB_NORTH_PG_PORT": addresses["postgres"],
            "LAB_NORTH_PG_SOCKETS": place.sockets,
            "LAB_NORTH_BACKUPS": place.backups,
            "LAB_NORTH_ARCHIVE": place.archive,
            "LAB_NORTH_COPIES": place.copies,
            **{f"LAB_NORTH_{name.upper()}_PORT": addresses[name] for name in COPIES},
            "LAB_NORTH_JOBS": place.jobs,
        }
        self.state.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name}={value}\n" for name, value in values.items())
        write_private(self.state / "estate.env", text, 0o644)

    def base_backup(self) -> Path:
        """Take a base backup of north and return its folder. Raises LabError."""
        return self.postgres.backup()

    def status(self) -> Status:
        """Look at everything and change nothing. Raises LabError when there is no lab."""
        place, addresses = self.place, self.ports
        postmaster, segments = self.postgres.running(), self.postgres.archived()
        return Status(
            root=str(place.root),
            programs=(
                _program("postgres", postmaster, addresses["postgres"]),
                _program("sshd", self._recorded("sshd"), addresses["ssh"]),
                _program("load", self._recorded("load"), None),
            ),
            backups=self.postgres.backed_up(),
            archived_segments=len(segments),
            last_archived_segment=segments[-1] if segments else None,
            acknowledged=ledger.count(place.load / "acknowledged.jsonl"),
            refused=ledger.count(place.load / "refused.jsonl"),
            last_acknowledged_at=ledger.last_acknowledged_at(place.load),
            accidents=ledger.count(place.accidents),
            timings=self._timings,
        )

    def _recorded(self, name: str) -> processes.Process | None:
        found = processes.recall(self.place.run / f"{name}.json")
        return found[0] if found else None

    def break_(self, kind: Kind | str) -> Accident:
        """Cause an accident, write it down, and say when it was. Raises LabError, ValueError (kind)."""
        kind = Kind(kind)
        if not self.place.marker.exists():
            raise LabError(f"no lab in {self.place.root}: `lab up` makes one")
        with self.place.locked():
            accident = self._cause(kind)
            ledger.Log(self.place.accidents).add(**accident.model_dump(mode="json"))
            return accident

    def _cause(self, kind: Kind) -> Accident:
        if kind in accidents.STATEMENTS:
            return accidents.destroy(self.postgres, kind)
        if kind is Kind.POSTGRES:
            postmaster, all_of_it = self.postgres.running(), processes.postgres_in(self.place.data)
            # The postmaster first: it would answer the death of a child with new ones.
            return accidents.kill(kind, sorted(all_of_it, key=lambda process: process != postmaster))
        found = self._recorded("sshd" if kind is Kind.SSH else "load")
        return accidents.kill(kind, [found] if found else [])

    def down(self, purge: bool = True) -> None:
        """Stop everything, restored copies and remote commands too; purge: and delete every file.

        Raises BadPlace when the folder is no lab (nothing is deleted), LabError when a process survives.
        """
        if not self.place.root.exists():
            return
        with self.place.locked():
            if self.place.marker.exists():
                # The load first: what it writes down must not be an outage that we make ourselves.
                for name in ("load", "sshd"):
                    processes.stop([found] if (found := self._recorded(name)) else [], signal.SIGTERM, 2)
                self._stop_postgres(quick=purge)
                processes.stop(processes.members(self.place.root), signal.SIGTERM, 3)
            if purge:
                self._purge()

    def _stop_postgres(self, *, quick: bool) -> None:
        # Known by its folder, so that an `up` that failed half way can still be taken down.
        with suppress(FileNotFoundError):
            self.postgres.stop(quick=quick)

    def _purge(self) -> None:
        root = self.place.root
        discard_memory(self.place.north, runner())
        for path in root.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path not in (self.place.marker, self.place.lock):
                path.unlink()
        # In this order: until the end the folder is known as a lab, and only then may another one be made.
        self.place.marker.unlink(missing_ok=True)
        (self.state / "estate.env").unlink(missing_ok=True)
        self.__dict__.pop("postgres", None)
        self.place.lock.unlink()
        with suppress(OSError):
            root.rmdir()


def _program(name: str, process: processes.Process | None, port: int | None) -> Program:
    address = f"{ports.ADDRESS}:{port}" if port else None
    return Program(name=name, pid=process.pid if process else None, running=bool(process), address=address)
