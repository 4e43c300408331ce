"""One server and one browser for each module of these tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.contract.test_openfeature_web import CHROMIUM, OPTIONS
from tests.server import server, start_server

__all__ = ["server", "start_server"]

# A page's numbers come from the lake; on a busy machine the first of them take a while.
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), "`scripts/system-packages` installs it"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield launched
        launched.close()
