"""The lab's control plane is a real one: it rolls out, refuses, and keeps what it was told when it is killed."""

from __future__ import annotations

import stat
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import kubernetes, processes
from lab.cluster_access import NAMESPACE, USERS
from lab.estate import Lab
from lab.kubernetes import CLUSTER, Kubernetes
from lab.node import status, verdict
from lab.place import LabError, Place
from tests.clusters import Deployed, config_map, until, workload
from tests.conftest import FreshLab

Object = dict[str, Any]


@pytest.fixture
def deployed(cluster: Kubernetes, tmp_path: Path) -> Iterator[Deployed]:
    found = Deployed(cluster, tmp_path)
    found.clear()
    yield found
    found.clear()


def test_missing_programs_are_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=f"etcd is neither in KUBEBUILDER_ASSETS .{tmp_path}. nor on PATH"):
        kubernetes.program("etcd", {"KUBEBUILDER_ASSETS": str(tmp_path), "PATH": str(tmp_path)})


def test_programs_are_found_on_path(tmp_path: Path) -> None:
    found = tmp_path / "etcd"
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    assert kubernetes.program("etcd", {"PATH": str(tmp_path)}) == str(found)


def test_every_program_runs_as_a_member(cluster: Kubernetes) -> None:
    running = cluster.running()
    assert all(running.values())
    members = {process.pid for process in processes.members(cluster.place.root)}
    assert members >= {process.pid for process in running.values() if process}
    assert set(running) == set(CLUSTER)


def test_files_of_users_are_private(cluster: Kubernetes) -> None:
    files = [cluster.access.tokens, *(cluster.kubeconfig(user) for user in USERS)]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize(
    ("user", "method", "path", "code"),
    [
        ("viewer", "GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps", 200),
        ("viewer", "POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", 403),
        ("recovery", "GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", 200),
        ("recovery", "GET", "/api/v1/namespaces/kube-system/secrets", 403),
        ("recovery", "GET", "/api/v1/nodes", 200),
        ("viewer", "GET", "/api/v1/nodes", 403),
        ("admin", "GET", "/api/v1/nodes", 200),
    ],
)
def test_user_may_do_what_is_theirs(cluster: Kubernetes, user: str, method: str, path: str, code: int) -> None:
    body = config_map("a", {}) if method == "POST" else None
    try:
        cluster.ask(method, path, body, user=user)
        found = 200
    except urllib.error.HTTPError as error:
        found = error.code
    assert found == code


@pytest.mark.soak
def test_killed_api_keeps_what_it_was_told(deployed: Deployed) -> None:
    deployed.apply(config_map("kept", {"a": "b"}))
    pid = deployed.cluster.running()["kube-apiserver"]
    deployed.cluster.kill_api()
    assert not deployed.cluster.ready()
    with pytest.raises(OSError, match="refused"):
        deployed.get("ConfigMap", "kept")
    deployed.cluster.start()
    assert (deployed.get("ConfigMap", "kept") or {})["data"] == {"a": "b"}
    running = deployed.cluster.running()
    assert all(running.values())
    assert running["kube-apiserver"] != pid


def test_workload_rolls_out_and_stalls(deployed: Deployed) -> None:
    def shows() -> Object:
        found: Object = (deployed.get("Deployment", "shop") or {}).get("status", {})
        return found

    deployed.apply(workload("shop", replicas=2))
    until(lambda: shows().get("availableReplicas") == 2, "two replicas are available")
    deployed.apply(workload("shop", "shop:broken", replicas=2, progressDeadlineSeconds=1))
    until(
        lambda: any(one.get("reason") == "ProgressDeadlineExceeded" for one in shows().get("conditions", ())),
        "the rollout has come to nothing",
    )
    assert shows()["availableReplicas"] == 2
    deployed.ask("DELETE", deployed.path(workload("shop")))
    until(lambda: not deployed.ask("GET", "/api/v1/namespaces/orders/pods")["items"], "no pod is left")


@pytest.mark.parametrize(
    ("pod", "wrong"),
    [
        ({}, ""),
        ({"image": "shop:broken"}, "Unhealthy"),
        ({"env": [{"name": "BREAK", "value": "1"}]}, "Unhealthy"),
        ({"annotations": {"lab/ready": "false"}}, "Unhealthy"),
        ({"annotations": {"lab/crash": "yes"}}, "CrashLoopBackOff"),
    ],
)
def test_pod_says_itself_what_is_wrong(pod: Object, wrong: str) -> None:
    container = {"name": "app", "image": pod.get("image", "shop:1"), "env": pod.get("env", [])}
    found = {"metadata": {"annotations": pod.get("annotations", {})}, "spec": {"containers": [container]}}
    assert verdict(found) == wrong
    ready = {one["type"]: one["status"] for one in status(found, "10.77.0.2", "now")["conditions"]}["Ready"]
    assert ready == str(not wrong)


@pytest.mark.soak
def test_lab_has_a_cluster_from_then_on(fresh_lab: FreshLab) -> None:
    lab: Lab = fresh_lab()
    lab.up(load=False, cluster=True)
    assert {program.name for program in lab.up(load=False).programs} >= set(CLUSTER)
    assert f"LAB_KUBECONFIG={lab.place.kubernetes / 'recovery.kubeconfig'}" in (lab.state / "estate.env").read_text()
    assert lab.cluster is not None
    lab.cluster.kill_api()
    assert not all(program.running for program in lab.status().programs if program.name in CLUSTER)
    lab.heal()
    assert all(program.running for program in lab.status().programs if program.name in CLUSTER)
    root, began = lab.place.root, time.monotonic()
    lab.down()
    assert processes.members(root) == []
    assert not root.exists()
    assert time.monotonic() - began < 60


@pytest.mark.soak
def test_port_that_is_taken_is_told(cluster: Kubernetes, tmp_path: Path) -> None:
    other = Kubernetes(Place(tmp_path / "lab"), {**cluster.ports, "kubernetes": cluster.ports["etcd"]})
    try:
        with pytest.raises(LabError, match="ended, see "):
            other.start(20)
    finally:
        other.stop()
