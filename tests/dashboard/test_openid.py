"""Signing in with a published OpenID provider (oidc-provider-mock), in a real browser and by hand."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from playwright.sync_api import Browser, expect

from abgate.cli.demo.children import running_provider
from tests.dashboard.signed_in import login_link
from tests.server import Server, StartServer

ROLES = "groups=identity-team:editor; email=Ada@example.com:admin; sub=carol:viewer"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_provider(tmp_path_factory.mktemp("provider")) as child:
        url = f"http://127.0.0.1:{child.port}"
        users: dict[str, dict[str, Any]] = {
            "bob": {"groups": ["staff", "identity-team"], "email": "bob@example.com", "email_verified": True},
            "ada": {"email": "ada@example.com", "email_verified": True},
            "mallory": {"email": "ada@example.com", "email_verified": False},
            "nobody": {"email": "nobody@example.com", "email_verified": True},
        }
        for sub, claims in users.items():
            httpx.put(f"{url}/users/{sub}", json=claims).raise_for_status()
        yield url


def connected(issuer: str, **more: str) -> dict[str, str]:
    return {
        "ABGATE_OPENID_ISSUER": issuer,
        "ABGATE_OPENID_CLIENT_ID": "abgate-pages",
        "ABGATE_OPENID_CLIENT_SECRET": "a secret/with+odd=characters",
        "ABGATE_OPENID_ROLES": ROLES,
        **more,
    }


@pytest.fixture(scope="module")
def pages(start_server: StartServer, provider: str) -> Server:
    return start_server(environment=connected(provider))


@contextmanager
def visitor(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def authorized(client: httpx.Client, sub: str, *, next: str = "/settings", **changes: str) -> str:
    """Begin, sign in at the provider as `sub`, and return where the provider sends the browser back to."""
    begun = client.get(f"/sign-in/openid?next={next}")
    assert begun.status_code == 303
    at_provider = httpx.URL(begun.headers["location"]).copy_merge_params(changes)
    back = httpx.post(at_provider, data={"sub": sub}).headers["location"]
    assert back.startswith(f"{str(client.base_url).rstrip('/')}/sign-in/openid/callback?")
    return back


def test_a_person_signs_in_and_comes_to_the_page_that_was_asked_for(
    browser: Browser, pages: Server, provider: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{pages.url}/feature-flags")
    page.get_by_role("link", name=f"Sign in with {urlsplit(provider).netloc}").click()
    page.get_by_placeholder("sub").fill("bob")
    page.get_by_role("button", name="Authorize").click()
    expect(page.get_by_role("heading", name="Feature flags")).to_be_visible()
    expect(page.locator(".who")).to_contain_text("editor bob@example.com")
    names = {cookie["name"] for cookie in context.cookies(pages.url)}
    assert names == {"abgate_session"}
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    context.close()


def test_the_request_has_pkce_a_state_and_a_nonce_and_comes_back_to_our_own_domain(pages: Server) -> None:
    with visitor(pages) as client:
        location = client.get("/sign-in/openid", headers={"Host": "evil.example"}).headers["location"]
    query = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    assert query["redirect_uri"] == f"{pages.url}/sign-in/openid/callback"
    assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
    assert query["scope"].split() == ["openid", "email", "profile"]
    for name in ("state", "nonce", "code_challenge"):
        assert re.fullmatch(r"[\w-]{43}", query[name])


@pytest.mark.parametrize(("sub", "role"), [("bob", "editor"), ("ada", "admin"), ("carol", "viewer")])
def test_claims_and_the_allow_list_give_the_role(pages: Server, sub: str, role: str) -> None:
    with visitor(pages) as client:
        done = client.get(authorized(client, sub))
        assert (done.status_code, done.headers["location"]) == (303, "/settings")
        assert f'<span class="quiet">{role}</span>' in client.get("/settings").text


@pytest.mark.parametrize("sub", ["mallory", "nobody"])
def test_whom_no_rule_fits_is_refused_and_an_unverified_address_is_none(pages: Server, sub: str) -> None:
    with visitor(pages) as client:
        refused = client.get(authorized(client, sub))
        assert refused.status_code == 403
        assert "who has no role here" in refused.text
        assert "abgate_session" not in client.cookies


def test_an_answer_that_this_browser_did_not_ask_for_is_refused(pages: Server) -> None:
    with visitor(pages) as client, visitor(pages) as another:
        back = authorized(client, "bob")
        assert another.get(back).status_code == 400
        authorized(another, "carol")
        assert another.get(back).status_code == 400
        assert "abgate_session" not in another.cookies
        assert client.get(back).status_code == 303
        assert client.get(back).status_code == 400  # the attempt is over


def test_a_token_of_another_sign_in_is_refused(pages: Server) -> None:
    with visitor(pages) as client:
        refused = client.get(authorized(client, "bob", nonce="another"))
        assert refused.status_code == 403
        assert "of another sign-in" in refused.text


def test_a_refusal_and_a_wrong_code_are_said(pages: Server) -> None:
    with visitor(pages) as client:
        back = httpx.URL(authorized(client, "bob"))
        state = back.params["state"]
        denied = client.get("/sign-in/openid/callback", params={"state": state, "error": "access_denied"})
        assert (denied.status_code, "access_denied" in denied.text) == (403, True)
        wrong = client.get("/sign-in/openid/callback", params={"state": state, "code": "made-up"})
        assert (wrong.status_code, "did not answer as it should" in wrong.text) == (503, True)


def test_it_leads_to_pages_of_this_site_only(pages: Server) -> None:
    with visitor(pages) as client:
        done = client.get(authorized(client, "bob", next="https://evil.example/"))
        assert done.headers["location"] == "/"


def test_links_go_on_working_beside_it(pages: Server) -> None:
    link = login_link(pages)
    assert "Sign in</button>" in httpx.get(link).text


class _Liar(BaseHTTPRequestHandler):
    """A provider whose discovery document names another issuer."""

    def do_GET(self) -> None:
        body = msgspec.json.encode(
            {"issuer": "https://other.example", "authorization_endpoint": "https://other.example/a"}
            | {"token_endpoint": "https://other.example/t"}
        )
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def test_a_provider_that_is_another_one_or_away_is_said_in_words(start_server: StartServer) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Liar) as liar:
        thread = threading.Thread(target=liar.serve_forever)
        thread.start()
        server = start_server(environment=connected(f"http://127.0.0.1:{liar.server_port}"))
        with visitor(server) as client:
            refused = client.get("/sign-in/openid")
        assert (refused.status_code, "did not answer as it should" in refused.text) == (503, True)
        assert "is of the issuer 'https://other.example'" in server.log.read_text().replace('\\"', "'")
        liar.shutdown()
        thread.join()
    with visitor(server) as client:
        assert client.get("/sign-in/openid").status_code == 503
