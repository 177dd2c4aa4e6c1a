"""The file that stops every change: read at each call, by every action, forward and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from activities.kill_switch import look_for_kill_switch
from recovery import kill_switch
from recovery.actions import Spec
from recovery.errors import Refused
from tests.recovery.test_actions import LINES, Desk


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOVERY_STATE", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "kill-switch"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "file")


def test_nothing_is_applied_while_it_is_on(switch: Path, desk: Desk) -> None:
    switch.write_text("bob: the wrong\nsite\n")
    with pytest.raises(Refused) as refused:
        desk.run("apply")
    assert f"{switch}: bob: the wrong site. Ask who put it" in refused.value.message
    assert desk.shows() == ("old",)
    desk.run("observe")
    switch.unlink()
    desk.run("apply")
    assert desk.shows() == LINES


def test_nothing_is_undone_while_it_is_on(switch: Path, desk: Desk) -> None:
    desk.run("apply")
    halted = desk.writer.halted
    switch.touch()
    with pytest.raises(Refused, match="nobody says why"):
        desk.run("undo")
    assert (desk.shows(), desk.writer.halted) == (LINES, halted)
    switch.unlink()
    desk.run("undo")
    assert desk.shows() == ("old",)


def test_it_is_off_where_there_is_no_state_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_STATE", str(tmp_path / "nowhere"))
    assert kill_switch.engaged() == ""


def test_what_cannot_be_read_is_on(switch: Path) -> None:
    switch.mkdir()
    assert "cannot be read" in kill_switch.engaged()


def test_what_it_says_is_told_in_short(switch: Path) -> None:
    switch.write_bytes(b"\xff" * 5000)
    assert len(kill_switch.engaged()) < 400


async def test_probe_tells_it(switch: Path) -> None:
    assert (await look_for_kill_switch.observe(Spec(system="north"))).why == ""
    await asyncio.to_thread(switch.write_text, "bob: stop")
    assert (await look_for_kill_switch.observe(Spec(system="north"))).why.endswith("bob: stop")
