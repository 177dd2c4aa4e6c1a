"""The lab as a whole: brought up, looked at, broken, taken down."""

import json
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from lab import addresses, breaking, daemons, ledger, link, ports, processes, workers
from lab.addresses import of
from lab.director import Director
from lab.kinds import Kind
from lab.kubernetes import CLUSTER, Kubernetes
from lab.models import Accident, Program, Status
from lab.place import SITES, LabError, Place, Runner, lab_root, runner, state_dir, write_private
from lab.postgres import Postgres, discard_memory
from lab.processes import Process
from lab.programs import binaries, valkey_server
from lab.repository import Repository
from lab.site import Site, host_programs
from lab.ssh import make_keys
from lab.storefront import STOREFRONT, Storefront


class Lab:
    """An embedded estate in one folder: a site `north` with PostgreSQL and an SSH host, and a load of orders.

    With the site `south` it has all of that twice, and at each site a session store and an order application; a link
    between them that can be cut, and a traffic director in front of them, through which the orders then come. Which
    site takes them is looked up every time, because recoveries change it.
    """

    def __init__(self, root: Path | None = None, state: Path | None = None) -> None:
        """Take the lab of this checkout, or the one in `root` whose addresses go to `state`/estate.env."""
        self.place = Place(root or lab_root())
        self.state = state or state_dir()
        self._timings: dict[str, float] = {}

    def up(
        self, load: bool = True, rate: float = 100, writers: int = 2, mixed: bool = False, south: bool = False,
        cluster: bool = False,
    ) -> Status:  # fmt: skip
        """Make the lab if it is not there, start whatever does not run, and say how long each part took.

        `rate` is in orders per second, of all writers together; a load that runs with other numbers is started anew.
        Data that was destroyed stays destroyed. `south` adds the second site, `cluster` a Kubernetes cluster: for good.
        Raises BadPlace when no lab can live in that folder, LabError when something does not start.
        """
        began = time.monotonic()
        with self.place.locked():
            self._timings = {}
            who = runner()
            self._prepare(who, SITES if south else SITES[:1], cluster)
            with ThreadPoolExecutor(3) as beside:
                ssh, application = beside.submit(self._start_ssh), beside.submit(self._make_application, who)
                clustered = beside.submit(self._start_cluster)
                self._start_databases()
                ssh.result()
                if program := application.result():
                    self._start_applications(program)
                clustered.result()
            self._write_env(who)
            if load:
                self._start_load(rate, writers, mixed)
            self._timings["all"] = round(time.monotonic() - began, 2)
            return self.status()

    def _prepare(self, who: Runner, sites: Sequence[str] = SITES[:1], cluster: bool = False) -> None:
        place = self.place
        known = json.loads(place.marker.read_text()) if place.marker.exists() else {"ports": {}, "sites": []}
        if missing := [name for name in addresses.PORTS if name not in known["ports"]]:
            known["ports"] |= ports.choose(missing, known["ports"].values())
        known |= {"sites": sorted({*known["sites"], *sites}), "cluster": cluster or known.get("cluster", False)}
        write_private(place.marker, json.dumps(known))
        if not place.secrets.exists():
            words = {role: secrets.token_urlsafe(24) for role in ("postgres", "app", "replicator", "valkey")}
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
            for site in self.sites.values():
                site.start_ssh()
            for site in self.sites.values():
                site.await_ssh()

    def _start_databases(self) -> None:
        databases = [site.postgres for site in self.sites.values()]
        there = [database for database in databases if database.place.data.exists()] or databases[:1]
        with self._timed("initdb"):
            there[0].create()
        for database in there:
            self._start_database(database)
        with ThreadPoolExecutor(2) as beside:
            backups = [beside.submit(self._back_up, database) for database in there]
            if self.whole:
                with self._timed("link"):
                    daemons.start(self.place, "link", "link", *addresses.routes(self.ports))
                    link.wait(self.place, 10)
            for database in databases:
                if database not in there:
                    self._clone(database)
            for backup in backups:
                backup.result()

    def _clone(self, database: Postgres) -> None:
        source = self.primary
        if source.standby():
            raise LabError(f"no primary that {database.place.site} could follow: promote one, or take the lab down")
        with self._timed(f"clone to {database.place.site}"):
            database.clone(source)
        self._start_database(database)

    def _start_database(self, database: Postgres) -> None:
        with self._timed(of(database.place.site, "postgres")):
            database.start()
        if not database.standby():
            with self._timed("seed"):
                database.seed()

    def _back_up(self, database: Postgres) -> None:
        if not database.standby() and not database.backed_up():
            with self._timed("base backup"):
                database.backup()

    def _make_application(self, who: Runner) -> Path | None:
        if not self.whole:
            return None
        with self._timed("host programs"):
            return host_programs(self.place, who)

    def _start_applications(self, program: Path) -> None:
        with self._timed("applications"), ThreadPoolExecutor(3) as beside:
            sites, active = self.sites.values(), self.primary.place.site
            if not any(site.service.script.exists() for site in sites):
                self.sites[active].service.want()  # the first time; from then on it is as recoveries left it
            self.configure(only_new=True)
            begun = [beside.submit(site.start_applications, program, active) for site in sites]
            for one in [*begun, beside.submit(self.director.start, active)]:
                one.result()

    def _start_cluster(self) -> None:
        if found := self.cluster:
            with self._timed("cluster"):
                found.start()
                if storefront := self.storefront:
                    storefront.open()

    def configure(self, *, only_new: bool) -> None:
        """Deploy the newest configuration; `only_new` where there is none yet."""
        if not Repository.possible():
            return
        repository = Repository(self.place.repository)
        if not only_new or not repository.folder.exists():
            repository.create()
            for site in self.sites.values():
                site.service.configure(repository.files())

    def _start_load(self, rate: float, writers: int, mixed: bool) -> None:
        if mixed and self.whole:
            raise LabError("customers who order over HTTP change nothing else: a mixed load is for a site alone")
        order = ["--rate", str(float(rate)), "--writers", str(writers), *(["--mixed"] if mixed else [])]
        where = ["--through", self.director.url] if self.whole else [str(self.ports["postgres"])]
        daemons.start(self.place, "load", "load", *where, *order)

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
    def sites(self) -> Mapping[str, Site]:
        """The sites of this lab: `north`, and `south` if it was asked for. Raises LabError when there is no lab."""
        who, known, passwords = runner(), self._known, self.passwords
        return {
            name: Site(self.place.at(name), who, known["ports"], passwords, self.databases[name])
            for name in known["sites"]
        }

    @property
    def whole(self) -> bool:
        """Whether it has both sites."""
        return len(self._known["sites"]) > 1

    @property
    def director(self) -> Director:
        """The traffic director."""
        ports = self.ports
        apps = {site: ports[of(site, "orders")] for site in SITES}
        return Director(self.place, ports["director"], ports["director-admin"], apps)

    @property
    def cluster(self) -> Kubernetes | None:
        """The Kubernetes cluster, if it was asked for."""
        return Kubernetes(self.place, self.ports) if self._known.get("cluster") else None

    @property
    def storefront(self) -> Storefront | None:
        """What is deployed to the cluster, if there is one, and a Git on this machine."""
        if self.cluster is None or not Repository.possible():
            return None
        return Storefront(Repository(self.place.storefront, STOREFRONT), self.cluster.access)

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
        found = [site.postgres for site in self.sites.values()]
        return min(found, key=lambda one: (not one.place.data.exists(), one.standby(), not one.running()))

    def _write_env(self, who: Runner) -> None:
        store = valkey_server(self.place, who) if self.whole else self.place.programs / "valkey-server"
        values = addresses.values(self.place, who, self.ports, self.postgres.binaries, store)
        self.state.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name}={value}\n" for name, value in values.items())
        write_private(self.state / "estate.env", text, 0o644)

    def base_backup(self, since: Path | None = None) -> Path:
        """Take a base backup of the database that takes writes and return its folder. Raises LabError.

        It holds what changed `since` that other backup, if one is given, else everything.
        """
        return self.primary.backup(since)

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
        for site in self.sites.values():
            yield from site.programs(self.whole)
        if self.whole:
            yield self._program("link", None, link.state(self.place))
            yield self._program("director", self.ports["director"], self.director.site())
        yield from map(self._program, CLUSTER if self.cluster else ())
        yield self._program("load")

    def _program(self, name: str, port: int | None = None, state: str | None = None) -> Program:
        found = daemons.running(self.place, name)
        return Program.of(name, found.pid if found else None, port, state=state)

    def start_worker(self, site: str, extra: Mapping[str, str] | None = None, seconds: float = 60) -> Process:
        """Start the worker of a site unless it runs (RECOVERY_SITE says which), and wait until it polls.

        It has the settings of this process's environment, this lab's state, and `extra` on top. It is lost with its
        site, started again by `heal`, and stopped by `down`. Raises LabError when it does not poll in that time.
        """
        return workers.start(self.place, self.state, site, extra or {}, seconds)

    def stop_worker(self, site: str) -> None:
        """Stop the worker of a site, if there is one, for good."""
        daemons.stop(self.place, [workers.name(site)], 10)
        daemons.forget(self.place, workers.name(site))

    def heal(self) -> Status:
        """Mend the link and start what does not run, as it was: who was a primary comes back as one.

        Unless the director points elsewhere: a site asks it before it opens a database, and one that was left behind
        stays shut (`boots`). What was stopped on purpose stays stopped, and nothing is made that is not there. Raises
        LabError.
        """
        with self.place.locked():
            sites = self.sites.values()
            if self.whole:
                daemons.revive(self.place, "link")
                link.wait(self.place, 10)
                link.ask(self.place, "open")
                self.director.start(self.primary.place.site)
            self._start_ssh()
            self._start_cluster()
            shut = {site.name for site in sites if not self.boots(site.name)}
            for site in sites:
                if site.place.data.exists() and site.name not in shut:
                    site.postgres.start()
            if self.whole:
                for site in sites:
                    site.revive_applications(serves=site.name not in shut)
            for site in sites:
                workers.revive(self.place, site.name, 60)
            daemons.revive(self.place, "load")
            return self.status()

    def boots(self, site: str) -> bool:
        """Tell whether a site may open its database when it starts: a standby always, a primary where clients are sent.

        What it remembers of itself is what it was when it went down. A director that does not answer says no.
        """
        return not self.whole or self.databases[site].standby() or self.director.site() == site

    def break_(self, kind: Kind | str) -> Accident:
        """Cause an accident, write it down, and say when it was. Raises LabError, ValueError (kind)."""
        kind = Kind(kind)
        if not self.place.marker.exists():
            raise LabError(f"no lab in {self.place.root}: `lab up` makes one")
        with self.place.locked():
            accident = breaking.cause(self, kind)
            with closing(ledger.Log(self.place.accidents)) as log:
                log.add(**accident.model_dump(mode="json"))
            return accident

    def down(self, purge: bool = True) -> None:
        """Stop everything, restored copies and remote commands too; purge: and delete every file.

        Raises BadPlace when the folder is no lab (nothing is deleted), LabError when a process survives.
        """
        if not self.place.root.exists():
            return
        with self.place.locked():
            if self.place.marker.exists():
                # The load first: what it writes down must not be an outage that we make ourselves.
                daemons.stop(self.place, ["load"])
                daemons.stop(self.place, map(workers.name, SITES), 10)
                # A primary would wait for a standby that it does not reach; a connection that breaks is no use to it.
                cut = ["link"] if link.state(self.place) != "open" else []
                daemons.stop(self.place, [*(of(site, "sshd") for site in SITES), *cut])
                self._stop_databases(quick=purge)
                daemons.stop(self.place, CLUSTER, 0)
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
