"""An action without a system: what remains is the engine's own cost."""

from __future__ import annotations

from datetime import timedelta

from recovery.actions import Action, Spec
from recovery.models import Frozen, Start, Tier, Wire

ON: set[str] = set()
"""Names of the switches that are on, in this process."""


class Switch(Spec):
    """A switch in memory, named by ``system``."""


class Position(Wire):
    """Whether the switch is on."""

    on: bool = False


class Toggle(Action[Switch, Position]):
    """Turn a switch on."""

    name = "bench.toggle"

    async def observe(self, spec: Switch) -> Position:
        """Look."""
        return Position(on=spec.system in ON)

    def desired(self, spec: Switch, before: Position) -> Position:
        """Want it on."""
        return Position(on=True)

    async def apply(self, spec: Switch, before: Position) -> None:
        """Turn it on."""
        ON.add(spec.system)

    async def undo(self, spec: Switch, before: Position) -> None:
        """Turn it off."""
        ON.discard(spec.system)


SWITCH = Toggle()


def frozen(start: Start) -> Frozen:
    """Return a runbook that says nothing but how many steps to take."""
    return Frozen(
        runbook=start.runbook, title="bench", version="1", procedure="Steps", catalog="bench", systems=("bench",),
        tier="bench", objectives=Tier(rto=timedelta(hours=1), rpo=timedelta(0)), gates={}, people={},
        parameters=start.parameters, estate={}, not_after=timedelta(minutes=5), digest="0" * 16,
    )  # fmt: skip
