"""Manifests are read as the tools of the API server read them, and each fault is named by file and document."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.manifest_files import Manifest, ordered, read

GOOD = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
data:
  since: "2026-01-01"
"""


def of(text: str, file: str = "a.yaml") -> tuple[list[Manifest], list[str]]:
    found, faults = read({file: text.encode()}, "orders")
    return list(found.values()), faults


def test_documents_are_read_one_by_one() -> None:
    found, faults = of("---\n".join(["", GOOD.format(name="a"), "# nothing\n", GOOD.format(name="b")]))
    assert [one.ref.label for one in found] == ["configmap/a", "configmap/b"]
    assert [one.place for one in found] == ["a.yaml, document 1", "a.yaml, document 3"]
    assert faults == []


def test_json_is_read() -> None:
    (found,), faults = of(json.dumps(yaml.safe_load(GOOD.format(name="a"))), "a.json")
    assert found.ref.key == "orders/configmap/a"
    assert faults == []


def test_list_is_taken_apart() -> None:
    items = [yaml.safe_load(GOOD.format(name=name)) for name in "ab"]
    found, _ = of(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items}))
    assert [one.place for one in found] == ["a.yaml, document 1, item 1", "a.yaml, document 1, item 2"]


def test_other_files_are_no_manifests() -> None:
    assert read({"README.md": b"{", "values.txt": b":"}, "orders") == ({}, [])


def test_date_is_text() -> None:
    (found,), _ = of(GOOD.format(name="a").replace('"', ""))
    assert found.body["data"]["since"] == "2026-01-01"


def test_number_as_a_key_is_text() -> None:
    (found,), _ = of(GOOD.format(name="a") + "  7: one\n  true: yes\n")
    assert found.body["data"] == {"since": "2026-01-01", "7": "one", "true": True}


def test_text_of_a_secret_becomes_data() -> None:
    (found,), _ = of("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: YQ==, b: Yg==}\nstringData: {b: c}")
    assert found.body["data"] == {"a": "YQ==", "b": "Yw=="}
    assert "stringData" not in found.body


def test_status_is_left_out() -> None:
    (found,), _ = of(GOOD.format(name="a") + "status: {phase: Bound}\n")
    assert "status" not in found.body


def test_own_namespace_is_kept() -> None:
    (found,), _ = of(GOOD.format(name="a").replace("name: a", "name: a\n  namespace: other"))
    assert found.ref.namespace == "other"


def test_versions_of_one_group_are_one_object() -> None:
    one, other = (f"apiVersion: apps/{version}\nkind: Deployment\nmetadata: {{name: a}}\n" for version in ("v1", "v2"))
    _, faults = of(f"{one}---\n{other}")
    assert faults == ["a.yaml, document 2: deployment/a is in a.yaml, document 1, too"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- 1\n", "document 1: is no object (a mapping with apiVersion, kind and metadata)"),
        ("kind: A\nmetadata: {name: a}\n", "document 1: has no apiVersion"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "document 1: has no kind"),
        ("apiVersion: v1\nkind: A\n", "document 1: has no metadata"),
        ("apiVersion: v1\nkind: A\nmetadata: {}\n", "document 1: has no metadata.name"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: ../x}\n", "document 1: metadata.name is none"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: 7}\n", "document 1: has no metadata.name"),
        (
            "apiVersion: v1\nkind: A\nmetadata: {generateName: a-}\n",
            "document 1: has a generateName: what has another name each time cannot be brought back",
        ),
        (
            "apiVersion: v1\nkind: A\nmetadata: {name: a, uid: b}\n",
            "document 1: has metadata.uid, which is of one cluster alone: take it out",
        ),
        ("a: 1\na: 2\n", "a.yaml: line 2: the key a is there twice"),
        ("a: [1\n", "a.yaml: line 2: expected ',' or ']', but got '<stream end>'"),
        ("1: a\n'1': b\n", "a.yaml: line 2: the key 1 is there twice"),
        ("01: a\n'1': b\n", "document 1: has a key that is there twice, as a number and as text"),
        ("a: .nan\n", "document 1: has a value that JSON does not know (float)"),
        ("a: !!binary YQ==\n", "document 1: has a value that JSON does not know (bytes)"),
        ("a: !!python/name:os.system x\n", "a.yaml: line 1: could not determine a constructor for the tag"),
        ("a: \x01\n", "a.yaml: is no YAML: it has a character that may not stand there"),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {a: 1}\n",
            "document 1: has a stringData that is no map of texts",
        ),
    ],
)
def test_fault_is_named(text: str, fault: str) -> None:
    found, faults = of(text)
    assert found == []
    assert len(faults) == 1
    assert fault in faults[0]
    assert faults[0].startswith("a.yaml")


def test_text_that_stands_for_endlessly_many_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert of("\n".join(lines))[1] == ["a.yaml, document 1: is too large, or nested too deep"]


def test_text_that_holds_itself_is_refused() -> None:
    assert of("a: &a [*a]\n")[1] == ["a.yaml, document 1: is too large, or nested too deep"]


def test_file_that_is_no_text_is_named() -> None:
    assert read({"a.yaml": b"\xff\xfe\x00\xd8"}, "orders")[1] == ["a.yaml: is no UTF-8"]


def test_one_bad_file_spares_the_others() -> None:
    found, faults = read({"a.yaml": b"a: [", "b.yaml": GOOD.format(name="b").encode()}, "orders")
    assert list(found) == ["orders/configmap/b"]
    assert len(faults) == 1


def test_what_others_need_comes_first() -> None:
    kinds = ["Ingress", "Deployment", "ConfigMap", "Service", "Namespace"]
    texts = "---\n".join(f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\n" for kind in kinds)
    found, _ = of(texts)
    assert [one.ref.kind for one in ordered(found)] == ["Namespace", "ConfigMap", "Service", "Deployment", "Ingress"]


NAMES = st.text("abcxyz-", min_size=1, max_size=8)
TEXTS = st.text("ab01 é\n'\"\\:{}[]-#&*!|>%@,?\t\x00", max_size=10)  # of all characters the first takes seconds
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=15,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.booleans())
def test_what_is_written_is_read(data: dict[str, object], as_json: bool) -> None:
    written = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": data}
    text = json.dumps(written) if as_json else yaml.safe_dump(written, allow_unicode=True)
    (found,), faults = of(text, "a.json" if as_json else "a.yaml")
    assert (found.body, faults) == (written, [])


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200) | st.lists(TEXTS).map("".join).map(str.encode), st.sampled_from(["a.yaml", "a.json"]))
def test_nothing_makes_it_fail(content: bytes, file: str) -> None:
    _, faults = read({file: content}, "orders")
    assert all(fault.startswith(file) for fault in faults)
