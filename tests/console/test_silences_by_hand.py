"""The lines of a printed page that silence alerts, on a real Alertmanager."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from activities.sites import Sites
from console.shell.silences import hear, mute, muted
from runbooks.procedures.data_center_activation import Parameters
from tests.activities.sample import SYSTEMS, estate, moving
from tests.alertmanagers import ESTATE, Alertmanager, alertmanager

TOOLS = """
goes_on() { [ -z "$STOPPED" ]; }
ask() { curl -sS -f --noproxy '*' --max-time 10 "$@"; }
asked() { printf '%s\\n' "$1"; }
"""


@pytest.fixture
def alerts(tmp_path: Path) -> Iterator[Alertmanager]:
    with alertmanager(tmp_path) as found:
        yield found


def sites(url: str, **more: Any) -> Sites:
    """Return a move that silences alerts."""
    given = {"alerting": {"alerts": {"url": url, **ESTATE, **more}}}
    return Sites((*SYSTEMS, "alerts"), estate() | given, Parameters(site="south"), "by-hand")


def pasted(folder: Path, lines: Iterator[str], stopped: str = "") -> str:
    """Paste the lines; return what was printed."""
    text = "\n".join([f"set -u; WORK={folder}; STOPPED={stopped}", TOOLS, *lines])
    done = subprocess.run(["sh"], input=text, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_lines_silence_and_lift(alerts: Alertmanager, tmp_path: Path) -> None:
    alerts.fire("Down", site="north")
    theirs, move = alerts.silence(site="east"), sites(alerts.url)
    assert pasted(tmp_path, mute(move)) == ""
    [mine] = [one for one in alerts.silences() if one["id"] != theirs]
    assert mine["createdBy"] == "recovery by-hand"
    assert alerts.muted() == {"Down": True}
    assert pasted(tmp_path, hear(move)) == ""
    assert [one["id"] for one in alerts.silences()] == [theirs]


def test_what_was_stopped_silences_nothing(alerts: Alertmanager, tmp_path: Path) -> None:
    assert pasted(tmp_path, mute(sites(alerts.url)), "yes") == ""
    assert alerts.silences() == []


def test_one_that_is_dead_stops_nothing(alerts: Alertmanager, tmp_path: Path) -> None:
    alerts.end()
    assert "its alerts are heard" in pasted(tmp_path, mute(sites(alerts.url)))
    assert pasted(tmp_path, hear(sites(alerts.url))) == ""


def test_whoever_may_log_in_is_told_the_command(alerts: Alertmanager, tmp_path: Path) -> None:
    move = sites(alerts.url, secret="/etc/dr/alerts")
    said = pasted(tmp_path, mute(move))
    assert "stands in /etc/dr/alerts" in said
    command = said.partition("north|south)\"'")[0].partition(": ")[2] + "north|south)\"'"
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert [one["createdBy"] for one in alerts.silences()] == ["recovery by-hand"]


def test_page_says_whether_alerts_are_heard() -> None:
    assert muted(moving()) == "Alerts are heard all the time."
    assert "silenced at alerts" in muted(sites("http://127.0.0.1:9093"))
