"""The printed page of RestoreVerification: its shell is run on a lab, proves the newest backup, and drops it."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from lab.estate import Lab
from tests.console.conftest import Starter
from tests.console.test_by_hand import on_the_host
from tests.copies import in_copies, servers_of_copies
from tests.matrix.test_damage import flip, largest
from tests.workflows.test_restore_verification import archived

pytestmark = pytest.mark.drawn

NAME = "lab/verify-orders"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_printed_shell_proves_the_newest_backup_and_drops_it(lab: Lab, starter: Starter, shell: str) -> None:
    newest = lab.base_backup()
    asyncio.run(archived(lab))
    done = on_the_host(lab, starter("print", NAME, "--shell").out, shell)
    assert done.returncode == 0, done.stderr
    assert f"PROVEN: {newest} can be restored" in done.stdout
    assert (in_copies(lab), servers_of_copies(lab)) == ([], [])


def test_printed_shell_drops_what_is_not_proven(lab: Lab, starter: Starter) -> None:
    asyncio.run(archived(lab))
    printed = starter("print", NAME, "--shell").out
    done = on_the_host(lab, printed.replace("select count(*) from customers", "select 7"))
    assert done.returncode != 0
    assert "NOT PROVEN: the customers are all there" in done.stderr
    assert (in_copies(lab), servers_of_copies(lab)) == ([], [])


def test_printed_shell_names_a_damaged_backup_and_leaves_nothing(lab: Lab, starter: Starter) -> None:
    newest = lab.base_backup()
    try:
        asyncio.run(archived(lab))
        flip(largest(newest))
        done = on_the_host(lab, starter("print", NAME, "--shell").out)
        assert done.returncode != 0
        assert f"the backup {newest.name} does not match its manifest" in done.stderr
        assert in_copies(lab) == []
    finally:
        shutil.rmtree(newest)


def test_the_page_says_which_backups_there_have_to_be(lab: Lab, starter: Starter) -> None:
    page = starter("print", NAME).out
    assert "a full backup (no `incremental`) that was `stopped` within the last 24 h; it may be 15 min late" in page
    assert "log in the archive up to 5 min ago" in page
    assert "{{" not in page
    assert "\n## 7. Drop it\n" in page
