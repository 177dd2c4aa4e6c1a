"""Which backups and which log lie somewhere, and what of the log lies nowhere but with the running database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities import ssh
from activities.backups import Range, runs
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.errors import RecoveryError
from recovery.models import Wire

TRIES = 5
"""How often a host is asked before it counts as out of reach: within half a minute."""


class AskHoldings(Spec):
    """Ask what lies in ``backups`` and ``archive`` on a host, and has done so for ``settled`` seconds.

    ``segment`` is the size of a segment of the log, in bytes. Where its files are ``packed`` (compressed, encrypted),
    their names go on, and their sizes tell nothing.
    """

    host: HostAt
    backups: str
    archive: str
    segment: int
    settled: int = 0
    packed: bool = False

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``holdings``."""
        return self.model_dump(include={"backups", "archive", "settled"})


class HeldBackup(Wire):
    """A backup as it lies somewhere: the SHA-256 of its manifest, how many files it has and their bytes."""

    name: str
    manifest: str
    files: int
    size: int


class Held(Wire):
    """What lies somewhere: whole backups by name, and unbroken runs of log; ``faults`` say what could not be seen.

    ``histories`` are the files that tell how the log came to a timeline.
    """

    backups: tuple[HeldBackup, ...] = ()
    log: tuple[Range, ...] = ()
    histories: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


class Holdings(Probe[AskHoldings, Held]):
    """List backups by their manifests, and log by its segments."""

    name = "backups.holdings"
    limit = timedelta(minutes=10)  # the files of large backups are counted

    async def observe(self, spec: AskHoldings) -> Held:
        """Look on the host; one command. Not to reach it is no failure here, but what is found."""
        try:
            text = await ssh.look(spec.host, "holdings", spec.values(), ssh.within(self.limit))
        except RecoveryError as error:
            if error.retry and activity.info().attempt < TRIES:
                raise
            return Held(faults=(error.message,))
        return held(text, spec.segment, spec.packed)


PACKED = re.compile(
    r"^wal\t([0-9A-F]{24}|[0-9A-F]{8}\.history)(?:\.(?!partial\b|backup\b|tmp\b)[A-Za-z0-9]+)*\t\d+$", re.MULTILINE
)
"""A file of the log whose name goes on, but for one that is not whole."""
holdings = Holdings()


def held(text: str, segment: int, packed: bool = False) -> Held:
    """Return what the script ``holdings`` printed; a segment of a wrong size counts as missing."""
    if packed:
        text = PACKED.sub(rf"wal\t\1\t{segment}", text)
    backups, log, histories, faults = [], [], [], []
    for line in text.splitlines():
        match line.split("\t"):
            case ["backup", name, manifest, files, size]:
                backups.append(HeldBackup(name=name, manifest=manifest, files=int(files), size=int(size)))
            case ["wal", name, _] if name.endswith(".history"):
                histories.append(name)
            case ["wal", name, size]:
                log.append((name, int(size)))
            case ["fault", said]:
                faults.append(said)
    found = tuple(runs(log, segment, None))
    return Held(backups=tuple(backups), log=found, histories=tuple(sorted(histories)), faults=tuple(faults))


class AskUnarchived(Spec):
    """Ask for the log that the running database in ``data`` has from the segment ``next`` on."""

    host: HostAt
    bin: str
    data: str
    next: str

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``unarchived``."""
        return self.model_dump(include={"bin", "data", "next"})


class Unarchived(Wire):
    """The first commit (UTC) that lies with the running database alone; None: there is none.

    ``read`` tells whether its log could be read at all.
    """

    read: bool = False
    first: datetime | None = None


class LookUnarchived(Probe[AskUnarchived, Unarchived]):
    """Look for the first commit that would be lost with the running database."""

    name = "backups.unarchived"

    async def observe(self, spec: AskUnarchived) -> Unarchived:
        """Look on the host; one command."""
        text = await ssh.look(spec.host, "unarchived", spec.values())
        said = dict(line.split("\t", maxsplit=1) for line in text.splitlines() if "\t" in line)
        first = datetime.fromisoformat(said["commit"].strip()).replace(tzinfo=UTC) if "commit" in said else None
        return Unarchived(read="log" in said, first=first)


unarchived = LookUnarchived()
