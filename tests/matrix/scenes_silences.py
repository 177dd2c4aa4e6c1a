"""How alerts are silenced: at an Alertmanager of its own, through a relay that cuts what is written."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from activities.silences import AlertsSpec, Silenced, silence
from tests.alertmanagers import Alertmanager, alertmanager
from tests.matrix.relay import Relay, relay
from tests.matrix.scenes import Scene, Stage
from tests.running import eventually


class SilenceScene(Scene[AlertsSpec, Silenced]):
    """Silence what a move sets off."""

    action = silence
    accidents = ("connection cut", "Alertmanager killed")

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.ends = AsyncExitStack()
        self.alerts: Alertmanager
        self.relay: Relay

    async def set(self) -> AlertsSpec:
        """Start an Alertmanager, in which a silence of somebody else's stands."""
        folder = self.ends.enter_context(tempfile.TemporaryDirectory(prefix="alertmanager-"))
        self.alerts = self.ends.enter_context(alertmanager(Path(folder)))
        self.relay = await self.ends.enter_async_context(relay(self.alerts.port))
        return self.alerts.spec(url=f"http://127.0.0.1:{self.relay.port}")

    def shows(self, spec: AlertsSpec) -> Mapping[str, object]:
        """Return the silences that stand."""
        return {"silences": [(one["createdBy"], one["matchers"]) for one in self.alerts.silences()], "jobs": []}

    async def meddle_before(self, spec: AlertsSpec) -> None:
        """Somebody makes a narrower one in the recovery's name."""
        self.alerts.silence(by=spec.mark)

    async def meddle_after(self, spec: AlertsSpec) -> None:
        """Somebody makes it last longer."""
        one = self.alerts.silences()[0]
        self.alerts.silence(**{key: one[key] for key in ("id", "matchers", "startsAt", "createdBy", "comment")})

    async def strike(self, accident: str, spec: AlertsSpec, chance: Random) -> None:
        """Cut the connection at any request of the attempt, before it is answered or after."""
        accepted = self.relay.accepted + chance.randint(1, 4)
        await eventually(lambda: self.relay.accepted >= accepted, "a request comes in", 10, pause=0.0)
        if accident == "Alertmanager killed":
            self.alerts.end()
            self.alerts.start()
        self.relay.cut()

    async def clear(self) -> None:
        """Stop it."""
        await self.ends.aclose()
