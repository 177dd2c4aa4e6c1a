"""The command line: one JSON object, and exit codes that say what happened."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.estate import Lab
from lab.place import REPOSITORY
from runbooks.library import library

FreshLab = Callable[[], Lab]


@pytest.fixture
def own(fresh_lab: FreshLab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab that the command line finds by its environment."""
    lab = fresh_lab()
    monkeypatch.setenv("RECOVERY_LAB", str(lab.place.root))
    monkeypatch.setenv("RECOVERY_STATE", str(lab.state))
    return lab


def call(*words: str) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(app, [*words, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_lab_goes_up_and_down_by_command(own: Lab) -> None:
    code, status = call("up", "--alone", "--rate", "20")
    assert code == 0
    assert set(status) >= {"root", "programs", "backups", "acknowledged", "last_acknowledged_at", "timings"}
    code, accident = call("break", "drop-table")
    assert code == 0
    assert str(accident["before"]) < str(accident["happened_at"])
    assert call("break", "ssh")[0] == 0
    code, status = call("status")
    assert code == 1
    programs = status["programs"]
    assert isinstance(programs, list)
    assert {program["name"]: program["running"] for program in programs} == {
        "postgres": True, "sshd": False, "load": True,
    }  # fmt: skip
    assert call("down") == (0, {"root": str(own.place.root), "purged": True})


def test_addresses_are_written_for_runbooks(own: Lab) -> None:
    call("up", "--alone", "--no-load")
    values = dict(line.split("=", 1) for line in (own.state / "estate.env").read_text().splitlines())
    of_a_site = {
        "SSH_PORT", "SSH_LINK_PORT", "PG_DATA", "PG_PORT", "PG_SOCKETS", "PG_UPSTREAM", "BACKUPS", "ARCHIVE", "COPIES",
        "JOBS", "VALKEY_PORT", "VALKEY_LINK_PORT", "VALKEY_SECRET", "ORDERS", "ORDERS_PORT",
        "ORDERS_CONFIG",
        *(f"COPY_{number}_PORT" for number in range(1, 5)),
    }  # fmt: skip
    assert set(values) == {
        "LAB_SSH_USER", "LAB_KNOWN_HOSTS", "LAB_SSH_KEY", "LAB_PG_BIN", "LAB_VALKEY_CLI", "LAB_VALKEY_SERVER",
        "LAB_DIRECTOR_PORT", "LAB_DIRECTOR_ADMIN_PORT", "LAB_KUBECONFIG", "LAB_REPOSITORY", "LAB_STOREFRONT",
        *(f"LAB_{site}_{name}" for site in ("NORTH", "SOUTH") for name in of_a_site),
    }  # fmt: skip
    assert library(REPOSITORY / "runbooks", own.state / "estate.env").estate("lab").databases["orders-south"]
    paths = {name: Path(value) for name, value in values.items() if value.startswith("/")}
    assert {name for name, path in paths.items() if not path.exists()} == {
        "LAB_SOUTH_PG_DATA", "LAB_VALKEY_CLI", "LAB_VALKEY_SERVER", "LAB_KUBECONFIG", "LAB_REPOSITORY",
        "LAB_STOREFRONT",
        *(f"LAB_{site}_{name}" for site in ("NORTH", "SOUTH") for name in ("VALKEY_SECRET", "ORDERS")),
    }  # fmt: skip


def test_no_lab_is_a_failure(own: Lab) -> None:
    code, answer = call("status")
    assert code == 1
    assert "no lab" in str(answer["error"])
    assert call("break", "postgres")[0] == 1
    assert not own.place.root.exists()


def test_bad_input_is_said_so(own: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(app, ["break", "everything"]).exit_code == 2
    monkeypatch.setenv("RECOVERY_LAB", "/tmp/not a place")
    assert call("up")[0] == 2


def test_human_output_names_every_program(own: Lab) -> None:
    own.up(load=False)
    done = CliRunner().invoke(app, ["status"])
    assert all(name in done.stdout for name in ("postgres", "sshd", "load"))


def test_command_line_loads_no_driver() -> None:
    check = "import sys, lab.cli; print([n for n in ('asyncssh', 'psycopg', 'temporalio') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, check=True).stdout == b"[]\n"
