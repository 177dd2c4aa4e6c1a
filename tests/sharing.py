"""How tests are shared out among processes (``pytest -n 2``): what uses one lab stays together."""

from __future__ import annotations

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

CALM = re.compile(r"tests/matrix/test_(?:cancels|cut_over|cuts|interruptions|kills|takeovers)\.py::.*\[(.+)\]")
"""These compare with an undisturbed run of a procedure, which is dear; the procedure is in their parameters."""
KUBERNETES = re.compile(
    r"tests/(activities/test_(clusters|manifests|workloads|nodes)|workflows/test_cluster_|lab/test_(kubernetes|storefront)|matrix/test_cluster_)"
)
"""A control plane is there once at a time, not twice."""
PROCEDURES = ("restore", "replace", "extract")


class Sharing(LoadScopeScheduling):
    """Whole files, and all tests that disturb one procedure, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """Return the name of what is run in one process."""
    if KUBERNETES.match(nodeid):
        return "kubernetes"
    found = CALM.match(nodeid)
    if found is None:
        return nodeid.partition("::")[0]
    return next(name for name in found[1].split("-") if name in PROCEDURES)
