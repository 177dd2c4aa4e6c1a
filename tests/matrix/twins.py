"""Two sites that switch again and again: made what they were at first by copying files, not by what is tried."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from activities.sites import Sites
from lab import processes
from lab.estate import Lab
from lab.place import SITES
from lab.postgres import Postgres
from recovery.models import Start
from runbooks.library import library
from runbooks.procedures.data_center_activation import Parameters
from tests.copies import parent
from tests.lab.pairs import ask
from tests.labs import lab_apart
from tests.matrix.relay import Relay, relay
from tests.running import ROOT

ROWS = "select count(*) || ' ' || coalesce(md5(string_agg(o::text, ',' order by number)), '') from orders o"
ROLE = "case when pg_is_in_recovery() then 'standby' else 'primary' end"


class Twins:
    """A lab without load, north its primary; SSH to each site goes through a relay of ``relays``."""

    def __init__(self, lab: Lab, relays: dict[str, Relay], folder: Path) -> None:
        self.lab, self.relays, self._first = lab, relays, lab.place.root / "first"
        start = Start(runbook="lab/activate-south", reason="a test", parameters={})
        frozen = library(ROOT / "runbooks", lab.state / "estate.env").freeze(start, "DataCenterActivation")
        self._systems, self._wanted = frozen.systems, Parameters.model_validate(frozen.parameters)
        self._estate: dict[str, Any] = json.loads(json.dumps(frozen.estate))
        known = (lab.place.ssh / "known_hosts").read_text()
        for host in self._estate["hosts"].values():
            port, host["known_hosts"] = relays[host["site"]].port, str(folder / host["site"])
            Path(host["known_hosts"]).write_text(known.replace(f"]:{host['port']} ", f"]:{port} "))
            host["port"] = port

    def sites(self) -> Sites:
        """Return the move to south as a recovery that nobody has seen yet."""
        return Sites(self._systems, self._estate, self._wanted, secrets.token_hex(4))

    def keep(self) -> None:
        """Remember what both sites are now."""
        self.pristine = self.stands()
        self._stop()
        for site in SITES:
            kept = self._first / site
            kept.mkdir(parents=True)
            for name in ("data", "archive"):
                _copy(self.lab.place.at(site).folder / name, kept / name)
        self._start()

    def restore(self) -> None:
        """Make both sites what they were."""
        self._stop(signal.SIGKILL)
        for site in SITES:
            folder = self.lab.place.at(site).folder
            for left in [*folder.glob("data*"), folder / "archive"]:
                left.unlink() if left.is_file() else shutil.rmtree(left)
            for name in ("data", "archive"):
                _copy(self._first / site / name, folder / name)
        self._start()

    def _stop(self, number: signal.Signals = signal.SIGINT) -> None:
        for site in SITES:  # north, the primary, first: it ends when its standby has everything
            running = postmasters(self.lab.place.at(site).folder)
            everything = processes.postgres_in(self.lab.place.at(site).folder)
            processes.stop(running if number == signal.SIGINT else everything, number, 20)

    def _start(self) -> None:
        for site in SITES:
            self.lab.databases[site].start()
        deadline = time.monotonic() + 20
        while follows(self.lab.databases["south"]) != self.reached("north"):
            assert time.monotonic() < deadline, "south does not replicate north"
            time.sleep(0.02)

    def reached(self, site: str) -> str:
        """Return the address at which the other site finds the database of a site."""
        return f"127.0.0.1:{self.lab.databases[site].reached}"

    def stands(self) -> object:
        """Return what both sites are, so exactly that a trial that left nothing is known."""
        return [*(self.shows(site) for site in SITES), follows(self.lab.databases["south"])]

    def retire(self, site: str = "north") -> None:
        """Stop a primary for good."""
        database = self.lab.databases[site]
        signal_file(database)
        database.stop(quick=False)

    def diverge(self) -> None:
        """Have south be a primary that lacks the last order of north, which was retired: they parted."""
        south, north = self.lab.databases["south"], self.lab.databases["north"]
        south.stop(quick=False)
        ask(north, "insert into orders (number, customer, amount) values (-1, 'lost', 1)")
        self.retire()
        south.start()
        ask(south, "select pg_promote(wait => true)")
        ask(south, "insert into orders (number, customer, amount) values (-2, 'new', 1)")

    def shows(self, site: str) -> dict[str, object]:
        """Return what a database is: by its files, its processes, and what it answers itself."""
        database, place = self.lab.databases[site], self.lab.place.at(site)
        running = postmasters(place.folder)
        role, rows = ask(database, f"select {ROLE} || '|' || ({ROWS})").split("|") if running else (ended(database), "")
        return {
            "folders": sorted(path.name for path in place.folder.glob("data*")),
            "signal": database.standby(),
            "settings": settings(place.data),
            "timelines": sorted({path.name[:8] for path in place.archive.glob("[!.]*")}),
            "servers": len(running),
            "log": [str(Path(f"/proc/{one.pid}/fd/1").readlink()) for one in running],
            "role": role,
            "rows": rows,
        }


def settings(data: Path) -> dict[str, tuple[str, int, int]]:
    """Return every file of settings in a data directory: its content, rights and owner."""
    files = [*sorted(data.glob("*.conf")), *sorted(data.glob("conf.d/*")), data / "postmaster.opts"]
    return {
        str(file.relative_to(data)): (file.read_text(), file.stat().st_mode, file.stat().st_uid)
        for file in files
        if file.exists()
    }


def ended(database: Postgres) -> str:
    """Return how a database that does not run was ended."""
    if not (database.place.data / "global" / "pg_control").exists():
        return "gone"
    told = database.run("pg_controldata", "-D", database.place.data)
    return next(line.partition(":")[2].strip() for line in told.splitlines() if "cluster state" in line)


def follows(database: Postgres) -> str:
    """Return whom a database replicates at this moment."""
    streaming = "select sender_host || ':' || sender_port from pg_stat_wal_receiver where status = 'streaming'"
    return ask(database, streaming) if postmasters(database.place.folder) else ""


def signal_file(database: Postgres) -> None:
    """Have a database come up as a standby from now on, as somebody would by hand."""
    file = database.place.data / "standby.signal"
    file.touch(mode=0o600)
    database.who.own(file)


def postmasters(folder: Path) -> list[processes.Process]:
    """Return the servers whose data lie in a folder, one process each."""
    found = processes.postgres_in(folder)
    pids = {process.pid for process in found} | {0}  # one that has just ended has no parent
    return [process for process in found if parent(process.pid) not in pids]


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)


async def twins(ends: AsyncExitStack, folder: Path) -> Twins:
    """Bring two sites up; ``ends`` takes them down, ``folder`` takes the known_hosts for the relays' ports."""
    lab = ends.enter_context(lab_apart())
    lab.up(south=True, load=False)
    relays = {site: await ends.enter_async_context(relay(lab.sites[site].port("ssh"))) for site in SITES}
    found = Twins(lab, relays, folder)
    found.keep()
    return found
