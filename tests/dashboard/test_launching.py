"""A person's way from the link to a winner rolled out, in a real browser and without the documentation."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.signed_in import login_link, open_pages
from tests.server import API, Server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    page = open_pages(browser, server)
    yield page
    page.context.close()


def fill_new_experiment(page: Page, name: str) -> None:
    page.get_by_label("Name", exact=True).first.fill(name)
    page.get_by_label("Hypothesis").fill("Who sees the prompt logs in more often.")
    page.get_by_label("Authentication flow").select_option("signup")
    page.get_by_label("Name of the new flag").fill(f"{name}-flag")


def log_in(server: Server, count: int) -> None:
    """Have so many devices ask for their variation, as an identity server does for them."""
    with server.client() as client:
        for number in range(count):
            asked = {"flow": "signup", "subjects": {"device": f"device-{number}"}}
            client.post(f"{server.url}/runtime/v1/resolve", json=asked).raise_for_status()


def test_from_the_link_to_a_ramped_experiment_to_its_winner_rolled_out(page: Page, server: Server) -> None:
    page.get_by_role("link", name="New experiment").click()
    expect(page.get_by_text("Not complete yet.")).to_be_visible()
    fill_new_experiment(page, "prompt-at-sign-up")
    expect(page.get_by_text("Nothing blocks activation.")).to_be_visible()
    page.get_by_role("button", name="Create draft").click()
    expect(page.get_by_role("heading", name="prompt-at-sign-up", exact=True)).to_be_visible()
    expect(page.get_by_text("From the next login on, 5 % of logins on “signup” take part.")).to_be_visible()
    page.get_by_role("button", name="Activate").click()
    expect(page.get_by_role("status")).to_contain_text("The experiment is running")
    for level in (25, 100):
        page.get_by_role("button", name=f"Advance ramp to {level}").click()
        expect(page.get_by_role("status")).to_contain_text("The ramp was raised")

    log_in(server, 40)
    expect_counted(page, "40")
    page.get_by_role("link", name="Experiments", exact=True).click()
    row = page.get_by_role("row").filter(has_text="prompt-at-sign-up")
    expect(row.get_by_role("cell").nth(1)).to_have_text("active")
    expect(row.get_by_text("40", exact=True)).to_be_visible()
    expect(row.get_by_text("too little data")).to_be_visible()

    row.get_by_role("link").click()
    page.get_by_text("Roll out a variation…").click()
    page.get_by_label("Variation", exact=True).select_option(label="treatment")
    page.get_by_role("button", name="Roll out").click()
    expect(page.get_by_role("status")).to_contain_text("serves this variation to everyone")
    expect(page.get_by_text("Rolled out and completed")).to_be_visible()
    with server.client() as client:
        asked = {"flow": "signup", "subjects": {"device": "somebody new"}}
        answer = client.post(f"{server.url}/runtime/v1/resolve", json=asked).json()
    assert answer["served"]["prompt-at-sign-up-flag"] == {"enabled": {"value": True}}


def expect_counted(page: Page, subjects: str) -> None:
    """Load the page until everyone is counted: exposures are written behind the answers."""
    for _ in range(100):
        page.reload()
        expect(page.get_by_role("heading", name="Shares, planned and observed")).to_be_visible()
        numbers = page.locator("section", has=page.locator("#shares")).get_by_role("cell").all_inner_texts()
        if sum(int(each) for each in numbers[2::3]) == int(subjects):
            return
    raise AssertionError(numbers)


def test_shares_always_sum_to_100(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/experiments/new")
    page.get_by_role("button", name="Add a variation").click()
    sliders = page.get_by_role("slider")
    expect(sliders).to_have_count(3)
    for slider, key, times in ((0, "ArrowLeft", 13), (2, "PageUp", 3), (1, "End", 1), (0, "ArrowRight", 7)):
        sliders.nth(slider).focus()
        for _ in range(times):
            page.keyboard.press(key)
        values = [int(each.input_value()) for each in sliders.all()]
        assert sum(values) == 100, values
        assert [f"{value} %" for value in values] == page.locator("output").all_inner_texts()


@pytest.mark.parametrize(
    ("label", "typed", "field", "rule"),
    [
        ("Name of the new flag", "ab", "flag_name", "must have at least 3 characters"),
        ("Default", "maybe", "parameters.0.value", "must be true or false"),
        ("enabled is", "false", "variations.1.values.0", "must differ from the parameter's default"),
        ("Ramp", "50, 20", "levels", "levels must be strictly increasing"),
        ("Ramp", "half", "levels", "must be whole percents"),
        ("Name of variation 2", "control", "variations.1.name", "is taken"),
    ],
)
def test_a_refusal_stands_beside_its_field_and_keeps_what_was_typed(
    page: Page, server: Server, label: str, typed: str, field: str, rule: str
) -> None:
    page.goto(f"{server.url}/experiments/new")
    fill_new_experiment(page, "refused")
    page.get_by_label(label).last.fill(typed)
    page.get_by_role("button", name="Create draft").click()
    alert = page.get_by_role("alert").filter(has_text="Nothing was saved.")
    expect(alert.get_by_role("link", name=label, exact=True)).to_have_attribute("href", f"#{field}")
    wrong = page.locator(f'[id="{field}"]')
    expect(wrong).to_have_value(typed)
    expect(wrong).to_have_attribute("aria-invalid", "true")
    expect(page.locator(f'[id="{field}-wrong"]')).to_contain_text(rule)
    expect(page.get_by_label("Hypothesis")).to_have_value("Who sees the prompt logs in more often.")
    with server.client() as client:
        names = [each["name"] for each in client.get("/feature-flags").json()["feature_flags"]]
    assert "refused-flag" not in names


def test_what_was_typed_outlives_the_session(browser: Browser, server: Server) -> None:
    page = open_pages(browser, server)
    page.goto(f"{server.url}/experiments/new")
    fill_new_experiment(page, "typed at noon")
    page.context.clear_cookies()
    page.get_by_role("button", name="Create draft").click()
    expect(page.get_by_role("alert")).to_contain_text("Your session has ended, and nothing was saved.")
    other = page.context.new_page()
    other.goto(login_link(server))
    other.get_by_role("button", name="Sign in").click()
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("typed at noon")
    page.context.close()


def test_what_the_present_state_forbids_is_said_on_the_page(page: Page, server: Server) -> None:
    with server.client() as client:
        experiments = client.get("/experiments?status=completed").json()["experiments"]
    page.goto(f"{server.url}/experiments/{experiments[0]['id']}")
    page.evaluate("document.querySelector('[name=action]').value = 'pause'")
    page.get_by_text("Roll out a variation…").click()
    page.get_by_role("button", name="Roll out").click()
    expect(page.get_by_role("alert")).to_contain_text("an experiment cannot move from completed to paused")


def test_the_merged_config_is_shown_as_it_is_typed(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/experiments/new")
    page.get_by_role("button", name="Add a parameter").click()
    page.locator('[id="parameters.1.name"]').fill("title")
    page.locator('[id="parameters.1.value"]').fill("Log in")
    page.locator('[id="variations.1.values.1"]').fill("Welcome back")
    preview = page.locator("#checked pre")
    expect(preview.nth(0)).to_contain_text('"title": "Log in"')
    expect(preview.nth(1)).to_contain_text('"title": "Welcome back"')
    expect(preview.nth(1)).to_contain_text('"enabled": true')


def test_a_viewer_sees_no_button_and_gets_nowhere_by_hand(browser: Browser, server: Server) -> None:
    page = open_pages(browser, server, role="viewer")
    expect(page.get_by_role("link", name="New experiment")).to_have_count(0)
    page.goto(f"{server.url}/experiments/new")
    expect(page.get_by_role("alert")).to_contain_text("Your role (viewer) does not allow this")
    with server.client() as client:
        id = client.get(f"{server.url}{API}/experiments").json()["experiments"][0]["id"]
    page.goto(f"{server.url}/experiments/{id}")
    expect(page.get_by_role("heading", name="What happened")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Roll out|Archive|Delete|Pause"))).to_have_count(0)
    page.context.close()
