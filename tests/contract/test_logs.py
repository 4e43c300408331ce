"""Tenant logs as auth0-python 6.8, unmodified, lists, searches and reads them."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from auth0.management import Auth0
from auth0.management.errors import BadRequestError, ForbiddenError, NotFoundError

from tests.server import Server, on_both_databases

pytestmark = on_both_databases

LOGS = 130
TYPES = ["s", "fp", "s", "ss"]
WIDE = {"timeout_in_seconds": 60}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: Server, http: httpx.Client) -> Auth0:
    return Auth0(base_url=f"{server.url}/api/v2", token=server.token("read:logs"), httpx_client=http)


@pytest.fixture(scope="module")
def logs(server: Server) -> list[dict[str, Any]]:
    """What was sent, oldest first; the server has enriched all of it."""
    sent = [
        {
            "log_id": f"log-{number:03}",
            "date": f"2026-01-{1 + number // 10:02}T00:00:{number % 10:02}.000Z",
            "type": TYPES[number % 4],
            "client_id": "shop",
            "client_name": "Shop" if number % 2 else "Bank",
            "connection": "db",
            "user_id": f"auth0|{number % 13}",
            "ip": f"203.0.113.{number % 7}",
            "details": {"request": {"channel": "web"}},
        }
        for number in range(LOGS)
    ]
    headers = {"Authorization": f"Bearer {server.token()}"}
    answer = httpx.post(f"{server.url}/runtime/v1/events", json=sent, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["accepted"]) == (202, LOGS), answer.text
    url, deadline = f"{server.url}/api/v2/logs?take=1&from=log-{LOGS - 2:03}", time.monotonic() + 60
    while not httpx.get(url, headers=headers).json():
        assert time.monotonic() < deadline, "the events are not enriched"
        time.sleep(0.05)
    return sent


def asked(**parameters: Any) -> Any:
    """Options by which the client sends parameters that it does not name."""
    return {"additional_query_parameters": {name.rstrip("_"): value for name, value in parameters.items()}} | WIDE


def found(client: Auth0, q: str, **options: Any) -> list[str | None]:
    return [log.log_id for log in client.logs.list(per_page=100, request_options=asked(q=q), **options)]


def test_listing_goes_through_every_page(client: Auth0, logs: list[dict[str, Any]]) -> None:
    pager = client.logs.list(per_page=50)
    assert [log.log_id for log in pager] == [log["log_id"] for log in reversed(logs)]
    first = client.logs.list(per_page=50, page=1).response
    assert first is not None
    assert (first.start, first.limit, first.length, first.total) == (50, 50, 50, LOGS)


def test_a_log_is_what_was_sent(client: Auth0, logs: list[dict[str, Any]]) -> None:
    log = client.logs.get("log-007")
    assert (log.type, log.user_id, log.date) == ("ss", "auth0|7", "2026-01-01T00:00:07.000Z")
    assert log.details == {"request": {"channel": "web"}}
    with pytest.raises(NotFoundError) as refused:
        client.logs.get("nowhere")
    assert refused.value.body["errorCode"] == "log_not_found"


@pytest.mark.parametrize(
    ("q", "keeps"),
    [
        ("type:fp", lambda log: log["type"] == "fp"),
        ('user_id:"auth0|4"', lambda log: log["user_id"] == "auth0|4"),
        ("type:s* AND NOT type:ss", lambda log: log["type"] == "s"),
        ("(type:fp OR type:ss) AND ip:203.0.113.3", lambda log: log["type"] != "s" and log["ip"].endswith(".3")),
        ("date:[2026-01-03 TO 2026-01-04]", lambda log: "2026-01-03" <= log["date"] < "2026-01-05"),
        ("client_id:shop AND connection:d* AND log_id:log-10*", lambda log: log["log_id"].startswith("log-10")),
        ("details.request.channel:web AND user_id:*9", lambda log: log["user_id"] == "auth0|9"),
        ("Bank AND date:2026-01-01", lambda log: log["client_name"] == "Bank" and log["date"] < "2026-01-02"),
        ("details.experiment.experiment_id:exp_1", lambda log: False),
    ],
)
def test_searching(client: Auth0, logs: list[dict[str, Any]], q: str, keeps: Any) -> None:
    assert found(client, q, sort="date:1") == [log["log_id"] for log in logs if keeps(log)]


def test_the_client_s_own_search_takes_beginnings(client: Auth0, logs: list[dict[str, Any]]) -> None:
    pager = client.logs.list(search="ba type:F", sort="date:1", per_page=100)
    expected = [log["log_id"] for log in logs if log["client_name"] == "Bank" and log["type"].startswith("f")]
    assert [log.log_id for log in pager] == expected


def test_fields_are_kept_or_left_out(client: Auth0, logs: list[dict[str, Any]]) -> None:
    only = client.logs.list(fields="log_id,type", include_fields=True, sort="date:1").items
    assert only is not None
    assert only[0].model_dump(exclude_unset=True) == {"log_id": "log-000", "type": "s"}
    rest = client.logs.list(fields="details,ip", include_fields=False, sort="date:1").items
    assert rest is not None
    assert (rest[0].details, rest[0].ip, rest[0].type) == (None, None, "s")


def test_by_checkpoint_from_the_first_to_the_last(client: Auth0, logs: list[dict[str, Any]]) -> None:
    seen: list[str | None] = []
    options: dict[str, Any] = {"take": 60}
    while page := client.logs.list(request_options=asked(**options)).items:
        seen += [log.log_id for log in page]
        options["from"] = seen[-1]
    assert seen == [log["log_id"] for log in logs]


def test_without_totals_a_list_is_an_array(server: Server, logs: list[dict[str, Any]]) -> None:
    headers = {"Authorization": f"Bearer {server.token('read:logs')}"}
    for query in ("per_page=3&sort=date:1", "take=3", "take=3&include_totals=false"):
        answer = httpx.get(f"{server.url}/api/v2/logs?{query}", headers=headers)
        assert [log["log_id"] for log in answer.json()] == ["log-000", "log-001", "log-002"], query


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"q": "type:s type:f"}, "q: AND or OR must stand before 'type'"),
        ({"q": "password:x"}, "q: 'password' is not a field that is searched"),
        ({"search": "x:1"}, "search: 'x' is not a field"),
        ({"per_page": 101}, "per_page"),
        ({"take": 101}, "take"),
        ({"page": -1}, "page"),
        ({"sort": "ip:1"}, "sort: must be one of date:1, date:-1"),
        ({"fields": "details.request"}, "fields: must be at most 64 names of top-level fields"),
        ({"from": "nowhere"}, "from: there is no log with this log_id"),
        ({"color": "red"}, "color: is not a query parameter here"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    client: Auth0, logs: list[dict[str, Any]], parameters: dict[str, Any], message: str
) -> None:
    own = {name: value for name, value in parameters.items() if name in ("page", "per_page")}
    others = {name: value for name, value in parameters.items() if name not in own}
    with pytest.raises(BadRequestError) as refused:
        client.logs.list(**own, request_options=asked(**others))
    assert refused.value.body["errorCode"] == "invalid_query_string"
    assert refused.value.body["message"].startswith(message)


def test_the_scope_is_read_logs(server: Server, http: httpx.Client) -> None:
    with pytest.raises(ForbiddenError):
        Auth0(base_url=f"{server.url}/api/v2", token=server.token("create:logs"), httpx_client=http).logs.list()
