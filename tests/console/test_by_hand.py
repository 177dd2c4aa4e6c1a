"""The printed page: its shell is run on a lab, by the lab's own user, without any of this code."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from console.by_hand import fill, script
from lab.estate import Lab
from lab.place import environment, runner
from tests.conftest import FreshLab
from tests.console.conftest import Starter
from tests.copies import ask_copy, copies, drop_all, in_copies, orders_in_copy

NAME = "lab/restore-orders"
COMMITS = "select number, extract(epoch from pg_xact_commit_timestamp(xmin)) from orders order by 2"


def on_the_host(lab: Lab, text: str, shell: str = "sh", **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``text`` as a person on the lab's host would."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [shell, "-s"],
        input=text,
        env=environment(lab.place, more),
        cwd="/",
        timeout=60,
        capture_output=True,
        text=True,
        **runner().drop(),
    )
    return done


def commits(lab: Lab) -> dict[int, float]:
    """Return when each order was committed, as the running database says."""
    arguments: list[str | Path] = [
        "-XAtq",
        "-h",
        lab.place.sockets,
        "-p",
        str(lab.ports["postgres"]),
        "-U",
        "postgres",
        "-d",
        "orders",
    ]
    rows = lab.postgres.run("psql", *arguments, "-c", COMMITS).splitlines()
    return {int(number): float(at) for number, at in (row.split("|") for row in rows)}


def quiet_moment(lab: Lab) -> datetime:
    """Return a moment between two commits, in the middle of the longest pause of the last seconds but one."""
    time.sleep(4)  # the passing of time is itself the condition: a backup, orders after it, then a final second
    times = [at for at in commits(lab).values() if time.time() - 2.5 < at < time.time() - 1]
    _, before, after = max((b - a, a, b) for a, b in pairwise(times))
    return datetime.fromtimestamp((before + after) / 2, UTC)


def expected(lab: Lab, target: datetime) -> set[int]:
    return {number for number, at in commits(lab).items() if at <= target.timestamp()}


@pytest.fixture(autouse=True)
def _no_copies(lab: Lab) -> Iterator[None]:
    yield
    drop_all(lab)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_printed_shell_restores_exactly_what_was_committed(lab: Lab, starter: Starter, shell: str) -> None:
    target = quiet_moment(lab)
    printed = starter("print", NAME, "-p", f"target_time={target.isoformat()}", "--shell")
    assert printed.code == 0
    done = on_the_host(lab, printed.out, shell)
    assert done.returncode == 0, done.stderr
    assert ask_copy(lab, "select pg_get_wal_replay_pause_state()") == ["paused"]
    assert orders_in_copy(lab) == expected(lab, target) != set()
    assert f"psql -h {copies(lab)[0]}/run " in done.stdout


def test_printed_shell_takes_the_moment_from_the_environment(lab: Lab, starter: Starter) -> None:
    target = quiet_moment(lab)
    printed = starter("print", NAME, "--shell").out
    unset = on_the_host(lab, printed)
    assert unset.returncode != 0
    assert "STOP: set it to the moment to go back to" in unset.stderr
    assert in_copies(lab) == []
    done = on_the_host(lab, printed, TARGET=f"{target:%Y-%m-%d %H:%M:%S.%f}+00")
    assert done.returncode == 0, done.stderr
    assert orders_in_copy(lab) == expected(lab, target)


def test_printed_shell_works_while_the_database_is_down(fresh_lab: FreshLab, starter: Starter) -> None:
    own = fresh_lab()
    own.up()
    target = quiet_moment(own)
    wanted = expected(own, target)
    own.break_("postgres")
    moment = f"target_time={target.isoformat()}"
    printed = starter("print", NAME, "-p", moment, "--shell", RECOVERY_STATE=str(own.state)).out
    done = on_the_host(own, printed)
    assert done.returncode == 0, done.stderr
    assert "\ndown\t" in done.stdout
    assert orders_in_copy(own) == wanted != set()


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("2001-01-01T00:00:00Z", "STOP: no whole backup"),
        ("2101-01-01T00:00:00Z", "STOP: the moment to go back to lies"),
    ],
)
def test_printed_shell_stops_before_it_changes_anything(lab: Lab, starter: Starter, moment: str, said: str) -> None:
    done = on_the_host(lab, starter("print", NAME, "-p", f"target_time={moment}", "--shell").out)
    assert done.returncode != 0
    assert said in done.stderr
    assert in_copies(lab) == []


def test_a_copy_that_answers_wrongly_is_not_proven(lab: Lab, starter: Starter) -> None:
    target = quiet_moment(lab)
    printed = starter("print", NAME, "-p", f"target_time={target.isoformat()}", "--shell").out
    done = on_the_host(lab, printed.replace("query|1|0|200", "query|1|0|201"))
    assert done.returncode != 0
    assert "NOT PROVEN: the customers are all there" in done.stderr
    assert "read it with" not in done.stdout


def test_pasted_blocks_make_a_copy_and_drop_it(lab: Lab, starter: Starter) -> None:
    target = quiet_moment(lab)
    page = starter("print", NAME, "-p", f"target_time={target.isoformat()}").out
    *blocks, dropping = re.findall(r"^```sh.*?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    made = on_the_host(lab, "".join(blocks))
    assert "STOP" not in made.stderr
    assert orders_in_copy(lab) == expected(lab, target)
    dropped = on_the_host(lab, blocks[0] + dropping)
    assert dropped.returncode == 0, dropped.stderr
    assert in_copies(lab) == []


def test_the_page_says_why_who_decides_and_how_to_drop(lab: Lab, starter: Starter) -> None:
    page = starter("print", NAME, "--json").json["content"]
    for part in (
        "Somebody dropped a table",
        "1 × dba (bob, carol) within 1 h",
        "RTO 1 h from the outage",
        "drop_copy()",
    ):
        assert part in page
    assert "{{" not in page


def test_bad_parameters_of_a_page_name_their_field(lab: Lab, starter: Starter) -> None:
    done = starter("print", NAME, "-p", "target_time=secret", "--json")
    assert (done.code, done.error[1].split(":")[0]) == (2, "parameters.target_time")


def test_what_is_filled_in_is_not_filled_again() -> None:
    assert fill("a {{one}} b {{two}}", {"one": "{{two}}", "two": "2"}) == "a {{two}} b 2"


def test_only_plain_blocks_become_the_script() -> None:
    page = "# T\n## Do it\nprose\n```sh\necho 1\n```\n```sh to-drop\nrm x\n```\n## Then\n```sh\necho 2\n```\n"
    assert script(page) == "#!/bin/sh\nset -eu\n\n# Do it\necho 1\n\n# Then\necho 2\n"
