"""The commands that read files only, in one process with the test."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from console.app import main
from recovery.errors import Invalid
from recovery.models import Start
from runbooks.library import Library

NAME = "lab/restore-orders"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def change(catalogs: Path, old: str, new: str, file: str = "restore-orders") -> None:
    path = catalogs / "lab" / f"{file}.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_runbooks_are_listed(catalogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = answer(capsys, "runbooks")
    assert (code, [row["name"] for row in rows]) == (0, [NAME])
    assert rows[0]["systems"] == ["orders"]
    assert main(["runbooks"]) == 0
    assert NAME in capsys.readouterr().out


def test_one_broken_runbook_hides_no_other(catalogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (catalogs / "lab" / "broken.yaml").write_text("title: [")
    code, rows = answer(capsys, "runbooks")
    assert (code, [row["name"] for row in rows]) == (0, ["lab/broken", NAME])
    assert rows[0]["fault"].startswith("lab/broken.yaml: line ")


def test_runbooks_are_listed_without_the_addresses_of_the_estate(
    catalogs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_PG_BIN")
    assert answer(capsys, "runbooks")[0] == 0
    code, shown = answer(capsys, "show", NAME)
    assert code == 0
    assert "LAB_PG_BIN" in shown["objectives"]["fault"]
    assert answer(capsys, "link", NAME)[0] == 0


def test_show_tells_parameters_gates_and_objectives(catalogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown = answer(capsys, "show", NAME)
    assert code == 0
    assert shown["objectives"] == {"tier": "gold", "rto": "1 h", "rpo": "15 min"}
    assert {row["name"]: row["from"] for row in shown["needs"]} == {
        "target_time": "you", "target_lsn": "default", "target_xid": "default", "target_name": "default",
        "inclusive": "default", "timeline": "default", "queries": "runbook", "tables": "runbook", "amcheck": "default",
        "cutover": "default", "await_write": "default", "extract": "default",
    }  # fmt: skip
    assert main(["show", NAME]) == 0
    out = capsys.readouterr().out
    assert "keep the copy: 1 × dba within 1 h" in out
    assert "Somebody dropped a table" in out


def test_an_unknown_runbook_is_bad_input(catalogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("show", "lab/nix"), ("link", "../secret"), ("print", "lab/nix"), ("check", "lab/nix")):
        code, found = answer(capsys, *words)
        assert (code, found["error"]["kind"]) == (2, "Invalid")
        assert found["error"]["message"] == f"runbook: there is none of this name; there are: {NAME}"


def test_valid_runbooks_validate(catalogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "validate") == (0, {"runbooks": [NAME], "faults": []})


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("systems: [orders]", "systems: [nix]", "systems"),
        ("roles: [dba]", "roles: [nobody]", "gates.keep the copy.roles"),
        ("approvals: 1", "approvals: 0", "gates.keep the copy.approvals"),
        ("within: PT1H", "within: soon", "gates.keep the copy.within"),
        ('version: "1"', "wersion: 1", "wersion"),
        ("procedure: Database", "procedure: Datebase", "procedure"),
        ('expect: "200"', "expect: {a: 1}", "parameters.queries.0.expect"),
        ("tables: [public.orders", "tables: [orders", "parameters.tables.0"),
        ("name: no order", "nome: no order", "parameters.queries.1.name"),
    ],
)
def test_every_fault_names_file_and_field(
    catalogs: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, field: str
) -> None:
    change(catalogs, old, new)
    code, found = answer(capsys, "validate", NAME)
    assert code == 2
    assert field in [fault["field"] for fault in found["faults"]]
    assert {fault["file"] for fault in found["faults"]} == {f"{NAME}.yaml"}


def test_channels_are_tried_where_their_addresses_are(
    catalogs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change(catalogs, "gates:", "notify: [dba, pager]\ngates:")
    assert answer(capsys, "validate")[0] == 0  # here nobody knows them
    monkeypatch.setenv("RECOVERY_NOTIFY", str(tmp_path / "notify.conf"))
    code, found = answer(capsys, "validate")
    why = "RECOVERY_NOTIFY: its file cannot be read (No such file or directory)"
    assert (code, found["faults"]) == (2, [{"file": f"{NAME}.yaml", "field": "notify", "message": why}])
    (tmp_path / "notify.conf").write_text("dba=json://me:hunter2@127.0.0.1/in\n")
    code, found = answer(capsys, "validate")
    assert (code, len(found["faults"])) == (2, 1)
    assert found["faults"][0]["message"].startswith("channel pager: RECOVERY_NOTIFY: ")
    assert "hunter2" not in str(found)
    change(catalogs, "[dba, pager]", "[dba]")
    assert answer(capsys, "validate")[0] == 0
    assert main(["show", NAME]) == 0
    assert "Told        dba\n" in capsys.readouterr().out


def test_faults_of_several_files_are_listed_together(catalogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(catalogs, "roles: [dba]", "roles: [nobody]")
    change(catalogs, "rto: PT1H", "rto: PT0S", file="estate")
    (catalogs / "lab" / "other.yaml").write_text("title: x\ntitle: y\n")
    code, found = answer(capsys, "validate")
    assert code == 2
    fields = [(fault["file"], fault["field"]) for fault in found["faults"]]
    assert fields == [("lab/other.yaml", "line 2"), ("lab/estate.yaml", "tiers.gold.rto")]
    assert main(["validate"]) == 2
    assert "lab/estate.yaml: tiers.gold.rto: " in capsys.readouterr().out


def test_an_estate_without_addresses_says_so(
    catalogs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAB_PG_BIN")
    code, found = answer(capsys, "start", NAME, "--reason", "x", "-p", "target_time=2026-11-21T22:00:00Z")
    assert code == 2
    assert "${LAB_PG_BIN} has no value" in found["error"]["message"]


def test_link_opens_the_start_form_of_this_workflow(catalogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = answer(capsys, "link", NAME, "--by", "alice", "--mode", "check")
    address = urlsplit(found["link"])
    assert (code, address.path) == (0, "/namespaces/default/workflows/start-workflow")
    assert parse_qs(address.query) == {
        "workflowType": ["DatabasePointInTimeRestore"],
        "taskQueue": ["recovery"],
        "workflowId": ["lab/orders/check"],
    }
    assert found["input"]["requested_by"] == "alice"


def test_link_names_the_configured_namespace_and_ui(
    catalogs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "TEMPORAL_ADDRESS": "t:7233",
        "TEMPORAL_NAMESPACE": "dr/1",
        "RECOVERY_TEMPORAL_UI": "https://ui.example/",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    link = answer(capsys, "link", NAME)[1]["link"]
    assert link.startswith("https://ui.example/namespaces/dr%2F1/workflows/start-workflow?")


def test_placeholders_of_the_form_are_refused(catalogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = answer(capsys, "link", NAME)[1]["input"]
    with pytest.raises(ValueError, match="reason"):
        Start.model_validate(body)
    library = Library(catalogs, os.environ)
    with pytest.raises(Invalid, match=r"parameters\.target_time"):
        library.freeze(Start.model_validate(body | {"reason": "x"}), "DatabasePointInTimeRestore")
    filled = answer(capsys, "link", NAME, "-p", "target_time=2026-11-21T22:00:00Z")[1]["input"]
    library.freeze(Start.model_validate(filled | {"reason": "x"}), "DatabasePointInTimeRestore")


@pytest.mark.parametrize(
    "words",
    [
        ("start", NAME),
        ("start", NAME, "--reason", "x", "--mode", "wet"),
        ("reject", NAME),
        ("status",),
        ("nonsense",),
        ("list", "--nonsense"),
        ("lab", "nonsense"),
        ("lab", "break", "nonsense"),
        ("server", "nonsense"),
    ],
)
def test_usage_errors_are_bad_input(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    code, found = answer(capsys, *words)
    assert (code, found["error"]["kind"]) == (2, "Usage")
    assert main(list(words)) == 2
    assert capsys.readouterr().out == ""
