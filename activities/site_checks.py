"""The checks of a site that a runbook has made: by a command on a host, or by requests. Some are people's to attest."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from activities import ssh
from activities.serving import Request, serves
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.errors import Fatal
from recovery.models import Wire
from runbooks.procedures.data_center_activation import Check

SECONDS = 15
REQUESTS = 5
SHOWN = 200
"""Characters of what was said that are kept as evidence."""


class CheckAsked(Spec):
    """Make ``check``: run ``command`` on ``host``, or ask ``url``, which is to answer within ``slowest`` seconds."""

    check: Check
    host: HostAt | None = None
    command: str = ""
    url: str = ""
    slowest: float = 5


class Evidence(Wire):
    """What shows that a check holds."""

    evidence: str = ""


class MakesCheck(Probe[CheckAsked, Evidence]):
    """Make one check; what does not hold is a failure, for people to mend and have tried again, or to answer for."""

    name = "site.check"
    limit = timedelta(seconds=30)
    patience = timedelta(minutes=2)
    skip: ClassVar[str] = "nobody has seen that it holds"

    def title(self, spec: CheckAsked) -> str:
        """Say what is checked."""
        return f"check {spec.system}: {spec.check}"

    async def observe(self, spec: CheckAsked) -> Evidence:
        """Make it. Raises Fatal, with what was said, when it does not hold."""
        return await (self._told(spec, spec.host) if spec.host else self._answered(spec))

    async def _told(self, spec: CheckAsked, host: HostAt) -> Evidence:
        text = await ssh.look(host, "status", {"run": spec.command, "limit": SECONDS})
        code, _, said = text.partition("\n")
        last = (said.strip().splitlines() or ["nothing was said"])[-1][:SHOWN]
        if code != "0":
            raise Fatal(f"{spec.check} does not hold: its command on {host.name} ended with {code}: {last}")
        return Evidence(evidence=f"{host.name}: {last}")

    async def _answered(self, spec: CheckAsked) -> Evidence:
        asked = Request(system=spec.system, url=spec.url, path="", count=REQUESTS, seconds=SECONDS / REQUESTS)
        answers = await serves.observe(asked)
        if answers.statuses != {"200": REQUESTS}:
            found = ", ".join(f"{count} × {what}" for what, count in (answers.statuses | answers.unanswered).items())
            raise Fatal(f"{spec.check} does not hold: {spec.url} gave {found}")
        if answers.slowest > spec.slowest:
            raise Fatal(f"{spec.check} does not hold: {spec.url} took {answers.slowest} s, at most {spec.slowest} s")
        return Evidence(evidence=f"{spec.url}: {REQUESTS} × 200, the slowest in {answers.slowest} s")


make_check = MakesCheck()
