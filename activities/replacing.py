"""What a cut-over needs, decided from what was found; pure: the specs of its steps, one method each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from activities.cut_over import CutSpec
from activities.door import AwaitWrite
from activities.proofs import Comparison, at_stake
from activities.redundancy import BackedUp, BackUp, BaseBackup
from activities.salvage import Salvaged, SalvageSpec
from activities.side_copy import SideCopy
from activities.sources import Source
from activities.standing import Connected, LookAtRunning, Standing
from recovery.details import span
from recovery.models import Wire


class Outlook(Wire):
    """What a cut-over means to people, as far as that is known before; who was connected when it was looked at."""

    at_stake: str
    in_words: tuple[str, ...]
    clients: tuple[Connected, ...] = ()


@dataclass(frozen=True)
class Replacing:
    """The place of the running database, for ``copy``."""

    copy: SideCopy

    @property
    def fenced(self) -> str:
        """Where the running database's data is put aside: beside it, so that one rename does it."""
        return f"{self.copy.database.data}.fenced-{self.copy.run[-8:]}"

    @property
    def exported(self) -> str:
        """Where the rows go that the copy lacks."""
        return f"{self.copy.directory()}.salvage"

    def look(self) -> LookAtRunning:
        """Return where the running database is."""
        made, d = self.copy.common(), self.copy.database
        where = {"sockets": d.sockets, "port": d.port, "data": d.data, "copies": d.copies}
        at = {"copy_dir": self.copy.directory(), "fenced": self.fenced, "source": Source.of(d)}
        return LookAtRunning(**made, **where, **at)

    def outlook(self, beyond: Comparison | None, standing: Standing, keep_for: timedelta, compared: float) -> Outlook:
        """Return what is to be said before; ``compared`` is how many seconds the comparison took."""
        sessions = sum(client.sessions for client in standing.connected)
        return Outlook(
            at_stake=at_stake(beyond) if beyond else "",
            clients=standing.connected,
            in_words=(
                f"{sessions} sessions were connected; all are ended, and what they have not committed is lost",
                "for how long clients are shut out nobody knows before: the rows that would go are exported first"
                f" (to compare all rows took {span(compared)}), then servers are stopped and started",
                f"the running database is put aside, not deleted: {self.fenced}, and the rows that would go:"
                f" {self.exported}; keep both {span(keep_for.total_seconds())}",
                "a base backup is taken once clients are let in; until it is whole, what they write cannot be restored"
                " by this engine; there is no standby",
            ),
        )

    def cut(self, port: int, standing: Standing) -> CutSpec:
        """Return what close, fence, promote, install, archive and open take, as ``standing`` was found."""
        return CutSpec(**self._cut(port, standing), drill=False)

    def promote(self, port: int, standing: Standing) -> CutSpec:
        """Return what promote takes: it touches the copy alone."""
        return CutSpec(**self._cut(port, standing), drill=self.copy.database.drill)

    def salvage(self, port: int, standing: Standing) -> SalvageSpec:
        """Return what to export: everything, whatever the runbook compares, for everything goes back."""
        out, down = self.exported, not standing.serving
        return SalvageSpec(**self._cut(port, standing), drill=False, out=out, down=down)

    def first_write(self, port: int, standing: Standing) -> AwaitWrite:
        """Return how long to wait for a client, in whole seconds."""
        seconds = math.ceil(self.copy.wanted.await_write.total_seconds())
        return AwaitWrite(**self._cut(port, standing), drill=False, seconds=seconds)

    def base_backup(self, port: int, standing: Standing, at: datetime) -> BackUp:
        """Return what to call the base backup that is taken ``at`` a moment."""
        name = f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
        return BackUp(**self._cut(port, standing), drill=False, backup=name)

    def lost(self, found: Salvaged, until: str) -> str:
        """Say where the rows are that the restored database lacks."""
        if found.stage == "exported":
            return f"{self.exported} (keep until {until})"
        return f"not exported: they exist only in the database that was put aside, {self.fenced} (keep until {until})"

    def redundancy(self, found: BackedUp) -> str:
        """Say what would be left if this database were lost, too."""
        known = found.backup or (found.label and f"called {found.label}")
        backup = f"base backup {known}" if known else f"none: {BaseBackup.skip}"
        return f"{backup}; it runs without a standby"

    def _cut(self, port: int, standing: Standing) -> dict[str, Any]:
        d = self.copy.database
        made = {key: value for key, value in self.copy.of_copy(port).items() if key != "drill"}
        return made | {
            "source": Source.of(d), "data": d.data, "archive": d.archive or "", "backups": d.backups.folder or "",
            "sockets": d.sockets, "port": d.port,
            "fenced": self.fenced, "identity": standing.identity, "rule": standing.rule, "rules": standing.rules,
        }  # fmt: skip
