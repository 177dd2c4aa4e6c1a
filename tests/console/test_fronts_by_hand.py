"""The lines of a printed page about each kind of director."""

from __future__ import annotations

import subprocess

import pytest

from activities.sites import Sites
from console.shell.data_center_activation import Page
from console.shell.fronts import ByAdmin, ByPeople, front
from runbooks.procedures.data_center_activation import Parameters
from tests.activities.sample import SYSTEMS, moving
from tests.activities.test_sites import WEBS
from tests.activities.test_sites import clustered as estate_with_workloads

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


def test_workloads_are_told_to_kubectl_in_their_order() -> None:
    parameters = Parameters(site="south")
    clustered = Page(Sites(WEBS, estate_with_workloads(endpoints="web", restart=True), parameters, "by-hand"))
    stops, starts = list(clustered.stops()), list(clustered.starts())
    kubectl = "kubectl --kubeconfig /etc/dr/kube -n shop"
    assert [line.split()[2] for line in stops] == ["api-north", "web-north", "mail-north"]
    assert f"{kubectl} scale deployment/web --replicas=0" in stops[1]
    assert [line.split()[2] for line in starts[:4]] == ["the", "mail-south", "web-south", "api-south"]
    assert "recovery/cordoned" in starts[0]
    for words in ("scale deployment/web --replicas=3", "rollout restart deployment/web", "get endpoints web"):
        assert f"{kubectl} {words}" in starts[2]
    assert "kubectl --kubeconfig /etc/dr/kube drain $N --ignore-daemonsets" in "\n".join(clustered.follow())
    for step in (*STEPS, "stops", "starts", "follow", "back"):
        text = "\n".join(getattr(clustered, step)())
        assert subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False).stderr == ""


def test_whoever_sits_there_is_told_every_word() -> None:
    shut, opened = "\n".join(page().shut()), "\n".join(page().open())
    for word in ("set server orders/n1 state maint", "set server orders/s1 state maint", "sorry.example.org"):
        assert word in shut
    assert "state ready" not in shut
    for word in ("set server orders/s1 state ready", "update add shop.example.org 30 CNAME south.example.org"):
        assert word in opened
    assert opened.index("orders/n1 state maint") < opened.index("orders/s1 state ready")
