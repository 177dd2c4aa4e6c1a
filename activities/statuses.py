"""What systems say of their own replication, asked with a command on a host or over HTTP."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, TypeVar

import aiohttp

from activities import ssh
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.errors import Refused, Transient
from recovery.models import Wire

SECONDS = 10
SHOWN = 200
"""Characters of what was said that people are shown."""


class Said(Wire):
    """What a system said, and what that means by the runbook's words."""

    state: Literal["replicated", "lagging", "broken"]
    text: str


class Asked(Spec):
    """How what is said is understood: ``replicated`` and ``lagging`` are regular expressions."""

    replicated: str
    lagging: str = ""


class CommandAsked(Asked):
    """A command, and where it is run."""

    host: HostAt
    run: str


class UrlAsked(Asked):
    """An address."""

    url: str


A = TypeVar("A", bound=Asked)


class AskStatus(Probe[A, Said]):
    """Ask once; a system that does not say that all is well is what was found out, and no failure."""

    name = ""
    limit = timedelta(seconds=30)

    def title(self, spec: A) -> str:
        """Say who is asked."""
        return f"ask {spec.system} for its replication"


class AskCommand(AskStatus[CommandAsked]):
    """Ask with a command on a host."""

    name = "status.command"

    async def observe(self, spec: CommandAsked) -> Said:
        """Run it; it must change nothing."""
        try:
            text = await ssh.look(spec.host, "status", {"run": spec.run, "limit": SECONDS})
        except (Refused, Transient) as error:
            return Said(state="broken", text=error.message[:SHOWN])
        code, _, said = text.partition("\n")
        return understood(spec, said) if code == "0" else Said(state="broken", text=f"exit code {code}: {said[:SHOWN]}")


ask_command = AskCommand()


class AskUrl(AskStatus[UrlAsked]):
    """Ask over HTTP."""

    name = "status.url"

    async def observe(self, spec: UrlAsked) -> Said:
        """Ask once."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session,
                session.get(spec.url, allow_redirects=False) as answer,
            ):
                said = (await answer.content.read(100_000)).decode(errors="replace")
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Said(state="broken", text=f"no answer: {type(error).__name__}")
        return understood(spec, said) if status == 200 else Said(state="broken", text=f"HTTP {status}: {said[:SHOWN]}")


ask_url = AskUrl()


def understood(spec: Asked, said: str) -> Said:
    """Return what is meant; pure."""
    if re.search(spec.replicated, said):
        return Said(state="replicated", text=said[:SHOWN])
    return Said(state="lagging" if spec.lagging and re.search(spec.lagging, said) else "broken", text=said[:SHOWN])
