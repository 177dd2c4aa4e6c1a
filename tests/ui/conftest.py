"""A real browser, and where the Temporal UI is."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from recovery import connection
from tests.running import Running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is missing: scripts/debian-packages installs it"
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        found = await playwright.chromium.launch(executable_path=program, args=arguments)
        yield found
        await found.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(viewport={"width": 1400, "height": 1000}, timezone_id="UTC")
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    found = await context.new_page()
    yield found
    await found.close()


@pytest.fixture(scope="module")
def ui(engine: Running) -> str:
    """Return the address of the namespace."""
    return f"{connection.ui(engine.settings)}/namespaces/default"
