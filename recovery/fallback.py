"""The answer to a workflow type that this build does not know."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio import workflow
from temporalio.common import RawValue

from recovery.errors import Invalid


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
