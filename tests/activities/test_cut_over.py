"""What the scripts of a cut-over printed, as the states that its actions compare; and the specs that they take."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from activities import door
from activities.cut_over import (
    CutSpec,
    Fenced,
    Installed,
    Promoted,
    Seen,
    fence,
    fenced,
    install,
    installed,
    promote,
    promoted,
    seen,
)
from activities.door import Doors, FirstWrite, close, doors, first_write, open_doors
from activities.redundancy import Archived, archive, archived
from activities.salvage import SHOWN, Salvaged, SalvagedTable, salvage, salvaged
from activities.standing import BARS, Standing, cut_over_blockers, standing
from recovery.actions import agrees
from recovery.errors import Refused, Transient
from tests.activities.captured import captured
from tests.activities.sample import STANDING, TARGET, replacing

RULES = "07647527f7624f7e7a18538b3ec400105f4f4e766b5d3f569a79258c63e278d7"
GUARD = "d0ad930151c9fbb4451390f397bfa2b32cce976fc2e35a7caf6810832199d6dd"
CUT = replacing().cut(6001, STANDING)

# --- states ------------------------------------------------------------------------------------------------------


def test_states_before_a_cut_over_are_read() -> None:
    found = seen(captured("cut_before"))
    assert fenced(found) == Fenced(at="home", serving=True, listening=True)
    assert promoted(found) == Promoted(role="standby", clients="admitted", timeline=0)
    assert doors(found) == Doors(of="running", clients="admitted", rules=RULES)
    assert installed(found) == Installed(at="barred", serving=True)
    assert archived(found) == Archived()


def test_states_of_a_promoted_copy_are_read() -> None:
    found = seen(captured("cut_promoted"))
    assert fenced(found) == fence.desired(CUT, Fenced())
    assert promoted(found) == Promoted(role="primary", clients="refused", timeline=2)
    assert installed(found) == Installed(at="copy", serving=True)
    assert doors(found) == Doors(of="nothing")


def test_states_after_a_cut_over_are_read() -> None:
    found = seen(captured("cut_opened"))
    assert fenced(found) == Fenced(at="aside", listening=True)
    assert installed(found) == install.desired(CUT, Installed())
    assert archived(found) == archive.desired(CUT, Archived())
    assert doors(found) == Doors(of="copy", clients="admitted", rules=RULES)
    assert promoted(found) == Promoted()


def test_copy_that_runs_and_says_nothing_is_asked_again() -> None:
    with pytest.raises(Transient, match="does not answer"):
        promoted(seen("home\tnothing\ncopy\tthere\ncopy\tserves\nrole\t\n"))


def test_copy_whose_timeline_is_not_noted_is_not_promoted() -> None:
    half = promoted(seen("copy\tthere\ncopy\tserves\nrole\tpromoting 2\ncopy\tshut\n"))
    assert half == Promoted(role="promoting", clients="refused", timeline=2)
    assert promote.partial(CUT, Promoted(role="standby"), half)
    assert not agrees(promote.desired(CUT, Promoted(role="standby")), half)


def test_shut_doors_are_read() -> None:
    assert doors(seen(captured("cut_closed"))) == Doors(of="running", clients="refused", rules=GUARD)


def test_nothing_is_read_where_nothing_stands() -> None:
    found = seen("")
    assert (fenced(found), installed(found), promoted(found)) == (Fenced(), Installed(), Promoted())
    assert (doors(found), archived(found)) == (Doors(), Archived())


@pytest.mark.parametrize(
    ("told", "at"),
    [
        ("home\trunning\n", "home"),
        ("home\trunning\nrunning\tleaves\n", "leaving"),
        ("home\tnothing\naside\tyes\nrunning\tleaves\n", "aside"),
        ("home\tanother\naside\tyes\n", "aside"),
        ("home\tanother\n", "gone"),
    ],
)
def test_place_of_the_running_database_is_told(told: str, at: str) -> None:
    assert fenced(seen(told)).at == at


@pytest.mark.parametrize(
    ("told", "at"),
    [
        ("home\tnothing\ncopy\tthere\n", "copy"),
        ("home\tnothing\ncopy\tthere\ncopy\tmoves\n", "moving"),
        ("home\tcopy\ncopy\tmoves\n", "moving"),
        ("home\tcopy\n", "home"),
        ("home\tanother\ncopy\tthere\ncopy\tmoves\n", "barred"),
        ("home\tanother\n", "absent"),
    ],
)
def test_place_of_the_copy_is_told(told: str, at: str) -> None:
    assert installed(seen(told)).at == at


@pytest.mark.parametrize(
    ("told", "timeline"),
    [
        ("", "nothing"),
        ("archive\tbegun\n", "begun"),
        ("archive\tbegun\narchive\tlog\n", "begun"),
        ("archive\tbegun\narchive\thistory\n", "history"),
        ("archive\tbegun\narchive\thistory\narchive\tlog\n", "history and log"),
        ("archive\tlog\n", "another's"),
    ],
)
def test_timeline_in_the_archive_is_told(told: str, timeline: str) -> None:
    assert archived(seen(told)).timeline == timeline


# --- what is an action's own half-done work, and what is not ------------------------------------------------------

SERVED = Fenced(at="home", serving=True, listening=True)
ADMITTED = Doors(of="running", clients="admitted", rules=STANDING.rules)


def test_fence_knows_its_own() -> None:
    assert fence.partial(CUT, SERVED, Fenced(at="leaving", serving=True))
    assert fence.partial(CUT, SERVED, Fenced(at="aside", serving=True))
    assert not fence.partial(CUT, SERVED, Fenced(at="home"))
    assert not fence.partial(CUT, SERVED, Fenced(at="gone"))


def test_close_knows_its_own() -> None:
    assert close.partial(CUT, ADMITTED, Doors(of="running", clients="closing", rules=CUT.shut))
    assert close.partial(CUT, ADMITTED, Doors(of="running", clients="closing", rules=STANDING.rules))
    assert not close.partial(CUT, ADMITTED, Doors(of="running", clients="closing", rules="c" * 64))
    assert not close.partial(CUT, ADMITTED, Doors(of="another", clients="closing", rules=CUT.shut))


@pytest.mark.parametrize(("rules", "clients"), [(CUT.shut, "refused"), (CUT.rules, "closing"), ("c" * 64, "closing")])
async def test_who_knocks_at_the_guard_is_nobodys_change(
    monkeypatch: pytest.MonkeyPatch, rules: str, clients: str
) -> None:
    async def looked(spec: CutSpec) -> Seen:
        return seen(f"home\tcopy\nclients\tclosing\nrules\t{rules}\n")

    monkeypatch.setattr(door, "look", looked)
    assert (await open_doors.observe(CUT)).clients == clients
    assert (await close.observe(CUT)).clients == "closing"


def test_open_is_begun_by_its_rules_alone() -> None:
    before = Doors(of="copy", clients="refused", rules=CUT.shut)
    starting = Doors(of="copy", clients="closing", rules=CUT.shut)
    assert open_doors.partial(CUT, before, starting)
    assert not open_doors.begun(CUT, before, starting)
    assert open_doors.begun(CUT, before, Doors(of="copy", clients="closing", rules=CUT.rules))


def test_install_knows_its_own() -> None:
    beside = Installed(at="copy", serving=True)
    assert install.partial(CUT, beside, Installed(at="moving"))
    assert install.partial(CUT, beside, Installed(at="home"))
    assert install.partial(CUT, beside, Installed(at="copy"))
    assert not install.partial(CUT, Installed(at="copy"), beside)
    assert not install.partial(CUT, beside, Installed(at="barred", serving=True))
    assert not install.partial(CUT, beside, Installed(at="absent"))
    assert install.begun(CUT, beside, Installed(at="moving"))
    assert not install.begun(CUT, beside, Installed(at="copy"))


def test_archive_knows_its_own() -> None:
    muted = Archived(settings="muted")
    assert archive.partial(CUT, muted, Archived(settings="whole", timeline="begun"))
    assert not archive.partial(CUT, muted, Archived(settings="another's", timeline="begun"))
    assert not archive.partial(CUT, muted, Archived(settings="muted", timeline="another's"))


def test_opening_wants_the_rules_of_the_running_database() -> None:
    assert open_doors.desired(CUT, ADMITTED) == Doors(of="copy", clients="admitted", rules=STANDING.rules)
    assert open_doors.desired(CUT, ADMITTED) != ADMITTED


async def test_promotion_is_not_undone() -> None:
    with pytest.raises(Refused, match="dropped as a whole"):
        await promote.undo(CUT, Promoted())


# --- specs -------------------------------------------------------------------------------------------------------


def test_guard_admits_one_login() -> None:
    comment = [line for line in CUT.guard.splitlines() if not line.startswith("#")]
    assert comment == ['local "orders" "postgres" peer map=dba']
    assert CUT.shut == hashlib.sha256(CUT.guard.encode()).hexdigest()


def test_running_database_is_put_aside_beside_itself() -> None:
    assert CUT.fenced == "/srv/pg data.fenced-0a1b2c3d"
    assert replacing().look().fenced == CUT.fenced


def test_only_what_touches_the_copy_is_drilled() -> None:
    of = replacing()
    specs = [of.cut(1, STANDING), of.salvage(1, STANDING), of.first_write(1, STANDING)]
    assert not any(spec.drill for spec in [*specs, of.base_backup(1, STANDING, TARGET)])
    assert of.promote(1, STANDING).drill
    assert of.look().drill


def test_specs_survive_the_wire() -> None:
    of = replacing()
    made: list[Any] = [of.look(), of.cut(1, STANDING), of.salvage(1, STANDING), of.first_write(1, STANDING)]
    for spec in [*made, of.base_backup(1, STANDING, TARGET)]:
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec


def test_everything_is_exported_beside_the_copy() -> None:
    spec = replacing().salvage(1, STANDING)
    assert spec.out == f"{spec.copy_dir}.salvage"
    assert (spec.tables, spec.down) == ((), False)
    assert replacing().salvage(1, STANDING.model_copy(update={"serving": False})).down


def test_base_backup_is_named_by_its_time() -> None:
    spec = replacing().base_backup(1, STANDING, TARGET)
    assert spec.values()["backup"] == "/srv/backups/20261121T223015.250000Z"
    assert spec.label == "recovery lab/orders@019e0000-0000-7000-8000-00000a1b2c3d"


# --- export and first write --------------------------------------------------------------------------------------


def test_export_is_read() -> None:
    found = salvaged(captured("salvage"))
    assert (found.stage, found.owner, found.rows) == ("exported", "harness@2613f7fb3a28800b", 103)
    assert found.tables is not None
    assert [(t.table, t.rows, t.keys) for t in found.tables] == [
        ("public.customers", 3, "1-3"), ("public.fresh", 0, ""), ("public.orders", 100, "900301-900400"),
    ]  # fmt: skip
    assert found.notes == ("sequence public.s stands at 1, and is not in use in the copy",)
    assert not salvage.partial(replacing().salvage(1, STANDING), Salvaged(), found)


def test_export_that_lost_a_file_is_damaged() -> None:
    assert salvaged(captured("salvage") + "damaged\tpublic.orders.csv\n").stage == "damaged"


def test_state_of_many_tables_stays_small() -> None:
    row = "table\tt{n}\t1\tt{n}.csv\t9\tdigest\t1\n"
    found = salvaged("stage\texported\n" + "".join(row.format(n=n) for n in range(SHOWN + 7)))
    assert found.tables is not None
    assert (len(found.tables), found.rows) == (SHOWN, SHOWN + 7)
    assert found.tables[0] == SalvagedTable(table="t0", rows=1, keys="1", file="t0.csv", digest="digest")
    assert found.notes == ("7 more tables are in the manifest",)


def test_state_of_many_notes_stays_small() -> None:
    found = salvaged("stage\texported\n" + "".join(f"note\trole r{n}\n" for n in range(SHOWN + 7)))
    assert found.notes is not None
    assert (len(found.notes), found.notes[0], found.notes[-1]) == (
        SHOWN + 1, "role r0", "7 more notes are in the manifest",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("", FirstWrite()),
        ("committed\t1795312401.25\n", FirstWrite(at=datetime.fromtimestamp(1795312401.25, UTC), exact=True)),
        ("seen\t1795312401.25\n", FirstWrite(at=datetime.fromtimestamp(1795312401.25, UTC))),
    ],
)
def test_first_write_is_read(told: str, found: FirstWrite) -> None:
    assert first_write(told) == found


# --- standing ----------------------------------------------------------------------------------------------------


def test_standing_database_is_read() -> None:
    found = standing(captured("standing"))
    assert (found.identity, found.serving, found.live, found.version, found.timeline) == (
        "65024:2147980", True, True, 18, 1,
    )  # fmt: skip
    assert (found.rule, found.rules, found.log) == ("peer map=lab", RULES, "/srv/postgres.log")
    assert (found.standbys, found.senders, found.commit_times) == ((), 10, True)
    assert cut_over_blockers(found) == []


def test_database_that_is_down_is_read() -> None:
    told = [
        line for line in captured("standing").splitlines() if not line.startswith(("live", "log", "parent", "spare"))
    ]
    found = standing("\n".join(told))
    assert (found.serving, found.live, found.rule) == (False, False, "peer map=lab")
    assert cut_over_blockers(found) == []


def test_server_that_hangs_serves() -> None:
    found = standing("identity\t1:2\nhangs\ttimeout expired\nwritten\tpeer\n")
    assert (found.serving, found.live) == (True, False)
    assert cut_over_blockers(found) == [
        "running database: it runs and does not answer (timeout expired); end it, or let it go on"
    ]


PLANTED: dict[str, dict[str, Any]] = {
    "configuration: /etc/pg/hba.conf lies outside": {"outside": ("/etc/pg/hba.conf",)},
    "configuration: conf.d/x.conf lies outside": {"included": ("conf.d/x.conf",)},
    "user: is no superuser": {"superuser": False},
    "pg_hba.conf: no local rule lets this login in": {"rule": ""},
    "pg_hba.conf: the rule of this login (ldap) holds more": {"rule": "ldap ldapbindpasswd=secret"},
    "pg_hba.conf: no local rule lets this login replicate": {"replication": False},
    "pg_hba.conf: it is not what the server goes by": {"unread": True},
    "supervisor: patroni": {"parent": "patroni"},
    "disk: 1024 MiB are free": {"free": 1 << 30},
    "prepared transactions: 2": {"prepared": 2},
    "standbys: south": {"standbys": ("south",)},
    "replication slots: a, b": {"slots": ("a", "b")},
    "tablespaces: fast": {"tablespaces": ("fast",)},
    "subscriptions: s": {"subscriptions": ("s",)},
    "background workers: pg_cron launcher": {"workers": ("pg_cron launcher",)},
    "databases: wiki": {"databases": ("wiki",)},
    "tables in the database postgres: 3": {"spare": 3},
    "synchronous_standby_names: south": {"synchronous": "south"},
    "running database: it is a standby itself": {"recovery": True},
    "archive_library: basic_archive": {"archive_library": "basic_archive"},
    "archive_command: is empty": {"archive_command": False},
    "archive_mode: is always": {"archive_mode": "always"},
    "max_wal_senders: is 0": {"senders": 0},
    "backups.server: Barman would not": {"unbacked": ("backups.server: Barman would not take the next backup",)},
}


@pytest.mark.parametrize("said", PLANTED)
def test_blocker_is_named(said: str) -> None:
    blockers = cut_over_blockers(STANDING.model_copy(update=PLANTED[said]))
    assert len(blockers) == 1
    assert blockers[0].startswith(said)
    assert "secret" not in blockers[0]


@pytest.mark.parametrize("kind", ["barman", "pgbackrest"])
def test_tool_asks_for_no_process_of_its_own(kind: str) -> None:
    """It says by itself what keeps it from the next backup."""
    found = STANDING.model_copy(update={"senders": 0, "replication": False})
    assert cut_over_blockers(found, kind) == []
    assert len(cut_over_blockers(found)) == 2


def test_no_blocker_hides_another() -> None:
    planted = {key: value for update in PLANTED.values() for key, value in update.items() if value != ""}
    found = cut_over_blockers(STANDING.model_copy(update=planted | {"bars": tuple(BARS)}))
    together = [said for said, update in PLANTED.items() if update != {"rule": ""} and "archive_command" not in said]
    assert all(any(blocker.startswith(said) for blocker in found) for said in together)
    assert set(BARS.values()) <= set(found)


def test_lost_data_directory_is_the_only_blocker() -> None:
    assert len(cut_over_blockers(Standing(bars=("mount",)))) == 1
