"""What a manager owns is taken out of an object as ``managedFields`` tells it: enough to apply it again."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from activities.applied import beyond, body, changes, fields, managers, mark, taken, tree, union

Tree = dict[str, Any]

CONTAINER = {
    "name": "app", "image": "shop:1", "imagePullPolicy": "Always", "args": ["-v", "x"],
    "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}],
    "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}],
}  # fmt: skip
OTHER = {"name": "proxy", "image": "proxy:1"}
OWNED: Tree = {
    "f:metadata": {"f:labels": {".": {}, "f:team": {}}, "f:finalizers": {'v:"ours/one"': {}}},
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"app"}': {
                        ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                        "f:env": {".": {}, 'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}},
                        "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                    }
                }
            }
        },
    },
    "f:status": {"f:replicas": {}},
}  # fmt: skip


def live(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "shop", "namespace": "orders", "uid": "1", "labels": {"team": "a", "other": "b"},
            "finalizers": ["theirs/one", "ours/one"], "managedFields": list(entries),
        },
        "spec": {
            "replicas": 2, "paused": False, "selector": {"matchLabels": {"app": "shop"}},
            "template": {"spec": {"containers": [OTHER, CONTAINER], "dnsPolicy": "ClusterFirst"}},
        },
        "status": {"replicas": 1},
    }  # fmt: skip
    return found | more


def entry(fields_: Tree, manager: str = "deployer", operation: str = "Apply", **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsV1": fields_, **more}


def test_only_what_is_owned_is_taken() -> None:
    found = body(live(), tree(live(entry(OWNED)), "deployer"))
    assert found == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": "orders", "labels": {"team": "a"}, "finalizers": ["ours/one"]},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "app", "image": "shop:1", "args": ["-v", "x"], "env": [{"name": "A", "value": "1"}],
                            "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        }
                    ]
                }
            },
        },
    }  # fmt: skip


def test_status_belongs_to_nobody() -> None:
    assert "status" not in taken(live(), tree(live(entry(OWNED)), "deployer"))


def test_what_went_through_a_subresource_does_not_count() -> None:
    assert tree(live(entry({"f:spec": {"f:replicas": {}}}, subresource="scale")), "deployer") == {}


def test_both_operations_of_a_manager_count() -> None:
    found = live(entry({"f:spec": {"f:paused": {}}}), entry({"f:spec": {"f:replicas": {}}}, operation="Update"))
    assert taken(found, tree(found, "deployer")) == {"spec": {"paused": False, "replicas": 2}}
    assert taken(found, tree(found, "deployer", "Apply")) == {"spec": {"paused": False}}
    assert managers(found) == ["deployer"]


def test_map_that_is_only_there_takes_nothing_of_others() -> None:
    assert taken(live(), {"f:metadata": {"f:labels": {".": {}}}}) == {"metadata": {}}


def test_empty_map_is_taken() -> None:
    assert taken({"spec": {"emptyDir": {}}}, {"f:spec": {"f:emptyDir": {}}}) == {"spec": {"emptyDir": {}}}


def test_owned_field_that_is_gone_is_left_out() -> None:
    assert taken(live(), {"f:spec": {"f:nowhere": {}}}) == {"spec": {}}


def test_text_of_a_secret_counts_as_data() -> None:
    found = live(entry({"f:stringData": {"f:a": {}}}), kind="Secret", data={"a": "YQ==", "b": "Yg=="})
    assert taken(found, tree(found, "deployer")) == {"data": {"a": "YQ=="}}


def test_digest_tells_values_apart() -> None:
    one, other = live(entry(OWNED)), live(entry(OWNED))
    other["spec"]["replicas"] = 3
    assert mark(one, manager="deployer") != mark(other, manager="deployer")


def test_digest_spares_what_others_own() -> None:
    one, other = live(entry(OWNED)), live(entry(OWNED))
    other["spec"]["paused"], other["metadata"]["labels"]["other"], other["status"] = True, "c", {"replicas": 7}
    other["spec"]["template"]["spec"]["containers"][0] = {"name": "proxy", "image": "proxy:2"}
    assert mark(one, manager="deployer") == mark(other, manager="deployer")


def test_digest_spares_the_order_of_known_items() -> None:
    one, other = live(entry(OWNED)), live(entry(OWNED))
    other["spec"]["template"]["spec"]["containers"].reverse()
    assert mark(one, manager="deployer") == mark(other, manager="deployer")


def test_digest_keeps_the_order_of_values() -> None:
    one, other = live(entry(OWNED)), live(entry(OWNED))
    reordered = CONTAINER | {"args": ["x", "-v"]}
    other["spec"]["template"]["spec"]["containers"] = [OTHER, reordered]
    assert mark(one, manager="deployer") != mark(other, manager="deployer")


def test_what_is_not_there_has_no_digest() -> None:
    assert mark(None, manager="deployer") == ""
    assert mark(live(), manager="deployer") != ""


def test_differences_are_shown() -> None:
    shown = changes({"spec": {"replicas": 2}}, {"spec": {"replicas": 3}}, "deployment/shop")
    assert "-  replicas: 2\n+  replicas: 3\n" in shown


def test_hidden_differences_show_no_value() -> None:
    assert changes({"data": "geheim"}, {"data": "other"}, "secret/a", hidden="it differs") == "# it differs\n"


def test_long_differences_are_cut() -> None:
    shown = changes({}, {"data": {str(n): "x" * 80 for n in range(500)}}, "configmap/a")
    assert len(shown) < 8200
    assert "and more" in shown


def test_changed_fields_are_named() -> None:
    one, other = {"spec": {"a": 1, "b": {"c": [1]}}}, {"spec": {"b": {"c": [2]}, "d": 1}}
    assert list(fields(one, other)) == [".spec.a", ".spec.b.c", ".spec.d"]


STEPS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.just({}), lambda inner: st.dictionaries(STEPS, inner, min_size=1, max_size=3), max_leaves=8
)


@settings(deadline=None, max_examples=50)
@given(TREES, TREES)
def test_what_is_in_neither_is_in_no_union(one: Tree, other: Tree) -> None:
    both = union(one, other)
    assert beyond(one, both) == {}
    assert beyond(other, both) == {}


@settings(deadline=None, max_examples=50)
@given(TREES)
def test_tree_goes_not_beyond_itself(one: Tree) -> None:
    assert beyond(one, one) == {}
    assert union(one, one) == one


@settings(deadline=None, max_examples=50)
@given(TREES, TREES)
def test_beyond_and_the_other_are_the_union(one: Tree, other: Tree) -> None:
    assert union(beyond(one, other), other) == union(one, other)
