"""@openfeature/ofrep-web-provider 0.4, unmodified, in a real browser, on a page of another origin than the server's."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, Response, sync_playwright

from tests.contract.things import sent
from tests.scenarios import DEVICE, FRANCE, SCENARIOS, Scenario, make_key, make_scenarios
from tests.server import Server, StartServer

HERE = Path(__file__).parent / "web-openfeature"
CHROMIUM = "/usr/bin/chromium"
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TITLE = Scenario("string", "footer/title", "?", "", "")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def page_server() -> Iterator[str]:
    """Give the origin at which the page and its modules are served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(HERE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    assert (HERE / "node_modules" / "@openfeature").exists(), "`make node-packages` installs the provider"
    with page_server() as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), "`scripts/system-packages` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def flags(start_server: StartServer, origin: str) -> tuple[Server, str, Any]:
    """A server, a client key of it that the page may use, and its flags."""
    server = start_server()
    made = make_scenarios(server)
    key = make_key(server, "client", origin)
    return server.restart(), key, made


@pytest.fixture
def page(browser: Browser, origin: str) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(f"{origin}/page.html")
    page.wait_for_function("window.ready")
    yield page
    page.close()


def start(page: Page, server: Server, key: str, context: Any = DEVICE) -> None:
    page.evaluate("given => window.start(given)", {"url": server.url, "key": key, "context": context})


def evaluate(page: Page, *asked: Scenario) -> Any:
    return page.evaluate("calls => window.evaluate(calls)", [each._asdict() for each in asked])


def until(page: Page, is_so: Callable[[], bool], seconds: float = 10) -> float:
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < seconds
        page.wait_for_timeout(20)
    return time.monotonic() - started


# A client in a browser has all flags of its context beforehand: those that are not active are not among them.
APPLICABLE = [each for each in SCENARIOS if each.reason != "DISABLED" and each.error != "TARGETING_KEY_MISSING"]


def test_evaluates_and_follows_its_context(page: Page, flags: tuple[Server, str, Any]) -> None:
    server, key, _ = flags
    start(page, server, key)
    for context in (DEVICE, FRANCE, DEVICE):
        page.evaluate("context => window.setContext(context)", context)
        of_context = [each for each in APPLICABLE if each.context == context]
        for asked, details in zip(of_context, evaluate(page, *of_context), strict=True):
            assert (details["value"], details["reason"]) == (asked.value, asked.reason), asked
            assert (details.get("variant"), details.get("errorCode")) == (asked.variant, asked.error), asked


@pytest.mark.parametrize("key", ["abk_unknown", "server key"])
def test_without_a_key_that_admits_the_page_the_default_is_given(
    page: Page, flags: tuple[Server, str, Any], key: str
) -> None:
    server, _, _ = flags
    page.evaluate("given => window.start(given).catch(() => null)", {"url": server.url, "key": key, "context": DEVICE})
    [details] = evaluate(page, SCENARIOS[0])
    assert (details["value"], details["reason"]) == ("?", "ERROR")


def test_a_targeting_key_is_needed(page: Page, flags: tuple[Server, str, Any]) -> None:
    server, key, _ = flags
    started = "given => window.start(given).then(() => 'started', error => error.message)"
    assert page.evaluate(started, {"url": server.url, "key": key, "context": {}}) != "started"
    [details] = evaluate(page, SCENARIOS[0])
    assert (details["value"], details["reason"]) == ("?", "ERROR")


def test_a_change_reaches_the_page_by_its_event_stream(page: Page, flags: tuple[Server, str, Any]) -> None:
    server, key, made = flags
    statuses: list[int] = []
    streams: list[str] = []

    def answered(response: Response) -> None:
        if response.url.split("?")[0].endswith("/evaluate/flags") and response.request.method == "POST":
            statuses.append(response.status)

    def asked(request: Request) -> None:
        if "/ofrep/v1/stream" in request.url:
            streams.append(request.url)

    page.on("response", answered)
    page.on("request", asked)
    start(page, server, key)
    # The stream's first event has the page evaluate again: nothing has changed since.
    until(page, lambda: statuses == [200, 304])
    footer = made["footer"]
    served = {"served_variation_id": footer["variations"][1]["id"]}
    with server.client() as client:
        sent(client, "PATCH", f"/feature-flags/{footer['id']}", served)
    # The provider itself waits for other events before it asks.
    assert until(page, lambda: evaluate(page, TITLE)[0]["value"] == "Bonjour") < 3
    assert evaluate(page, TITLE)[0]["variant"] == "treatment"
    assert page.evaluate("window.changes") >= 1
    assert statuses == [200, 304, 200]
    assert len(streams) == 1
