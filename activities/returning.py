"""Waiting for a host that is out of reach."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from activities import ssh
from activities.ssh import HostAt
from recovery.actions import Probe, Spec
from recovery.errors import Transient
from recovery.models import Wire

PAUSE = 0.2
"""Seconds between two attempts: what comes back takes writes as soon as it is up."""


class Return(Spec):
    """The host to wait for."""

    host: HostAt


class Returned(Wire):
    """That a host answers."""

    answers: bool = True


class Returns(Probe[Return, Returned]):
    """Wait until a host lets us in."""

    name = "host.returns"
    limit = timedelta(hours=6)
    patience = timedelta(days=30)

    def title(self, spec: Return) -> str:
        """Say who is waited for."""
        return f"wait for {spec.system} to come back"

    async def observe(self, spec: Return) -> Returned:
        """Try again and again; an attempt ends in good order before its limit, and is followed by the next."""
        until = asyncio.get_running_loop().time() + (self.limit - timedelta(minutes=1)).total_seconds()
        while True:
            try:
                await ssh.look(spec.host, "nothing", {})
                return Returned()
            except Transient:
                if asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(PAUSE)


returns = Returns()
