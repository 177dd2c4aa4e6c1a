"""What a restore costs beside the bare tool that took the backup, for each kind of backups, on the same data."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from activities import ssh
from activities.backups import backups
from activities.postgres import place, ready, replay
from activities.side_copy import SideCopy, assess
from bench.restore import lab_apart
from lab import processes
from lab.estate import Lab
from lab.place import environment
from lab.ports import choose as free_ports
from lab.programs import binaries
from runbooks.procedures.database_point_in_time_restore import Parameters
from runbooks.schema import Backups, Database
from tests.branches import host
from tests.repositories import PORT, SERVER, Repository, barman, here, pgbackrest

MEGABYTES = 2000
"""Of the database."""
KINDS = os.environ.get("BENCH_KINDS", "native,barman,pgbackrest").split(",")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "2"))
INCREMENTALS = 3
CHANGED = 3
"""Per cent of the rows, before each incremental backup and after the last one."""
SEGMENT = 16
"""Megabytes, as usual."""
ROW = 1000
"""Bytes, nearly."""
LIMIT = 1800
"""Seconds that filling, or a restore by hand, may take."""
READABLE = "select pg_get_wal_replay_pause_state()"


class Native(Repository):
    """PostgreSQL 18 of the wheel with backups of its own tools in a folder."""

    kind = "native"

    def make(self) -> None:
        """Make the database."""
        archive = self.place.archive
        command = f"cp %p {archive}/.%f && mv {archive}/.%f {archive}/%f"
        self.create(f"summarize_wal = on\narchive_command = '{command}'\n")

    def back_up(self, incremental: bool = False) -> str:
        """Take a backup and return its folder."""
        there = sorted(self.place.backups.iterdir())
        chain = [f"--incremental={there[-1]}/backup_manifest"] if incremental else []
        backup = self.place.backups / f"{len(there)}"
        where = ["-h", str(self.place.sockets), "-p", str(PORT), "-U", "postgres"]
        self.run(self.binaries / "pg_basebackup", "-D", backup, "-c", "fast", *where, *chain, seconds=LIMIT)
        return str(backup)

    def archive(self) -> str:
        """Wait until the database has archived what there is."""
        return self.archived()


@contextmanager
def native(segments: int) -> Iterator[Native]:
    """Run a PostgreSQL whose backups lie in a folder; none has been taken yet."""
    with here() as (site, who):
        binary = binaries(site, who)
        found = Native(site, who, binary, binary, kind="native", segments=segments)
        found.make()
        yield found


MAKERS: dict[str, Callable[[int], AbstractContextManager[Repository]]] = {
    "native": native, "barman": barman, "pgbackrest": pgbackrest,
}  # fmt: skip


@dataclass
class Filled:
    """A large database and its backups; ``target`` is a moment after them."""

    at: Repository
    lab: Lab
    taken: list[str] = field(default_factory=list)
    target: datetime = datetime.min
    last: int = 0
    megabytes: int = MEGABYTES

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.megabytes * 1_000_000 // ROW

    @property
    def changed(self) -> int:
        """How many change each time."""
        return self.rows * CHANGED // 100

    def fill(self) -> None:
        """Write the rows: neither synced nor archived, which nobody asks about."""
        self.at.ask("drop table away")
        self.at.ask("drop tablespace far")  # the tools would have to be told where another one lies
        self._set("shared_buffers = '128MB'", "fsync = off", "max_wal_size = '2GB'", "archive_command = 'true'")
        self.at.run(self.at.binaries / "pg_ctl", "-D", self.at.place.data, "-w", "-m", "fast", "stop")
        self.at.start(self.at.place.data)
        many = "insert into accounts select i, 0, repeat(md5(i::text), 28) from generate_series(1, %d) i"
        self._write("create table accounts (id bigint, balance int, filler text)")
        self._write(many % self.rows)
        self._write("alter table accounts add primary key (id)")
        self._write("vacuum analyze accounts")
        self._write("checkpoint")
        self._write("alter system reset archive_command")
        self._set("fsync = on")

    def _set(self, *settings: str) -> None:
        for setting in settings:
            self._write(f"alter system set {setting}")
        self._write("select pg_reload_conf()")

    def _write(self, sql: str) -> None:
        words = ["-wXAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.at.place.sockets), "-p", str(PORT)]
        self.at.run(self.at.binaries / "psql", *words, "-U", "postgres", "-d", "postgres", "-c", sql, seconds=LIMIT)

    def change(self) -> None:
        """Change some per cent of the rows, which lie together."""
        first = self.changed * self.last
        self._write(f"update accounts set balance = balance + 1 where id > {first} and id <= {first + self.changed}")
        self.last += 1

    def back_up(self, incremental: bool = False) -> None:
        """Take a backup of what has changed."""
        if incremental:
            self.change()
        self.taken.append(self.at.back_up(incremental))

    def go_on(self) -> None:
        """Write more log, and take a moment in it as the target: one before the last row that is committed."""
        time.sleep(2.1)  # the end of a backup is known to the second
        self.change()
        self._write(f"insert into rows values ({10 * self.last}, '')")
        time.sleep(1.1)
        self.target = datetime.now(UTC)
        time.sleep(1.1)
        self._write(f"insert into rows values ({10 * self.last + 1}, '')")
        self.at.archive()
        time.sleep(2)  # a moment is final a second later

    def copy(self) -> SideCopy:
        """Return the copy that the engine is to make."""
        site, at = self.at.place, self.at
        keeps = {"server": SERVER, "cli": str(at.cli), "configuration": str(at.configuration)}
        where = Backups(kind="native", folder=str(site.backups)) if at.kind == "native" else None
        database = Database(
            host="north-db", tier="gold", bin=str(at.binaries), data=str(site.data), sockets=str(site.sockets),
            port=PORT, name="postgres", user="postgres", copies=str(site.copies), drill=True,
            backups=where or Backups.model_validate({"kind": at.kind, **keeps}),
            archive=str(site.archive) if where else None,
            copy_ports=tuple(free_ports(("a", "b")).values()),
        )  # fmt: skip
        wanted = Parameters.model_validate({"target_time": self.target, "amcheck": False})
        return SideCopy("orders", database, host(self.lab), wanted, "bench", "r1")

    async def engine(self) -> dict[str, float]:
        """Return the seconds of each part of a restore by the engine's activities, up to a copy that can be read."""
        times = [time.perf_counter()]
        copy = self.copy()
        assessed = assess(copy, await backups.observe(copy.find()), await ready.observe(copy.room()))
        if assessed.choice is None or assessed.choice.backup.path != self.taken[-1]:
            raise RuntimeError(f"not the last backup: {assessed}")
        laid, on = copy.place(assessed.choice, assessed.port), copy.replay(assessed.choice, assessed.port)
        times.append(time.perf_counter())
        await place.apply(laid, await place.observe(laid))
        await place.halt(laid)
        times.append(time.perf_counter())
        await replay.apply(on, await replay.observe(on))
        await replay.halt(on)
        times.append(time.perf_counter())
        self._proven(Path(copy.directory()) / "run", assessed.port)
        self._clear()
        parts = zip(("looks", "laying down", "replay"), times, times[1:], strict=False)
        return {name: end - begin for name, begin, end in parts} | {"all": times[-1] - times[0]}

    def bare(self) -> dict[str, float]:
        """Return the same by hand: the tool, then the server, until it stands at the target and can be read."""
        copy = self.at.place.copies / "bare"
        port = free_ports(("bare",))["bare"]
        script = HEAD + BARE[self.at.kind] + REPLAY
        at, site = self.at, self.at.place
        values = {
            "BIN": at.binaries, "COPY": copy, "PORT": port, "ARCHIVE": site.archive, "CLI": at.cli,
            "CONFIGURATION": at.configuration, "SERVER": SERVER, "BACKUP": self.taken[-1],
            "CHAIN": " ".join(self.taken), "TARGET": self.target.isoformat(sep=" "), "READABLE": READABLE,
        }  # fmt: skip
        variables = {name: str(value) for name, value in values.items()}
        began = time.time()
        done = subprocess.run(
            ["sh", "-c", script], cwd=at.folder, env=environment(site, variables), text=True, capture_output=True,
            timeout=LIMIT, stdin=subprocess.DEVNULL, **at.who.drop(),
        )  # fmt: skip
        ended = time.time()
        if done.returncode:
            raise RuntimeError(f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
        self._proven(copy / "run", port)
        self._clear()
        laid = float(done.stdout.split()[-1])
        return {"laying down": laid - began, "replay": ended - laid, "all": ended - began}

    def _proven(self, sockets: Path, port: int) -> None:
        words = ["-wXAtq", "-h", str(sockets), "-p", str(port), "-U", "postgres", "-d", "postgres"]
        sql = "select max(number), (select sum(balance) from accounts) from rows"
        told = self.at.run(self.at.binaries / "psql", *words, "-c", sql)
        if told.strip() != f"{10 * self.last}|{self.changed * self.last}":
            raise RuntimeError(f"the copy is not as it was at the target: {told}")

    def _clear(self) -> None:
        processes.stop(processes.postgres_in(self.at.place.copies), signal.SIGQUIT, 30)
        for path in self.at.place.copies.iterdir():
            shutil.rmtree(path)


HEAD = """set -eu
umask 077
mkdir -p "$COPY/run"
"""
BARE = {
    "native": """
if [ "$BACKUP" = "$CHAIN" ]; then
    cp -a "$BACKUP" "$COPY/data"
else
    "$BIN/pg_combinebackup" -o "$COPY/data" $CHAIN
fi
touch "$COPY/data/recovery.signal"
cat >>"$COPY/data/postgresql.auto.conf" <<CONF
restore_command = 'cp "$ARCHIVE/%f" "%p"'
recovery_target_time = '$TARGET'
recovery_target_action = 'pause'
CONF
""",
    "barman": """
mkdir "$COPY/staged"
"$CLI" -c "$CONFIGURATION" restore --target-time "$TARGET" --target-action pause --get-wal \\
    --staging-path "$COPY/staged" --staging-location local "$SERVER" "$BACKUP" "$COPY/data"
echo "restore_command = '\\"$CLI\\" -c \\"$CONFIGURATION\\" get-wal $SERVER %f >%p'" >>"$COPY/data/postgresql.auto.conf"
""",
    "pgbackrest": """
mkdir "$COPY/lock"
"$CLI" --config="$CONFIGURATION" --stanza="$SERVER" restore --type=time --target="$TARGET" --target-action=pause \\
    --pg1-path="$COPY/data" --lock-path="$COPY/lock"
""",
}
"""What an administrator would type, as shell; nothing is checked that the tool does not check."""
REPLAY = """
date +%s.%N
cat >>"$COPY/data/postgresql.auto.conf" <<CONF
archive_mode = 'off'
port = '$PORT'
unix_socket_directories = '$COPY/run'
CONF
"$BIN/pg_ctl" -D "$COPY/data" -l "$COPY/log" -w -t 1800 start >/dev/null || { tail "$COPY/log" >&2; exit 1; }
ask() { "$BIN/psql" -wXAtq -h "$COPY/run" -p "$PORT" -U postgres -d postgres -c "$1" 2>/dev/null; }
until [ "$(ask "$READABLE")" = paused ]; do
    "$BIN/pg_ctl" -D "$COPY/data" status >/dev/null
    sleep 0.05
done
"""


async def measure(megabytes: int = MEGABYTES) -> dict[str, dict[str, object]]:
    """Return for each kind the seconds of both, alternately, with a database of this size.

    The backup was just taken, and is in the page cache of whoever has room for it. What is still to be written to the
    disk is written before each, so that neither pays for the other one.
    """
    found: dict[str, dict[str, object]] = {}
    with lab_apart(load=False) as lab:
        for kind in KINDS:
            with MAKERS[kind](SEGMENT) as at:
                filled = Filled(at, lab, megabytes=megabytes)
                filled.fill()
                filled.back_up()
                filled.go_on()
                found[f"{kind}, full"] = await _both(filled)
                for _ in range(INCREMENTALS):
                    filled.back_up(incremental=True)
                filled.go_on()
                found[f"{kind}, {INCREMENTALS} incremental"] = await _both(filled)
    await ssh.close()
    return found


async def _both(filled: Filled) -> dict[str, object]:
    engine: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        os.sync()
        bare.append(await asyncio.to_thread(filled.bare))
        os.sync()
        engine.append(await filled.engine())
        print(f"{filled.at.kind}: {_rounded(bare[-1])}, {_rounded(engine[-1])}", file=sys.stderr, flush=True)
    theirs, ours = ({part: median(one[part] for one in times) for part in times[0]} for times in (bare, engine))
    return {
        "bare tool, s": _rounded(theirs),
        "engine, s": _rounded(ours),
        "each, s": [[round(one["all"], 1), round(other["all"], 1)] for one, other in zip(bare, engine, strict=True)],
        "ratio": round(ours["all"] / theirs["all"], 3),
        "seconds beyond 1.05 times the tool (goal: at most 2)": round(ours["all"] - 1.05 * theirs["all"], 2),
    }


def _rounded(parts: dict[str, float]) -> dict[str, float]:
    return {part: round(seconds, 2) for part, seconds in parts.items()}
