"""The gateway in front of a published OpenID provider (oidc-provider-mock), in a real browser, over https."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, expect, sync_playwright

from abgate.cli.demo.children import running_provider
from tests.contract.test_openfeature_web import CHROMIUM, OPTIONS
from tests.faults.things import answered, make_flag, split
from tests.server import Server, running_server

VERIFIER = "a-code-verifier-of-more-than-forty-three-characters"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
COOKIE = "__Host-abgate_device"


class Application:
    """The application that people log in to: it takes the provider's answers."""

    def __init__(self) -> None:
        self.callbacks: list[dict[str, str]] = []
        application = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/callback"):
                    application.callbacks.append(dict(parse_qsl(urlsplit(self.path).query)))
                body = b"<!doctype html><title>application</title><h1>You are here</h1>"
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}"

    def query(self, **more: str) -> list[tuple[str, str]]:
        """An authorization request with PKCE, a repeated and an empty parameter."""
        return [
            ("client_id", "application"),
            ("redirect_uri", f"{self.url}/callback"),
            ("response_type", "code"),
            ("scope", "openid email"),
            ("state", "a state/with+odd=characters&more"),
            ("nonce", "n-0S6_WzA2Mj"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("ui_locales", "fr"),
            ("ui_locales", "en"),
            ("login_hint", ""),
            *more.items(),
        ]


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    application = Application()
    thread = threading.Thread(target=application.server.serve_forever)
    thread.start()
    yield application
    application.server.shutdown()
    thread.join()
    application.server.server_close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_provider(tmp_path_factory.mktemp("provider")) as provider:
        upstream = f"http://localhost:{provider.port}/oauth2/authorize?tenant=one"
        environment = {"ABGATE_UPSTREAM_AUTHORIZE_URL": upstream}
        with running_server(tmp_path_factory.mktemp("abgate"), tls=True, environment=environment) as server:
            with server.client() as client:
                flag, variations = make_flag(client, "browser")
                body = {
                    "name": "browser",
                    "feature_flag_id": flag,
                    "authentication_flow": "authentication",
                    "allocations": split(variations),
                }
                id = answered(client.post("/experiments", json=body))["id"]
                answered(client.post(f"/experiments/{id}/status", json={"status": "active"}))
            yield server


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    assert Path(CHROMIUM).exists(), "`scripts/system-packages` installs it"
    with sync_playwright() as started:
        yield started


@contextmanager
def browser(playwright: Playwright, profile: Path) -> Iterator[BrowserContext]:
    """A browser that keeps its cookies in `profile`, as a person's does."""
    context = playwright.chromium.launch_persistent_context(
        profile, executable_path=CHROMIUM, args=OPTIONS, ignore_https_errors=True
    )
    try:
        yield context
    finally:
        context.close()


def open_login(page: Page, gateway: Server, application: Application, **more: str) -> list[tuple[str, str]]:
    """Begin to log in, and return the parameters with which the browser came to the provider."""
    page.goto(f"{gateway.url}/authorize?{urlencode(application.query(**more))}")
    expect(page.get_by_role("heading", name="Authorize Client")).to_be_visible()
    return parse_qsl(urlsplit(page.url).query, keep_blank_values=True)


def log_in(page: Page, application: Application) -> dict[str, str]:
    """Log in at the provider, and return what the application is told."""
    page.get_by_placeholder("sub").fill("alice")
    page.get_by_role("button", name="Authorize", exact=True).click()
    expect(page.get_by_role("heading", name="You are here")).to_be_visible()
    return application.callbacks[-1]


def cookie(context: BrowserContext) -> Any:
    (found,) = [each for each in context.cookies() if each["name"] == COOKIE]
    return found


def test_a_login_keeps_its_parameters_and_its_variation_after_the_browser_was_restarted(
    playwright: Playwright, gateway: Server, application: Application, tmp_path: Path
) -> None:
    with browser(playwright, tmp_path) as context:
        page = context.new_page()
        arrived = open_login(page, gateway, application)
        sent = application.query()
        assert arrived[: len(sent) + 1] == [("tenant", "one"), *sent]
        added = dict(arrived[len(sent) + 1 :])
        assert set(added) == {"ext-experiment_id", "ext-variation_id", "ext-experiment_token"}
        told = log_in(page, application)
        assert told["state"] == "a state/with+odd=characters&more"
        assert told["code"]
        first = cookie(context)
        assert (first["secure"], first["httpOnly"], first["sameSite"], first["path"]) == (True, True, "Lax", "/")
        again = dict(open_login(page, gateway, application))
        assert cookie(context)["value"] == first["value"]
        assert again["ext-variation_id"] == added["ext-variation_id"]
    with browser(playwright, tmp_path) as context:
        later = dict(open_login(context.new_page(), gateway, application))
        assert later["ext-variation_id"] == added["ext-variation_id"]
        assert cookie(context)["value"] == first["value"]


def test_the_cookie_is_set_once(
    playwright: Playwright, gateway: Server, application: Application, tmp_path: Path
) -> None:
    url = f"{gateway.url}/authorize?{urlencode(application.query())}"
    with browser(playwright, tmp_path) as context:
        given = [context.request.get(url, max_redirects=0).headers.get("set-cookie") for _ in range(3)]
    assert given[0] is not None
    assert given[0].startswith(f"{COOKIE}=")
    assert given[1:] == [None, None]


def test_eight_kilobytes_of_query_arrive(
    playwright: Playwright, gateway: Server, application: Application, tmp_path: Path
) -> None:
    with browser(playwright, tmp_path) as context:
        arrived = open_login(context.new_page(), gateway, application, claims="x" * 8192)
        assert ("claims", "x" * 8192) in arrived


def test_a_posted_request_arrives_as_well(
    playwright: Playwright, gateway: Server, application: Application, tmp_path: Path
) -> None:
    fields = "".join(
        f'<input type="hidden" name="{name}" value="{value.replace("&", "&amp;")}">'
        for name, value in application.query()
    )
    with browser(playwright, tmp_path) as context:
        page = context.new_page()
        page.goto(application.url)
        page.set_content(f'<form method="post" action="{gateway.url}/authorize">{fields}<button>Log in</button></form>')
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Authorize Client")).to_be_visible()
        arrived = parse_qsl(urlsplit(page.url).query, keep_blank_values=True)
        assert arrived[1 : len(application.query()) + 1] == application.query()
        assert "ext-variation_id" in dict(arrived)
        assert log_in(page, application)["code"]


def test_a_login_goes_on_while_the_server_is_restarted_in_the_middle(
    playwright: Playwright, gateway: Server, application: Application, tmp_path: Path
) -> None:
    with browser(playwright, tmp_path) as context:
        page = context.new_page()
        before = dict(open_login(page, gateway, application))
        gateway.kill()
        assert log_in(page, application)["code"]
        gateway.start()
        after = dict(open_login(page, gateway, application))
        assert after["ext-variation_id"] == before["ext-variation_id"]


def test_an_upstream_that_is_down_is_still_where_the_login_is_sent(
    playwright: Playwright, application: Application, tmp_path: Path
) -> None:
    environment = {"ABGATE_UPSTREAM_AUTHORIZE_URL": "http://localhost:9/authorize"}
    with (
        running_server(tmp_path / "abgate", tls=True, environment=environment) as server,
        browser(playwright, tmp_path / "profile") as context,
    ):
        url = f"{server.url}/authorize?{urlencode(application.query())}"
        answer = context.request.get(url, max_redirects=0)
        assert answer.status == 302
        assert answer.headers["location"] == f"http://localhost:9/authorize?{urlencode(application.query())}"
