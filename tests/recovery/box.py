"""Words to start toy recoveries on files of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from temporalio.client import Client

from recovery.report import Report
from tests.running import Recovery


class Toys:
    """Start toys in a folder of the test's own."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.count = 0

    def put(self, name: str, **how: Any) -> dict[str, Any]:
        return {"path": str(self.folder / name), **how}

    def has(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in sorted(self.folder.iterdir())}

    async def start(self, mode: str = "live", procedure: str = "Toy", **parameters: Any) -> Recovery:
        self.count += 1
        system = parameters.setdefault("system", f"{self.folder.name}-{self.count}")
        start = {"runbook": "toy/toy", "reason": "a test", "mode": mode, "requested_by": "alice"}
        handle = await self.client.start_workflow(
            procedure, start | {"parameters": parameters}, id=f"{system}-{self.count}", task_queue="toy"
        )
        return Recovery(handle)

    async def run(self, mode: str = "live", **parameters: Any) -> Report:
        return await (await self.start(mode, **parameters)).ended()
