"""What an API server refuses, or does not answer, is told as what to do next; no secret is told with it."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities import cluster_hands, cluster_refusals, clusters
from activities.cluster_refusals import Conflict, Denied, Guarded, Missing, Owned
from activities.clusters import APPLY, ClusterAt
from activities.returning import ClusterReturn, cluster_returns
from lab.cluster_access import NAMESPACE
from lab.kubernetes import Kubernetes
from recovery.errors import Invalid, RecoveryError, Refused, Stale, Transient
from recovery.fencing import Hand, acting
from recovery.names import lease_id
from tests.clusters import CORE, config_map
from tests.matrix.relay import relay
from tests.running import eventually

LEASES = f"/apis/{cluster_hands.VERSION}/namespaces/{NAMESPACE}/{cluster_hands.PLURAL}"
DATA: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data/api_refusals.json").read_text())
KINDS = {kind.__name__: kind for kind in (Conflict, Denied, Guarded, Missing, Refused, Invalid, Transient)}


def at(cluster: Kubernetes, user: str = "recovery") -> ClusterAt:
    return ClusterAt(name="lab", kubeconfig=str(cluster.kubeconfig(user)), context="lab")


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Return a file; what it holds may be shown to nobody."""
    return tmp_path / "kubeconfig"


@pytest.mark.parametrize("case", DATA, ids=[case["name"] for case in DATA])
def test_refusal_says_what_to_do(case: dict[str, Any]) -> None:
    found = cluster_refusals.of("lab", case["method"], case["path"], case["status"], case["body"])
    assert type(found) is KINDS[case["kind"]]
    assert found.message == case["message"]
    assert found.type in ("Refused", "Invalid", "Transient")
    assert found.non_retryable == (found.type != "Transient")


@pytest.mark.parametrize("case", DATA, ids=[case["name"] for case in DATA])
def test_refusal_shows_no_value(case: dict[str, Any]) -> None:
    assert "geheim" not in cluster_refusals.of("lab", "PATCH", case["path"], case["status"], case["body"]).message


async def asked(cluster: ClusterAt) -> RecoveryError:
    with pytest.raises(RecoveryError) as caught:
        await clusters.ask(cluster, "GET", f"{CORE}/configmaps")
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "geheim: [",
        "geheim",
        "{}",
        '{"clusters": [], "users": [{"name": "x", "user": {"token": "geheim"}}]}',
        "\x00",
    ],
)
async def test_broken_kubeconfig_is_named_not_shown(kubeconfig: Path, text: str) -> None:
    kubeconfig.write_text(text)
    found = await asked(ClusterAt(name="lab", kubeconfig=str(kubeconfig)))
    assert isinstance(found, Invalid)
    assert str(kubeconfig) in found.message
    assert "geheim" not in found.message


async def test_absent_kubeconfig_is_named(kubeconfig: Path) -> None:
    found = await asked(ClusterAt(name="lab", kubeconfig=str(kubeconfig)))
    assert found.message == f"kubeconfig: {kubeconfig} of lab cannot be read (No such file or directory)"


async def test_unknown_context_is_named(cluster: Kubernetes) -> None:
    found = await asked(at(cluster).model_copy(update={"context": "nowhere"}))
    assert isinstance(found, Invalid)
    assert "it has no context nowhere" in found.message


async def test_unknown_token_is_refused(cluster: Kubernetes, kubeconfig: Path) -> None:
    kubeconfig.write_text(cluster.kubeconfig().read_text().replace(cluster.access.token("recovery"), "geheim"))
    found = await asked(ClusterAt(name="lab", kubeconfig=str(kubeconfig)))
    assert isinstance(found, Refused)
    assert "token" in found.message
    assert "geheim" not in found.message


async def test_refusal_of_one_that_comes_back_has_to_stand(cluster: Kubernetes, kubeconfig: Path) -> None:
    """One that starts refuses everybody at first: that is no reason to give it up."""
    right = cluster.kubeconfig().read_text()
    kubeconfig.write_text(right.replace(cluster.access.token("recovery"), "geheim"))
    there = ClusterAt(name="lab", kubeconfig=str(kubeconfig))
    waiting = asyncio.create_task(cluster_returns.observe(ClusterReturn(system="web", cluster=there)))
    for _ in range(3):
        assert isinstance(await asked(there), Refused)
    assert not waiting.done()
    kubeconfig.write_text(right)
    async with asyncio.timeout(20):
        await waiting


async def test_kubeconfig_that_is_renewed_leaves_no_connection(cluster: Kubernetes, kubeconfig: Path) -> None:
    port = cluster.ports["kubernetes"]
    async with relay(port) as between:
        text = cluster.kubeconfig().read_text().replace(f":{port}", f":{between.port}")
        for number in range(5):
            kubeconfig.write_text(text + "\n" * number)
            await clusters.ask(ClusterAt(name="lab", kubeconfig=str(kubeconfig)), "GET", f"{CORE}/configmaps")
        assert between.accepted == 5
        await eventually(lambda: between.open == 1, "only that of the newest one is open")


async def test_other_certificate_is_refused(cluster: Kubernetes, kubeconfig: Path) -> None:
    told = json.loads(cluster.kubeconfig().read_text())
    del told["clusters"][0]["cluster"]["certificate-authority-data"]  # then the machine's own have to do
    kubeconfig.write_text(json.dumps(told))
    found = await asked(ClusterAt(name="lab", kubeconfig=str(kubeconfig)))
    assert isinstance(found, Refused)
    assert "certificate" in found.message


async def test_what_listens_not_is_tried_again(cluster: Kubernetes, kubeconfig: Path, unused_tcp_port: int) -> None:
    port = cluster.ports["kubernetes"]
    kubeconfig.write_text(cluster.kubeconfig().read_text().replace(f":{port}", f":{unused_tcp_port}"))
    found = await asked(ClusterAt(name="lab", kubeconfig=str(kubeconfig)))
    assert isinstance(found, Transient)
    assert "cannot be reached" in found.message


async def test_what_is_silent_is_tried_again(
    cluster: Kubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "LIMIT", (0.5, 0.5))
    port = cluster.ports["kubernetes"]
    async with relay(port) as between:
        kubeconfig.write_text(cluster.kubeconfig().read_text().replace(f":{port}", f":{between.port}"))
        found = ClusterAt(name="lab", kubeconfig=str(kubeconfig))
        await clusters.ask(found, "GET", f"{CORE}/configmaps")
        between.silence()
        assert isinstance(await asked(found), Transient)
        between.cut()
        assert (await clusters.ask(found, "GET", f"{CORE}/configmaps"))["kind"] == "ConfigMapList"


async def test_viewer_may_not_write(cluster: Kubernetes) -> None:
    body = config_map("a", {"a": "b"})
    with pytest.raises(Refused, match=f"user viewer may not patch configmaps in namespace {NAMESPACE}"):
        await clusters.ask(at(cluster, "viewer"), "PATCH", f"{CORE}/configmaps/a?fieldManager=x", body, kind=APPLY)


async def test_other_namespace_is_forbidden(cluster: Kubernetes) -> None:
    with pytest.raises(Refused, match="user recovery may not list configmaps in namespace kube-system"):
        await clusters.ask(at(cluster), "GET", "/api/v1/namespaces/kube-system/configmaps")


async def test_kinds_are_found_without_a_file(
    cluster: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = await clusters.resource(at(cluster), "apps/v1", "Deployment")
    assert found.path("orders", "shop") == "/apis/apps/v1/namespaces/orders/deployments/shop"
    assert (await clusters.resource(at(cluster), "v1", "Namespace")).path("orders", "x") == "/api/v1/namespaces/x"
    assert list(tmp_path.iterdir()) == []


async def test_path_that_is_not_for_us_is_denied_as_objects_are(cluster: Kubernetes) -> None:
    with pytest.raises(Denied, match="user recovery may not get /metrics in the cluster"):
        await clusters.ask(at(cluster), "GET", "/metrics")


@pytest.mark.parametrize("version", ["apps/v1", "example.org/v1"])
async def test_unknown_kind_is_named(cluster: Kubernetes, version: str) -> None:
    with pytest.raises(Invalid, match=f"lab knows no Nothing of {version}"):
        await clusters.resource(at(cluster), version, "Nothing")


async def test_loop_is_not_blocked(cluster: Kubernetes, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "LIMIT", (1.0, 1.0))
    port = cluster.ports["kubernetes"]
    async with relay(port) as between:
        kubeconfig.write_text(cluster.kubeconfig().read_text().replace(f":{port}", f":{between.port}"))
        found = ClusterAt(name="lab", kubeconfig=str(kubeconfig))
        await clusters.ask(found, "GET", f"{CORE}/configmaps")
        between.silence()
        asking, beats = asyncio.create_task(asked(found)), 0
        while not asking.done():
            await asyncio.sleep(0.01)
            beats += 1
        assert beats > 10


async def test_nothing_is_written_after_a_cancel(cluster: Kubernetes) -> None:
    """A thread cannot be stopped: the cancel arrives once its request has come to its end."""
    for number in range(5):
        path = f"{CORE}/configmaps/cancelled-{number}"
        body = config_map(f"cancelled-{number}", {"a": "b"})
        asking = asyncio.create_task(clusters.ask(at(cluster), "PATCH", f"{path}?fieldManager=x", body, kind=APPLY))
        await asyncio.sleep(0.001 * number)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        then = await clusters.get(at(cluster), path)
        await asyncio.sleep(0.05)
        assert await clusters.get(at(cluster), path) == then


async def claimed(cluster: Kubernetes, number: tuple[int, int, int], part: str, catalog: str = "lab") -> None:
    with acting(Hand("shop", *number, lease_id(catalog, "shop"))):
        await cluster_hands.claim(at(cluster), NAMESPACE, "shop", part)


async def last(cluster: Kubernetes, part: str) -> list[str]:
    """Return the number of the hand that its Lease tells of."""
    found = await clusters.get(at(cluster), f"{LEASES}/recovery.lab.shop.{part}")
    assert found is not None
    return [found["metadata"]["annotations"][mark] for mark in cluster_hands.MARKS]


async def test_late_hand_is_stale(cluster: Kubernetes) -> None:
    await claimed(cluster, (2, 1, 1), "late")
    await claimed(cluster, (2, 1, 1), "late")
    for late in ((1, 9, 9), (2, 0, 9), (2, 1, 0)):
        with pytest.raises(Stale, match=r"epoch 2 \(order 1, attempt 1\) has written since"):
            await claimed(cluster, late, "late")
    assert await last(cluster, "late") == ["2", "1", "1"]
    await claimed(cluster, (2, 1, 2), "late")
    assert await last(cluster, "late") == ["2", "1", "2"]


async def test_parts_of_a_system_have_their_own_hands(cluster: Kubernetes) -> None:
    await claimed(cluster, (2, 5, 1), "one")
    await claimed(cluster, (2, 4, 1), "other")
    assert (await last(cluster, "one"), await last(cluster, "other")) == (["2", "5", "1"], ["2", "4", "1"])


async def test_system_of_one_name_in_another_catalog_has_hands_of_its_own(cluster: Kubernetes) -> None:
    await claimed(cluster, (9, 1, 1), "twin")
    await claimed(cluster, (3, 8, 1), "twin", "tools")
    await claimed(cluster, (9, 1, 2), "twin")
    with pytest.raises(Stale, match=r"lease/recovery.tools.shop.twin: epoch 3 \(order 8"):
        await claimed(cluster, (3, 7, 1), "twin", "tools")


async def test_of_many_hands_at_once_the_last_one_stays(cluster: Kubernetes) -> None:
    numbers = [(3, order, 1) for order in range(12)]
    await asyncio.gather(*(claimed(cluster, number, "many") for number in numbers), return_exceptions=True)
    assert await last(cluster, "many") == ["3", "11", "1"]
    found = await clusters.get(at(cluster), f"{LEASES}/recovery.lab.shop.many") or {}
    assert found["spec"]["leaseTransitions"] == 1


async def test_lease_tells_who_holds_it(cluster: Kubernetes) -> None:
    await ActivityEnvironment().run(claimed, cluster, (5, 1, 1), "told")
    first = (await clusters.get(at(cluster), f"{LEASES}/recovery.lab.shop.told") or {})["spec"]
    assert first["holderIdentity"] == "test test-run"
    await claimed(cluster, (5, 2, 1), "told")
    await claimed(cluster, (6, 1, 1), "told")
    then = (await clusters.get(at(cluster), f"{LEASES}/recovery.lab.shop.told") or {})["spec"]
    assert (first["leaseTransitions"], then["leaseTransitions"]) == (1, 2)
    assert then["acquireTime"] > first["acquireTime"]


async def test_lease_of_somebody_else_is_not_taken(cluster: Kubernetes) -> None:
    body = {"apiVersion": cluster_hands.VERSION, "kind": "Lease", "metadata": {"name": "recovery.lab.shop.foreign"}}
    await clusters.ask(at(cluster), "POST", LEASES, body)
    with pytest.raises(Invalid, match=r"lease/recovery.lab.shop.foreign is not as a recovery wrote it; .* delete it"):
        await claimed(cluster, (5, 1, 1), "foreign")


@pytest.mark.parametrize("other", ["web_one", "Web-one", "web-one.", "web--one"])
def test_leases_of_names_that_look_alike_differ(other: str) -> None:
    for given in ("", "lease/lab/web-one"):
        plain = cluster_hands.lease_name("web-one", "x", given)
        assert plain == ("recovery.lab.web-one.x" if given else "recovery.web-one.x")
        found = cluster_hands.lease_name(other, "x", given)
        assert found != plain
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", found)


def test_lease_of_long_names_is_one_that_kubernetes_takes() -> None:
    names = [cluster_hands.lease_name("s" * 120, part * 63, f"lease/{'c' * 90}/{'s' * 120}") for part in "ab"]
    assert len({*names}) == 2
    assert all(len(name) <= 253 and re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", name) for name in names)


async def test_owned_fields_are_told(cluster: Kubernetes) -> None:
    path = f"{CORE}/configmaps/owned"
    await clusters.ask(at(cluster), "PATCH", f"{path}?fieldManager=one", config_map("owned", {"a": "1"}), kind=APPLY)
    with pytest.raises(Conflict) as caught:
        await clusters.ask(at(cluster), "PATCH", f"{path}?fieldManager=b", config_map("owned", {"a": "2"}), kind=APPLY)
    assert caught.value.owned == (Owned(".data.a", "one"),)
