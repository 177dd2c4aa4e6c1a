"""The printed page replaces a database whose backups Barman or pgBackRest keeps, too, without any of this code."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.estate import Lab
from lab.place import write_private
from tests.console.conftest import Starter
from tests.tooled import KINDS, Tooled, tooled

pytestmark = pytest.mark.drawn


def pasted(found: Tooled, text: str) -> str:
    """Run ``text`` as a person on the host would, and return what it said."""
    file = found.at.folder / "page.sh"
    write_private(file, f"set -e\n{text}")
    found.at.who.own(file)
    return found.at.run("sh", file)


@pytest.mark.parametrize("kind", KINDS)
def test_printed_page_replaces_the_database_of_a_tool(lab: Lab, starter: Starter, tmp_path: Path, kind: str) -> None:
    with tooled(lab, kind, tmp_path) as found:
        target = found.commit()
        wanted, before, timeline = found.numbers(), found.backups(), found.timeline()
        while datetime.now(UTC) < target + timedelta(seconds=1.5):  # the passing of time is itself the condition
            time.sleep(0.1)
        found.commit(2)
        given = ("tools/replace-orders", "-p", f"target_time={target.isoformat()}")
        printed = starter("print", *given, RECOVERY_CATALOGS=str(tmp_path))
        assert printed.code == 0, printed.err
        blocks = re.findall(r"^```sh\n(.*?)^```$", printed.out, re.MULTILINE | re.DOTALL)
        said = pasted(found, "DECIDED=bob\n" + "".join(blocks))
        assert found.numbers() == wanted
        assert found.timeline() == timeline + 1
        (new,) = found.backups().keys() - before.keys()
        assert found.backups()[new].startswith("recovery tools/orders@by-hand at 20")
        assert f"the restored database runs; base backup {new}\n" in said
        pasted(found, "".join([*blocks[:2], blocks[-1]]))
        assert found.backups().keys() == {*before, new}, json.dumps(found.backups())


@pytest.mark.parametrize("kind", KINDS)
def test_undo_blocks_bring_the_database_of_a_tool_back(lab: Lab, starter: Starter, tmp_path: Path, kind: str) -> None:
    with tooled(lab, kind, tmp_path) as found:
        target = found.commit()
        while datetime.now(UTC) < target + timedelta(seconds=1.5):  # the passing of time is itself the condition
            time.sleep(0.1)
        found.commit(2)
        rows, before, timeline = found.numbers(), found.backups(), found.timeline()
        given = ("tools/replace-orders", "-p", f"target_time={target.isoformat()}")
        printed = starter("print", *given, RECOVERY_CATALOGS=str(tmp_path))
        blocks = re.findall(r"^```sh( to-[a-z]+)?\n(.*?)^```$", printed.out, re.MULTILINE | re.DOTALL)
        plain, back = [text for how, text in blocks if not how], [text for how, text in blocks if how]
        last = next(i for i, text in enumerate(plain) if text.startswith("FORGET=no"))
        pasted(found, "DECIDED=bob\n" + "".join(plain[:last]))
        assert found.archived(timeline + 1)
        pasted(found, "".join([*plain[:2], *back]))
        assert (found.numbers(), found.timeline(), found.backups()) == (rows, timeline, before)
        assert found.archived(timeline + 1) == []
        assert list(found.at.place.copies.iterdir()) == []
