"""What an experiment's page says in each state: the words and the numbers of the API, in its tables and its charts."""

import csv
import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from msgspec import Struct
from playwright.sync_api import Browser, Page, expect

from abgate.storage.lake import Lake
from tests.conftest import opened
from tests.contract.things import sent
from tests.dashboard import states
from tests.dashboard.signed_in import open_pages, signed_in
from tests.dashboard.test_accessible import violations
from tests.server import Server

JSON = dict[str, Any]
DECIDED = {
    "ship": ("ship", "Ship modal."),
    "srm": ("blocked", "Do not decide: these numbers cannot be believed."),
    "rollback": ("roll back", "Roll twelve back: it breaks a guardrail."),
    "not_enough_data": ("too little data", "There is too little data to compare."),
    "paused": ("keep running", "Keep it running."),
    "completed": ("ship", "thirty-days is better, and could be shipped."),
    "forced_only": ("too little data", "There is too little data to compare."),
}


class Told(Struct, frozen=True):
    """A server with the whole story behind it, somebody who is signed in, and every experiment's results."""

    server: Server
    client: httpx.Client
    ids: dict[str, str]
    results: dict[str, JSON]

    def path(self, state: str) -> str:
        return f"/experiments/{self.ids[state]}"

    def rows(self, state: str, figure: str, query: str = "") -> list[dict[str, str]]:
        """Return a figure's CSV."""
        answer = self.client.get(f"{self.path(state)}/results/{figure}.csv{query}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/csv")
        return list(csv.DictReader(answer.text.splitlines()))


@pytest.fixture(scope="module")
def told(server: Server) -> Iterator[Told]:
    lake = Lake(str(server.data / "lake"))
    with opened(f"sqlite:///{server.data / 'abgate.db'}") as engine:
        ids = states.fill(engine, lake, now=datetime.now(UTC))
        states.settle(engine, lake)
    with server.client() as api, signed_in(server) as client:
        api.timeout = client.timeout = 120
        results = {state: sent(api, "GET", f"/experiments/{ids[state]}/results") for state in DECIDED}
        yield Told(server, client, ids, results)


def text_of(page: str) -> str:
    """Return what a page says, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def treatments(metric: JSON) -> list[JSON]:
    return [each for each in metric["variations"] if not each["is_control"]]


def number(text: str) -> float | None:
    return float(text) if text else None


@pytest.mark.parametrize("state", DECIDED)
def test_the_page_says_what_the_api_says(told: Told, state: str) -> None:
    results, (word, sentence) = told.results[state], DECIDED[state]
    page = text_of(told.client.get(f"{told.path(state)}/results").text)
    assert f"{word} : the decision {sentence}" in page
    for reason in results["decision"]["reasons"]:
        assert reason["words"] in page
    for metric in results["metrics"]:
        figure = "guardrails" if metric["role"] == "guardrail" else "effects"
        rows = [row for row in told.rows(state, figure) if row["metric"] == metric["metric_id"]]
        control = next(each for each in metric["variations"] if each["is_control"])
        assert len(rows) == len(treatments(metric))
        for row, each in zip(rows, treatments(metric), strict=True):
            assert (row["variation"], int(row["n"])) == (each["variation_name"], each["n"])
            assert (number(row["control"]), number(row["value"])) == (control["value"], each["value"])
            assert number(row["effect"]) == each.get("effect")
            interval = each.get("always_valid_interval", [None, None])
            assert [number(row["low"]), number(row["high"])] == interval
            if each["status"] == "not_enough_data":
                assert each["why"] in page
    population = {row["who"]: int(row["subjects"]) for row in told.rows(state, "population")}
    assert population == results["population"]


def test_numbers_are_rounded_by_their_uncertainty(told: Told) -> None:
    page = told.client.get(f"{told.path('ship')}/results").text
    (each,) = treatments(told.results["ship"]["metrics"][0])
    low, high = (f"{end * 100:+.1f}".replace("-", "−") for end in each["always_valid_interval"])
    assert f"{low} to {high}\u202fpp" in page
    assert f"{each['effect'] * 100:+.1f}\u202fpp" in page
    assert f"{each['value'] * 100:.1f}\u202f%" in page


def test_the_days_and_the_shares_are_those_of_the_api(told: Told) -> None:
    results = told.results["ship"]
    series = results["metrics"][0]["series"]
    rows = told.rows("ship", "running")
    assert [(row["day"], int(row["n"]), number(row["effect"])) for row in rows] == [
        (each["day"], each["n"], each.get("effect")) for each in series
    ]
    assert sum(int(row["subjects"]) for row in told.rows("ship", "exposures")) == sum(each["n"] for each in series[-2:])
    assert {row["variation"]: (int(row["planned"]), int(row["n"])) for row in told.rows("ship", "shares")} == {
        each["variation_name"]: (each["weight"], each["n"]) for each in results["variations"]
    }


def test_a_mismatch_names_its_cause(told: Told) -> None:
    page = text_of(told.client.get(f"{told.path('srm')}/results").text)
    assert "The shares are wrong" in page
    cause = told.results["srm"]["sample_ratio"]["causes"][0]
    assert (cause["attribute"], cause["value"]) == ("browser", "Mobile Safari")
    counts = " ".join(str(n) for n in cause["observed"].values())
    assert f"browser Mobile Safari {counts} < 0.001" in page


def test_a_guardrail_that_is_broken_says_so(told: Told) -> None:
    found = {row["metric"]: row["verdict"] for row in told.rows("rollback", "guardrails")}
    assert found == {"lockout_rate": "broken", "failed_login_rate": "open"}
    assert [row["verdict"] for row in told.rows("ship", "guardrails")] == ["kept", "kept"]


def test_forced_assignments_are_shown_and_never_counted(told: Told) -> None:
    page = text_of(told.client.get(f"{told.path('forced_only')}/results").text)
    assert "All 6 assignments so far were forced" in page
    assert told.results["forced_only"]["population"]["exposed"] == 0


def test_an_earlier_phase_is_shown_with_its_weights(told: Told) -> None:
    first, second = told.rows("paused", "phases")
    control, treatment = (each["variation_id"] for each in told.results["paused"]["variations"])
    assert (first[f"weight_{control}"], first[f"weight_{treatment}"]) == ("80", "20")
    assert (second[f"weight_{control}"], second[f"weight_{treatment}"]) == ("50", "50")
    assert int(first["n"]) == told.results["paused"]["population"]["of_earlier_phases"]
    assert "Phases" not in told.client.get(f"{told.path('ship')}/results").text


def test_a_breakdown_is_that_of_the_api(told: Told) -> None:
    query = "?dimension=browser&metric=passkey_enrolled"
    with told.server.client() as api:
        answer = sent(api, "GET", f"/experiments/{told.ids['ship']}/results?dimension=browser")
    metric = next(each for each in answer["metrics"] if each["metric_id"] == "passkey_enrolled")
    rows = told.rows("ship", "breakdown", query)
    assert [(row["value"], number(row["effect"])) for row in rows if row["variation"]]
    assert [number(row["effect"]) for row in rows] == [
        each.get("effect") for part in metric["slices"] for each in treatments(part)
    ]
    refused = told.client.get(f"{told.path('ship')}/results/breakdown.csv")
    assert refused.status_code == 404
    assert told.client.get(f"{told.path('ship')}/results?dimension=shoe_size").status_code == 200


@pytest.fixture
def page(browser: Browser, told: Told) -> Iterator[Page]:
    page = open_pages(browser, told.server)
    yield page
    page.context.close()


def test_the_charts_are_drawn_and_look_closer_by_keyboard(page: Page, told: Told) -> None:
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(told.server.url + told.path("ship"))
    expect(page.locator("figure svg")).to_have_count(5)
    page.locator("#metric").focus()
    page.keyboard.type("passkey")
    page.keyboard.press("Tab")
    page.keyboard.type("browser")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="passkey_enrolled by browser")).to_be_visible()
    expect(page.locator("figure svg")).to_have_count(6)
    expect(page).to_have_url(re.compile(r"\?metric=passkey_enrolled&dimension=browser$"))
    expect(page.locator("#look-closer")).to_be_focused()
    assert said == []
    assert {urlsplit(url).netloc for url in asked} == {told.server.domain}


def test_while_it_is_counted_the_page_asks_how_far_it_is(page: Page, told: Told) -> None:
    assert told.client.get(f"{told.path('ship')}/results/progress").status_code == 204
    page.route(re.compile("/results$"), lambda _route: None)  # it is not answered yet
    so_far = "<p>3 of 8 steps are done</p>"
    page.route(re.compile("/results/progress$"), lambda route: route.fulfill(body=so_far, content_type="text/html"))
    page.goto(told.server.url + told.path("ship"))
    expect(page.get_by_text("3 of 8 steps are done")).to_be_visible()
    page.unroute_all()
    page.reload()
    expect(page.get_by_text("Ship modal.")).to_be_visible()


def test_axe_finds_nothing_on_full_charts_by_light_or_by_dark(browser: Browser, told: Told) -> None:
    # axe is put into the page as a script, which the page's own policy would refuse.
    context = browser.new_context(bypass_csp=True)
    context.add_cookies(
        [{"name": "abgate_session", "value": told.client.cookies["abgate_session"], "url": told.server.url}]
    )
    page = context.new_page()
    page.goto(f"{told.server.url}{told.path('srm')}?dimension=browser")
    expect(page.locator("figure svg")).to_have_count(6)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.emulate_media(color_scheme="light")
    found = violations(page)
    page.emulate_media(color_scheme="dark")
    found += violations(page, only=("color-contrast",))
    context.close()
    assert found == []
