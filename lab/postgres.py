"""PostgreSQL of the site `north`: made, started, filled, backed up, stopped."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString

import psycopg

from lab import processes
from lab.place import LabError, Place, Runner, environment
from lab.processes import Process

SEEDED = "select to_regclass('public.customers') is not null"

SEED: LiteralString = """
create extension amcheck;
create table customers (id bigint primary key, name text not null);
create table orders (
    number bigint primary key, customer text not null, amount numeric(10, 2) not null,
    placed_at timestamptz not null default clock_timestamp());
insert into customers select id, 'customer ' || id from generate_series(1, 200) as id;
create role app login;
grant select, insert, update on customers, orders to app;
"""


@dataclass(frozen=True)
class Postgres:
    """One PostgreSQL server, its archive and its base backups."""

    place: Place
    who: Runner
    binaries: Path
    port: int
    passwords: Mapping[str, str]

    def run(self, program: str, *arguments: str | Path, seconds: float = 120) -> str:
        """Run one of its programs as the runner and return what it printed.

        Raises LabError with the last lines of its output when it fails or takes longer.
        """
        command = [self.binaries / program, *arguments]
        # Output goes to a file: pg_ctl leaves a server behind that would hold a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            code: int | str
            try:
                code = subprocess.run(
                    command, cwd=self.place.north, env=environment(self.place), timeout=seconds,
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, **self.who.drop(),
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = f"no end after {seconds:g} s"
            output.seek(0)
            text = output.read().decode(errors="replace")
        if code != 0:
            raise LabError(f"{program}: {code}: {text[-800:].strip()}")
        return text

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        """Connect as `postgres` over the unix socket, in autocommit."""
        # fmt: off
        where = psycopg.conninfo.make_conninfo(
            host=str(self.place.sockets), port=self.port, dbname=database, user="postgres", connect_timeout=5,
            options="-c statement_timeout=30s -c lock_timeout=10s")
        # fmt: on
        return psycopg.connect(where, autocommit=True)

    def create(self) -> None:
        """Make the data directory unless it is there; one that was left half made is made again.

        Raises LabError where a recovery has put one aside: a new one would hide it, and stand in that recovery's way.
        """
        data, partial = self.place.data, self.place.north / "data.partial"
        if data.exists():
            return
        if fenced := self.fenced():
            raise LabError(
                f"no database in {data}, and a fenced one in {', '.join(map(str, fenced))}: end the recovery that put"
                " it there, or move it back, or take the lab down"
            )
        shutil.rmtree(partial, ignore_errors=True)
        password = self.place.home / ".password"
        self._write(password, self.passwords["postgres"] + "\n")
        settings = [f"--set={name}={value}" for name, value in self._settings().items()]
        # fmt: off
        self.run("initdb", "-D", partial, "-U", "postgres", "--locale=C", "--encoding=UTF8",
                 "--wal-segsize=1", "--auth-host=scram-sha-256", "--auth-local=peer",
                 f"--pwfile={password}", *settings)
        # fmt: on
        password.unlink()
        callers = {self.who.name, "root"} if os.geteuid() == 0 else {self.who.name}
        identities = "".join(f"lab {name} {role}\n" for name in sorted(callers) for role in ("postgres", "app"))
        self._write(partial / "pg_ident.conf", identities)
        rules = "".join(f"local {database} all peer map=lab\n" for database in ("all", "replication"))
        self._write(partial / "pg_hba.conf", f"{rules}host all all 127.0.0.1/32 scram-sha-256\n")
        partial.rename(data)

    def fenced(self) -> list[Path]:
        """Return the data directories that recoveries have put aside."""
        return sorted(self.place.north.glob(f"{self.place.data.name}.fenced-*"))

    def _settings(self) -> dict[str, str]:
        return {
            "cluster_name": "north",
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.place.sockets),
            "unix_socket_permissions": "0700",
            "shared_buffers": "16MB",
            "max_connections": "40",
            "dynamic_shared_memory_type": "mmap",  # a killed server leaves nothing in /dev/shm
            "fsync": "on",
            "wal_level": "replica",
            "track_commit_timestamp": "on",
            "archive_mode": "on",
            "archive_command": _archive_command(self.place.archive),
            "archive_timeout": "30s",  # bounds what an idle site can lose with its disk
            "timezone": "UTC",
            "log_timezone": "UTC",
        }

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)
        self.who.own(path)

    def running(self) -> Process | None:
        """Return the postmaster of our data directory, whoever started it; None when there is none."""
        try:
            pid = int((self.place.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        # The file survives a kill -9 and its pid may be somebody else's by now: the folder decides.
        found = processes.look(pid)
        return found if found in processes.postgres_in(self.place.data) else None

    def start(self) -> None:
        """Start the server unless it runs, and wait until it takes connections (crash recovery included)."""
        if self.running():
            return
        if not processes.gone(processes.postgres_in(self.place.data), 10):
            raise LabError(f"processes of a killed PostgreSQL still run in {self.place.data}")
        self._clear_locks()
        log = self.place.north / "postgres.log"
        try:
            self.run("pg_ctl", "start", "--wait", "--timeout=60", "-D", self.place.data, "-l", log)
        except LabError as error:
            raise LabError(f"{error}\n{log}: {log.read_text()[-500:] if log.exists() else 'empty'}") from error

    def _clear_locks(self) -> None:
        # No process of ours is left, or we would not be here. PostgreSQL alone would not believe it: to it
        # a zombie that init has not reaped yet, or a stranger that got the pid, is a running server.
        discard_memory(self.place.data, self.who)
        (self.place.data / "postmaster.pid").unlink(missing_ok=True)
        (self.place.sockets / f".s.PGSQL.{self.port}.lock").unlink(missing_ok=True)

    def seed(self) -> None:
        """Make the database `orders` with its tables, once; a table that was dropped later stays dropped."""
        try:
            self._seed()
        except psycopg.Error as error:
            raise LabError(f"PostgreSQL cannot be filled: {str(error).strip()}") from error

    def _seed(self) -> None:
        with self.connect("postgres") as connection:
            connection.execute("create extension if not exists amcheck")
            if not connection.execute("select 1 from pg_database where datname = 'orders'").fetchone():
                connection.execute("create database orders")
        with self.connect("orders") as connection, connection.transaction():
            if connection.execute(SEEDED).fetchone() == (True,):
                return
            connection.execute(SEED)
            secret = psycopg.sql.Literal(self.passwords["app"])
            connection.execute(psycopg.sql.SQL("alter role app password {}").format(secret))

    def backup(self) -> Path:
        """Take a base backup and return its folder, named by the UTC time at which it began.

        WAL is not in it: the archive has it. A backup that failed stays behind as `.partial`.
        """
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        partial, final = self.place.backups / f"{name}.partial", self.place.backups / name
        # fmt: off
        self.run("pg_basebackup", "-D", partial, "-h", self.place.sockets, "-p", str(self.port),
                 "-U", "postgres", "--checkpoint=fast", "--wal-method=none", f"--label={name}")
        # fmt: on
        partial.rename(final)
        return final

    def backed_up(self) -> tuple[str, ...]:
        """Return the names of all complete base backups, oldest first."""
        found = self.place.backups.glob("*") if self.place.backups.exists() else ()
        return tuple(sorted(path.name for path in found if path.suffix != ".partial"))

    def archived(self) -> tuple[str, ...]:
        """Return the names of all archived WAL segments, oldest first."""
        found = self.place.archive.iterdir() if self.place.archive.exists() else ()
        return tuple(sorted(path.name for path in found if len(path.name) == 24))

    def stop(self, *, quick: bool) -> None:
        """Stop the server: quick for one that is thrown away, else with a checkpoint and all WAL archived."""
        if postmaster := self.running():
            processes.stop([postmaster], signal.SIGQUIT if quick else signal.SIGINT, 30)


def discard_memory(folder: Path, who: Runner) -> None:
    """Remove the shared memory that killed servers in a folder, or below it, left behind."""
    segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    unused = {(line[0], line[1]) for line in segments if line[6] == "0"}  # key, id, number attached
    for path in folder.rglob("postmaster.pid"):
        lines = path.read_text().splitlines()
        if len(lines) > 6 and tuple(lines[6].split()) in unused:
            subprocess.run(["ipcrm", "-m", lines[6].split()[1]], check=False, **who.drop())


def _archive_command(archive: Path) -> str:
    # PostgreSQL may offer a segment again that it archived just before it was killed: the same content
    # is success (else archiving stops for ever), another content is a failure, never an overwrite.
    final, partial = f"{archive}/%f", f"{archive}/.%f.partial"
    store = f"cp %p {partial} && sync {partial} && mv {partial} {final} && sync {archive}"
    return f"if test -f {final}; then cmp -s %p {final}; else {store}; fi"
