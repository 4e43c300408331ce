"""What a person finds out at the pages: why a variation, which events, what changed, what matches."""

import math
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.contract.things import by_segment, make_experiment, make_flag, make_segment, sent
from tests.dashboard.signed_in import signed_in
from tests.server import Server

FLOW = "looked_at"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with signed_in(server) as client:
        yield client


@pytest.fixture(scope="module")
def experiment(server: Server) -> dict[str, str]:
    with server.client() as api:
        made = make_experiment(api, authentication_flow=FLOW, status="active")
        asked = {"flow": FLOW, "subjects": {"device": "device-7"}, "transaction_id": "transaction-7"}
        answer = api.post(f"{server.url}/runtime/v1/resolve", json=asked).json()
        event = {
            "log_id": "seen-7",
            "type": "fp",
            "date": "2999-01-01T00:00:00.000Z",
            "user_id": "auth0|seven",
            "details": {"device_id": "device-7"},
        }
        sent(api, "POST", f"{server.url}/runtime/v1/events", event, status=202)
    return {"id": made["id"], "variation_id": answer["experiment"]["variation_id"], "name": answer["variation_name"]}


def eventually(client: httpx.Client, path: str, words: str) -> str:
    """Return the page once it says these words: exposures are filed and events enriched behind the answer."""
    deadline = time.monotonic() + 60
    while words not in (text := client.get(path).text):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    return text


def test_why_says_what_explain_says_and_what_followed(
    client: httpx.Client, server: Server, experiment: dict[str, str]
) -> None:
    with server.client() as api:
        asked = {"flow": FLOW, "subjects": {"device": "device-7"}}
        explained = sent(api, "POST", f"{server.url}/runtime/v1/explain", asked)
    page = eventually(client, f"/why?flow={FLOW}&device=device-7", experiment["variation_id"])
    assert "of event seen-7" in page
    assert f"{explained['position']} of 10" in page
    assert f"change {explained['snapshot_number']}" in page
    assert experiment["name"] in page


def test_why_finds_a_transaction(client: httpx.Client, experiment: dict[str, str]) -> None:
    page = eventually(client, "/why?transaction=transaction-7", "of event seen-7")
    assert experiment["id"] in page


def test_why_answers_for_a_past_moment(client: httpx.Client, experiment: dict[str, str]) -> None:
    assert "No experiment is active" in client.get(f"/why?flow={FLOW}&device=device-7&at=2020-01-01T00:00").text
    refused = client.get("/why?device=device-7&at=yesterday")
    assert refused.status_code == 400
    assert 'value="yesterday" aria-invalid="true"' in refused.text


def test_an_event_after_the_last_year_that_a_calendar_has_is_shown_at_its_end(
    client: httpx.Client, server: Server
) -> None:
    event = {
        "log_id": "last",
        "type": "s",
        "date": "9999-12-31T23:59:59-14:00",
        "details": {"device_id": "device-9999"},
    }
    with server.client() as api:
        sent(api, "POST", f"{server.url}/runtime/v1/events", event, status=202)
    for path in ("/why?device=device-9999", "/logs?q=log_id:last"):
        eventually(client, path, '<time datetime="9999-12-31T23:59:59.999Z"')


def test_logs_are_searched_in_the_language_of_the_api(client: httpx.Client, experiment: dict[str, str]) -> None:
    eventually(client, "/logs?q=details.experiment.experiment_id:" + experiment["id"], "auth0|seven")
    assert "No event fits" in client.get("/logs?q=type:nothing").text
    refused = client.get("/logs?q=type:(")
    assert refused.status_code == 400
    assert 'value="type:(" placeholder' in refused.text
    assert 'id="q-wrong"' in refused.text


def test_followed_live_htmx_gets_the_rows_alone(client: httpx.Client, experiment: dict[str, str]) -> None:
    assert 'hx-trigger="every 2s"' in client.get("/logs?live=on").text
    rows = client.get("/logs", headers={"HX-Request": "true"}).text
    assert rows.startswith("<tr>")
    assert "<html" not in rows


def test_an_event_is_shown_as_json(client: httpx.Client, experiment: dict[str, str]) -> None:
    page = eventually(client, "/logs/event?id=seen-7", experiment["variation_id"])
    assert "&#34;user_id&#34;: &#34;auth0|seven&#34;" in page
    assert client.get("/logs/event?id=none").status_code == 404


def test_the_tester_names_the_rule_that_matches(client: httpx.Client, server: Server) -> None:
    with server.client() as api:
        make_segment(api, name="tested", rules=[{"match": {"country": ["XX"]}}, {"match": {"device_type": ["mobile"]}}])
    agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Mobile/15E148 Safari/604.1"
    page = client.get("/segments", params={"user_agent": agent}).text
    row = page[page.index(">tested<") :].partition("</tr>")[0]
    assert "rule 2 matches" in row
    assert "<dt>platform</dt><dd><bdi>iOS</bdi></dd>" in page


def test_a_segment_made_by_the_form_is_the_one_that_the_api_has(client: httpx.Client, server: Server) -> None:
    rules = {
        "rules.0.0.attribute": "country", "rules.0.0.operator": "is", "rules.0.0.values": "FR\nDE",
        "rules.0.1.attribute": "browser", "rules.0.1.operator": "not contains", "rules.0.1.values": "Edge",
        "rules.1.0.attribute": "connection", "rules.1.0.operator": "missing", "rules.1.0.values": "",
    }  # fmt: skip
    page = client.post("/segments/new", data={"name": "by the form", **rules})
    with server.client() as api:
        made = sent(api, "GET", f"/segments/{page.url.path.rpartition('/')[2]}")
    assert made["rules"] == [
        {"match": {"country": ["FR", "DE"]}, "not_match": {"browser": {"contains": ["Edge"]}}},
        {"match": {"connection": {"exists": False}}},
    ]
    again = client.post(f"/segments/{made['id']}", data={"name": "by the form", "action": "save", **rules})
    assert again.status_code == 200
    with server.client() as api:
        assert sent(api, "GET", f"/segments/{made['id']}")["rules"] == made["rules"]


def test_the_history_shows_what_was_before_and_after(client: httpx.Client, server: Server) -> None:
    with server.client() as api:
        flag = make_flag(api, name="renamed-before")
        sent(api, "PATCH", f"/feature-flags/{flag['id']}", {"name": "renamed-after"})
    page = client.get("/settings").text
    assert '<span class="removed">&#34;renamed-before&#34;</span>' in page
    assert '<span class="added">&#34;renamed-after&#34;</span>' in page


def test_a_key_is_shown_once_and_works(client: httpx.Client, server: Server) -> None:
    page = client.post("/settings", data={"key_name": "login server", "kind": "server"}).text
    key = page.partition("<pre>")[2].partition("</pre>")[0]
    assert key.startswith("abk_")
    assert key not in client.get("/settings").text
    asked = {"flow": FLOW, "subjects": {"device": "device-7"}}
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.post(f"{server.url}/runtime/v1/resolve", json=asked, headers=headers).status_code == 200


def test_only_an_admin_makes_keys(server: Server) -> None:
    with signed_in(server, role="editor") as editor:
        assert editor.post("/settings", data={"key_name": "mine"}).status_code == 403
        assert "New key" not in editor.get("/settings").text


def test_the_form_plans_as_the_api_does(client: httpx.Client, server: Server) -> None:
    asked = {"plan_rate": "82 %", "plan_effect": "2,5", "plan_per_day": "700", "flow": "nobody_comes_here"}
    page = client.post("/experiments/new/plan", data=asked).text
    body = {"rate": 0.82, "relative_effect": 0.025, "per_day": 700}
    with server.client() as api:
        plan = sent(api, "POST", "/plan", body)
    for design in plan["designs"]:
        assert f"{design['subjects']:,}".replace(",", "\u202f") in page
        assert f'<td class="number">{math.ceil(design["days"])}</td>' in page
    for wrong, words in (
        ({"plan_rate": "many"}, "Today</a>: must be a percentage"),
        ({"plan_effect": "0"}, "Effect</a>: "),
        ({"plan_per_day": ""}, "Subjects a day</a>: exposed nobody in the last 14 days"),
    ):
        assert words in client.post("/experiments/new/plan", data=asked | wrong).text


def test_a_log_stream_is_made_paused_resumed_and_deleted(client: httpx.Client, server: Server) -> None:
    typed = {"name": "siem", "sink.httpEndpoint": "http://siem.example.com/logs", "filters": "auth.login.fail"}
    refused = client.post("/settings/log-streams", data=typed)
    assert refused.status_code == 400
    assert 'id="sink.httpEndpoint-wrong">must be https' in refused.text
    assert 'value="http://siem.example.com/logs"' in refused.text
    assert 'value="auth.login.fail" checked' in refused.text
    secret = {"sink.httpAuthorization": "Bearer not-shown-again"}
    made = client.post(
        "/settings/log-streams", data=typed | secret | {"sink.httpEndpoint": "https://siem.example.com/"}
    )
    assert "The log stream was created" in made.text
    assert "not-shown-again" not in made.text
    with server.client() as api:
        (stream,) = sent(api, "GET", f"{server.url}/api/v2/log-streams")
        assert (stream["name"], stream["filters"]) == ("siem", [{"name": "auth.login.fail", "type": "category"}])
        path = f"/settings/log-streams/{stream['id']}"
        for action, status in (("pause", "paused"), ("resume", "active")):
            assert f'<span class="status {status}">' in client.post(path, data={"action": action}).text
            assert sent(api, "GET", f"{server.url}/api/v2/log-streams/{stream['id']}")["status"] == status
        assert "There are none: events stay here" in client.post(path, data={"action": "delete"}).text
        assert sent(api, "GET", f"{server.url}/api/v2/log-streams") == []
    with signed_in(server, role="editor") as editor:
        assert editor.post("/settings/log-streams", data=typed).status_code == 403
        assert "New log stream" not in editor.get("/settings").text


def test_a_targeted_experiment_says_for_whom(client: httpx.Client, server: Server) -> None:
    with server.client() as api:
        segment = make_segment(api, name="the French")
        flag = make_flag(api, variations=2, active=True)
        made = make_experiment(api, flag, allocation_strategy="segment", allocations=by_segment(flag, segment))
    page = client.get(f"/experiments/{made['id']}").text
    assert "the French" in page
    assert "everyone else" in page
