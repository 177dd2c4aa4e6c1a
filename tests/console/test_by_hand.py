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

pytestmark = pytest.mark.drawn

NAME = "lab/restore-orders"
COMMITS = "select number, extract(epoch from pg_xact_commit_timestamp(xmin)) from orders order by 2"


def on_the_host(
    lab: Lab, text: str, shell: str = "sh", seconds: float = 60, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run ``text`` as a person on the lab's host would."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [shell, "-s"],
        input=text,
        env=environment(lab.place, more),
        cwd="/",
        timeout=seconds,
        capture_output=True,
        text=True,
        **runner().drop(),
    )
    return done


def ask(lab: Lab, sql: str) -> list[str]:
    """Return what the database says that stands at the running one's place."""
    where = ("-h", lab.place.sockets, "-p", str(lab.ports["postgres"]), "-U", "postgres", "-d", "orders")
    return lab.postgres.run("psql", "-XAtq", *where, "-c", sql).splitlines()


def commits(lab: Lab) -> dict[int, float]:
    """Return when each order was committed, as the running database says."""
    return {int(number): float(at) for number, at in (row.split("|") for row in ask(lab, COMMITS))}


def quiet_moment(lab: Lab) -> datetime:
    """Return a moment between two commits, in the middle of the longest pause of the last seconds but one."""
    taken = (lab.place.backups / lab.postgres.backed_up()[-1]).stat().st_ctime  # when it got its name
    # The passing of time is itself the condition: a backup, orders after it, then a final second.
    time.sleep(max(0.0, taken + 4 - time.time()))
    times = [at for at in commits(lab).values() if time.time() - 2.5 < at < time.time() - 1]
    _, before, after = max((b - a, a, b) for a, b in pairwise(times))
    return datetime.fromtimestamp((before + after) / 2, UTC)


def expected(lab: Lab, target: datetime) -> set[int]:
    return {number for number, at in commits(lab).items() if at <= target.timestamp()}


def blocks_of(page: str) -> tuple[list[str], list[str]]:
    """Return the plain blocks of a page, and those to undo or to drop with."""
    found = re.findall(r"^```sh( to-[a-z]+)?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if not kind], [text for kind, text in found if kind]


def identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


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


@pytest.mark.parametrize("kind", ["lsn", "xid", "name"])
def test_printed_shell_restores_to_what_only_the_log_knows(lab: Lab, starter: Starter, kind: str) -> None:
    """A position, a transaction, a restore point; the copy has the row before it, and not the one after it."""
    quiet_moment(lab)
    with lab.postgres.connect("orders") as connection, connection.cursor() as cursor:
        connection.execute("create table by_hand (what text)")
        connection.execute("insert into by_hand values ('before')")
        told = cursor.execute("select pg_current_wal_insert_lsn()::text, txid_current()::text").fetchone()
        connection.execute("select pg_create_restore_point(%s)", (f"it's {kind}",))
        connection.execute("insert into by_hand values ('after')")
    try:
        assert told is not None
        value = {"lsn": told[0], "xid": told[1], "name": "it's name"}[kind]
        printed = starter("print", NAME, "-p", f"target_{kind}={value}", "--shell")
        assert printed.code == 0, printed.err
        done = on_the_host(lab, printed.out)
        assert done.returncode == 0, done.stderr
        assert ask_copy(lab, "select what from by_hand") == ["before"]
    finally:
        with lab.postgres.connect("orders") as connection:
            connection.execute("drop table by_hand")


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


def test_printed_shell_replaces_the_database(fresh_lab: FreshLab, starter: Starter) -> None:
    own = fresh_lab()
    own.up()
    target = quiet_moment(own)
    wanted, old = expected(own, target), identity(own.place.data)
    moment = f"target_time={target.isoformat()}"
    printed = starter("print", "lab/replace-orders", "-p", moment, "--shell", RECOVERY_STATE=str(own.state)).out
    unasked = on_the_host(own, printed)
    assert "STOP: nobody decided" in unasked.stderr
    assert identity(own.place.data) == old
    drop_all(own)
    done = on_the_host(own, printed, seconds=120, DECIDED="bob")
    assert done.returncode == 0, done.stderr
    fenced = own.place.data.with_name(f"{own.place.data.name}.fenced-by-hand")
    assert identity(fenced) == old
    export = next(own.place.copies.glob("*.salvage")) / "public.orders.csv"
    lost = {int(line.split(",")[0].strip('"')) for line in export.read_text().splitlines()[1:]}
    found = {int(line) for line in ask(own, "select number from orders")}
    assert wanted
    assert lost
    assert found >= wanted
    assert not found & lost
    assert min(found - wanted) > max(lost), "what is new was ordered after the export"
    labels = [path.read_text() for path in own.place.backups.glob("*/backup_label")]
    assert sum("LABEL: recovery lab/orders@by-hand" in label for label in labels) == 1


def test_undo_blocks_bring_the_old_database_back(fresh_lab: FreshLab, starter: Starter) -> None:
    own = fresh_lab()
    own.up()
    target = quiet_moment(own)
    old, rules = identity(own.place.data), (own.place.data / "pg_hba.conf").read_bytes()
    archived = set(own.postgres.archived())
    moment = f"target_time={target.isoformat()}"
    page = starter("print", "lab/replace-orders", "-p", moment, RECOVERY_STATE=str(own.state)).out
    plain, (undo, drop) = blocks_of(page)
    last = next(i for i, text in enumerate(plain) if text.startswith("FORGET=no"))
    begun = on_the_host(own, "set -e\n" + "".join(plain[:last]), seconds=120, DECIDED="bob")
    assert begun.returncode == 0, begun.stderr
    assert identity(own.place.data) != old
    before = own.status().acknowledged
    undone = on_the_host(own, "set -e\n" + "".join((*plain[:2], undo, drop)), seconds=120)
    assert undone.returncode == 0, undone.stderr
    assert identity(own.place.data) == old
    assert (own.place.data / "pg_hba.conf").read_bytes() == rules
    assert in_copies(own) == []
    assert not [name for name in set(own.postgres.archived()) - archived if not name.startswith("00000001")]
    deadline = time.monotonic() + 10
    while own.status().acknowledged <= before:
        assert time.monotonic() < deadline, "orders are acknowledged again within 10 s"
        time.sleep(0.1)


def test_nothing_is_undone_after_clients_were_let_in(fresh_lab: FreshLab, starter: Starter) -> None:
    own = fresh_lab()
    own.up()
    target = quiet_moment(own)
    moment = f"target_time={target.isoformat()}"
    page = starter("print", "lab/replace-orders", "-p", moment, RECOVERY_STATE=str(own.state)).out
    plain, (undo, _) = blocks_of(page)
    done = on_the_host(own, "set -e\n" + "".join(plain), seconds=120, DECIDED="bob")
    assert done.returncode == 0, done.stderr
    new = identity(own.place.data)
    refused = on_the_host(own, "set -e\n" + "".join((*plain[:2], undo)))
    assert refused.returncode != 0
    assert "STOP: clients were let in" in refused.stderr
    assert identity(own.place.data) == new


def test_printed_shell_puts_rows_back_and_takes_them_out(fresh_lab: FreshLab, starter: Starter) -> None:
    own = fresh_lab()
    own.up()
    quiet_moment(own)
    accident = own.break_("delete-rows")
    time.sleep(max(0.0, accident.before.timestamp() + 1.2 - time.time()))  # a moment is final one second later
    moment = f"target_time={accident.before.isoformat()}"
    page = starter("print", "lab/extract-orders", "-p", moment, RECOVERY_STATE=str(own.state)).out
    plain, (undo, drop) = blocks_of(page)
    lowest = "select min(number) from orders"
    gone = ask(own, lowest)
    assert gone != ["1"]
    done = on_the_host(own, "set -e\n" + "".join(plain), seconds=120, DECIDED="bob")
    assert done.returncode == 0, done.stderr
    assert ask(own, lowest) == ["1"]
    undone = on_the_host(own, "set -e\n" + "".join((*plain[:2], "COPYPORT=0\n", undo, drop)), seconds=120)
    assert undone.returncode == 0, undone.stderr
    assert ask(own, lowest) == gone
    assert in_copies(own) == []


@pytest.mark.parametrize("name", ["restore-orders", "replace-orders", "extract-orders"])
def test_every_page_counts_its_steps(lab: Lab, starter: Starter, name: str) -> None:
    page = starter("print", f"lab/{name}").out
    steps = [int(number) for number in re.findall(r"^## (\d+)\. ", page, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 8
    assert "{{" not in page
    assert "## #" not in page
    assert ("point of no return" in page) == (name != "restore-orders")
