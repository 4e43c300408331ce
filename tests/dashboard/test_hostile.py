"""Names, descriptions and events that want more than to be text, and what else the policy forbids."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.contract.things import make_experiment, make_flag, make_segment
from tests.dashboard.signed_in import open_pages
from tests.server import Server

HOSTILE = [
    "<script>document.title = 'owned'</script>",
    '"><img src=x onerror="document.title = \'owned\'">',
    "{{ 7 * 7 }}${7 * 7}</textarea></style>",
    "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\u5bbd" * 255,
    "W" * 255,
]


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    page = open_pages(browser, server)
    yield page
    page.context.close()


def test_a_name_is_text_and_nothing_else(page: Page, server: Server) -> None:
    experiments, flags = [], []
    with server.client() as client:
        for name in HOSTILE:
            flag = make_flag(client, name=name, variations=2, active=True, description=name)
            flags.append(flag["id"])
            make_segment(client, name=name, rules=[{"match": {"country": [name]}}])
            experiment = make_experiment(client, flag, name=name, description=name, status="active")
            experiments.append(experiment["id"])
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    for path in ("/", "/feature-flags", "/segments", "/settings"):
        expect_text(page, server, path, HOSTILE)
    for id, flag_id, name in zip(experiments, flags, HOSTILE, strict=True):
        expect_text(page, server, f"/experiments/{id}", [name])
        expect_text(page, server, f"/experiments/{id}/edit", [name])
        expect_text(page, server, f"/feature-flags/{flag_id}", [name])
    assert refused == []


def expect_text(page: Page, server: Server, path: str, names: list[str]) -> None:
    """Expect the names on the page as they are, and that they changed nothing of it."""
    page.goto(server.url + path)
    expect(page.locator("[aria-busy]")).to_have_count(0)
    assert page.title().endswith("· abgate"), path
    assert page.evaluate("document.querySelectorAll('main img, main script:not([type])').length") == 0, path
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    shown = page.locator("main").inner_text() + "".join(
        page.locator("main input, main textarea").evaluate_all("all => all.map(each => each.value)")
    )
    assert [name for name in names if name not in shown] == [], path


def test_the_policy_refuses_a_script_that_was_put_into_the_page(page: Page) -> None:
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = "document.title = 'owned'";
          document.body.append(script);
          document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="document.title = \\'owned\\'">');
        }"""
    )
    expect(page).to_have_title("Experiments · abgate")
    assert any("Content Security Policy" in text for text in refused)


def test_no_page_asks_another_origin_for_anything(page: Page, server: Server) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with server.client() as client:
        experiment = make_experiment(client, status="active")
    for path in ("/", "/experiments/new", f"/experiments/{experiment['id']}", "/segments", "/why", "/settings"):
        page.goto(server.url + path)
        expect(page.locator("[aria-busy]")).to_have_count(0)
    assert len(asked) > 20
    assert {urlsplit(url).netloc for url in asked} == {server.domain}
