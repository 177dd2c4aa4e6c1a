"""What tests of every room share: real servers from the lab."""

import os
import random
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab import ports
from lab.estate import Lab
from lab.kubernetes import Kubernetes
from tests.clusters import control_plane
from tests.drawing import draw
from tests.labs import lab_apart

FreshLab = Callable[[], Lab]


def _of_this_tree() -> str:
    """Return a seed that changes with each commit and not within one, so that a failure comes again; else any."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD^{tree}"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=10)
    except OSError:  # there is no git
        return str(secrets.randbelow(1_000_000))
    return str(int(found.stdout[:8] or f"{secrets.randbits(32):x}", 16))


SEED = os.environ.get("RECOVERY_TEST_SEED") or _of_this_tree()
os.environ["RECOVERY_TEST_SEED"] = SEED  # so that processes that share out the tests (pytest -n 2) draw the same
LONG = ("tests/matrix/", "tests/ui/", "tests/workflows/", "tests/console/")
PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = (ports.LAST - ports.FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
# A copy's port is used late: what another process has chosen meanwhile must not listen there.
os.environ["RECOVERY_LAB_PORTS"] = "{}-{}".format(*(ports.FIRST + PORTS * at for at in (PROCESS, PROCESS + 1)))


def pytest_report_header() -> str:
    """Say how to repeat what this run leaves to chance."""
    return f"chance: RECOVERY_TEST_SEED={SEED}"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Draw what is tried; where processes share it out, begin with what takes long, so that none works on alone."""
    long = [item for item in items if item.get_closest_marker("drawn")]
    draw(long, SEED, lambda item: item.nodeid.partition("::")[0], 1 / 20)
    draw(long, SEED, lambda item: "of all files", 1 / 3)
    yield  # deselected is only then
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly what was not tried."""
    left = [one for one in terminalreporter.stats.get("skipped", ()) if "control plane" in str(one.longrepr)]
    if left:
        terminalreporter.section("KUBERNETES WAS NOT TESTED", yellow=True)
        terminalreporter.line(f"{len(left)} tests need its control plane: set KUBEBUILDER_ASSETS, see README.md")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Share out the tests by what they have in common."""
    from tests.sharing import Sharing

    return Sharing(config, log)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Chance that the seed and the test's own name decide: the same alone and in the whole suite."""
    return random.Random(f"{SEED}/{request.node.nodeid}")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab that runs under load, one for the whole session; a test that breaks it makes its own."""
    with lab_apart() as shared:
        shared.up()
        # Later than the lab: what reads these finds it, and nobody's own lab is touched.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECOVERY_LAB", str(shared.place.root))
            patch.setenv("RECOVERY_STATE", str(shared.state))
            yield shared


@pytest.fixture(scope="module")
def cluster() -> Iterator[Kubernetes]:
    """A Kubernetes control plane, for the tests of one file: it takes a tenth of a processor as long as it is there."""
    with control_plane() as found:
        yield found


@pytest.fixture
def fresh_lab() -> Iterator[FreshLab]:
    """Make labs that nobody else uses; they are not up yet, and are taken down after the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(lab_apart())


@pytest.fixture(scope="module")
def fresh_labs() -> Iterator[FreshLab]:
    """Make labs that the tests of one file share; they are not up yet, and are taken down after the last test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(lab_apart())


@pytest.fixture(scope="session", autouse=True)
def _own_state() -> Iterator[None]:
    """Keep every test away from the state of this checkout, and from the ports of other processes' Temporals.

    While one that was killed comes back, another one that is started must not take its port.
    """
    with tempfile.TemporaryDirectory(prefix="state-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECOVERY_STATE", folder)
        patch.setenv("RECOVERY_TEMPORAL_PORT", str(7233 + 2000 * (PROCESS % 4)))
        yield
