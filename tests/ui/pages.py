"""The pages of the Temporal UI (2.54.1) as a person uses them: what is clicked, pasted and read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from playwright.async_api import FrameLocator, Locator, Page, TimeoutError, expect

from tests.running import Recovery, Running, eventually

PICTURES = os.environ.get("RECOVERY_SCREENSHOTS")


@dataclass
class StartForm:
    """The form "Start Workflow", which an address prefills."""

    page: Page

    async def open(self, address: str) -> None:
        """Open it, and wait until it has found the worker, and what the last run of this id was given."""

        async def active() -> bool:
            await self.page.goto(address)
            try:  # it looks once: a worker that polls later is not seen
                await self.page.get_by_text("Task Queue is Active").wait_for(timeout=10_000)
            except TimeoutError:
                return False
            return True

        await eventually(active, "the task queue is active", 120)
        await self.page.wait_for_load_state("networkidle")

    async def shows(self) -> dict[str, str]:
        """Return the fields that are not the input."""
        names = ("Workflow ID", "Task Queue", "Workflow Type")
        return {name: await self.page.get_by_role("textbox", name=name).input_value() for name in names}

    async def fill(self, body: Any) -> None:
        """Paste ``body`` as input, over that of the last run."""
        await paste(self.page.get_by_role("textbox", name="Data"), json.dumps(body, indent=2))

    async def send(self) -> Run:
        """Press the button, and follow the link to the run."""
        await self.page.get_by_role("button", name="Start Workflow").click()
        await self.page.get_by_role("link", name="Workflow started successfully").click()
        await self.page.wait_for_url("**/timeline")
        return Run(self.page, self.page.url.removesuffix("/timeline"))


@dataclass
class Run:
    """The pages of one run; ``address`` is theirs in common."""

    page: Page
    address: str

    @property
    def ids(self) -> tuple[str, str]:
        """Return workflow id and run id."""
        workflow, run = self.address.split("/")[-2:]
        return unquote(workflow), run

    async def open(self, tab: str, again: bool = False) -> None:
        """Open a tab by its name, as it stands in addresses; ``again`` as the run is now."""
        if self.page.url.startswith(self.address) and not again:
            await self.page.locator(f"#{tab}-tab").click()
        else:
            await self.page.goto(f"{self.address}/{tab}")

    async def has_status(self, status: str) -> None:
        """Wait until the page shows ``status``; by itself it follows the run within about ten seconds."""
        await expect(self.page.get_by_role("status").get_by_text(status, exact=True)).to_be_visible()

    async def details_say(self, text: str, seconds: float = 15) -> FrameLocator:
        """Open the tab with the current details and wait until they contain ``text``; pressing R refreshes them.

        They lie in a frame of their own.
        """
        await self.open("user-metadata")
        frame = self.page.frame_locator("#user-metadata-current-details")
        await frame.locator("h2").wait_for()

        async def look() -> bool:
            if text in await frame.locator("main").inner_text():
                return True
            await self.page.keyboard.press("r")
            return False

        await eventually(look, f"the details say {text!r}", seconds, pause=0.2)
        return frame

    async def signal(self, name: str, text: str) -> None:
        """Send a signal with the input ``text``; the UI only ever says that it was sent."""
        sent = self.page.get_by_text("Workflow signaled")
        await expect(sent).to_have_count(0, timeout=15_000)  # that of an earlier one stays for some seconds
        await self._send("Send a Signal", "Select a signal", name, text)
        await sent.first.wait_for()

    async def update(self, name: str, text: str) -> str:
        """Send an update with the input ``text``; return the message of its rejection, "" when it was accepted."""
        accepted = self.page.get_by_text("Update successful")
        await expect(accepted).to_have_count(0, timeout=15_000)  # as above
        dialog = await self._send("Send an Update", "Select an Update", name, text)
        refusal = dialog.get_by_role("alert").locator("p")
        await accepted.or_(refusal).first.wait_for()
        if not await refusal.count():
            return ""
        said = await refusal.inner_text()
        await dialog.get_by_test_id("cancel-modal-button").click()
        return said

    async def _send(self, action: str, select: str, name: str, text: str) -> Locator:
        await self.page.get_by_role("button", name="More Actions").click()
        await self.page.get_by_role("menuitem", name=action).click()
        dialog = self.page.get_by_role("dialog")
        await dialog.get_by_role("button", name=select).click()
        await dialog.get_by_role("option", name=f"{name} ").click()
        await paste(dialog.get_by_role("textbox", name="Data"), text)
        await dialog.get_by_role("button", name="Submit").click()
        return dialog


async def paste(editor: Locator, text: str) -> None:
    """Put ``text`` into an editor, as the clipboard would, in place of what is there."""
    await editor.click()
    await editor.press("Control+a")
    await editor.page.keyboard.insert_text(text)
    await expect(editor).to_contain_text(text.splitlines()[-1])


async def photograph(page: Page, file: Path, height: int = 0) -> None:
    """Save the page as a picture, as high as its content, or ``height``."""
    size = page.viewport_size
    assert size is not None
    content = page.locator("#content-wrapper")
    height = height or await content.evaluate("element => element.scrollHeight")
    await page.set_viewport_size({"width": size["width"], "height": height})
    await page.screenshot(path=file, animations="disabled")
    await page.set_viewport_size(size)


def recovery_of(engine: Running, run: Run) -> Recovery:
    """Return the recovery that a page shows."""
    workflow, number = run.ids
    return Recovery(engine.client.get_workflow_handle(workflow, run_id=number))


async def to_paste(details: FrameLocator, block: int, **changes: str) -> str:
    """Return the JSON that the details offer (0 for the update, 1 for a signal), decided by bob, with ``changes``."""
    body = json.loads(await details.locator("pre code").nth(block).inner_text())
    assert body["by"] == "YOUR NAME"
    return json.dumps(body | {"by": "bob"} | changes, indent=2)


async def picture(page: Page, name: str, height: int = 0) -> None:
    """Keep a picture for the documentation, when asked for."""
    if PICTURES:
        await photograph(page, Path(PICTURES) / f"{name}.png", height)
