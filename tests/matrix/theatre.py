"""Every scene by its action, and the stages that they are played on: each is built when the first scene needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.estate import Lab
from tests.conftest import FreshLab
from tests.matrix.relay import relay
from tests.matrix.scenes import PlaceScene, ReplayScene, Scene, Stage
from tests.matrix.scenes_azure import PointTrafficScene, RunMachineScene
from tests.matrix.scenes_configurations import PutFilesScene, RecordScene, RollBackScene, TellScene
from tests.matrix.scenes_cut_over import BaseBackupScene, CloseScene, CutScene, CutStage, FenceScene, SalvageScene
from tests.matrix.scenes_director import PointScene
from tests.matrix.scenes_dns import PointRecordScene, SetTtlScene
from tests.matrix.scenes_extraction import ExtractionScene
from tests.matrix.scenes_haproxy import PointBackendScene
from tests.matrix.scenes_manifests import ApplyManifestsScene
from tests.matrix.scenes_nodes import DrainNodesScene
from tests.matrix.scenes_restored import ArchiveScene, InstallScene, OpenScene, PromoteScene
from tests.matrix.scenes_services import RunServicesScene
from tests.matrix.scenes_sessions import ForgetBeforeScene, PutSessionsScene, ReadSnapshotScene
from tests.matrix.scenes_silences import SilenceScene
from tests.matrix.scenes_stores import (
    FenceStoreScene,
    FollowStoreScene,
    KeepSessionsScene,
    PromoteStoreScene,
    UnfenceStoreScene,
)
from tests.matrix.scenes_switching import ExportDivergenceScene, FollowScene, ForgetScene, KeepRoleScene, RetireScene
from tests.matrix.scenes_switching import PromoteScene as PromoteStandbyScene
from tests.matrix.scenes_workloads import ScaleWorkloadScene

_ALL: tuple[type[Scene[Any, Any]], ...] = (
    PlaceScene, ReplayScene, CloseScene, SalvageScene, FenceScene, PromoteScene, InstallScene, ArchiveScene, OpenScene,
    BaseBackupScene, ExtractionScene, PointScene, FenceStoreScene, UnfenceStoreScene, PromoteStoreScene,
    FollowStoreScene, RunServicesScene, KeepRoleScene, RetireScene, PromoteStandbyScene, FollowScene, ForgetScene,
    ExportDivergenceScene, KeepSessionsScene, ReadSnapshotScene, PutSessionsScene, ForgetBeforeScene,
    RollBackScene, PutFilesScene, TellScene, RecordScene, ApplyManifestsScene, RunMachineScene, PointTrafficScene,
    PointBackendScene, PointRecordScene, SetTtlScene, ScaleWorkloadScene, DrainNodesScene, SilenceScene,
)  # fmt: skip
SCENES: Mapping[str, type[Scene[Any, Any]]] = {scene.action.name: scene for scene in _ALL}


class Theatre:
    """The stages: ``shared`` on the session's lab, others on labs of their own that nobody writes into."""

    def __init__(self, shared: Stage, labs: FreshLab, folder: Path) -> None:
        self._shared, self._labs, self._folder = shared, labs, folder
        self._built: dict[type[CutStage], CutStage] = {}
        self._open = AsyncExitStack()

    async def stage(self, scene: type[Scene[Any, Any]]) -> Stage:
        """Return the stage of ``scene``."""
        if not issubclass(scene, CutScene):
            return self._shared
        if scene.built not in self._built:
            self._built[scene.built] = await self._build(scene.built)
        return self._built[scene.built]

    async def close(self) -> None:
        """Let go of every stage."""
        await self._open.aclose()

    async def _build(self, kind: type[CutStage]) -> CutStage:
        lab = self._labs()
        await asyncio.to_thread(lab.up, load=False)
        target = await asyncio.to_thread(written, lab)
        between = await self._open.enter_async_context(relay(lab.ports["ssh"]))
        folder = self._folder / kind.__name__
        folder.mkdir()
        stage = await kind.built(lab, between, target, folder)
        await stage.prepare()
        return stage


def written(lab: Lab) -> datetime:
    """Write orders before and after a moment, and return that moment once it can be restored."""
    place = "insert into orders (number, customer, amount) select n, 'x', n from generate_series(%s::int, %s) n"
    with lab.postgres.connect("orders") as connection:
        connection.execute(place, (1, 1000))
        target = datetime.now(UTC)
        connection.execute("select pg_sleep(1.2)")  # a moment is final a second later
        connection.execute(place, (1001, 1500))
        connection.execute("update orders set amount = 0 where number between 5 and 9")
        connection.execute("create table later (id int primary key, said text)")
        connection.execute("insert into later values (1, 'one')")
    return target
