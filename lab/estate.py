"""The lab as a whole: brought up, looked at, broken, taken down."""

import json
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from lab import accidents, addresses, daemons, ledger, link, ports, processes
from lab.addresses import of
from lab.kinds import Kind
from lab.models import Accident, Program, Status
from lab.place import SITES, LabError, Place, Runner, lab_root, runner, state_dir, write_private
from lab.postgres import Postgres, discard_memory
from lab.programs import binaries
from lab.ssh import make_keys


class Lab:
    """An embedded estate in one folder: a site `north` with PostgreSQL and an SSH host, and a load of orders.

    With the site `south` it has all of that twice: a standby there, and a link between them that can be cut. Which
    site's database takes writes is looked up every time, because recoveries change it.
    """

    def __init__(self, root: Path | None = None, state: Path | None = None) -> None:
        """Take the lab of this checkout, or the one in `root` whose addresses go to `state`/estate.env."""
        self.place = Place(root or lab_root())
        self.state = state or state_dir()
        self._timings: dict[str, float] = {}

    def up(
        self, load: bool = True, rate: float = 100, writers: int = 2, mixed: bool = False, south: bool = False
    ) -> Status:
        """Make the lab if it is not there, start whatever does not run, and say how long each part took.

        `rate` is in orders per second, of all writers together; a load that runs with other numbers is
        started anew. Data that was destroyed stays destroyed. `south` adds the second site; it stays from then on.
        Raises BadPlace when no lab can live in that folder, LabError when something does not start.
        """
        began = time.monotonic()
        with self.place.locked():
            self._timings = {}
            who = runner()
            self._prepare(who, SITES if south else SITES[:1])
            with ThreadPoolExecutor(1) as beside:
                ssh = beside.submit(self._start_ssh)
                self._start_databases()
                ssh.result()
            self._write_env(who)
            if load:
                order = ["--rate", str(float(rate)), "--writers", str(writers), *(["--mixed"] if mixed else [])]
                daemons.start(self.place, "load", "load", str(self.ports["postgres"]), *order)
            self._timings["all"] = round(time.monotonic() - began, 2)
            return self.status()

    def _prepare(self, who: Runner, sites: Sequence[str] = SITES[:1]) -> None:
        place = self.place
        known = json.loads(place.marker.read_text()) if place.marker.exists() else {"ports": {}, "sites": []}
        wanted = sorted({*known.get("sites", []), *sites})
        if missing := [name for name in addresses.PORTS if name not in known["ports"]]:
            known["ports"] |= ports.choose(missing, known["ports"].values())
        write_private(place.marker, json.dumps({"ports": known["ports"], "sites": wanted}))
        if not place.secrets.exists():
            words = {role: secrets.token_urlsafe(24) for role in ("postgres", "app", "replicator")}
            write_private(place.secrets, json.dumps(words))
        place.make(who)
        if not processes.can_enter(place.north, who):
            raise LabError(f"{who.name} cannot enter {place.north}: set RECOVERY_LAB to where everyone may go")
        with self._timed("programs"):
            databases = self.databases.values()  # finds or copies the programs
        for database in databases:
            database.keep_password()

    def _start_ssh(self) -> None:
        with self._timed("ssh"):
            make_keys(self.place, addresses.hosts(self.ports))
            for site in self.sites:
                daemons.start(self.place.at(site), of(site, "sshd"), "sshd", site, str(self.ports[of(site, "ssh")]))
            for site in self.sites:
                port = self.ports[of(site, "ssh")]
                if not ports.greeting(port, 15).startswith(b"SSH-"):
                    raise LabError(f"no SSH server on port {port}, see {self.place.logs}")

    def _start_databases(self) -> None:
        databases = [self.databases[site] for site in self.sites]
        there = [database for database in databases if database.place.data.exists()] or databases[:1]
        with self._timed("initdb"):
            there[0].create()
        for database in there:
            self._start_database(database)
        if len(databases) > 1:
            with self._timed("link"):
                daemons.start(self.place, "link", "link", *addresses.routes(self.ports))
                link.wait(self.place, 10)
        for database in databases:
            if database not in there:
                if self.primary.standby():
                    raise LabError(
                        f"no primary that {database.place.site} could follow: promote one, or take the lab down"
                    )
                with self._timed(f"clone to {database.place.site}"):
                    database.clone(self.primary)
                self._start_database(database)

    def _start_database(self, database: Postgres) -> None:
        with self._timed(of(database.place.site, "postgres")):
            database.start()
        if database.standby():
            return
        with self._timed("seed"):
            database.seed()
        if not database.backed_up():
            with self._timed("base backup"):
                database.backup()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._timings[name] = round(time.monotonic() - began, 2)

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports by name: ssh, postgres, copy_1 and on, south-ssh and on. Raises LabError when there is no lab."""
        found: dict[str, int] = self._known["ports"]
        return found

    @property
    def _known(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.place.marker.read_text())
        except FileNotFoundError:
            raise LabError(f"no lab in {self.place.root}: `lab up` makes one") from None
        return found

    @property
    def passwords(self) -> Mapping[str, str]:
        """The passwords of the roles `postgres` and `app`; never print them."""
        found: dict[str, str] = json.loads(self.place.secrets.read_text())
        return found

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of this lab: `north`, and `south` if it was asked for. Raises LabError when there is no lab."""
        return tuple(self._known["sites"])

    @cached_property
    def databases(self) -> Mapping[str, Postgres]:
        """The PostgreSQL of each site, of one that is not there, too."""
        who, ports = runner(), self.ports
        programs = binaries(self.place, who)
        return {
            site: Postgres(
                self.place.at(site), who, programs, ports[of(site, "postgres")],
                ports[addresses.linked(site, "postgres")], self.passwords,
            )
            for site in SITES
        }  # fmt: skip

    @property
    def postgres(self) -> Postgres:
        """PostgreSQL of north."""
        return self.databases["north"]

    @property
    def primary(self) -> Postgres:
        """The PostgreSQL that takes writes, or would if it ran; of two that do, the one that runs, then north's."""
        found = [self.databases[site] for site in self.sites]
        return min(found, key=lambda one: (not one.place.data.exists(), one.standby(), not one.running()))

    def _write_env(self, who: Runner) -> None:
        values = addresses.values(self.place, who, self.ports, self.postgres.binaries)
        self.state.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name}={value}\n" for name, value in values.items())
        write_private(self.state / "estate.env", text, 0o644)

    def base_backup(self) -> Path:
        """Take a base backup of the database that takes writes and return its folder. Raises LabError."""
        return self.primary.backup()

    def status(self) -> Status:
        """Look at everything and change nothing. Raises LabError when there is no lab."""
        place, primary = self.place, self.primary
        segments = primary.archived()
        return Status(
            root=str(place.root),
            programs=tuple(self._programs()),
            backups=primary.backed_up(),
            archived_segments=len(segments),
            last_archived_segment=segments[-1] if segments else None,
            acknowledged=ledger.count(place.load / "acknowledged.jsonl"),
            refused=ledger.count(place.load / "refused.jsonl"),
            last_acknowledged_at=ledger.last_acknowledged_at(place.load),
            accidents=ledger.count(place.accidents),
            timings=self._timings,
        )

    def _programs(self) -> Iterator[Program]:
        for site in self.sites:
            database, port = self.databases[site], self.ports[of(site, "ssh")]
            role = "standby" if database.standby() else "primary"
            yield _program("postgres", database.running(), database.port, site, role)
            yield _program("sshd", daemons.running(self.place, of(site, "sshd")), port, site)
        if len(self.sites) > 1:
            cut = link.state(self.place)
            yield _program("link", daemons.running(self.place, "link"), None, None, cut)
        yield _program("load", daemons.running(self.place, "load"))

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
        database = self.primary
        site = database.place.site
        if kind in accidents.STATEMENTS:
            return accidents.destroy(database, kind)
        if kind is Kind.POSTGRES:
            postmaster, all_of_it = database.running(), processes.postgres_in(database.place.data)
            # The postmaster first: it would answer the death of a child with new ones.
            return accidents.kill(kind, site, sorted(all_of_it, key=lambda process: process != postmaster))
        found = daemons.running(self.place, of(site, "sshd") if kind is Kind.SSH else "load")
        return accidents.kill(kind, site, [found] if found else [])

    def down(self, purge: bool = True) -> None:
        """Stop everything, restored copies and remote commands too; purge: and delete every file.

        Raises BadPlace when the folder is no lab (nothing is deleted), LabError when a process survives.
        """
        if not self.place.root.exists():
            return
        with self.place.locked():
            if self.place.marker.exists():
                # The load first: what it writes down must not be an outage that we make ourselves.
                ours = ("load", *(of(site, "sshd") for site in self.sites))
                if link.state(self.place) != "open":
                    ours += ("link",)  # a primary would wait for its standby; connections that break are no use to it
                found = [daemons.running(self.place, name) for name in ours]
                processes.stop([process for process in found if process], signal.SIGTERM, 2)
                self._stop_databases(quick=purge)
                processes.stop(processes.members(self.place.root), signal.SIGTERM, 3)
            if purge:
                self._purge()

    def _stop_databases(self, *, quick: bool) -> None:
        # Known by its folder, so that an `up` that failed half way can still be taken down.
        with suppress(FileNotFoundError):
            # The primary first: it ends when its standby has everything.
            for database in sorted(self.databases.values(), key=Postgres.standby):
                database.stop(quick=quick)

    def _purge(self) -> None:
        root = self.place.root
        discard_memory(self.place.root, runner())
        for path in root.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path not in (self.place.marker, self.place.lock):
                path.unlink()
        # In this order: until the end the folder is known as a lab, and only then may another one be made.
        self.place.marker.unlink(missing_ok=True)
        (self.state / "estate.env").unlink(missing_ok=True)
        self.__dict__.pop("databases", None)
        self.place.lock.unlink()
        with suppress(OSError):
            root.rmdir()


def _program(
    name: str, process: processes.Process | None, port: int | None = None, site: str | None = None,
    state: str | None = None,
) -> Program:  # fmt: skip
    address = f"{ports.ADDRESS}:{port}" if port else None
    pid = process.pid if process else None
    return Program(name=name, site=site, state=state, pid=pid, running=bool(process), address=address)
