"""Workflows that belong to the engine itself: the claim on a system, and the answer to an unknown procedure."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio import workflow
from temporalio.common import RawValue

from recovery.errors import Invalid
from recovery.names import CLAIM


@workflow.defn(name=CLAIM)
class SystemClaim:
    """Exist while a recovery acts on a system; its workflow id is what makes that exclusive."""

    def __init__(self) -> None:
        self._released = False

    @workflow.run
    async def run(self) -> None:
        """Wait for the release; closed by Temporal when the recovery ends in any other way."""
        await workflow.wait_condition(lambda: self._released)

    @workflow.signal
    def release(self) -> None:
        """Let the next recovery have the system."""
        self._released = True

    @workflow.signal
    def hand_over(self, holder: str) -> None:
        """Let go for another run of the recovery that holds this: it was reset."""
        parent = workflow.info().parent
        self._released = self._released or (parent is not None and parent.workflow_id == holder)

    @workflow.signal
    def let_go(self, runs: list[str]) -> None:
        """Let go where one of ``runs``, all ended, holds this: a run that was reset may have left it open."""
        parent = workflow.info().parent
        self._released = self._released or (parent is not None and parent.run_id in runs)


@workflow.defn(dynamic=True)
class UnknownProcedure:
    """Answer a workflow type that this build does not know, instead of leaving it pending for ever."""

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> None:
        """Fail, and say what to do."""
        info = workflow.info()
        raise Invalid(
            "workflow type: this worker (build "
            f"{info.get_current_build_id() or 'unversioned'}) has no procedure of this name;"
            " choose one that `starter.py runbooks` lists"
        )
