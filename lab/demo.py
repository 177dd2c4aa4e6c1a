"""The main job, end to end: orders flow, an accident happens, and a second person's approval brings the rows back.

``python -m lab.demo`` (``make demo``) restores a copy beside the running database; ``python -m lab.demo replace``
(``make demo CUTOVER=replace``) has the copy take its place, while customers go on ordering. Everything happens through
the same commands that an operator types; what is measured at the end is read from the load generator's record and from
the restored database itself. With KEEP=1 the lab, the worker and the Temporal UI stay up afterwards.
"""

from __future__ import annotations

import csv
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
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab import ledger
from lab.estate import Lab

ROOT = Path(__file__).resolve().parent.parent
RUNBOOKS = {"none": "lab/restore-orders", "replace": "lab/replace-orders"}
ACCIDENTS = {
    "none": ("drop-table", "somebody drops the table of orders"),
    "replace": ("delete-rows", "somebody deletes the older half of the orders; new ones come in meanwhile"),
}
screen = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """A step of the demonstration did not do what it is there to show."""


@dataclass
class Demo:
    """One run, with a state of its own, so that nobody's lab and histories are touched."""

    state: Path
    cutover: str = "none"

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
    up_alone = [sys.executable, str(ROOT / "starter.py"), "lab", "up", "--alone", "--json"]
    lab_up = subprocess.Popen(up_alone, env=demo.environment, cwd=ROOT, stdout=subprocess.PIPE)
    screen.print("  [dim]$ python starter.py lab up --alone & python worker.py &[/]")
    demo.start_worker()
    up = json.loads(lab_up.communicate(timeout=120)[0])
    lab = Lab(Path(up["root"]), demo.state)
    demo.until(lambda: len(ledger.acknowledged(lab.place.load)) >= 400, "400 acknowledged orders")

    (kind, story), runbook = ACCIDENTS[demo.cutover], RUNBOOKS[demo.cutover]
    demo.say(f"An accident: {story}.")
    accident = demo.answer("lab", "break", kind)
    before, happened = (datetime.fromisoformat(accident[key]) for key in ("before", "happened_at"))
    screen.print(f"  it happened at {happened:%H:%M:%S.%f}Z; the last good moment is {before:%H:%M:%S.%f}Z")
    target = f"target_time={before.isoformat()}"
    time.sleep(max(0.0, (before - datetime.now(UTC)).total_seconds() + 1.1))  # a moment is final one second later

    demo.say("What would a restore do? A check looks at everything and changes nothing.")
    screen.print(demo.starter("check", runbook, "--reason", "orders are gone", "-p", target))
    demo.say("Alice starts it.")
    times = ("--outage-started-at", happened.isoformat(), "--detected-at", datetime.now(UTC).isoformat())
    started = demo.answer(
        "start", runbook, "--reason", "orders are gone", "-p", target, "--by", "alice", *times, "--no-wait"
    )
    identity = str(started["workflow"])
    demo.until(lambda: _phase(demo, identity).startswith("gate:"), "the gate", 60)
    screen.print(demo.starter("status", identity))
    demo.say("Bob, the second person, has read the evidence and approves. (In the Temporal UI it is one click more.)")
    screen.print(f"  {started['ui']}")
    screen.print(demo.starter("approve", identity, "--by", "bob", "--reason", "rows look right", "--yes"))
    demo.until(lambda: _phase(demo, identity) in ("recovered", "failed", "compensated"), "the end", 60)
    report = demo.answer("status", identity, show=False)
    rows, good = (_replaced if demo.cutover == "replace" else _restored)(lab, before, report)
    tell(demo, report, rows)
    return good and report["outcome"] == "recovered"


def _restored(lab: Lab, before: datetime, report: dict[str, Any]) -> tuple[list[tuple[str, object]], bool]:
    """Return what was measured on the copy beside the running database, and whether none is missing."""
    acknowledged = {a.number for a in ledger.acknowledged(lab.place.load) if a.acknowledged_at <= before}
    folder = str(report["delivered"]["copy"]).split(" -h ")[1].split(" -p ")
    address = ["-h", folder[0], "-p", folder[1].split()[0], "-U", "postgres", "-d", "orders"]
    found = _numbers(lab, address)
    missing = acknowledged - found
    return [
        ("orders acknowledged before the accident", len(acknowledged)),
        ("found in the copy", len(acknowledged & found)),
        ("missing", len(missing)),
        ("in the copy, acknowledgement still under way", len(found - acknowledged)),
    ], not missing


def _replaced(lab: Lab, before: datetime, report: dict[str, Any]) -> tuple[list[tuple[str, object]], bool]:
    """Return what was measured on the database that took the place, its export, and the load generator's record."""
    place, orders = lab.place, ledger.acknowledged(lab.place.load)
    found = _numbers(
        lab, ["-h", str(place.sockets), "-p", str(lab.ports["postgres"]), "-U", "postgres", "-d", "orders"]
    )
    exported = _exported(Path(str(report["delivered"]["rows written after the target"]).split(" (keep")[0]))
    times = sorted(order.acknowledged_at for order in orders)
    shut = next(datetime.fromisoformat(s["began"]) for s in report["steps"] if s["title"].startswith("refuse clients"))
    pause, opened = max(((b - a).total_seconds(), b) for a, b in pairwise(times) if b > shut)
    old = {order.number for order in orders if order.acknowledged_at <= before}
    later = {order.number for order in orders if before < order.acknowledged_at < opened}
    new = {order.number for order in orders if order.acknowledged_at >= opened}
    missing = (old - found) | (later - exported - found) | (new - found)
    return [
        ("orders acknowledged up to the moment", len(old)),
        ("found in the new database", len(old & found)),
        ("orders acknowledged after it, until clients were shut out", len(later)),
        ("of these exported to CSV", len(later & exported)),
        ("orders acknowledged by the new database", len(new)),
        ("missing: neither in the new database nor exported", len(missing)),
        ("seconds without an acknowledged order", f"{pause:.2f}"),
    ], not missing


def _numbers(lab: Lab, address: list[str]) -> set[int]:
    """Return the numbers of the orders in a database."""
    rows = lab.postgres.run("psql", "-XAtq", *address, "-c", "select number from orders")
    return {int(line) for line in rows.split()}


def _exported(folder: Path) -> set[int]:
    """Return the numbers of the orders in an export."""
    file = folder / "public.orders.csv"
    if not file.exists():
        return set()
    with file.open(newline="") as rows:
        return {int(row["number"]) for row in csv.DictReader(rows)}


def tell(demo: Demo, report: dict[str, Any], rows: list[tuple[str, object]]) -> None:
    """Print what was measured, and what is left for people."""
    demo.say(f"{str(report['outcome']).capitalize()}.")
    table = Table("measured", "", show_header=False, title="What was measured")
    for name, value in rows:
        table.add_row(name, str(value))
    clock = report["clock"]
    for cause in ("detect", "decide", "people", "execute", "verify"):
        table.add_row(f"seconds: {cause}", f"{clock[cause]:.2f}")
    table.add_row(f"seconds since the {clock['since']} (RTO {clock['rto']:.0f})", f"{clock['total']:.2f}")
    for figure in report["figures"]:
        table.add_row(str(figure["name"]), f"{figure['value']} {figure['unit']}")
    screen.print(table)
    for name, where in report["delivered"].items():
        screen.print(f"  {name}: [bold]{where}[/]")


def main() -> int:
    """Run the demonstration and clean up; returns the exit code."""
    keep = bool(os.environ.get("KEEP"))
    cutover = next(iter(sys.argv[1:]), "none")
    if cutover not in RUNBOOKS:
        screen.print(f"{cutover}: is no demonstration; there are {', '.join(RUNBOOKS)}")
        return 2
    demo = Demo(Path(tempfile.mkdtemp(prefix="recovery-demo-")), cutover)
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
