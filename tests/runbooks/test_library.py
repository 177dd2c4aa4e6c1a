"""The library: what it finds, what it refuses, each fault with file and field, and when a digest changes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery.errors import Invalid
from recovery.models import Frozen, Mode, Start
from runbooks.library import Library, library, specification
from runbooks.schema import Database
from tests.runbooks.samples import ROOT, values

PROCEDURE = "DatabasePointInTimeRestore"
NAME = "lab/restore-orders"
TIME = "2026-11-21T22:00:00Z"
Edit = Callable[[dict[str, Any]], object]


class Catalog:
    """A copy of the lab's catalog that a test may spoil."""

    def __init__(self, root: Path) -> None:
        (root / "lab").mkdir()
        for name in ("estate.yaml", "restore-orders.yaml"):
            shutil.copy(ROOT / "lab" / name, root / "lab")
        self.root, self.values = root, values()

    @property
    def library(self) -> Library:
        return Library(self.root, self.values)

    def write(self, file: str, text: str | bytes) -> Path:
        path = self.root / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def edit(self, file: str, change: Edit) -> None:
        path = self.root / file
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content))

    def runbook(self, change: Edit) -> None:
        self.edit("lab/restore-orders.yaml", change)

    def estate(self, change: Edit) -> None:
        self.edit("lab/estate.yaml", change)

    def freeze(self, mode: Mode = "live", **parameters: Any) -> Frozen:
        given = {"target_time": TIME} | parameters
        return self.library.freeze(Start(runbook=NAME, reason="a test", mode=mode, parameters=given), PROCEDURE)

    def fault(self) -> str:
        """Return what is said of the runbook."""
        with pytest.raises(Invalid) as refused:
            self.library.runbook(NAME)
        return refused.value.message


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path)


def put(*path: str | int, value: object) -> Edit:
    """Return the edit that sets what lies at ``path``."""

    def change(content: dict[str, Any]) -> None:
        found: Any = content
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return change


def twice(kind: str, name: str, value: object) -> Edit:
    """Return the edit that has a system in the estate under two names."""

    def change(content: dict[str, Any]) -> None:
        content[kind] |= {name: value, f"{name}-too": value}

    return change


def drop(*path: str) -> Edit:
    """Return the edit that takes away what lies at ``path``."""

    def change(content: dict[str, Any]) -> None:
        found: Any = content
        for key in path[:-1]:
            found = found[key]
        del found[path[-1]]

    return change


# --- names ------------------------------------------------------------------------------------------------------


def test_names_are_sorted(catalog: Catalog) -> None:
    for file in ("lab/another.yaml", "acme/estate.yaml", "acme/fail-over_2.yaml"):
        catalog.write(file, "")
    assert catalog.library.names() == ["acme/fail-over_2", "lab/another", NAME]


def test_folder_without_estate_is_no_catalog(catalog: Catalog) -> None:
    catalog.write("acme/fail-over.yaml", "")
    assert catalog.library.names() == [NAME]


@pytest.mark.parametrize("file", ["lab/My Runbook.yaml", "lab/notes.txt", "Lab/x.yaml", "lab/.hidden.yaml"])
def test_names_can_all_be_loaded(catalog: Catalog, file: str) -> None:
    catalog.write(file, "")
    if file.startswith("Lab"):
        catalog.write("Lab/estate.yaml", "")
    assert catalog.library.names() == [NAME]


def test_no_catalogs_are_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is none of this name; there are: none"):
        Library(tmp_path, {}).runbook(NAME)


@pytest.mark.parametrize(
    "name",
    [
        "", "lab", "lab/", "lab/estate", "lab/nothing", "lab/restore-orders.yaml", "lab/restore-orders\n", "/etc/x",
        "../lab/restore-orders", "lab/../lab/restore-orders", "lab//restore-orders", "./lab/restore-orders", "LAB/x",
        "lab/restore-orders/x", "lab\\restore-orders", "lab/\0",
    ],
)  # fmt: skip
def test_unknown_name_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        catalog.library.runbook(name)
    assert refused.value.message == f"runbook: there is none of this name; there are: {NAME}"


# --- YAML -------------------------------------------------------------------------------------------------------

GOOD = (ROOT / "lab" / "restore-orders.yaml").read_text()
LAST = len(GOOD.splitlines())
UNREADABLE: dict[str, tuple[str | bytes, str]] = {
    "a tab": (f"{GOOD}\tx: 1\n", f"line {LAST + 1}: "),
    "no end of a quote": (f'{GOOD}x: "\n', f"line {LAST + 2}: "),
    "no end of a list": (f"{GOOD}x: [\n", f"line {LAST + 2}: "),
    "a key twice": (f"{GOOD}title: again\n", f"line {LAST + 1}: a key is given twice"),
    "an inner key twice": (GOOD.replace("approvals: 1", "approvals: 1\n    approvals: 2"), "a key is given twice"),
    "a key twice in a list": (GOOD.replace("expect: ", "expect: '1'\n      expect: "), "a key is given twice"),
    "a list as key": (f"{GOOD}? [a]\n: 1\n", f"line {LAST + 1}: "),
    "a mapping as key": (f"{GOOD}? {{a: 1}}\n: 1\n", f"line {LAST + 1}: "),
    "an unknown alias": (f"{GOOD}x: *nowhere\n", f"line {LAST + 1}: "),
    "a tag of Python": (f"{GOOD}x: !!python/name:os.system\n", f"line {LAST + 1}: "),
    "a second document": (f"{GOOD}---\nx: 1\n", f"line {LAST + 1}: "),
    "a day that never was": (f"{GOOD}x: 2026-13-45\n", "cannot be read as YAML"),
    "a control character": (f"{GOOD}x: \x07\n", "cannot be read as YAML"),
    "another encoding": (GOOD.encode() + b"x: caf\xe9\n", "cannot be read as YAML"),
    "no end of nesting": (f"{GOOD}x: {'[' * 700}\n", "cannot be read as YAML"),
    "nothing": ("", "input: "),
    "a list": ("- a\n", "input: "),
    "a number": ("7\n", "input: "),
}


@pytest.mark.parametrize("file", ["restore-orders.yaml", "estate.yaml"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_file_is_named(catalog: Catalog, kind: str, file: str) -> None:
    text, said = UNREADABLE[kind]
    if file == "estate.yaml" and ("line" in said or "twice" in said):
        said = "line "  # the estate has other lines
    catalog.write(f"lab/{file}", text)
    fault = catalog.fault()
    assert fault.startswith(f"lab/{file}: ")
    assert said in fault


def test_folder_of_that_name_is_named(catalog: Catalog) -> None:
    (catalog.root / "lab" / "restore-orders.yaml").unlink()
    (catalog.root / "lab" / "restore-orders.yaml").mkdir()
    assert catalog.fault() == "lab/restore-orders.yaml: cannot be read (Is a directory)"


SECRET = "hunter2"
ORDERS = {"table": "public.orders"}
RUNBOOK_FAULTS: list[tuple[Edit, str]] = [
    (put("pasword", value=SECRET), "pasword: Extra inputs are not permitted"),
    (put("gates", "keep the copy", "rolls", value=SECRET), "gates.keep the copy.rolls: Extra inputs are not permitted"),
    (drop("title"), "title: Field required"),
    (drop("why"), "why: Field required"),
    (put("title", value=7), "title: "),
    (put("title", value=""), "title: "),
    (put("version", value=1.0), "version: "),
    (put("systems", value=[]), "systems: "),
    (put("systems", value=SECRET), "systems: "),
    (put("systems", value=[{"name": SECRET}]), "systems.0: "),
    (put("parameters", value=[SECRET]), "parameters: "),
    (put("gates", value=[SECRET]), "gates: "),
    (put("gates", "keep the copy", value=SECRET), "gates.keep the copy: "),
    (put("gates", "keep the copy", "roles", value=[]), "gates.keep the copy.roles: "),
    (put("gates", "keep the copy", "approvals", value=0), "gates.keep the copy.approvals: "),
    (put("gates", "keep the copy", "approvals", value=SECRET), "gates.keep the copy.approvals: "),
    (put("gates", "keep the copy", "within", value="PT0S"), "gates.keep the copy.within: "),
    (put("gates", "keep the copy", "in_drill", value=SECRET), "gates.keep the copy.in_drill: "),
    (put("gates", "keep the copy", "valid", value="PT0S"), "gates.keep the copy.valid: "),
    (put("gates", "keep the copy", "valid", value=SECRET), "gates.keep the copy.valid: "),
    (put("not_after", value="-PT1S"), "not_after: "),
    (put("not_after", value=SECRET), "not_after: "),
    (put("hold", value=SECRET), "hold: "),
    (put("hold", value={}), "hold.roles: Field required"),
    (put("hold", value={"roles": []}), "hold.roles: "),
    (put("hold", value={"roles": SECRET}), "hold.roles: "),
    (put("hold", value={"roles": ["dba"], "within": "PT0S"}), "hold.within: "),
    (put("hold", value={"roles": ["dba"], "dark_within": "-PT1S"}), "hold.dark_within: "),
    (put("hold", value={"roles": ["dba"], "dark_within": SECRET}), "hold.dark_within: "),
    (put("hold", value={"roles": ["dba"], "silence": SECRET}), "hold.silence: Extra inputs are not permitted"),
    (put("keep_for", value="PT0S"), "keep_for: "),
    (put("keep_for", value=SECRET), "keep_for: "),
]
NO_RATES: tuple[object, ...] = (SECRET, 0, -1, True, "1KiB", "5 apples", [], 2**50)
ESTATE_FAULTS: list[tuple[Edit, str]] = [
    (put("pasword", value=SECRET), "pasword: Extra inputs are not permitted"),
    (put("sites", "north", "active", value=True), "sites.north.active: Extra inputs are not permitted"),
    (put("hosts", "north-db", "pasword", value=SECRET), "hosts.north-db.pasword: Extra inputs are not permitted"),
    (put("databases", "orders", "pasword", value=SECRET), "databases.orders.pasword: Extra inputs are not permitted"),
    (put("tiers", "gold", "rtp", value="PT1H"), "tiers.gold.rtp: Extra inputs are not permitted"),
    (put("people", "bob", "phone", value=SECRET), "people.bob.phone: Extra inputs are not permitted"),
    (drop("people"), "people: Field required"),
    (drop("hosts", "north-db", "key"), "hosts.north-db.key: Field required"),
    (put("hosts", "north-db", "port", value=0), "hosts.north-db.port: "),
    (put("hosts", "north-db", "port", value=65536), "hosts.north-db.port: "),
    (put("hosts", "north-db", "port", value=SECRET), "hosts.north-db.port: "),
    (put("hosts", "north-db", "jobs", value="relative"), "hosts.north-db.jobs: "),
    (put("databases", "orders", "copy_ports", value=[]), "databases.orders.copy_ports: "),
    (put("databases", "orders", "copy_ports", 1, value=SECRET), "databases.orders.copy_ports.1: "),
    (put("databases", "orders", "copies", value="/srv/'; rm -rf /"), "databases.orders.copies: "),
    (put("databases", "orders", "archive", value="/srv/$(id)"), "databases.orders.archive: "),
    (put("databases", "orders", "data", value="/srv/%f"), "databases.orders.data: "),
    (put("databases", "orders", "data", value="/srv/x\n"), "databases.orders.data: "),
    (put("databases", "orders", "drill", value=SECRET), "databases.orders.drill: "),
    (put("databases", "orders", "backups", value="relative"), "databases.orders.backups.folder: "),
    (put("databases", "orders", "backups", value={"kind": SECRET}), "databases.orders.backups.kind: "),
    (put("databases", "orders", "backups", value={}), "databases.orders.backups: Value error, folder is needed"),
    (
        put("databases", "orders", "backups", value={"kind": "barman"}),
        "databases.orders.backups: Value error, server is needed",
    ),
    (
        put("databases", "orders", "backups", value={"kind": "pgbackrest", "server": "$(id)"}),
        "databases.orders.backups.server: ",
    ),
    (
        put("databases", "orders", "backups", value={"folder": "/b", "server": "x"}),
        "databases.orders.backups: Value error, server is of no use",
    ),
    (
        put("databases", "orders", "archive", value=None),
        "databases.orders: Value error, archive: the folder of the log is needed",
    ),
    (
        put("databases", "orders", "restore_command", value="cat %f"),
        "databases.orders.restore_command: Value error, has to say",
    ),
    (put("databases", "orders", "restore_command", value="cp %f %p %r"), "databases.orders.restore_command: "),
    *(
        (
            put("databases", "orders", "io_rate", value=value),
            "databases.orders.io_rate: Value error, is no number of bytes a second; write it like 50MiB",
        )
        for value in NO_RATES
    ),
    (put("tiers", "gold", "rto", value="PT0S"), "tiers.gold.rto: "),
    (put("tiers", "gold", "rpo", value="-PT1S"), "tiers.gold.rpo: "),
    (put("people", "bob", "roles", value=[]), "people.bob.roles: "),
    (put("safety", "max_fenced", value=-1), "safety.max_fenced: "),
    (put("safety", "pasword", value=SECRET), "safety.pasword: Extra inputs are not permitted"),
    (put("safety", "freeze", value=[{"to": TIME, "why": "x"}]), "safety.freeze.0.from: Field required"),
    (
        put("safety", "freeze", value=[{"from": "2026-12-24T00:00:00", "to": TIME, "why": "x"}]),
        "safety.freeze.0.from: Input should have timezone info",
    ),
    (
        put("safety", "freeze", value=[{"from": TIME, "to": TIME, "why": SECRET}]),
        "safety.freeze.0: Value error, to is not after from; a window has to end after it began",
    ),
]


@pytest.mark.parametrize(("edit", "said"), RUNBOOK_FAULTS, ids=[said for _, said in RUNBOOK_FAULTS])
def test_fault_of_a_runbook_is_named(catalog: Catalog, edit: Edit, said: str) -> None:
    catalog.runbook(edit)
    fault = catalog.fault()
    assert fault.startswith(f"lab/restore-orders.yaml: {said}")
    assert SECRET not in fault


@pytest.mark.parametrize(("edit", "said"), ESTATE_FAULTS, ids=[said for _, said in ESTATE_FAULTS])
def test_fault_of_an_estate_is_named(catalog: Catalog, edit: Edit, said: str) -> None:
    catalog.estate(edit)
    fault = catalog.fault()
    assert fault.startswith(f"lab/estate.yaml: {said}")
    assert SECRET not in fault


@pytest.mark.parametrize(
    ("written", "rate"), [("50MiB", 50 << 20), ("2 MB", 2_000_000), (70_000, 70_000), (None, None)]
)
def test_rate_is_bytes_a_second(catalog: Catalog, written: object, rate: int | None) -> None:
    catalog.estate(put("databases", "orders", "io_rate", value=written))
    frozen = catalog.freeze().estate["databases"]["orders"]
    assert (frozen["io_rate"], Database.model_validate(frozen).io_rate) == (rate, rate)


# --- what belongs together --------------------------------------------------------------------------------------

PLACE = {"address": "x", "port": 1}
EDGE = {
    "kind": "haproxy", "host": "north-db", "backend": "orders", "sites": {"north": ["n1", "n2"], "south": "s1"},
    "state": "/var/lib/haproxy/state", "url": "http://edge.example.org",
}  # fmt: skip
SHOP = {
    "kind": "dns", "server": "192.0.2.53:53", "zone": "example.org", "record": "shop.example.org", "type": "CNAME",
    "sites": {"north": "north.example.org", "south": "south.example.org"}, "nobody": "sorry.example.org",
    "key": {"name": "recovery", "secret": "/etc/recovery/key"}, "resolvers": ["192.0.2.1:53"],
    "url": "http://shop.example.org",
}  # fmt: skip
MISMATCHES: list[tuple[str, Edit, str]] = [
    ("runbook", put("systems", value=["nowhere"]), "systems: nowhere is no database of the estate"),
    ("runbook", put("systems", value=["orders", "orders"]), "systems: one is named twice"),
    ("runbook", put("gates", value={}), "gates.keep the copy: is missing; say who decides there"),
    (
        "runbook",
        put("gates", "more", value={"roles": ["dba"]}),
        f"gates: {PROCEDURE} has only these: keep the copy, cut over, copy back; leave out more",
    ),
    (
        "runbook",
        put("parameters", "cutover", value="replace"),
        "gates.cut over: is missing; say who decides there; hold: is missing; say who is asked when a step fails,"
        " for after some point there is no way back",
    ),
    ("runbook", put("hold", value={"roles": ["pilot"]}), "hold.roles: nobody in the estate has the role pilot"),
    (
        "runbook",
        put("gates", "keep the copy", "roles", value=["dba", "dbo"]),
        "gates.keep the copy.roles: nobody in the estate has the role dbo",
    ),
    (
        "estate",
        put("safety", "max_fenced", value=2),
        "safety.max_fenced: the estate has 2 sites; 1 at most, so that one is left",
    ),
    ("estate", put("databases", "orders", "host", value="x"), "databases.orders.host: the estate has no such host"),
    ("estate", put("databases", "orders", "tier", value="tin"), "databases.orders.tier: the estate has no such tier"),
    ("estate", put("hosts", "north-db", "site", value="west"), "hosts.north-db.site: the estate has no such site"),
    (
        "estate",
        put("sites", "south", "queue", value="recovery-north"),
        "sites.south.queue: north has the same; what is asked there must come from one site",
    ),
    (
        "estate",
        put("hosts", "north-db", "seen_from", "west", value=PLACE),
        "hosts.north-db.seen_from.west: the estate has no such site",
    ),
    (
        "estate",
        put("hosts", "north-db", "seen_from", "north", value=PLACE),
        "hosts.north-db.seen_from.north: is its own site; that one uses address and port",
    ),
    (
        "estate",
        put("databases", "orders", "peer", value="x"),
        "databases.orders.peer: the estate has no such database;"
        " databases.orders-south.peer: orders does not name orders-south as its peer",
    ),
    (
        "estate",
        drop("databases", "orders", "peer"),
        "databases.orders-south.peer: orders does not name orders-south as its peer",
    ),
    (
        "estate",
        put("databases", "orders-south", "host", value="north-db"),
        "databases.orders.peer: orders-south is at the same site;"
        " databases.orders-south.peer: orders is at the same site",
    ),
    (
        "estate",
        put("services", "orders-app-south", "after", value=["orders"]),
        "services.orders-app-south.after: orders is at another site",
    ),
    (
        "estate",
        drop("databases", "orders", "upstream"),
        "databases.orders.upstream: is missing; say how orders-south replicates it",
    ),
    ("estate", put("stores", "sessions", "host", value="x"), "stores.sessions.host: the estate has no such host"),
    (
        "estate",
        put("stores", "sessions", "peer", value="sessions"),
        "stores.sessions.peer: sessions is at the same site;"
        " stores.sessions-south.peer: sessions does not name sessions-south as its peer",
    ),
    (
        "estate",
        put("services", "orders-app-south", "host", value="x"),
        "services.orders-app-south.host: the estate has no such host",
    ),
    (
        "estate",
        put("services", "orders-app-north", "after", value=["front"]),
        "services.orders-app-north.after: the estate has no front that could run before",
    ),
    (
        "estate",
        put("services", "orders-app-north", "after", value=["orders-app-north"]),
        "services.orders-app-north.after: goes round in a circle: orders-app-north after orders-app-north",
    ),
    (
        "estate",
        put("directors", "sessions", value={"admin": "x", "server": "x", "url": "x", "sites": {"north": PLACE}}),
        "directors.sessions: the name is taken, see stores.sessions",
    ),
    (
        "estate",
        put("directors", "front", "sites", "west", value=PLACE),
        "directors.front.sites.west: the estate has no such site",
    ),
    (
        "estate",
        put("directors", "edge", value=EDGE | {"host": "lb"}),
        "directors.edge.host: the estate has no such host",
    ),
    (
        "estate",
        put("directors", "edge", value=EDGE | {"sites": {"west": "s1"}}),
        "directors.edge.sites.west: the estate has no such site",
    ),
    (
        "estate",
        twice("directors", "www", value=SHOP),
        "directors.www-too.record: www moves the same; name it once",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("where", "edit", "said"), MISMATCHES, ids=[said for *_, said in MISMATCHES])
def test_mismatch_is_named(catalog: Catalog, where: str, edit: Edit, said: str) -> None:
    (catalog.runbook if where == "runbook" else catalog.estate)(edit)
    assert catalog.fault() == f"lab/restore-orders.yaml: {said}"


def test_mismatches_are_all_named(catalog: Catalog) -> None:
    for where, edit, _ in MISMATCHES[1:]:
        if where == "estate":
            catalog.estate(edit)
    catalog.runbook(put("systems", value=["nowhere", "nowhere"]))
    catalog.runbook(put("gates", value={"another": {"roles": ["dbo"]}}))
    said = catalog.fault()
    for field in ("systems: nowhere", "systems: one", "gates: ", "gates.another.roles", "host: ", "tier: ", "site: "):
        assert field in said


@pytest.mark.parametrize(
    "name",
    [
        "Nothing",
        "database_point_in_time_restore",
        "../schema",
        "__init__",
        f"{PROCEDURE}.x",
        f"{PROCEDURE}\n",
        "os",
        ".",
    ],
)
def test_unknown_procedure_is_refused(catalog: Catalog, name: str) -> None:
    catalog.runbook(put("procedure", value=name))
    assert "procedure: there is none of this name" in catalog.fault()
    with pytest.raises(Invalid):
        specification(name)


def test_runbook_of_another_procedure_is_refused(catalog: Catalog) -> None:
    with pytest.raises(
        Invalid, match=f"runbook: it is one for {PROCEDURE}; start that workflow type, not SiteFailover"
    ):
        catalog.library.freeze(Start(runbook=NAME, reason="x"), "SiteFailover")


# --- placeholders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(values()))
def test_missing_value_is_named(catalog: Catalog, name: str) -> None:
    del catalog.values[name]
    said = f"lab/estate.yaml: ${{{name}}} has no value; set it in the environment; start the lab: starter.py lab up"
    assert catalog.fault() == said


def test_missing_value_of_another_estate_has_no_hint(catalog: Catalog) -> None:
    catalog.estate(put("title", value="${ACME_TITLE}"))
    assert catalog.fault() == "lab/estate.yaml: ${ACME_TITLE} has no value; set it in the environment"


def test_bad_value_is_not_repeated(catalog: Catalog) -> None:
    catalog.values["LAB_NORTH_SSH_PORT"] = SECRET
    assert catalog.fault().startswith("lab/estate.yaml: hosts.north-db.port: ")
    assert SECRET not in catalog.fault()


def test_value_is_no_placeholder_itself(catalog: Catalog) -> None:
    catalog.values["ACME"] = "${LAB_SSH_USER}"
    catalog.estate(put("title", value="a ${ACME} and ${ACME}, ${acme} and $ACME"))
    assert catalog.library.estate("lab").title == "a ${LAB_SSH_USER} and ${LAB_SSH_USER}, ${acme} and $ACME"


def test_values_come_from_file_and_environment(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.estate(put("title", value="${ACME_ONE} ${ACME_TWO}"))
    file = tmp_path / "values.env"
    file.write_text("ACME_ONE=file=1\nno value\nACME_TWO=file\n")
    monkeypatch.setenv("ACME_TWO", "environment")
    for name, value in values().items():
        monkeypatch.setenv(name, value)
    assert library(catalog.root, file).estate("lab").title == "file=1 environment"
    monkeypatch.setenv("ACME_ONE", "environment")
    assert library(catalog.root, tmp_path / "nothing.env").estate("lab").title == "environment environment"


# --- parameters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tables", "queries"])
def test_pinned_parameter_is_refused(catalog: Catalog, name: str) -> None:
    given: dict[str, Any] = {name: [SECRET]}
    with pytest.raises(Invalid) as refused:
        catalog.freeze(**given)
    assert refused.value.message == f"parameters.{name}: the runbook sets it; leave it out, or change the runbook"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"target_time": "2026-11-21T22:00:00"}, "parameters.target_time: Input should have timezone info"),
        ({"target_time": SECRET}, "parameters.target_time: "),
        ({"target_lsn": "0/3000000"}, "parameters.target_lsn: target_time is given, too; say"),
        ({"target_time": None}, "parameters.target_time: say where to go back to by one of target_time, "),
        ({"target_time": None, "target_lsn": SECRET}, "parameters.target_lsn: String should match"),
        ({"target_time": None, "target_xid": SECRET}, "parameters.target_xid: "),
        ({"target_time": None, "target_xid": 2}, "parameters.target_xid: .*greater than or equal to 3"),
        ({"target_time": None, "target_xid": 2**32}, "parameters.target_xid: .*less than 4294967296"),
        ({"target_time": None, "target_name": ""}, "parameters.target_name: "),
        ({"target_time": None, "target_name": "a\nb"}, "parameters.target_name: String should match"),
        ({"target_time": None, "target_name": "x" * 64}, "parameters.target_name: "),
        (
            {"target_time": None, "target_name": "x", "inclusive": False},
            "parameters.inclusive: a restore ",
        ),
        ({"timeline": 0}, "parameters.timeline: "),
        ({"timeline": SECRET}, "parameters.timeline: "),
        ({"amcheck": SECRET}, "parameters.amcheck: "),
        ({"pasword": SECRET}, "parameters.pasword: Extra inputs are not permitted"),
        ({"amcheck": SECRET, "pasword": 1}, "parameters.amcheck: .*; parameters.pasword: Extra"),
        ({"cutover": SECRET}, "parameters.cutover: "),
        ({"cutover": ["replace"]}, "parameters.cutover: "),
        ({"await_write": SECRET}, "parameters.await_write: "),
        ({"await_write": "PT0S"}, "parameters.await_write: "),
        ({"await_write": "PT5M"}, "parameters.await_write: "),
        ({"cutover": "extract", "extract": SECRET}, "parameters.extract: "),
        ({"cutover": "extract", "extract": [SECRET]}, "parameters.extract.0: "),
        ({"cutover": "extract", "extract": [{}]}, "parameters.extract.0.table: Field required"),
        ({"cutover": "extract", "extract": [{"table": "a; b"}]}, "parameters.extract.0.table: "),
        ({"cutover": "extract", "extract": [ORDERS | {"were": SECRET}]}, "parameters.extract.0.were: Extra inputs"),
        ({"cutover": "extract", "extract": [ORDERS | {"where": "x" * 2001}]}, "parameters.extract.0.where: "),
        ({"cutover": "extract", "extract": [ORDERS, ORDERS]}, "parameters.extract: .*a table is named twice"),
        ({"cutover": "extract", "extract": [ORDERS] * 51}, "parameters.extract: "),
        ({"cutover": "extract"}, "parameters.extract: .*say which rows go back"),
        ({"extract": [ORDERS]}, "parameters.extract: .*only where cutover is extract"),
        ({"cutover": "replace", "extract": [ORDERS]}, "parameters.extract: .*only where cutover is extract"),
    ],
)
def test_wrong_parameter_is_named(catalog: Catalog, given: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        catalog.freeze(**given)
    assert re.match(said, refused.value.message)
    assert SECRET not in refused.value.message


@pytest.mark.parametrize(
    "table", ["orders", "public.orders; drop", "public.", ".orders", "a.b.c", "public.or'ders", "public.orders\n"]
)
def test_odd_table_is_refused(catalog: Catalog, table: str) -> None:
    catalog.runbook(put("parameters", "tables", value=[table]))
    with pytest.raises(Invalid, match=r"parameters.tables.0: String should match"):
        catalog.freeze()


def test_missing_parameter_is_named(catalog: Catalog) -> None:
    with pytest.raises(Invalid, match=r"^Invalid: parameters.target_time: say where to go back to by one of"):
        catalog.library.freeze(Start(runbook=NAME, reason="x"), PROCEDURE)


def test_frozen_holds_what_the_runbook_says(catalog: Catalog) -> None:
    frozen = catalog.freeze()
    assert (frozen.runbook, frozen.catalog, frozen.procedure) == (NAME, "lab", PROCEDURE)
    assert (frozen.systems, frozen.tier, frozen.objectives.rto.total_seconds()) == (("orders",), "gold", 3600)
    assert frozen.people == {"alice": ("operator",), "bob": ("dba",), "carol": ("dba", "incident-commander")}
    assert frozen.parameters["target_time"] == TIME
    assert frozen.parameters["tables"] == ["public.orders", "public.customers"]
    assert set(frozen.estate) == {"hosts", "databases"}
    assert Frozen.model_validate_json(frozen.model_dump_json()) == frozen


def test_channels_are_frozen_by_name(catalog: Catalog) -> None:
    assert catalog.freeze().notify == ()
    catalog.runbook(put("notify", value=["dba", "pager"]))
    assert catalog.freeze().notify == ("dba", "pager")
    old = catalog.freeze().model_dump(exclude={"notify"})
    assert Frozen.model_validate(old).notify == ()  # as recorded before there were any


def test_channel_named_twice_is_a_fault(catalog: Catalog) -> None:
    catalog.runbook(put("notify", value=["dba", "dba"]))
    assert "notify: one is named twice" in catalog.fault()


# --- approvals and digest ---------------------------------------------------------------------------------------


def test_two_approvals_are_refused_in_live(catalog: Catalog) -> None:
    catalog.runbook(put("gates", "keep the copy", "approvals", value=2))
    with pytest.raises(Invalid, match=r"gates.keep the copy.approvals: more than one person in live mode"):
        catalog.freeze("live")


@pytest.mark.parametrize("mode", ["check", "drill"])
def test_two_approvals_are_fine_elsewhere(catalog: Catalog, mode: Mode) -> None:
    catalog.runbook(put("gates", "keep the copy", "approvals", value=2))
    assert catalog.freeze(mode).gates["keep the copy"].approvals == 2


def test_digest_is_stable(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    digest = catalog.freeze().digest
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert catalog.freeze().digest == digest
    assert Catalog(tmp_path / "elsewhere").freeze().digest == digest
    for file in ("restore-orders", "estate"):  # written anew: other order of keys, other quotes, no comments
        catalog.edit(f"lab/{file}.yaml", lambda content: None)
    assert catalog.freeze(amcheck=True).digest == digest
    assert catalog.freeze(target_time="2026-11-21T22:00:00.000+00:00").digest == digest


CHANGES: dict[str, tuple[str, Edit]] = {
    "title": ("runbook", put("title", value="x")),
    "version": ("runbook", put("version", value="2")),
    "pinned parameter": ("runbook", put("parameters", "tables", value=["public.orders"])),
    "approvals": ("runbook", put("gates", "keep the copy", "approvals", value=2)),
    "roles": ("runbook", put("gates", "keep the copy", "roles", value=["dba", "operator"])),
    "within": ("runbook", put("gates", "keep the copy", "within", value="PT2H")),
    "starter": ("runbook", put("gates", "keep the copy", "starter_may_approve", value=True)),
    "not after": ("runbook", put("not_after", value="PT1H")),
    "host": ("estate", put("hosts", "north-db", "address", value="192.0.2.1")),
    "folder": ("estate", put("databases", "orders", "copies", value="/srv/x")),
    "drill target": ("estate", put("databases", "orders", "drill", value=False)),
    "objective": ("estate", put("tiers", "gold", "rto", value="PT2H")),
    "people": ("estate", put("people", "mallory", value={"roles": ["dba"]})),
}


@pytest.mark.parametrize("change", CHANGES)
def test_digest_changes_with_everything(catalog: Catalog, change: str) -> None:
    digest = catalog.freeze("drill").digest
    where, edit = CHANGES[change]
    (catalog.runbook if where == "runbook" else catalog.estate)(edit)
    assert catalog.freeze("drill").digest != digest


def test_digest_changes_with_values_parameters_and_mode(catalog: Catalog) -> None:
    modes: tuple[Mode, ...] = ("check", "drill", "live")
    digests = {catalog.freeze(mode).digest for mode in modes}
    digests.add(catalog.freeze(target_time="2026-11-21T22:00:00.000001Z").digest)
    digests.add(catalog.freeze(amcheck=False).digest)
    catalog.values["LAB_NORTH_PG_PORT"] = "5433"
    digests.add(catalog.freeze().digest)
    assert len(digests) == 6


def test_reason_is_no_part_of_the_plan(catalog: Catalog) -> None:
    given = {"runbook": NAME, "parameters": {"target_time": TIME}}
    one, two = (Start.model_validate(given | {"reason": reason}) for reason in ("one", "two"))
    assert catalog.library.freeze(one, PROCEDURE) == catalog.library.freeze(two, PROCEDURE)


@pytest.mark.parametrize("kind", ["barman", "pgbackrest"])
@pytest.mark.parametrize("cutover", ["none", "replace", "extract"])
def test_database_with_a_tools_backups_is_restored_in_every_way(catalog: Catalog, kind: str, cutover: str) -> None:
    catalog.estate(put("databases", "orders", "backups", value={"kind": kind, "server": "orders"}))
    assert specification(PROCEDURE).faults(("orders",), {"cutover": cutover}, catalog.library.estate("lab")) == []
