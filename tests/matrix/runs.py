"""The procedures that are disturbed, by the name that a test gives them."""

from __future__ import annotations

from collections.abc import Mapping

from tests.matrix.cut_overs import Extract, Replace
from tests.matrix.restores import Restore, Run

RUNS: Mapping[str, type[Run]] = {run.name: run for run in (Restore, Replace, Extract)}
