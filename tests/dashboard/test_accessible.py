"""Everybody can use every page: axe finds nothing, by light and by dark; the keyboard reaches everything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.contract.things import by_segment, make_experiment, make_flag, make_segment
from tests.dashboard.signed_in import login_link
from tests.server import Server

AXE = Path(__file__).parents[1] / "contract" / "axe" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def paths(server: Server) -> list[str]:
    """A path of every page, with something on it."""
    with server.client() as client:
        draft = make_experiment(client)
        running = make_experiment(client, status="active", levels=[5, 50], description="A hypothesis.")
        make_experiment(client, status="completed")
        segment = make_segment(client, description="A description.")
        flag = make_flag(client, variations=2, active=True)
        targeted = make_experiment(
            client, flag, allocation_strategy="segment", allocations=by_segment(flag, segment), status="active"
        )
        asked = {"flow": running["authentication_flow"], "subjects": {"device": "device-1"}}
        client.post(f"{server.url}/runtime/v1/resolve", json=asked)
        event = {"log_id": "login-1", "type": "s", "date": "2026-11-25T04:00:00Z", "details": {"device_id": "device-1"}}
        client.post(f"{server.url}/runtime/v1/events", json=event)
        stream = {"type": "http", "name": "siem", "sink": {"httpEndpoint": "https://siem.example.com/"}}
        client.post(f"{server.url}/api/v2/log-streams", json=stream).raise_for_status()
    return [
        "/",
        "/experiments/new",
        *(f"/experiments/{each['id']}" for each in (draft, running, targeted)),
        f"/experiments/{draft['id']}/edit",
        "/feature-flags",
        f"/feature-flags/{flag['id']}",
        "/segments?country=FR&user_agent=Mozilla",
        "/segments/new",
        f"/segments/{segment['id']}",
        f"/why?flow={running['authentication_flow']}&device=device-1",
        "/logs",
        "/logs?q=type",
        "/logs/event?id=login-1",
        "/settings",
        "/experiments/exp_1",
    ]


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    # axe is put into the page as a script, which the pages' own policy would refuse.
    context = browser.new_context(locale="en-GB", bypass_csp=True)
    page = context.new_page()
    page.goto(login_link(server))
    yield page
    context.close()


def violations(page: Page, *, only: tuple[str, ...] = ()) -> list[Any]:
    if not page.evaluate("'axe' in globalThis"):
        page.add_script_tag(path=AXE)
    rules = {"runOnly": list(only)} if only else {}
    found = page.evaluate(
        "rules => axe.run({resultTypes: ['violations'], ...rules}).then(found => found.violations)", rules
    )
    return [
        (page.url, each["id"], [(node["target"], node["failureSummary"]) for node in each["nodes"]]) for each in found
    ]


def test_axe_finds_no_violation_on_any_page_by_light_or_by_dark(page: Page, server: Server, paths: list[str]) -> None:
    found = violations(page)
    page.get_by_role("button", name="Sign in").click()
    for path in paths:
        page.goto(server.url + path)
        expect(page.locator("[aria-busy]")).to_have_count(0)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        page.emulate_media(color_scheme="light")
        found += violations(page)
        # Of all the rules this is the one that the scheme makes a difference to.
        page.emulate_media(color_scheme="dark")
        found += violations(page, only=("color-contrast",))
    assert found == []


def test_a_wrong_form_passes_axe_as_well(page: Page, server: Server) -> None:
    page.get_by_role("button", name="Sign in").click()
    found = []
    for path, button in (
        ("/experiments/new", "Create draft"),
        ("/segments/new", "Save segment"),
        ("/settings", "Make key"),
        ("/settings", "Create log stream"),
        ("/feature-flags", "Create feature flag"),
    ):
        page.goto(server.url + path)
        page.get_by_role("button", name=button).click()
        expect(page.locator("[aria-invalid]").first).to_be_visible()
        found += violations(page)
    assert found == []


def test_the_keyboard_alone_makes_and_activates_an_experiment(page: Page, server: Server) -> None:
    page.keyboard.press("Enter")  # the link's button has the focus
    expect(page.get_by_role("heading", name="Running now")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="New experiment")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New experiment")).to_be_visible()
    reach(page, "name")
    page.keyboard.type("by-keyboard")
    reach(page, "flow")
    page.keyboard.type("Password")
    reach(page, "flag_name")
    page.keyboard.type("by-keyboard-flag")
    expect(page.get_by_text("Nothing blocks activation.")).to_be_visible()
    reach(page, "variations.1.weight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")  # as in any field: it sends the form
    expect(page.get_by_role("heading", name="by-keyboard", exact=True)).to_be_visible()
    expect(page.get_by_role("cell", name="51 %")).to_be_visible()
    press(page, "Activate")
    expect(page.get_by_role("status")).to_contain_text("The experiment is running")


def test_the_keyboard_alone_works_out_how_long_an_experiment_takes(page: Page, server: Server) -> None:
    page.get_by_role("button", name="Sign in").click()
    page.goto(f"{server.url}/experiments/new")
    for field, typed in (("plan_rate", "82"), ("plan_effect", "2"), ("plan_per_day", "many")):
        reach(page, field)
        page.keyboard.type(typed)
    reach(page, "plan")
    page.keyboard.press("Enter")
    wrong = page.locator("#planned").get_by_role("alert")
    expect(wrong).to_contain_text("Subjects a day: must be a number such as 500")
    expect(page.locator("#plan")).to_be_focused()
    page.keyboard.press("Tab")
    expect(wrong.get_by_role("link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#plan_per_day")).to_be_focused()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("700")
    page.keyboard.press("Enter")  # in a field here it works out the plan, and does not send the whole form
    expect(page.get_by_role("group", name="How long it takes")).to_contain_text("once, at the end")
    expect(page.locator("#plan_per_day")).to_be_focused()


def test_the_keyboard_alone_makes_pauses_and_deletes_a_log_stream(page: Page, server: Server) -> None:
    page.get_by_role("button", name="Sign in").click()
    page.goto(f"{server.url}/settings")
    reach(page, "name")
    page.keyboard.type("by-keyboard")
    reach(page, "sink.httpEndpoint")
    page.keyboard.type("http://siem.example.com/")
    reach(page, "sink.httpContentFormat")
    page.keyboard.type("JSONA")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # opens the categories
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    press(page, "Create log stream")
    wrong = page.locator('[id="sink.httpEndpoint"]')
    expect(wrong).to_have_attribute("aria-invalid", "true")
    reach(page, "sink.httpEndpoint")
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("https://siem.example.com/")
    page.keyboard.press("Enter")  # as in any field: it sends the form
    row = page.get_by_role("row", name="by-keyboard")
    expect(row).to_contain_text("https://siem.example.com/")
    for button, then in (("Pause", "paused"), ("Resume", "active")):
        press(page, f"{button} by-keyboard")
        expect(row).to_contain_text(then)
    page.get_by_text("Delete… by-keyboard").focus()
    page.keyboard.press("Enter")
    press(page, "Delete by-keyboard")
    expect(row).to_have_count(0)


def press(page: Page, words: str) -> None:
    """Press Tab until the focus is on the button with these words, and then Enter."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == words:
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"the keyboard does not reach {words}")


def reach(page: Page, id: str) -> None:
    """Press Tab until the focus is on the element with this id."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == id:
            return
    raise AssertionError(f"the keyboard does not reach {id}")


def test_a_narrow_screen_needs_no_scrolling_sideways(browser: Browser, server: Server, paths: list[str]) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(login_link(server))
    page.get_by_role("button", name="Sign in").click()
    for path in paths:
        page.goto(server.url + path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, (path, wide)
    context.close()
