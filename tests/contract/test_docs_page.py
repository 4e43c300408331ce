"""The browsable page of the API, in a real browser: it draws itself and asks no other server for anything."""

from urllib.parse import urlsplit

from playwright.sync_api import expect, sync_playwright

from tests.contract.test_openfeature_web import CHROMIUM, OPTIONS
from tests.server import Server


def test_it_shows_every_operation_without_a_request_elsewhere(server: Server) -> None:
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{server.url}/docs")
        expect(page.get_by_text("/api/v2/experimentation/experiments/{id}/advance-ramp")).to_be_visible()
        browser.close()
    assert {urlsplit(url).netloc for url in asked} == {server.domain}
