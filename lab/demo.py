"""The main job, end to end: orders flow, a table is dropped, and a second person's approval brings the rows back.

``python -m lab.demo`` (``make demo``). Everything happens through the same commands that an operator types; what is
measured at the end is read from the load generator's record and from the restored copy itself. With KEEP=1 the lab,
the worker and the Temporal UI stay up afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab import ledger
from lab.estate import Lab

ROOT = Path(__file__).resolve().parent.parent
RUNBOOK = "lab/restore-orders"
screen = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """A step of the demonstration did not do what it is there to show."""


@dataclass
class Demo:
    """One run, with a state of its own, so that nobody's lab and histories are touched."""

    state: Path

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "RECOVERY_"))}
        self.environment["RECOVERY_STATE"] = str(self.state)
        self.worker: subprocess.Popen[bytes] | None = None

    def say(self, text: str) -> None:
        """Print what happens next, with the seconds since the beginning."""
        screen.print(f"\n[bold cyan]{time.monotonic() - self.began:5.1f} s[/]  [bold]{text}[/]")

    def starter(self, *words: str, show: bool = True) -> str:
        """Run the operator's command and return what it printed; a failure ends the demonstration."""
        if show:
            screen.print(f"  [dim]$ python starter.py {' '.join(_quoted(word) for word in words)}[/]")
        done = subprocess.run(
            [sys.executable, str(ROOT / "starter.py"), *words],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode:
            raise DemoError(f"starter.py {words[0]}: exit {done.returncode}: {(done.stdout + done.stderr).strip()}")
        return done.stdout

    def answer(self, *words: str, show: bool = True) -> dict[str, Any]:
        """Run the operator's command with --json and return its object."""
        found: dict[str, Any] = json.loads(self.starter(*words, "--json", show=show))
        return found

    def until(self, look: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Wait for a condition; its name is told when it does not come."""
        deadline = time.monotonic() + seconds
        while not look():
            if time.monotonic() > deadline:
                raise DemoError(f"not within {seconds:g} s: {what}")
            time.sleep(0.1)

    def start_worker(self) -> None:
        """Start the worker, which brings its own Temporal, and wait until it polls."""
        self.state.mkdir(parents=True, exist_ok=True)
        log = self.state / "worker.log"
        with log.open("wb") as output:
            self.worker = subprocess.Popen(
                [sys.executable, str(ROOT / "worker.py")], env=self.environment, cwd=ROOT, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self.until(
            lambda: "polling" in log.read_text() or self.worker is None or self.worker.poll() is not None, "worker"
        )
        if "polling" not in log.read_text():
            raise DemoError(f"the worker ended: {log.read_text().strip()}")
        screen.print(f"  {log.read_text().strip().splitlines()[-1]}")

    def stop(self) -> None:
        """Leave nothing behind: worker, Temporal, lab."""
        if self.worker is not None:
            self.worker.terminate()
            self.worker.wait(20)
            self.worker = None
        subprocess.run([sys.executable, str(ROOT / "starter.py"), "lab", "down"], env=self.environment, cwd=ROOT,
                       capture_output=True, check=False)  # fmt: skip
        shutil.rmtree(self.state)


def run(demo: Demo) -> bool:
    """Show the whole story; return whether every acknowledged order came back."""
    demo.say("A data center: PostgreSQL with a WAL archive, a host behind SSH, and customers who order.")
    # Both take seconds and neither needs the other.
    lab_up = subprocess.Popen([sys.executable, str(ROOT / "starter.py"), "lab", "up", "--json"], env=demo.environment,
                              cwd=ROOT, stdout=subprocess.PIPE)  # fmt: skip
    screen.print("  [dim]$ python starter.py lab up & python worker.py &[/]")
    demo.start_worker()
    up = json.loads(lab_up.communicate(timeout=120)[0])
    lab = Lab(Path(up["root"]), demo.state)
    demo.until(lambda: len(ledger.acknowledged(lab.place.load)) >= 400, "400 acknowledged orders")

    demo.say("An accident: somebody drops the table of orders.")
    accident = demo.answer("lab", "break", "drop-table")
    before, happened = (datetime.fromisoformat(accident[key]) for key in ("before", "happened_at"))
    screen.print(f"  dropped at {happened:%H:%M:%S.%f}Z; the last good moment is {before:%H:%M:%S.%f}Z")
    target = f"target_time={before.isoformat()}"
    time.sleep(max(0.0, (before - datetime.now(UTC)).total_seconds() + 1.1))  # a moment is final one second later

    demo.say("What would a restore do? A check looks at everything and changes nothing.")
    screen.print(demo.starter("check", RUNBOOK, "--reason", "orders are gone", "-p", target))
    demo.say("Alice starts it.")
    times = ("--outage-started-at", happened.isoformat(), "--detected-at", datetime.now(UTC).isoformat())
    started = demo.answer(
        "start", RUNBOOK, "--reason", "orders are gone", "-p", target, "--by", "alice", *times, "--no-wait"
    )
    identity = str(started["workflow"])
    demo.until(lambda: _phase(demo, identity).startswith("gate:"), "the gate", 60)
    screen.print(demo.starter("status", identity))
    demo.say("Bob, the second person, has read the evidence and approves. (In the Temporal UI it is one click more.)")
    screen.print(f"  {started['ui']}")
    screen.print(demo.starter("approve", identity, "--by", "bob", "--reason", "rows look right", "--yes"))
    demo.until(lambda: _phase(demo, identity) in ("recovered", "failed", "compensated"), "the end")
    return tell(demo, lab, before, demo.answer("status", identity, show=False))


def tell(demo: Demo, lab: Lab, before: datetime, report: dict[str, Any]) -> bool:
    """Print what was measured, and return whether nothing acknowledged is missing."""
    acknowledged = {a.number for a in ledger.acknowledged(lab.place.load) if a.acknowledged_at <= before}
    folder = str(report["delivered"]["copy"]).split(" -h ")[1].split(" -p ")
    address = ["-h", folder[0], "-p", folder[1].split()[0], "-U", "postgres", "-d", "orders"]
    found = {
        int(line) for line in lab.postgres.run("psql", "-XAtq", *address, "-c", "select number from orders").split()
    }
    missing = acknowledged - found
    demo.say(f"{str(report['outcome']).capitalize()}.")
    table = Table("measured", "", show_header=False, title="What was measured")
    for name, value in (
        ("orders acknowledged before the accident", len(acknowledged)),
        ("found in the copy", len(acknowledged & found)),
        ("missing", len(missing)),
        ("in the copy, acknowledgement still under way", len(found - acknowledged)),
    ):
        table.add_row(name, str(value))
    clock = report["clock"]
    for cause in ("detect", "decide", "people", "execute", "verify"):
        table.add_row(f"seconds: {cause}", f"{clock[cause]:.2f}")
    table.add_row(f"seconds since the {clock['since']} (RTO {clock['rto']:.0f})", f"{clock['total']:.2f}")
    for figure in report["figures"]:
        table.add_row(str(figure["name"]), f"{figure['value']} {figure['unit']}")
    screen.print(table)
    screen.print(f"  the copy: [bold]{report['delivered']['copy']}[/]")
    return not missing and report["outcome"] == "recovered"


def main() -> int:
    """Run the demonstration and clean up; returns the exit code."""
    keep = bool(os.environ.get("KEEP"))
    demo = Demo(Path(tempfile.mkdtemp(prefix="recovery-demo-")))
    good = False
    try:
        good = run(demo)
    except (DemoError, OSError) as error:
        screen.print(f"[bold red]The demonstration failed:[/] {error}")
    finally:
        if not keep:
            demo.stop()
    if demo.worker is None:
        demo.say("Everything is taken down; nothing is left running.")
    else:
        demo.say(f"Lab and worker (pid {demo.worker.pid}) stay up: export RECOVERY_STATE={demo.state}")
    return 0 if good else 1


def _phase(demo: Demo, identity: str) -> str:
    return str(demo.answer("status", identity, show=False)["phase"])


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


if __name__ == "__main__":
    sys.exit(main())
