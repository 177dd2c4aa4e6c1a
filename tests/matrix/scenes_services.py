"""How services are started: two of a level at one site, one of which runs already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from activities.services import Running, ServiceAt, ServicesSpec, run_services
from lab.place import write_private
from lab.services import SCRIPT, Service
from tests.copies import end_jobs
from tests.lab.pairs import on_host
from tests.matrix.scenes_switching import SiteScene

PROGRAM = """#!/bin/sh
: >"$1/ready"
exec env -i sleep 3600
"""


class RunServicesScene(SiteScene[ServicesSpec, Running]):
    """Start what serves orders at south, beside another service that runs."""

    action = run_services
    at = "south"
    often = "job's shell killed"

    @property
    def mail(self) -> Path:
        """The script of the other service."""
        return self.lab.place.at("south").folder / "mail" / "mail"

    @property
    def orders(self) -> Service:
        """The one that is started."""
        return self.lab.sites["south"].service

    async def prepare(self) -> None:
        """Have the other one run."""
        if not self.mail.exists():
            self._install()
        self.call("start")

    def _install(self) -> None:
        self.mail.parent.mkdir(mode=0o700)
        program, who = self.mail.with_name("program"), self.orders.who
        write_private(program, PROGRAM, 0o700)
        names = f"FOLDER='{self.mail.parent}' PROGRAM='{program}'\n"
        write_private(self.mail, f"#!/bin/sh\n{names}{SCRIPT.read_text()}", 0o700)
        for path in (self.mail.parent, program, self.mail):
            who.own(path)
        self.stage.ends.callback(self.call, "stop")

    def call(self, word: str) -> bool:
        """Start or stop the other one as its host does, or tell whether it runs."""
        return on_host(self.lab, "south", str(self.mail), word)[0] == 0

    def spec(self) -> ServicesSpec:
        """Return both, to be started."""
        (real,) = (one for level in self.sites.levels("south") for one in level.services)
        words = {word: f"'{self.mail}' {word}" for word in ("start", "stop", "status")}
        mail = ServiceAt(name="mail", host=real.host, **words)
        return ServicesSpec(system="mail", services=(mail, real), wanted=True, owner=self.sites.owner)

    def job(self, spec: ServicesSpec) -> str:
        """Return the name of the job that starts the orders."""
        return f"{spec.services[1].name}-{spec.owner}.service"

    def shows(self, spec: ServicesSpec) -> Mapping[str, object]:
        """Return which process runs of each, and whether its host would start it anew."""
        return {
            "orders": bool(self.orders.running()),
            "wanted": self.orders.wanted,
            "mail": self.call("status"),
            "mail wanted": self.mail.with_name("enabled").exists(),
            "jobs": self.listed(),
        }

    def begun(self, spec: ServicesSpec) -> bool:
        """Tell whether it is being started."""
        return self.orders.wanted

    async def meddle_before(self, spec: ServicesSpec) -> None:
        """Somebody stops the one that runs."""
        self.call("stop")

    async def meddle_after(self, spec: ServicesSpec) -> None:
        """Somebody stops the one that ran before."""
        self.call("stop")

    async def clear(self) -> None:
        """Have the orders stopped."""
        self.release()
        self.cut()
        end_jobs(self.lab)
        on_host(self.lab, "south", str(self.orders.script), "stop")
