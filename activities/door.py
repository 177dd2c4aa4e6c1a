"""Who is let into a PostgreSQL database: shut the running one, open the restored one, see the first write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal

from pydantic import AwareDatetime

from activities import ssh
from activities.cut_over import CutAction, CutSpec, Seen, look, only
from recovery.actions import Probe
from recovery.models import Wire


class Doors(Wire):
    """Who stands at the database's place, whether clients get in there, and the SHA-256 of its pg_hba.conf.

    "closing" are doors on their way: a client is still in, or the server has not read the rules yet.
    """

    of: Literal["running", "copy", "another", "nothing"] = "nothing"
    clients: Literal["admitted", "refused", "closing", ""] = ""
    rules: str = ""


def doors(found: Seen) -> Doors:
    """Return what was seen of the doors."""
    of = only(found, "home") or "nothing"
    return Doors.model_validate({"of": of, "clients": only(found, "clients"), "rules": only(found, "rules")})


class Door(CutAction[CutSpec, Doors]):
    """What shutting and opening share: the rules are one file, replaced at once, with the bytes known before."""

    limit = timedelta(minutes=10)
    forget: ClassVar[str]

    async def observe(self, spec: CutSpec) -> Doors:
        """Look at the rules, and at who is in."""
        return doors(await look(spec))

    def partial(self, spec: CutSpec, before: Doors, now: Doors) -> bool:
        """Know doors that are being shut or opened."""
        return now.of == before.of and now.clients == "closing" and now.rules in (spec.rules, spec.shut)

    async def _run(self, spec: CutSpec, script: str, values: dict[str, object]) -> None:
        await super()._run(spec, script, values | {"forget": self.forget})


class Close(Door):
    """Refuse clients at the running database, and end those that are in."""

    name = "postgres.close"
    does, undoes, forget = "shut_door", "open_door", "yes"

    def title(self, spec: CutSpec) -> str:
        """Say where clients are refused."""
        return f"refuse clients at the running {spec.system}"

    def desired(self, spec: CutSpec, before: Doors) -> Doors:
        """Want the guard, and nobody in."""
        return Doors(of="running", clients="refused", rules=spec.shut)


close = Close()


class Open(Door):
    """Let clients into the restored database, by the rules of the running one. What they write then commits."""

    name = "postgres.open"
    does, undoes, forget = "open_door", "shut_door", "no"

    def title(self, spec: CutSpec) -> str:
        """Say where clients are let in."""
        return f"let clients into the restored {spec.system}"

    def desired(self, spec: CutSpec, before: Doors) -> Doors:
        """Want the rules of the running database, to the byte, in the restored one."""
        return Doors(of="copy", clients="admitted", rules=spec.rules)

    async def observe(self, spec: CutSpec) -> Doors:
        """Look at the rules; behind the guard doors are shut, whoever knocks and whether the server answers or not.

        Told as "closing", a client that hangs at the door would come and go as if somebody had changed something.
        """
        found = await super().observe(spec)
        return found.model_copy(update={"clients": "refused"}) if found == _knocked(spec) else found

    def begun(self, spec: CutSpec, before: Doors, now: Doors) -> bool:
        """Know it by the rules alone: a server that does not answer yet looks as if its doors were moving."""
        return now.of == before.of and now.rules == spec.rules


def _knocked(spec: CutSpec) -> Doors:
    return Doors(of="copy", clients="closing", rules=spec.shut)


open_doors = Open()


class AwaitWrite(CutSpec):
    """Wait up to ``seconds`` for the first write of a client."""

    seconds: int = 30

    def values(self) -> dict[str, object]:
        """Return the shell variables of ``first_write``."""
        return super().values() | {"wait": self.seconds}


class FirstWrite(Wire):
    """When a client first wrote into the restored database; None while none has.

    ``exact`` tells whether that is the time of its commit, or only when the row was noticed.
    """

    at: AwareDatetime | None = None
    exact: bool = False


class WriteSeen(Probe[AwaitWrite, FirstWrite]):
    """Wait for the first write of a client; none in time is no failure."""

    name = "postgres.first_write"
    limit = timedelta(minutes=5)
    patience = timedelta(minutes=10)
    skip: ClassVar[str] = "it is not known for how long clients were shut out"

    def title(self, spec: AwaitWrite) -> str:
        """Say what is waited for."""
        return f"see the first write into the restored {spec.system}"

    async def observe(self, spec: AwaitWrite) -> FirstWrite:
        """Look until it is there, or the time is over."""
        return first_write(await ssh.look(spec.host, "first_write", spec.values(), spec.seconds + 60))


first_write_seen = WriteSeen()


def first_write(text: str) -> FirstWrite:
    """Return what the script ``first_write`` printed."""
    how, _, seconds = text.strip().partition("\t")
    if not seconds:
        return FirstWrite()
    return FirstWrite(at=datetime.fromtimestamp(float(seconds), UTC), exact=how == "committed")
