"""A rollback whose workers die anywhere ends as if nothing was; one in which a step fails, as people say."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from lab.estate import Lab
from recovery.report import Report
from tests.conftest import SEED
from tests.matrix.cells import Cell
from tests.matrix.disturbed import PROGRAM
from tests.matrix.failing_worker import Failing
from tests.matrix.turns import Turns
from tests.running import Recovery, running
from tests.shops import Machine, Program, Remote, below, catalog
from tests.stores import lab_host

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.drawn]

NAMES = ("one", "two")
BEFORE = {"app.conf": "works badly\n", "old.conf": "old\n"}
WELL = {"app.conf": "works well\n", "new/deep.conf": "deep\n"}
WORSE = {"app.conf": "works\nnot on two\n", "new/deep.conf": "deep\n"}
OUTCOMES = {"well": "recovered", "worse": "compensated"}
HOLD = {"roles": ["dba"], "within": "PT5S"}
PARTS = 4
"""Of one way: each takes some minutes by itself."""


@dataclass
class Ground:
    """A repository and two machines that are rolled back again and again, and a Temporal without a worker."""

    turns: Turns
    folder: Path
    remote: Remote
    machines: Mapping[str, Machine]
    program: Program
    jobs: Path
    revisions: Mapping[str, str]
    bad: str

    @property
    def failing(self) -> Path:
        """The file that says what fails."""
        return self.folder / "failing"

    def reset(self) -> None:
        """Have everything as before."""
        self.remote.git("update-ref", "refs/heads/main", self.bad)
        self.remote.git("update-ref", "-d", "refs/notes/deployments")
        for machine in self.machines.values():
            machine.have(BEFORE)
            shutil.rmtree(machine.conf / "new", ignore_errors=True)
        self.program.bring(self.bad)
        shutil.rmtree(self.jobs / ".configurations", ignore_errors=True)

    async def start(self, runbook: str, way: str) -> Recovery:
        """Start a rollback to the revision of this way."""
        given = {"runbook": f"lab/{runbook}", "reason": "a test", "requested_by": "alice"}
        handle = await self.turns.engine.client.start_workflow(
            "ConfigurationRollback", given | {"parameters": {"revision": self.revisions[way]}}, id="lab/shop",
            task_queue=self.turns.engine.settings.task_queue,
        )  # fmt: skip
        return Recovery(handle)

    async def conducted(self, way: str, cells: Sequence[Cell] = (), runbook: str = "back") -> tuple[Report, Recovery]:
        """Conduct one rollback; each worker is killed at one of the ``cells``, and followed by another one."""
        self.reset()
        return await self.turns.conducted(lambda: self.start(runbook, way), cells)

    def stands(self, way: str, left: Sequence[str] = (), *, noted: bool = True) -> None:
        """Assert that everything is rolled back, but for the machines in ``left``, or that it is as before."""
        good = {"well": WELL, "worse": BEFORE}[way]
        for name, machine in self.machines.items():
            files = BEFORE if name in left else good
            assert (name, machine.has(), machine.loaded) == (name, files, files["app.conf"])
            assert {mode for mode, _ in machine.rights().values()} <= {0o640, 0o644}
        at = self.bad if way == "worse" or "program" in left else self.revisions[way]
        assert self.program.at == at
        assert self.remote.tree() == self.remote.tree(self.revisions[way] if way == "well" else self.bad)
        commits = self.remote.git("log", "--format=%s", f"{self.bad}..main").splitlines()
        assert len(commits) == {"well": 1, "worse": 2}[way], commits
        notes = self.remote.git("notes", "--ref=deployments", "list").split() if way == "well" else []
        lines = [line for blob in notes[::2] for line in self.remote.git("cat-file", "blob", blob).splitlines()]
        assert len(lines) == (noted and way == "well")
        kept = [path.name for path in self.jobs.glob(".configurations/*")]
        assert len(kept) == (len(NAMES) - len({*NAMES} & {*left}) if way == "well" else 0), kept
        assert not list(self.jobs.glob(".configurations/*/pending"))
        assert not [path for machine in self.machines.values() for path in machine.conf.rglob("*.recovery")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    folder = lab.place.north / "rollbacks"
    folder.mkdir()
    folder.chmod(0o755)
    remote, host = Remote.new(folder / "shop.git"), lab_host(lab)
    revisions = {way: remote.commit(below("web", files)) for way, files in (("well", WELL), ("worse", WORSE))}
    bad = remote.commit(below("web", BEFORE))
    machines = {name: Machine.new(name, folder) for name in NAMES}
    root = tmp_path_factory.mktemp("catalogs")
    given = {"canary": ["on-one"], "watch": "PT0S", "settle": "PT1S"}
    program = Program.new(folder, bad)
    commands = {"program": program.known("one")}
    catalog(root, "lab", remote, machines, dict.fromkeys(NAMES, host), given, commands=commands)
    held = (root / "lab" / "back.yaml").read_text() + "hold: {roles: [dba], within: PT5S}\n"
    (root / "lab" / "held.yaml").write_text(held)
    work = tmp_path_factory.mktemp("ground")
    environment = {"RECOVERY_CATALOGS": str(root), "FAILING": str(work / "failing")}
    async with running(lab, PROGRAM, False, **environment) as engine:
        yield Ground(Turns(engine, work), work, remote, machines, program, lab.place.jobs, revisions, bad)
    shutil.rmtree(folder)


async def crash(ground: Ground, way: str, chance: random.Random, subtests: pytest.Subtests, share: slice) -> None:
    await ground.turns.crash(
        lambda cells: ground.conducted(way, cells), lambda: ground.stands(way), OUTCOMES[way], chance, subtests, share
    )


@pytest.mark.parametrize("way", OUTCOMES)
async def test_killed_worker_rolls_back_all_the_same(
    ground: Ground, chance: random.Random, way: str, subtests: pytest.Subtests
) -> None:
    await crash(ground, way, chance, subtests, slice(1))


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("way", OUTCOMES)
async def test_worker_killed_anywhere_rolls_back_all_the_same(
    ground: Ground, way: str, part: int, subtests: pytest.Subtests
) -> None:
    await crash(ground, way, random.Random(f"{SEED}/{way}"), subtests, slice(part, None, PARTS))


LOOKS = (
    "find-*.observe",
    "compare-*.observe",
    "ask-program-*.observe",
    "watch-the-health-of-every-*.observe",
    "watch-*wave*.observe",
)
APPLIES = ("roll-*.apply", "put-*-on-one-*.apply", "put-*-on-two-*.apply", "bring-*-to-program*.apply", "write-*.apply")
ANSWERS = ("retry", "compensate", "silence")
CASES = [(step, point, answer) for step in (*LOOKS, *APPLIES) for point in ("before", "after") for answer in ANSWERS]
CASES += [(step, point, "skip") for step in APPLIES[1:] for point in ("before", "after")]


async def test_failed_step_goes_on_as_people_say(ground: Ground, chance: random.Random) -> None:
    await failed(ground, *chance.choice(CASES))


@pytest.mark.soak
@pytest.mark.parametrize(("step", "point", "answer"), CASES)
async def test_any_failed_step_goes_on_as_people_say(ground: Ground, step: str, point: str, answer: str) -> None:
    await failed(ground, step, point, answer)


async def failed(ground: Ground, step: str, point: str, answer: str) -> None:
    """Have one step fail, and answer so."""
    ground.reset()
    Failing.model_validate({"activity": step, "point": point}).write(ground.failing)
    ground.turns.engine.program = ["-m", "tests.matrix.failing_worker"]
    ground.turns.engine.start_worker()
    try:
        report = await answered(await ground.start("held", "well"), answer)
    finally:
        ground.turns.engine.kill_worker()
        ground.turns.engine.program = PROGRAM
    assert Failing.model_validate_json(ground.failing.read_text()).times == 0, "nothing failed"
    ground.failing.unlink()
    if answer in ("retry", "skip"):
        assert (report.outcome, report.residual) == ("recovered", ()), report.failure
        skipped = answer == "skip" and point == "before"
        left = [name for name in (*NAMES, "program") if skipped and name in re.findall("[a-z]+", step)]
        ground.stands("well", left, noted=not (skipped and step.startswith("write")))
    else:
        assert (report.outcome in ("compensated", "failed"), report.residual) == (True, ()), report.failure
        assert {name: one.has() for name, one in ground.machines.items()} == dict.fromkeys(NAMES, BEFORE)
        assert ground.program.at == ground.bad
        assert ground.remote.tree() == ground.remote.tree(ground.bad)


async def answered(recovery: Recovery, answer: str) -> Report:
    """Approve at the gate, answer so at a hold, and wait for the end."""
    async with asyncio.timeout(120):
        while True:
            report = await recovery.status()
            if report is not None and report.outcome != "running":
                return await recovery.ended()
            if report is not None and report.phase.startswith("gate"):
                await recovery.approve()
            elif report is not None and report.hold is not None and answer != "silence":
                await recovery.resolve(answer)
            await asyncio.sleep(0.1)
