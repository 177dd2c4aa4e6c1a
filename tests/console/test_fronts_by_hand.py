"""The lines of a printed page about each kind of director."""

from __future__ import annotations

import subprocess

import pytest

from console.shell.data_center_activation import Page
from console.shell.fronts import ByAdmin, ByPeople, front
from tests.activities.sample import SYSTEMS, moving

STEPS = ("look", "sound", "found", "shut", "open", "undo")


def page() -> Page:
    """Return the page of a switch to south, with a Caddy, an HAProxy and a record."""
    return Page(moving(systems=(*SYSTEMS, "edge", "shop")))


def test_each_kind_has_its_lines() -> None:
    kinds = {name: type(front(name, one)) for name, one in page().sites.directors.items()}
    assert kinds == {"front": ByAdmin, "edge": ByPeople, "shop": ByPeople}


@pytest.mark.parametrize("step", STEPS)
def test_lines_are_read_by_a_shell(step: str) -> None:
    text = "\n".join(getattr(page(), step)())
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_whoever_sits_there_is_told_every_word() -> None:
    shut, opened = "\n".join(page().shut()), "\n".join(page().open())
    for word in ("set server orders/n1 state maint", "set server orders/s1 state maint", "sorry.example.org"):
        assert word in shut
    assert "state ready" not in shut
    for word in ("set server orders/s1 state ready", "update add shop.example.org 30 CNAME south.example.org"):
        assert word in opened
    assert opened.index("orders/n1 state maint") < opened.index("orders/s1 state ready")
