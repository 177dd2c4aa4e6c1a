"""Whatever is sent from the UI or the command line is answered: nothing hangs, no value leaks."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from lab.estate import Lab
from tests.copies import drop_all, in_copies
from tests.running import PROCEDURE, ROOT, Recovery, Running, eventually, running
from tests.workflows.test_side_copy import restorable

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "hunter2-and-more"
NOW = datetime.now(UTC).isoformat()
GOOD = {"runbook": "lab/restore-orders", "reason": "x", "parameters": {"target_time": NOW}}
BAD: dict[str, tuple[list[Any], str]] = {
    "nothing at all": ([], "input"),
    "null": ([None], "input"),
    "two objects": ([GOOD, GOOD], "input"),
    "a text": ([SECRET], "input"),
    "a list": ([[GOOD]], "input"),
    "no runbook": ([{"reason": "x"}], "runbook"),
    "no reason": ([{"runbook": "lab/restore-orders"}], "reason"),
    "an empty reason": ([GOOD | {"reason": ""}], "reason"),
    "an unknown field": ([GOOD | {"pasword": SECRET}], "pasword"),
    "an unknown mode": ([GOOD | {"mode": SECRET}], "mode"),
    "an unknown runbook": ([GOOD | {"runbook": SECRET}], "runbook"),
    "a path as runbook": ([GOOD | {"runbook": f"../../etc/{SECRET}"}], "runbook"),
    "a number as runbook": ([GOOD | {"runbook": 7}], "runbook"),
    "a naive outage time": ([GOOD | {"outage_started_at": "2026-01-01T00:00:00"}], "outage_started_at"),
    "an outage in the future": ([GOOD | {"outage_started_at": "2999-01-01T00:00:00Z"}], "outage_started_at"),
    "detected before the outage": (
        [GOOD | {"outage_started_at": NOW, "detected_at": "2026-01-01T00:00:00Z"}],
        "outage_started_at, detected_at",
    ),
    "no target time": ([GOOD | {"parameters": {}}], "parameters.target_time"),
    "a target time in words": ([GOOD | {"parameters": {"target_time": SECRET}}], "parameters.target_time"),
    "a naive target time": ([GOOD | {"parameters": {"target_time": "2026-01-01T00:00:00"}}], "parameters.target_time"),
    "an unknown parameter": ([GOOD | {"parameters": {"target_time": NOW, "tabels": SECRET}}], "parameters.tabels"),
    "a pinned parameter": ([GOOD | {"parameters": {"target_time": NOW, "queries": []}}], "parameters.queries"),
    "parameters as text": ([GOOD | {"parameters": SECRET}], "parameters"),
    "an unknown cutover": ([GOOD | {"parameters": {"target_time": NOW, "cutover": SECRET}}], "parameters.cutover"),
    "a cutover without its gate": (
        [GOOD | {"parameters": {"target_time": NOW, "cutover": "replace"}}],
        "gates.cut over",
    ),
    "rows to extract as text": ([GOOD | {"parameters": {"target_time": NOW, "extract": SECRET}}], "parameters.extract"),
    "rows to extract of no table": (
        [GOOD | {"parameters": {"target_time": NOW, "extract": [{"where": SECRET}]}}],
        "parameters.extract.0.table",
    ),
    "rows to extract beside no cutover": (
        [GOOD | {"parameters": {"target_time": NOW, "extract": [{"table": "public.orders"}]}}],
        "parameters.extract",
    ),
    "a wait in words": ([GOOD | {"parameters": {"target_time": NOW, "await_write": SECRET}}], "parameters.await_write"),
    "a wait for hours": (
        [GOOD | {"parameters": {"target_time": NOW, "await_write": "PT9H"}}],
        "parameters.await_write",
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    catalogs = tmp_path_factory.mktemp("catalogs")
    shutil.copytree(ROOT / "runbooks" / "lab", catalogs / "lab")
    text = (catalogs / "lab" / "restore-orders.yaml").read_text()
    (catalogs / "lab" / "elsewhere.yaml").write_text(text.replace(PROCEDURE, "DataCenterActivation"))
    async with running(lab, RECOVERY_CATALOGS=str(catalogs)) as found:
        await eventually(lambda: "polling" in found.log(), "the worker polls")
        yield found


async def failure(engine: Running, procedure: str, args: list[Any]) -> ApplicationError:
    """Start and return how it failed, which has to be soon: it must not be tried again and again."""
    handle = await engine.client.start_workflow(procedure, args=args, id="bad", task_queue=engine.settings.task_queue)
    try:
        async with asyncio.timeout(60):
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
    finally:
        if (await handle.describe()).close_time is None:
            await handle.terminate()
    assert isinstance(failed.value.cause, ApplicationError)
    history = (await handle.fetch_history()).to_json()
    assert "WORKFLOW_TASK_FAILED" not in history
    return failed.value.cause


@pytest.mark.parametrize("case", BAD)
async def test_bad_start_fails_naming_the_field(lab: Lab, engine: Running, case: str) -> None:
    args, field = BAD[case]
    cause = await failure(engine, PROCEDURE, args)
    assert cause.type == "Invalid"
    assert field in cause.message
    assert SECRET not in cause.message
    assert in_copies(lab) == []


async def test_unknown_workflow_type_fails(engine: Running) -> None:
    cause = await failure(engine, "DatabasePointInTimeRestor", [GOOD])
    assert cause.type == "Invalid"
    assert "workflow type" in cause.message


async def test_runbook_of_another_procedure_fails(engine: Running) -> None:
    cause = await failure(engine, PROCEDURE, [GOOD | {"runbook": "lab/elsewhere"}])
    assert cause.type == "Invalid"
    assert "runbook: it is one for DataCenterActivation" in cause.message


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def waiting(lab: Lab, engine: Running) -> AsyncIterator[Recovery]:
    recovery = await engine.start("live", target_time=await restorable(lab))
    await recovery.until("gate")
    yield recovery
    await recovery.handle.cancel()
    assert (await recovery.ended()).outcome == "cancelled"
    drop_all(lab)


async def decision(waiting: Recovery, **changes: Any) -> dict[str, Any]:
    """Return a good decision with ``changes``; a change to None leaves the field out."""
    gate = (await waiting.until("gate")).gates[0]
    good = {"gate": gate.gate, "by": "bob", "plan": gate.plan, "evidence": gate.evidence}
    return {key: value for key, value in (good | changes).items() if value is not None}


DECISIONS: dict[str, tuple[dict[str, Any], str]] = {
    "another gate": ({"gate": SECRET}, "gate"),
    "nobody": ({"by": None}, "by"),
    "a stranger": ({"by": SECRET}, "by"),
    "the starter": ({"by": "alice"}, "by"),
    "another plan": ({"plan": SECRET}, "plan"),
    "other evidence": ({"evidence": SECRET}, "evidence"),
    "no evidence": ({"evidence": None}, "evidence"),
    "an unknown field": ({"sudo": SECRET}, "sudo"),
    "an unknown verdict": ({"verdict": SECRET}, "verdict"),
}


@pytest.mark.parametrize("case", DECISIONS)
async def test_bad_update_is_answered(waiting: Recovery, case: str) -> None:
    changes, field = DECISIONS[case]
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await waiting.handle.execute_update("decide", await decision(waiting, **changes))
    assert isinstance(failed.value.cause, ApplicationError)
    assert f"{field}:" in failed.value.cause.message
    assert SECRET not in failed.value.cause.message


@pytest.mark.parametrize("case", [case for case in DECISIONS if "verdict" not in case])
async def test_bad_signal_is_shown(waiting: Recovery, case: str) -> None:
    changes, field = DECISIONS[case]
    await _refused(waiting, "approve", [await decision(waiting, **changes)], f"{field}:")


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("approve", []),
        ("approve", [None]),
        ("approve", [SECRET]),
        ("approve", [{}, {}]),
        ("reject", [[1]]),
        ("approve", [RawValue(Payload(metadata={"encoding": b"binary/plain"}, data=b"\xff" + SECRET.encode()))]),
        ("approve", [RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"{" + SECRET.encode()))]),
        ("aprove", [{"by": SECRET}]),
    ],
)
async def test_malformed_signal_is_shown(waiting: Recovery, name: str, args: list[Any]) -> None:
    await _refused(waiting, name, args, "signal")


AT_A_HOLD = {"hold": "1-abcdef", "by": "bob", "answer": "retry"}
RESOLUTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing in it": ({}, "hold"),
    "no token": ({"by": "bob", "answer": "retry"}, "hold"),
    "a number as token": (AT_A_HOLD | {"hold": 1}, "hold"),
    "nobody": ({"hold": "1-abcdef", "answer": "retry"}, "by"),
    "an unknown answer": (AT_A_HOLD | {"answer": SECRET}, "answer"),
    "a list as answer": (AT_A_HOLD | {"answer": ["retry"]}, "answer"),
    "a reason without end": (AT_A_HOLD | {"reason": SECRET * 200}, "reason"),
    "an unknown field": (AT_A_HOLD | {"sudo": SECRET}, "sudo"),
    "nothing held": (AT_A_HOLD | {"hold": SECRET}, "hold"),
}
SAID: dict[str, tuple[str, Any, str]] = {
    "hold: nothing in it": ("hold", {}, "by"),
    "hold: no reason": ("hold", {"by": "bob"}, "reason"),
    "hold: an empty reason": ("hold", {"by": "bob", "reason": ""}, "reason"),
    "hold: a stranger": ("hold", {"by": SECRET, "reason": "x"}, "by"),
    "hold: an unknown field": ("hold", {"by": "bob", "reason": "x", "sudo": SECRET}, "sudo"),
    "hold: a text": ("hold", SECRET, "hold"),
    "note: nothing in it": ("note", {}, "by"),
    "note: no text": ("note", {"by": "bob"}, "text"),
    "note: a text without end": ("note", {"by": "bob", "text": SECRET * 200}, "text"),
    "note: a stranger": ("note", {"by": SECRET, "text": "x"}, "by"),
    "note: a list": ("note", [SECRET], "note"),
    "resolve: a text": ("resolve", SECRET, "resolve"),
    "resolve: null": ("resolve", None, "resolve"),
}
UNDO: dict[str, tuple[list[Any], str, str]] = {
    "nothing at all": ([], "Invalid", "input"),
    "a text": ([SECRET], "Invalid", "input"),
    "no workflow": ([{"reason": "x"}], "Invalid", "workflow"),
    "an empty workflow": ([{"workflow": "", "reason": "x"}], "Invalid", "workflow"),
    "no reason": ([{"workflow": "lab/orders"}], "Invalid", "reason"),
    "an unknown field": ([{"workflow": "lab/orders", "reason": "x", "sudo": SECRET}], "Invalid", "sudo"),
    "a number as run": ([{"workflow": "lab/orders", "run": 7, "reason": "x"}], "Invalid", "run"),
    "an unknown workflow": ([{"workflow": SECRET, "reason": "x"}], "Refused", "workflow"),
    "an unknown run": ([{"workflow": "lab/orders", "run": SECRET, "reason": "x"}], "Refused", "workflow"),
}


@pytest.mark.parametrize("case", RESOLUTIONS)
async def test_bad_resolution_is_answered(waiting: Recovery, case: str) -> None:
    said, field = RESOLUTIONS[case]
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await waiting.handle.execute_update("resolve_step", said)
    assert isinstance(failed.value.cause, ApplicationError)
    assert f"{field}:" in failed.value.cause.message
    assert SECRET not in failed.value.cause.message


@pytest.mark.parametrize("case", RESOLUTIONS)
async def test_bad_resolution_sent_as_a_signal_is_shown(waiting: Recovery, case: str) -> None:
    said, field = RESOLUTIONS[case]
    await _refused(waiting, "resolve", [said], f"{field}:")


@pytest.mark.parametrize("case", SAID)
async def test_bad_word_is_shown(waiting: Recovery, case: str) -> None:
    signal, said, field = SAID[case]
    await _refused(waiting, signal, [said], f"{field}:")


@pytest.mark.parametrize("case", UNDO)
async def test_bad_undo_fails_naming_the_field(engine: Running, case: str) -> None:
    args, kind, field = UNDO[case]
    cause = await failure(engine, "Undo", args)
    assert cause.type == kind
    assert f"{field}:" in cause.message
    assert SECRET not in cause.message


async def test_malformed_update_is_answered(waiting: Recovery) -> None:
    for name, args in (("decide", []), ("decide", ["x"]), ("decide", [{}, {}]), ("dezide", [{}]),
                       ("resolve_step", []), ("resolve_step", ["x"]), ("resolve_step", [{}, {}])):  # fmt: skip
        with pytest.raises(WorkflowUpdateFailedError):
            await waiting.handle.execute_update(name, args=args)
    assert not (await waiting.until("gate")).gates[0].decisions


async def _refused(waiting: Recovery, name: str, args: list[Any], part: str) -> None:
    before = len((await waiting.until("gate")).refusals)
    await waiting.handle.signal(name, args=args)

    async def more() -> bool:
        return len((await waiting.until("gate")).refusals) == before + 1

    await eventually(more, "the refusal is shown", 5)
    report = await waiting.until("gate")
    assert part in report.refusals[-1]
    assert SECRET not in " ".join(report.refusals)
    assert not report.gates[0].decisions
