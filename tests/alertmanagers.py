"""Real Alertmanagers: one with a folder of its own, alerts to fire in it, and what it shows of its silences."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from activities.alertmanagers import AlertmanagerAt
from activities.silences import AlertsSpec
from lab import ports
from runbooks.schema import Alertmanager as Authored
from tests.running import ROOT

CONFIGURATION = """
route: {receiver: nobody}
receivers: [{name: nobody}]
"""
ESTATE: dict[str, Any] = {"silence": {"site": "{site}"}}


class Alertmanager:
    """One Alertmanager; its folder holds its configuration, its silences and its log."""

    def __init__(self, folder: Path, web: str = "") -> None:
        """Make one at a port that is free; ``web`` is a file in its folder that says who may ask, and how."""
        self.web = [f"--web.config.file={folder}/{web}"] if web else []
        self.folder, self.port = folder, ports.choose(("alertmanager",))["alertmanager"]
        self.url = f"http{'s' if web and 'tls' in (folder / web).read_text() else ''}://{ports.ADDRESS}:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "alertmanager.yml").write_text(CONFIGURATION)

    def spec(self, run: str = "0a1b2c3d", url: str = "", **more: Any) -> AlertsSpec:
        """Return what silences alerts of both sites there."""
        one = Authored.model_validate({"url": url or self.url, **ESTATE} | more)
        return AlertsSpec.of("orders-south", "alerts", one, ("north", "south"), run=run, drill=True)

    @property
    def at(self) -> AlertmanagerAt:
        """Where it is asked."""
        return self.spec().at

    def start(self, seconds: float = 10) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which("prometheus-alertmanager")
        assert program is not None, "scripts/debian-packages installs prometheus-alertmanager"
        command = [
            program, f"--config.file={self.folder}/alertmanager.yml", f"--storage.path={self.folder}/data",
            *self.web, "--cluster.listen-address=", f"--web.listen-address={ports.ADDRESS}:{self.port}",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError), socket.create_connection((ports.ADDRESS, self.port)):
                return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.01)

    def end(self, number: int = signal.SIGKILL) -> None:
        """Kill it, if it runs; told to end (SIGTERM) it keeps its silences."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def tell(self, method: str, path: str, body: object = None) -> Any:
        """Ask it as somebody else would."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/api/v2/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read() or b"null")

    def fire(self, name: str, **labels: str) -> None:
        """Fire an alert."""
        self.tell("POST", "alerts", [{"labels": {"alertname": name, **labels}}])

    def muted(self) -> dict[str, bool]:
        """Return which alerts fire, and whether they are silenced."""
        found = self.tell("GET", "alerts")
        return {one["labels"]["alertname"]: bool(one["status"]["silencedBy"]) for one in found}

    def silences(self, *states: str) -> list[dict[str, Any]]:
        """Return the silences in one of ``states``, by default those that stand; oldest first."""
        found = [one for one in self.tell("GET", "silences") if one["status"]["state"] in (states or ("active",))]
        return sorted(found, key=lambda one: (one["startsAt"], one["id"]))

    def silence(self, by: str = "bob", site: str = "north", **more: Any) -> str:
        """Make a silence as somebody else would, or change one (``id``); return its id."""
        now = datetime.now(UTC)
        one = {
            "matchers": [{"name": "site", "value": site, "isRegex": False, "isEqual": True}], "createdBy": by,
            "startsAt": now.isoformat(), "endsAt": (now + timedelta(hours=1)).isoformat(), "comment": "a test",
        }  # fmt: skip
        found: str = self.tell("POST", "silences", one | more)["silenceID"]
        return found

    def lift(self, silence: str) -> None:
        """Lift a silence as somebody else would."""
        self.tell("DELETE", f"silence/{urllib.parse.quote(silence)}")


@contextlib.contextmanager
def alertmanager(folder: Path, web: str = "") -> Iterator[Alertmanager]:
    """Run an Alertmanager in ``folder``."""
    found = Alertmanager(folder, web)
    try:
        found.start()
        yield found
    finally:
        found.end()


def author(folder: Path, url: str) -> None:
    """Write the lab's catalog with an Alertmanager, which each move between its sites silences."""
    shutil.copytree(ROOT / "runbooks" / "lab", folder)
    file = folder / "estate.yaml"
    estate = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(estate | {"alerting": {"alerts": {"url": url, **ESTATE}}}))
    for file in folder.glob("*.yaml"):
        runbook = yaml.safe_load(file.read_text())
        if "front" in runbook.get("systems", ()):
            runbook["systems"].append("alerts")
            file.write_text(yaml.safe_dump(runbook))
