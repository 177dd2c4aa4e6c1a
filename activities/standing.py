"""The running PostgreSQL database as a cut-over finds it, and what stands in the way of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from activities import ssh
from activities.scripts import NATIVE
from activities.sources import Source
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.models import Wire

MARGIN = 256 * 1024 * 1024
"""Bytes that stay free beside an export."""

BARS = {
    "link": "data: is a link; name the folder itself in the estate",
    "mount": "data: is a mount point, which cannot be renamed; keep the data in a folder below it",
    "device": "copies: lie on another file system than data; the restored copy could not take its place at once",
    "parent": "data: the folder above it cannot be written by this login, so the data cannot be put aside",
    "owner": "data: does not belong to this login; log in as the user whom the server runs as",
    "wal": "data: pg_wal is a link; a cut-over does not know yet how to move it",
    "fenced": "data: something stands already where the running database would be put aside; look at it, move it",
}
"""What bars a data directory from being put aside, in words."""

SUPERVISORS = ("patroni", "repmgrd", "supervisord", "runsv", "s6-supervise", "pg_autoctl", "stolon-keeper", "monit")
METHODS = ("trust", "peer", "scram-sha-256", "md5", "password")
"""What may let this login in; the options of any other method are not even looked at, for they hold passwords."""


class LookAtRunning(Spec):
    """Look at the running database in ``data``; it would be put aside as ``fenced``, ``copies`` hold its heir.

    ``source`` is who keeps its backups: a tool is asked whether it would take the next one.
    """

    host: HostAt
    bin: str
    dbname: str
    dbuser: str
    data: str
    copies: str
    copy_dir: str
    fenced: str
    sockets: str
    port: int
    source: Source = Source()

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``standing``."""
        return self.source.values() | {
            "bin": self.bin, "dbname": self.dbname, "dbuser": self.dbuser, "data": self.data, "copies": self.copies,
            "copy": self.copy_dir, "fenced": self.fenced, "sockets": self.sockets, "port": self.port,
            "methods": " ".join(METHODS),
        }  # fmt: skip


class Connected(Wire):
    """Sessions of one user, application and address."""

    user: str
    application: str
    address: str
    sessions: int


class Standing(Wire):
    """The running database. ``rule`` lets this login in over the socket, ``rules`` is the SHA-256 of pg_hba.conf.

    Of the options of ``rule`` only a map has its value here: others are passwords. ``bars`` and ``outside`` say what of
    its folder stands in the way; what follows ``live`` is known only where the server answers. ``spare`` counts tables
    in the database `postgres`, ``workers`` are extensions' processes. ``unbacked`` is why the tool that keeps its
    backups would not take the next one.
    """

    identity: str = ""
    serving: bool = False
    live: bool = False
    hangs: str = ""
    version: int = 0
    timeline: int = 0
    bars: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    unbacked: tuple[str, ...] = ()
    rule: str = ""
    rules: str = ""
    free: int | None = None
    log: str = ""
    parent: str = ""
    service: str = ""
    recovery: bool = False
    superuser: bool = True
    replication: bool = True
    faulty: int = 0
    unread: bool = False
    included: tuple[str, ...] = ()
    prepared: int = 0
    standbys: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    tablespaces: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    superusers: tuple[str, ...] = ()
    connected: tuple[Connected, ...] = ()
    spare: int = 0
    archive_library: str = ""
    archive_command: bool = True
    archive_mode: str = "on"
    synchronous: str = ""
    senders: int = 1
    commit_times: bool = False
    size: int = 0


class LookAtStanding(Probe[LookAtRunning, Standing]):
    """Look whether the running database can be put aside, and another one put in its place."""

    name = "postgres.standing"

    def title(self, spec: LookAtRunning) -> str:
        """Say what is looked at."""
        return f"look at the running {spec.system}"

    async def observe(self, spec: LookAtRunning) -> Standing:
        """Look; one command."""
        return standing(await ssh.look(spec.host, "standing", spec.values()))


look_at_standing = LookAtStanding()


def standing(text: str) -> Standing:
    """Return what the script ``standing`` printed."""
    rows = [line.split("\t", maxsplit=1) for line in text.splitlines() if "\t" in line]
    told: dict[str, str] = dict(row for row in rows if row[1])
    live: Mapping[str, Any] = json.loads(told["live"]) if "live" in told else {}
    facts: dict[str, Any] = {key: told[key] for key in _TOLD if key in told}
    facts |= {key: value for key, value in live.items() if value is not None}
    return Standing.model_validate(
        facts
        | {
            "bars": [value for key, value in rows if key == "bar"],
            "outside": [value for key, value in rows if key == "outside"],
            "unbacked": [value for key, value in rows if key == "unbacked"],
            "rule": live["rule"] or "" if live else told.get("written", ""),
            "live": bool(live),
            "serving": bool(live) or "hangs" in told,
        }
    )


_TOLD = ("identity", "version", "timeline", "rules", "free", "log", "parent", "service", "hangs", "spare")


def cut_over_blockers(found: Standing, kind: str = NATIVE) -> list[str]:
    """Return everything that stands in the way of a cut-over: the field, and what to do about it.

    ``kind`` is that of the backups: PostgreSQL's own tool needs a rule and a process for the next one.
    """
    if not found.identity:
        return ["data: is not there; a cut-over puts a running database aside, and there is none"]
    blockers = [BARS.get(bar, f"data: {bar}") for bar in found.bars]
    blockers += [f"configuration: {file} lies outside the data directory; it could not be told apart from the copy's"
                 for file in (*found.outside, *found.included)]  # fmt: skip
    blockers += [*_login(found), *found.unbacked]
    if found.hangs:
        blockers.append(f"running database: it runs and does not answer ({found.hangs}); end it, or let it go on")
    if found.parent in SUPERVISORS:
        blockers.append(f"supervisor: {found.parent} runs the server and would start it again; pause it")
    if found.free is not None and found.free < found.size + MARGIN:
        blockers.append(
            f"disk: {found.free // 2**20} MiB are free for the export of what the copy lacks, up to"
            f" {(found.size + MARGIN) // 2**20} MiB may be needed; free room"
        )
    return blockers + _lost(found) + _archiving(found) + (_streaming(found) if kind == NATIVE else [])


def _login(found: Standing) -> list[str]:
    method, *options = found.rule.split() or [""]
    blockers = []
    if not found.superuser:
        blockers.append("user: is no superuser; it could neither end clients nor promote")
    if not found.rule:
        blockers.append("pg_hba.conf: no local rule lets this login in; add one: it stays while clients are refused")
    elif method not in METHODS or any(not option.startswith("map=") for option in options):
        blockers.append(f"pg_hba.conf: the rule of this login ({method}) holds more than a map; give it a simple one")
    if found.faulty or found.unread:
        blockers.append("pg_hba.conf: it is not what the server goes by (faulty, or not read since); mend and reload")
    return blockers


def _lost(found: Standing) -> list[str]:
    """Say what of the running database would not come back with the copy, or would be cut off."""
    said = {
        "prepared transactions": (str(found.prepared or ""), "commit or roll them back"),
        "standbys": (", ".join(found.standbys), "they cannot follow the restored database; detach them first"),
        "replication slots": (", ".join(found.slots), "they would be lost; drop them, and tell their readers"),
        "tablespaces": (", ".join(found.tablespaces), "a cut-over does not know yet how to move them"),
        "subscriptions": (", ".join(found.subscriptions), "they go on writing; disable them"),
        "background workers": (", ".join(found.workers), "they may go on writing; stop them"),
        "databases": (", ".join(found.databases), "the whole server goes back, and these with it; move them out first"),
        "tables in the database postgres": (str(found.spare or ""), "they go back, and are not exported; move them"),
        "synchronous_standby_names": (found.synchronous, "the restored database has no standby, commits would hang"),
    }
    blockers = [f"{field}: {what}: {then}" for field, (what, then) in said.items() if what]
    if found.recovery:
        blockers.append("running database: it is a standby itself; cut over where its primary is")
    return blockers


def _archiving(found: Standing) -> list[str]:
    if not found.live:
        return []
    blockers = []
    if found.archive_library:
        blockers.append(f"archive_library: {found.archive_library}: only an archive_command can be switched off and on")
    elif not found.archive_command:
        blockers.append(
            "archive_command: is empty, or given on the command line; set it in a file of the data directory"
        )
    if found.archive_mode != "on":
        blockers.append(f"archive_mode: is {found.archive_mode}; a cut-over knows only on")
    return blockers


def _streaming(found: Standing) -> list[str]:
    """Say what keeps PostgreSQL's own tool from the next base backup."""
    blockers = []
    if not found.replication:
        blockers.append("pg_hba.conf: no local rule lets this login replicate; without it there is no base backup")
    if found.live and found.senders < 1:
        blockers.append("max_wal_senders: is 0; without one there is no base backup")
    return blockers
