"""Steps that fail for good, and what people answer: what a hold has to offer, and where each answer has to lead."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Literal

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.service import RPCError

from recovery.names import activity_id
from recovery.report import HoldLine, Report
from tests.running import Recovery, eventually

Answer = Literal["retry", "skip", "compensate", "silence"]
ANSWERS: tuple[Answer, ...] = ("retry", "skip", "compensate", "silence")


@dataclass(frozen=True)
class Recorded:
    """The steps of a recovery that nobody disturbed: its activities in order, and those that have an undo."""

    kind: str
    activities: tuple[str, ...]
    commits: str
    """The step that commits."""
    shuts: str = ""
    """The step that shuts clients out."""
    skippable: tuple[str, ...] = ()
    """Activities of steps that may be skipped."""

    @property
    def commit(self) -> int:
        """Where the step that commits is ordered."""
        return self.activities.index(activity_id(self.commits, "apply"))

    def dark(self, activity: str) -> bool:
        """Tell whether clients are shut out when ``activity`` fails."""
        if not self.shuts:
            return False
        return activity_id(self.shuts, "apply") in self.activities[: self.activities.index(activity) + 1] and (
            self.activities.index(activity) <= self.commit
        )

    def ordered(self, activity: str) -> bool:
        """Tell whether anything was ordered that can be undone when ``activity`` fails."""
        return any(name.endswith(".apply") for name in self.activities[: self.activities.index(activity) + 1])


@dataclass(frozen=True)
class Cell:
    """One failure for good of ``activity``, before or after it acts, and what people answer."""

    recorded: Recorded
    activity: str
    point: str
    answer: Answer

    def __str__(self) -> str:
        return f"{self.recorded.kind}: {self.activity} {self.point}, {self.answer}"

    @property
    def committed(self) -> bool:
        """Tell whether the point of no return is passed when it fails."""
        return self.recorded.activities.index(self.activity) >= self.recorded.commit

    @property
    def withdrawn(self) -> bool:
        """Tell whether the step that commits fails before it has changed anything."""
        return self.activity == self.recorded.activities[self.recorded.commit] and self.point == "before"

    @property
    def offered(self) -> tuple[str, ...]:
        """Return what the hold has to offer."""
        skip = ("skip",) if self.activity in self.recorded.skippable else ()
        back = () if self.committed and not self.withdrawn else ("withdraw",) if self.committed else ("compensate",)
        return ("retry", *skip, *back)

    @property
    def goes_on(self) -> bool:
        """Tell whether it ends recovered: by the answer, or because there is no other way."""
        if self.answer in ("retry", "skip"):
            return True
        return self.committed and not (self.withdrawn and self.answer == "compensate")

    def outcome(self) -> str:
        """Return how it has to end."""
        if self.goes_on:
            return "recovered"
        return "compensated" if self.recorded.ordered(self.activity) else "failed"

    def said(self) -> str:
        """Return what is answered, in the end."""
        if self.answer == "compensate":
            return self.offered[-1] if self.offered[-1] != "skip" else "retry"
        return "retry" if self.answer == "silence" else self.answer


def cells(found: Recorded) -> list[Cell]:
    """Return every cell."""
    return [
        Cell(found, activity, point, answer)
        for activity in found.activities
        for point in ("before", "after")
        for answer in ANSWERS
        if (answer != "skip" or activity in found.skippable) and (point == "before" or activity.endswith(".apply"))
    ]


async def through(recovery: Recovery, cell: Cell | None, seconds: float = 120) -> Report:
    """Approve at the gates, answer at the hold as ``cell`` says, and wait for the end."""
    async with asyncio.timeout(seconds):
        while True:
            report: Report = await eventually(recovery.status, "a worker answers")
            if report.outcome != "running":
                break
            if report.phase.startswith("gate"):
                with contextlib.suppress(RPCError, WorkflowUpdateFailedError):
                    await recovery.approve()
            elif (hold := report.hold) is not None:
                assert cell is not None, hold.why
                await answered(recovery, cell, hold)
            await asyncio.sleep(0.05)
    return await recovery.ended()


async def answered(recovery: Recovery, cell: Cell, hold: HoldLine) -> None:
    """Answer at ``hold``, unless silence is what is tried and leads on."""
    assert f"told to fail {cell.point}" in hold.why
    assert (hold.cause, hold.answers) == ("failure", cell.offered), (cell, hold)
    assert hold.silence == ("ask again" if cell.committed else "compensate")
    limit = (hold.until - hold.opened).total_seconds()
    unit = 3 if cell.recorded.dark(cell.activity) else 4 * 2**hold.again
    assert limit == pytest.approx(unit * (1 if silent(cell) else 60), abs=1)
    if silent(cell) and not (cell.committed and hold.again):
        return
    for wrong in {"skip", "compensate", "withdraw"} - set(cell.offered):
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await recovery.resolve(wrong)
        assert f"answer: {wrong} is not offered here" in str(failed.value.cause)
    with contextlib.suppress(WorkflowUpdateFailedError) if silent(cell) else contextlib.nullcontext():
        await recovery.resolve(cell.said(), reason=f"{cell.answer} is tried")


def silent(cell: Cell) -> bool:
    return cell.answer == "silence"


def held(cell: Cell, report: Report) -> None:
    """Compare the record of the hold with what was answered."""
    hold = report.holds[-1]
    assert f"told to fail {cell.point}" in hold.why
    if silent(cell) and not cell.goes_on:
        assert (hold.closed, hold.answer) == ("nobody answered in time", "")
    else:
        assert (hold.answer, hold.by, hold.reason) == (cell.said(), "bob", f"{cell.answer} is tried")
    assert len(report.holds) == 1 or (silent(cell) and cell.committed)
