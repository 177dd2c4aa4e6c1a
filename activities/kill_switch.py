"""The kill switch beside the workers, looked for before a recovery begins; every action heeds it by itself."""

from __future__ import annotations

from datetime import timedelta

from recovery import kill_switch
from recovery.actions import Probe, Spec
from recovery.models import Wire


class Halted(Wire):
    """Who has everything stopped at a worker, and why; "" when nobody has."""

    why: str = ""


class LookForKillSwitch(Probe[Spec, Halted]):
    """See whether somebody has everything stopped at the workers of a site."""

    name = "kill_switch.look"
    limit = timedelta(seconds=10)

    def title(self, spec: Spec) -> str:
        """Say what is looked for, and where."""
        return f"look for a kill switch at {spec.system}"

    async def observe(self, spec: Spec) -> Halted:
        """Look."""
        return Halted(why=kill_switch.engaged())


look_for_kill_switch = LookForKillSwitch()
