"""What only a lost store has, kept as a snapshot before the store is overwritten."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Literal

from activities import ssh
from activities.store_roles import StoreAction
from activities.stores import StoreSpec
from recovery.errors import Invalid
from recovery.models import Wire


class KeepSpec(StoreSpec):
    """Keep everything in the folder ``out``, of this recovery (``run``)."""

    out: str

    def values(self) -> dict[str, object]:
        """Return the shell variables of its scripts."""
        return self.store.values() | {"out": self.out, "owner": self.run}


class Snapshot(Wire):
    """A snapshot (RDB) of a store, by whom, and what it holds; None is known after apply.

    ``history`` and ``offset`` tell up to where in the store's log. One that is not as long as it says is "damaged".
    """

    stage: Literal["absent", "partial", "kept", "damaged"] = "absent"
    owner: str = ""
    bytes: int | None = 0
    digest: str | None = ""
    keys: int | None = 0
    history: str | None = ""
    offset: int | None = 0


class KeepSessions(StoreAction[KeepSpec, Snapshot]):
    """Have a store write all that it holds into one file on its host, in its own format, for nobody else to read."""

    name = "sessions.keep"
    limit = timedelta(hours=1)
    script = "keep_sessions"
    kept: ClassVar[str] = "what only this store had is nowhere else once it is overwritten; people throw it away"
    skip: ClassVar[str] = "what only this store has is not kept: it is gone for good once the store is overwritten"

    def title(self, spec: KeepSpec) -> str:
        """Say what is kept."""
        return f"keep what {spec.system} holds"

    async def observe(self, spec: KeepSpec) -> Snapshot:
        """Look at the file and what it is said to hold."""
        return snapshot(await ssh.look(spec.store.host, "sessions_kept", {"out": spec.out}))

    def desired(self, spec: KeepSpec, before: Snapshot) -> Snapshot:
        """Want it whole, of this recovery; what is in it is known after."""
        return Snapshot(stage="kept", owner=spec.run, bytes=None, digest=None, keys=None, history=None, offset=None)

    def partial(self, spec: KeepSpec, before: Snapshot, now: Snapshot) -> bool:
        """Know an unfinished one of this recovery, or one whose owner was not written yet."""
        return now.stage == "partial" and now.owner in ("", spec.run)

    async def apply(self, spec: KeepSpec, before: Snapshot) -> None:
        """Fetch it from the store as a replica would."""
        await ssh.job(spec.store.host, self.job(spec), self.script, spec.values())

    async def undo(self, spec: KeepSpec, before: Snapshot) -> None:
        """Do nothing: see ``kept``."""


keep_sessions = KeepSessions()


def snapshot(text: str) -> Snapshot:
    """Return what the script ``sessions_kept`` printed. Raises Invalid if that is none of it."""
    try:
        return Snapshot.model_validate(dict(line.partition("\t")[::2] for line in text.splitlines()))
    except ValueError:
        raise Invalid("copies: what lies there is not what a snapshot of sessions is told by") from None
