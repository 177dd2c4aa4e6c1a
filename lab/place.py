"""Where a lab lives on this machine, and as whom its servers run."""

import fcntl
import hashlib
import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
SITES = ("north", "south")
MEMBER = "RECOVERY_LAB_MEMBER"  # in the environment of every process of a lab: the path of its root
MEMBER_OF = "RECOVERY_LAB_SITE"  # and of every process at one of its sites: the name of the site
LONGEST_ROOT = 80  # bytes; a unix socket path has 107 at most, and `/north/run/.s.PGSQL.NNNNN` is added


class LabError(Exception):
    """The lab could not do what was asked; the message says what to look at."""


class BadPlace(LabError, ValueError):
    """The folder given for the lab cannot hold one; nothing was changed."""


@dataclass(frozen=True)
class Runner:
    """The operating system user that runs PostgreSQL and every remote command."""

    name: str
    uid: int
    gid: int

    def drop(self) -> dict[str, Any]:
        """Return what subprocess needs to become this user; empty when we are it already."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or folder to this user; only root can, and only root needs to."""
        if os.geteuid() != self.uid:
            os.chown(path, self.uid, self.gid)


def runner() -> Runner:
    """Return `nobody` for root, because PostgreSQL refuses root, and else the calling user."""
    who = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    return Runner(who.pw_name, who.pw_uid, who.pw_gid)


def state_dir() -> Path:
    """Return the folder of this checkout's state: RECOVERY_STATE, else `.state` in the repository."""
    return Path(os.environ.get("RECOVERY_STATE") or REPOSITORY / ".state").absolute()


def lab_root() -> Path:
    """Return the lab's own folder: RECOVERY_LAB, else a short one in /var/tmp, one per state folder."""
    if given := os.environ.get("RECOVERY_LAB"):
        return Path(given).absolute()
    digest = hashlib.sha256(str(state_dir()).encode()).hexdigest()[:8]
    return Path(f"/var/tmp/recovery-lab-{os.getuid()}-{digest}")


@dataclass(frozen=True)
class Place:
    """Every path of one lab, by its meaning: those of all of it, and those of one of its sites."""

    root: Path
    site: str = "north"

    def at(self, site: str) -> "Place":
        """Return the same lab's paths with those of another site."""
        return replace(self, site=site)

    @property
    def marker(self) -> Path:
        """The file that says that this folder is a lab; it also remembers the ports."""
        return self.root / "lab.json"

    @property
    def lock(self) -> Path:
        """Held while the lab is being changed."""
        return self.root / "lock"

    @property
    def secrets(self) -> Path:
        """Passwords of the database roles, 0600, never printed."""
        return self.root / "secrets.json"

    @property
    def run(self) -> Path:
        """Which processes were started (pid and start time), one file each."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Output of the SSH server and of the load generator."""
        return self.root / "logs"

    @property
    def ssh(self) -> Path:
        """Keys and known_hosts of the SSH server and of its one client."""
        return self.root / "ssh"

    @property
    def load(self) -> Path:
        """What the load generator wrote down."""
        return self.root / "load"

    @property
    def accidents(self) -> Path:
        """One JSON line for each accident that was caused on purpose."""
        return self.root / "accidents.jsonl"

    @property
    def install(self) -> Path:
        """A copy of the PostgreSQL programs, made only when the runner cannot reach the installed ones."""
        return self.root / "postgres"

    @property
    def programs(self) -> Path:
        """The lab's own programs for its hosts; the runner can execute them."""
        return self.root / "bin"

    @property
    def director(self) -> Path:
        """What the traffic director keeps: its configuration, also over a restart."""
        return self.root / "director"

    @property
    def kubernetes(self) -> Path:
        """What the cluster keeps: data of etcd, certificate, and a kubeconfig for each of its users."""
        return self.root / "kubernetes"

    @property
    def north(self) -> Path:
        """The folder of the site `north`; owned by the runner."""
        return self.root / "north"

    @property
    def folder(self) -> Path:
        """The folder of this site; owned by the runner."""
        return self.root / self.site

    @property
    def host_key(self) -> Path:
        """The private key by which this site's SSH server is known."""
        return self.ssh / f"{self.site}_host_key"

    @property
    def data(self) -> Path:
        """Data directory of this site's PostgreSQL."""
        return self.folder / "data"

    @property
    def sockets(self) -> Path:
        """Unix sockets of this site's PostgreSQL."""
        return self.folder / "run"

    @property
    def archive(self) -> Path:
        """Archived WAL segments, each complete under its own name."""
        return self.folder / "archive"

    @property
    def backups(self) -> Path:
        """Complete base backups, named by the UTC time at which they began."""
        return self.folder / "backups"

    @property
    def copies(self) -> Path:
        """Where recoveries restore copies of the database to."""
        return self.folder / "copies"

    @property
    def jobs(self) -> Path:
        """Where remote jobs keep their lock, pid, output and exit code."""
        return self.folder / "jobs"

    @property
    def home(self) -> Path:
        """HOME of every remote command."""
        return self.folder / "home"

    @property
    def valkey(self) -> Path:
        """Configuration, data, log and password of this site's session store."""
        return self.folder / "valkey"

    @property
    def orders(self) -> Path:
        """This site's order application: how it is started and stopped, its configuration, its log."""
        return self.folder / "orders"

    @property
    def repository(self) -> Path:
        """The Git repository with the configuration of the order applications."""
        return self.root / "shop.git"

    @property
    def storefront(self) -> Path:
        """The Git repository with the manifests of the storefront."""
        return self.root / "storefront.git"

    @property
    def passfile(self) -> Path:
        """The password with which this site's PostgreSQL replicates the other's, 0600, for libpq."""
        return self.home / ".pgpass"

    def check(self) -> None:
        """Refuse a root that no lab can live in.

        Raises BadPlace: unusable characters (the path goes into archive_command), too long, a link, or
        somebody else's.
        """
        text = str(self.root)
        if not re.fullmatch(r"/[A-Za-z0-9._/-]+", text) or ".." in self.root.parts:
            raise BadPlace(f"RECOVERY_LAB: only letters, digits and ._-/ can be used, not {text!r}")
        if len(text) > LONGEST_ROOT:
            raise BadPlace(f"RECOVERY_LAB: at most {LONGEST_ROOT} characters (unix sockets): {text}")
        if not os.path.lexists(self.root):
            return
        found = self.root.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise BadPlace(f"RECOVERY_LAB: {text} is not a folder of this user")

    def check_content(self) -> None:
        """Refuse a folder that holds something else than a lab: `down` would delete it. Raises BadPlace."""
        known = {self.lock, self.marker, partial_of(self.marker)}
        if self.root.exists() and set(self.root.iterdir()) - known and not self.marker.exists():
            raise BadPlace(f"RECOVERY_LAB: {self.root} holds something else than a lab")

    def make(self, who: Runner) -> None:
        """Make every folder that is missing, with its owner and rights."""
        for folder in (self.run, self.logs, self.ssh, self.load, self.director):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.programs.mkdir(exist_ok=True)
        self.programs.chmod(0o755)  # whatever the umask
        for site in map(self.at, SITES):
            for folder in (
                site.folder, site.sockets, site.archive, site.backups, site.copies, site.jobs, site.home,
                site.valkey, site.orders, site.orders / "config",
            ):  # fmt: skip
                folder.mkdir(mode=0o700, exist_ok=True)
                who.own(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the root and hold its lock, so that two commands at once cannot make two labs of it."""
        self.check()
        if not self.lock.exists():
            self.check_content()  # now, so that not even the lock file is put into a foreign folder
        while True:
            self.root.mkdir(mode=0o755, exist_ok=True)
            self.root.chmod(0o755)  # whatever the umask: the runner has to pass through
            handle = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                # A `down` that held the lock before us may have deleted it: then ours locks nothing.
                if self.lock.exists() and os.fstat(handle).st_ino == self.lock.stat().st_ino:
                    self.check_content()
                    yield
                    return
            finally:
                os.close(handle)


def partial_of(path: Path) -> Path:
    """Return the name under which a file is written before it is whole."""
    return path.with_name(path.name + ".partial")


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a whole file or none, readable by nobody else from its first byte on."""
    partial = partial_of(path)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        os.fsync(file.fileno())
    partial.replace(path)


def environment(place: Place, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the clean environment of everything that runs at a site, marked as a member of it."""
    path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    clean = {"PATH": path, "HOME": str(place.home), "LANG": "C.UTF-8"}
    return clean | {MEMBER: str(place.root), MEMBER_OF: place.site} | dict(extra or {})
