"""PostgreSQL of a site: made or cloned, started, filled, backed up, stopped."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString

import psycopg

from lab import processes
from lab.place import LabError, Place, Runner, environment, write_private
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

# It replicates and, after a switch, rewinds: pg_rewind reads the files of its source with these functions.
REPLICATOR: LiteralString = """
create role replicator login replication;
grant execute on function pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
    pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) to replicator;
"""


@dataclass(frozen=True)
class Postgres:
    """One site's PostgreSQL server, its archive and its base backups.

    `reached` is the port of this machine at which the other site finds it.
    """

    place: Place
    who: Runner
    binaries: Path
    port: int
    reached: int
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
                    command, cwd=self.place.folder, env=environment(self.place), timeout=seconds,
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
        if self.place.data.exists():
            return
        with self._making() as partial:
            password = self.place.home / ".password"
            self._write(password, self.passwords["postgres"] + "\n")
            settings = [f"--set={name}={value}" for name, value in (self._common() | self._own()).items()]
            # fmt: off
            self.run("initdb", "-D", partial, "-U", "postgres", "--locale=C", "--encoding=UTF8",
                     "--wal-segsize=1", "--auth-host=scram-sha-256", "--auth-local=peer", "--data-checksums",
                     f"--pwfile={password}", *settings)
            # fmt: on
            password.unlink()
            callers = {self.who.name, "root"} if os.geteuid() == 0 else {self.who.name}
            identities = "".join(f"lab {name} {role}\n" for name in sorted(callers) for role in ("postgres", "app"))
            self._write(partial / "pg_ident.conf", identities)
            rules = "".join(f"local {database} all peer map=lab\n" for database in ("all", "replication"))
            remote = "host all all 127.0.0.1/32 scram-sha-256\nhost replication replicator 127.0.0.1/32 scram-sha-256\n"
            self._write(partial / "pg_hba.conf", rules + remote)

    def clone(self, other: "Postgres") -> None:
        """Make the data directory a standby of the other site's server, which runs, unless it is there.

        Raises LabError as `create` does.
        """
        if self.place.data.exists():
            return
        with self._making() as partial:
            # fmt: off
            self.run("pg_basebackup", "-D", partial, "-d", other.upstream(self.place), "--checkpoint=fast",
                     "--wal-method=stream")
            # fmt: on
            configuration = partial / "postgresql.conf"
            self._write(configuration, _changed(configuration.read_text(), self._own()))
            # What a base backup brings with it of the other site's life says whom *that* one once followed.
            follows = f"primary_conninfo = '{other.upstream(self.place)}'\n"
            self._write(partial / "postgresql.auto.conf", follows)
            self._write(partial / "standby.signal", "")

    @contextmanager
    def _making(self) -> Iterator[Path]:
        data, partial = self.place.data, self.place.folder / "data.partial"
        if fenced := self.fenced():
            raise LabError(
                f"no database in {data}, and a fenced one in {', '.join(map(str, fenced))}: end the recovery that put"
                " it there, or move it back, or take the lab down"
            )
        shutil.rmtree(partial, ignore_errors=True)
        yield partial
        partial.rename(data)

    def upstream(self, follower: Place) -> str:
        """Return the connection string with which the other site replicates this server."""
        return upstream(self.reached, follower)

    def keep_password(self) -> None:
        """Write down the password with which this server replicates the other site's, for when it does."""
        self._write(self.place.passfile, f"127.0.0.1:*:*:replicator:{self.passwords['replicator']}\n")

    def standby(self) -> bool:
        """Say whether the server is a standby, or will be when it is started: recoveries change that."""
        return (self.place.data / "standby.signal").exists()

    def fenced(self) -> list[Path]:
        """Return the data directories that recoveries have put aside."""
        return sorted(self.place.folder.glob(f"{self.place.data.name}.fenced-*"))

    def _own(self) -> dict[str, str]:
        """Return what only this site's server is set to; all else is the same at both sites."""
        return {
            "cluster_name": self.place.site,
            "port": str(self.port),
            "unix_socket_directories": str(self.place.sockets),
            "archive_command": _archive_command(self.place.archive),
        }

    def _common(self) -> dict[str, str]:
        return {
            "listen_addresses": "127.0.0.1",
            "unix_socket_permissions": "0700",
            "shared_buffers": "16MB",
            "max_connections": "40",
            "dynamic_shared_memory_type": "mmap",  # a killed server leaves nothing in /dev/shm
            "fsync": "on",
            "wal_level": "replica",
            "track_commit_timestamp": "on",
            "archive_mode": "on",
            "archive_timeout": "30s",  # bounds what an idle site can lose with its disk
            # No slot: a standby that stays away would fill the disk, and after a switch, a rewind or a restore the
            # new primary has none. What is kept here also lets pg_rewind find where the two parted.
            "wal_keep_size": "64MB",
            # A link that is cut drops everything silently: found out in seconds, not minutes.
            "wal_sender_timeout": "10s",
            "wal_receiver_timeout": "10s",
            "wal_retrieve_retry_interval": "500ms",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }

    def _write(self, path: Path, text: str) -> None:
        write_private(path, text)
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
        log = self.place.folder / "postgres.log"
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
        with self.connect("postgres") as connection, connection.transaction():
            connection.execute("create extension if not exists amcheck")
            if not connection.execute("select 1 from pg_roles where rolname = 'replicator'").fetchone():
                connection.execute(REPLICATOR)
                connection.execute(self._password("replicator"))
        with self.connect("postgres") as connection:
            if not connection.execute("select 1 from pg_database where datname = 'orders'").fetchone():
                connection.execute("create database orders")
        with self.connect("orders") as connection, connection.transaction():
            if connection.execute(SEEDED).fetchone() == (True,):
                return
            connection.execute(SEED)
            connection.execute(self._password("app"))

    def _password(self, role: str) -> psycopg.sql.Composed:
        secret = psycopg.sql.Literal(self.passwords[role])
        return psycopg.sql.SQL("alter role {} password {}").format(psycopg.sql.Identifier(role), secret)

    def summarize(self) -> None:
        """Have it note which blocks change: a backup from now on can be the one that a later one begins with."""
        with self.connect("postgres") as connection:
            connection.execute("alter system set summarize_wal = on")
            connection.execute("select pg_reload_conf()")

    def backup(self, since: Path | None = None, spaces: Path | None = None) -> Path:
        """Take a base backup and return its folder, named by the UTC time at which it began.

        It holds what changed `since` that other backup, if one is given, else everything. WAL is not in it: the archive
        has it. `spaces` takes a folder for each tablespace. A backup that failed stays behind as `.partial`.
        """
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        partial, final = self.place.backups / f"{name}.partial", self.place.backups / name
        # fmt: off
        self.run("pg_basebackup", "-D", partial, "-h", self.place.sockets, "-p", str(self.port),
                 "-U", "postgres", "--checkpoint=fast", "--wal-method=none", f"--label={name}",
                 *([f"--incremental={since / 'backup_manifest'}"] if since else []),
                 *(f"--tablespace-mapping={_escaped(old)}={_escaped(spaces / name / old.name)}"
                   for old in self._tablespaces() if spaces))
        # fmt: on
        partial.rename(final)
        return final

    def _tablespaces(self) -> list[Path]:
        return [link.readlink() for link in sorted((self.place.data / "pg_tblspc").iterdir()) if link.is_symlink()]

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


def upstream(port: int, follower: Place) -> str:
    """Return the connection string with which the site `follower` replicates the server that it finds at a port."""
    return (
        f"host=127.0.0.1 port={port} user=replicator dbname=postgres application_name={follower.site}"
        f" passfile={follower.passfile} connect_timeout=5"
    )


def _changed(text: str, settings: Mapping[str, str]) -> str:
    """Return a postgresql.conf with other values for some settings."""
    kept = [line for line in text.splitlines() if line.partition("=")[0].strip() not in settings]
    return "\n".join([*kept, *(f"{name} = '{value}'" for name, value in settings.items())]) + "\n"


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("=", "\\=")


def _archive_command(archive: Path) -> str:
    # PostgreSQL may offer a segment again that it archived just before it was killed: the same content
    # is success (else archiving stops for ever), another content is a failure, never an overwrite.
    final, partial = f"{archive}/%f", f"{archive}/.%f.partial"
    store = f"cp %p {partial} && sync {partial} && mv {partial} {final} && sync {archive}"
    return f"if test -f {final}; then cmp -s %p {final}; else {store}; fi"
