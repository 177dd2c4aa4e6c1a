"""What each step sends to a host: every script gets every variable that it uses, and its answer is understood."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

import worker
from activities import ssh
from activities.backups import REACH_BACK, SETTLE, backups
from activities.extraction import copy_back, copying_back, preview, previewing
from activities.postgres import Placed, Replayed, place, ready, replay
from activities.ssh import HostAt
from recovery.actions import Action, Probe, Spec
from recovery.errors import Drifted, Fatal, Refused, Stale, Transient, kind
from tests.activities.captured import captured
from tests.activities.recorder import FOLDER, NAMES, Recorder, Sent, recorder
from tests.activities.sample import CHOICE, STANDING, TARGET, copy, replacing

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS: list[Probe[Any, Any]] = [*worker.PROBES, *worker.ACTIONS]
SHELL = {"PATH", "HOME", "IFS", "ENV", "PS4", "PWD", "TMPDIR", "SHELL", "USER", "LANG", "LC_ALL", "TZ", "CDPATH"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listening(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Recorder]:
    async with recorder(tmp_path_factory.mktemp("keys")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def host(listening: Recorder) -> Recorder:
    listening.sent.clear()
    listening.answers.clear()
    listening.answer("inventory", captured("inventory_down"))
    listening.answer("readiness", captured("readiness"))
    listening.answer("verify_copy", captured("verify_good"))
    return listening


def specs(at: HostAt) -> dict[type[Spec], Any]:
    """Return the specs that a side copy and its cut-over make, on this host."""
    of = copy(cutover="extract", extract=({"table": "public.orders", "where": "number < 7"}, {"table": "public.t"}))
    made: list[Any] = [of.find(), of.room(), of.place(CHOICE, 6001), of.replay(CHOICE, 6001)]
    made += [of.verify(6001), of.compare(6001), previewing(of, 6001), copying_back(of, 6001)]
    cut = replacing()
    made += [cut.look(), cut.cut(6001, STANDING), cut.salvage(6001, STANDING), cut.first_write(6001, STANDING)]
    made.append(cut.base_backup(6001, STANDING, TARGET))
    return {type(spec): spec.model_copy(update={"host": at}) for spec in made}


async def sent_by(step: Probe[Any, Any], host: Recorder) -> list[Sent]:
    """Return what ``step`` sends when it looks and, if it is an action, acts, undoes and halts."""
    known = specs(host.host)
    assert step.spec_type in known, f"{step.name} has no sample spec in this test"
    spec = known[step.spec_type]
    before = await step.observe(spec)
    if isinstance(step, Action):
        await step.apply(spec, before)
        if not getattr(step, "kept", ""):
            await step.undo(spec, before)
        await step.halt(spec)
    return host.sent


def used_text(name: str) -> str:
    """Return the script ``name`` without the shared functions that it does not call."""
    own, shared = (FOLDER / f"{name}.sh").read_text(), (FOLDER / "running.sh").read_text()
    if ". ./running.sh" not in own:
        return own
    functions = {m[1]: m[0] for m in re.finditer(r"^([a-z]+)\(\) \{(?:.*\}$|.*\n(?:.*\n)*?\}$)", shared, re.MULTILINE)}
    for body in functions.values():
        shared = shared.replace(body, "")
    used = shared + own
    while called := [n for n in functions if re.search(rf"\b{n}\b", used)]:
        used += "".join(functions.pop(n) for n in called)
    return used


def needed(name: str) -> set[str]:
    """Return the variables that the script ``name`` uses before it sets them, if ever it does, and has no value for."""
    text = "\n".join(line for line in used_text(name).splitlines() if not line.lstrip().startswith("#"))
    used = [(m.start(), m[1]) for m in re.finditer(r"\$\{?([A-Z][A-Z0-9_]*)(?!:?[-=])\b", text)]
    made = {m[1]: m.start() for m in reversed(list(re.finditer(r"(?:^|[\s;(])([A-Z][A-Z0-9_]*)=", text)))}
    return {name for start, name in used if start < made.get(name, len(text))}


async def test_needed_variables_are_found() -> None:
    of_place = {"COPY", "OWNER", "BACKUP", "BIN", "COPYPORT", "ARCHIVE", "DATA", "TARGET", "TIMELINE"}
    assert needed("place_copy") == of_place
    assert "TABLES" in needed("compare_copy")
    assert {"GUARD", "RULES", "SHUT", "DATA", "IDENTITY"} <= needed("shut_door")
    assert "GUARD" not in needed("standing")
    assert "QUERY_" in needed("verify_copy")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
async def test_script_gets_every_variable(step: Probe[Any, Any], host: Recorder) -> None:
    for sent in await sent_by(step, host):
        missing = {v for v in needed(sent.name) - {"QUERY_", "TABLE_", "WHERE_"} if v not in sent.values}
        assert not missing, f"{sent.name}.sh uses {missing}, which {step.name} does not give it"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
async def test_values_are_no_variables_of_the_shell(step: Probe[Any, Any], host: Recorder) -> None:
    for sent in await sent_by(step, host):
        assert not {v for v in sent.values if v in SHELL or v.startswith("PG")}
        assert "None" not in sent.values.values()


async def test_every_script_is_sent_by_a_step(host: Recorder) -> None:
    for step in STEPS:
        await sent_by(step, host)
    assert {sent.name for sent in host.sent} | {
        "job",
        "hand",
        "running",
        "both_sides",
        "end_sessions",
        "ranges",
    } == set(NAMES)
    looks = {
        "nothing", "inventory", "last_commit", "readiness", "copy_state", "verify_copy", "compare_copy", "end_job",
        "standing", "cut_state", "salvage_state", "backup_state", "first_write",
        "extraction", "end_copy_back",
    }  # fmt: skip
    assert {sent.name for sent in host.sent if not sent.job} == looks
    assert not {sent.name for sent in host.sent if sent.job} & looks


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
async def test_look_may_take_as_long_as_its_activity(step: Probe[Any, Any], host: Recorder) -> None:
    """Less what it takes to tell people; together where there are several, but for the ones that wait for something."""
    await step.observe(specs(host.host)[step.spec_type])
    limit = step.look_limit if isinstance(step, Action) else step.limit
    looks = [sent.seconds for sent in host.sent if sent.name != "nothing"]
    assert sum(looks) < limit.total_seconds()
    assert min(looks) >= (limit / len(looks)).total_seconds() - 5 or step.name == "postgres.first_write"


async def test_looks_that_read_much_have_time() -> None:
    assert copy_back.look_limit == preview.limit
    assert backups.limit >= timedelta(minutes=5)


async def test_job_is_of_the_copy_alone(host: Recorder) -> None:
    for step in worker.ACTIONS:
        jobs = {
            sent.job or sent.values["NAME"] for sent in await sent_by(step, host) if sent.job or "NAME" in sent.values
        }
        assert jobs == {f"orders-20261121T223015Z-0a1b2c3d.{step.name.removeprefix('postgres.')}"}
        host.sent.clear()


async def test_what_is_wanted_arrives(host: Recorder) -> None:
    for step in STEPS:
        await sent_by(step, host)
    placed, replayed, verified, compared, copied = (
        next(sent.values for sent in host.sent if sent.name == name)
        for name in ("place_copy", "replay_copy", "verify_copy", "compare_copy", "copy_back")
    )
    assert placed["TARGET"] == "2026-11-21 22:30:15.250000+00"
    assert (placed["BACKUP"], placed["TIMELINE"], placed["DATA"]) == ("/srv/backups/monday", "3", "/srv/pg data")
    assert (placed["COPY"], placed["COPYPORT"]) == ("/srv/copies/orders-20261121T223015Z-0a1b2c3d", "6001")
    assert placed["OWNER"] == "lab/orders@019e0000-0000-7000-8000-00000a1b2c3d"
    assert replayed["ENOUGH"] == "0/9000000"
    assert (verified["AMCHECK"], verified["QUERIES"]) == ("yes", "2")
    assert (verified["QUERY_1"], verified["QUERY_2"]) == ("select count(*) from t", "select 1")
    assert (compared["TABLES"], compared["SOCKETS"], compared["PORT"]) == ("public.orders\npublic.t", "/run/pg", "5432")
    assert (copied["TABLES"], copied["SOCKETS"], copied["PORT"]) == ("2", "/run/pg", "5432")
    assert [copied[f"{what}_{n}"] for n in range(2) for what in ("TABLE", "WHERE")] == [
        "public.orders", "number < 7", "public.t", "",
    ]  # fmt: skip


# --- what is answered --------------------------------------------------------------------------------------------

NAME = "20261122T015250.249524Z"


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("", Placed()),
        (captured("state_partial"), Placed(stage="partial", owner="lab/orders@0a1b2c3d")),
        ("stage\tpartial\nowner\t\n", Placed(stage="partial")),
        (captured("state_placed"), Placed(stage="placed", owner="lab/orders@0a1b2c3d", backup=NAME)),
        (captured("state_paused"), Placed(stage="placed", owner="lab/orders@0a1b2c3d", backup=NAME)),
    ],
    ids=["absent", "partial", "just begun", "placed", "running"],
)
async def test_placed_copy_is_told(host: Recorder, state: str, seen: Placed) -> None:
    host.answer("copy_state", state)
    spec = specs(host.host)[place.spec_type]
    assert await place.observe(spec) == seen


STOOD = {"lsn": "0/1C36A18", "last_commit": "2026-11-22 01:58:28.999606"}


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("", Replayed()),
        (captured("state_placed"), Replayed()),
        ("stage\tplaced\nserver\trunning\n", Replayed(stage="replaying")),
        ("server\trunning\nreplay\tnot paused\t0/1C36A18\t\n", Replayed(stage="replaying")),
        ("server\trunning\nreplay\tpause requested\t0/1C36A18\t\n", Replayed(stage="replaying")),
        ("server\trunning\nreplay\tlocked\t0/1C36A18\t\n", Replayed(stage="replaying")),
        (captured("state_paused"), Replayed(stage="ready", how="paused", **STOOD)),
        (captured("state_promoted"), Replayed(stage="ready", how="promoted", **STOOD)),
        ("server\trunning\nreplay\ttaken\t0/1C36A18\t\n", Replayed(stage="taken")),
        ("server\trunning\nreplay\tpaused\t0/2000060\t\n", Replayed(stage="ready", how="paused", lsn="0/2000060")),
    ],
    ids=[
        "absent",
        "stopped",
        "starting",
        "on its way",
        "stopping",
        "locked",
        "paused",
        "promoted",
        "taken",
        "no commit",
    ],
)
async def test_replayed_copy_is_told(host: Recorder, state: str, seen: Replayed) -> None:
    host.answer("copy_state", state)
    spec = specs(host.host)[replay.spec_type]
    assert await replay.observe(spec) == seen


async def test_end_of_a_closed_run_is_before_its_last_commit(host: Recorder) -> None:
    """A later commit must be met, else replay waits for log that never comes."""
    host.answer("last_commit", "2026-11-22 02:02:17.183528\n")
    found = await backups.observe(specs(host.host)[backups.spec_type])
    assert [r.until for r in found.ranges] == [datetime(2026, 11, 22, 2, 2, 17, 183527, tzinfo=UTC)]


async def test_run_without_a_commit_has_no_end(host: Recorder) -> None:
    found = await backups.observe(specs(host.host)[backups.spec_type])
    assert [r.until for r in found.ranges] == [None]


async def test_open_run_ends_a_moment_before_now(host: Recorder) -> None:
    host.answer("inventory", captured("inventory_live"))
    found = await backups.observe(specs(host.host)[backups.spec_type])
    assert [r.until for r in found.ranges] == [found.now - SETTLE]
    assert [sent.name for sent in host.sent] == ["inventory"]


async def test_last_commit_is_looked_for_newest_first(host: Recorder) -> None:
    await backups.observe(specs(host.host)[backups.spec_type])
    numbers = [int(name, 16) % 2**32 for name in host.sent[-1].values["SEGMENTS"].split()]
    assert numbers == list(range(0xF3, 0, -1))
    assert max(0xF3 - REACH_BACK, 0) == 0


async def test_runs_of_other_timelines_are_left_aside(host: Recorder) -> None:
    host.answer("inventory", captured("inventory_second_timeline"))
    found = await backups.observe(specs(host.host)[backups.spec_type])
    assert {r.timeline for r in found.ranges} == {2}


async def test_clock_of_the_host_is_compared(host: Recorder) -> None:
    found = await ready.observe(specs(host.host)[ready.spec_type])
    there = float(captured("readiness").splitlines()[0].split("\t")[1])
    assert abs(found.skew - (there - datetime.now(UTC).timestamp())) < 5
    assert [sent.name for sent in host.sent] == ["nothing", "readiness"]


@pytest.mark.parametrize("error", [Transient, Refused, Drifted, Stale, Fatal])
async def test_script_says_what_to_do_next(host: Recorder, error: type[Exception]) -> None:
    host.answer("nothing", complaint=f"noise\n{error.__name__}: the disk is full\n", status=3)
    with pytest.raises(error, match=r"host 127.0.0.1:\d+: the disk is full$"):
        await ssh.look(host.host, "nothing", {})


@pytest.mark.parametrize("complaint", ["", "sh: 1: not found\n", "stale: x\n", "Invalid: x\n", " Fatal: x\n", "\xff\n"])
async def test_any_other_end_is_tried_again(host: Recorder, complaint: str) -> None:
    host.answer("nothing", complaint=complaint, status=127)
    with pytest.raises(Transient, match=r"a command ended with 127: ") as raised:
        await ssh.look(host.host, "nothing", {})
    assert kind(raised.value) == Transient.__name__


async def test_large_script_arrives_whole(host: Recorder) -> None:
    long = "x" * 100_000
    await ssh.look(host.host, "nothing", {"long": long})
    await ssh.job(host.host, "j", "stop_copy", {"long": long})
    assert [(sent.name, sent.job, len(sent.values["LONG"])) for sent in host.sent] == [
        ("nothing", "", 100_000), ("stop_copy", "j", 100_000),
    ]  # fmt: skip
