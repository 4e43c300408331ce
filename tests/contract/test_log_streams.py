"""Log streams as auth0-python 6.8, unmodified, manages them; a real server delivers to a real endpoint."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from auth0.management import Auth0
from auth0.management.errors import BadRequestError, ForbiddenError, NotFoundError
from auth0.management.types import (
    CreateLogStreamDatadogRequestBody,
    CreateLogStreamHttpRequestBody,
    HttpCustomHeader,
    LogStreamDatadogSink,
    LogStreamFilter,
    LogStreamHttpSink,
)

from tests.ingest.receiver import Receiver, receiving
from tests.server import Server, StartServer

SCOPES = " ".join(f"{action}:log_streams" for action in ("create", "read", "update", "delete"))
Made = CreateLogStreamHttpRequestBody


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(environment={"ABGATE_RATE_LIMIT": "0", "ABGATE_MODE": "development"})


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: Server, http: httpx.Client) -> Auth0:
    return Auth0(base_url=f"{server.url}/api/v2", token=server.token(SCOPES), httpx_client=http)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(Receiver()) as receiver:
        yield receiver


def sink(url: str = "https://logs.example.com/in", **fields: Any) -> LogStreamHttpSink:
    return LogStreamHttpSink(http_endpoint=url, **fields)


def send(server: Server, *events: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {server.token('create:logs')}"}
    answer = httpx.post(f"{server.url}/runtime/v1/events", json=events, headers=headers)
    assert (answer.status_code, answer.json()["accepted"]) == (202, len(events))


def test_a_stream_from_creation_to_deletion(client: Auth0, server: Server, receiver: Receiver) -> None:
    send(server, {"log_id": "before", "type": "s"})
    body = Made(
        type="http",
        name="to us",
        filters=[LogStreamFilter(type="category", name="auth.login.success")],
        sink=sink(
            receiver.url,
            http_authorization="Bearer secret",
            http_content_format="JSONARRAY",
            http_custom_headers=[HttpCustomHeader(header="X-Key", value="hidden")],
        ),
    )
    made = client.log_streams.create(request=body)
    assert (made.name, made.type, made.status) == ("to us", "http", "active")
    send(server, {"log_id": "one", "type": "s"}, {"log_id": "no", "type": "f"}, {"log_id": "two", "type": "s"})
    receiver.wait(lambda: receiver.ids() == ["one", "two"])
    assert receiver.taken[0][0]["authorization"] == "Bearer secret"
    assert receiver.taken[0][0]["x-key"] == "hidden"

    assert client.log_streams.update(made.id, status="paused", name="ours").status == "paused"
    send(server, {"log_id": "three", "type": "s"})
    assert client.log_streams.update(made.id, filters=[]).filters == []
    assert client.log_streams.update(made.id, status="active").status == "active"
    receiver.wait(lambda: receiver.ids()[-1] == "three")

    shown = client.log_streams.get(made.id)
    assert (shown.name, shown.sink.http_endpoint, shown.sink.http_content_format) == ("ours", receiver.url, "JSONARRAY")
    assert shown.sink.http_custom_headers == [HttpCustomHeader(header="X-Key")]
    assert shown.sink.http_authorization is None
    assert shown.health["error"] is None
    assert [each.id for each in client.log_streams.list()] == [made.id]
    client.log_streams.delete(made.id)
    client.log_streams.delete(made.id)
    with pytest.raises(NotFoundError):
        client.log_streams.get(made.id)


def test_it_can_start_in_the_past(client: Auth0, server: Server, receiver: Receiver) -> None:
    send(server, *({"log_id": f"p{day}", "type": "s", "date": f"2030-01-0{day}T00:00:00Z"} for day in (1, 2, 3)))
    made = client.log_streams.create(request=Made(type="http", sink=sink(receiver.url), start_from="2030-01-02"))
    assert made.name == receiver.url.split("/")[2]
    receiver.wait(lambda: receiver.ids() == ["p2", "p3"])
    client.log_streams.delete(made.id)


def test_secrets_stay_when_they_are_left_out_and_never_move_to_another_server(client: Auth0) -> None:
    made = client.log_streams.create(request=Made(type="http", sink=sink(http_authorization="Bearer a")))
    client.log_streams.update(made.id, sink=sink("https://logs.example.com/other", http_content_type="text/plain"))
    with pytest.raises(BadRequestError) as refused:
        client.log_streams.update(made.id, sink=sink("https://elsewhere.example.com/in"))
    assert refused.value.body["errorCode"] == "log_stream_secrets_required"
    assert client.log_streams.get(made.id).sink.http_endpoint == "https://logs.example.com/other"
    client.log_streams.update(made.id, sink=sink("https://elsewhere.example.com/in", http_authorization="Bearer b"))
    client.log_streams.delete(made.id)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            CreateLogStreamDatadogRequestBody(
                type="datadog", sink=LogStreamDatadogSink(datadog_region="eu", datadog_api_key="k")
            ),
            "type: Invalid value 'datadog'; must be one of http",
        ),
        (Made(type="http", sink=sink("ftp://example.com/")), "sink.httpEndpoint: must be an http or https URL"),
        (Made(type="http", sink=sink("https://u:p@example.com/")), "sink.httpEndpoint: must be an absolute URL"),
        (Made(type="http", sink=sink("https:///x")), "sink.httpEndpoint: must be an absolute URL"),
        (Made(type="http", sink=sink(http_authorization="a\r\nb: c")), "sink.httpAuthorization"),
        (
            Made(type="http", sink=sink(http_content_format="XML")),
            "sink.httpContentFormat: Invalid enum value 'XML'; must be one of JSONARRAY",
        ),
        (Made(type="http", sink=sink(http_authorization="a\nb")), "sink.httpAuthorization: must be printable ASCII"),
        (Made(type="http", sink=sink(), filters=[LogStreamFilter(type="category", name="auth.x")]), "filters[0].name"),
        (Made(type="http", sink=sink(), start_from="yesterday"), "startFrom: must be a date and time"),
        (
            Made(type="http", sink=sink(http_custom_headers=[HttpCustomHeader(header="Host", value="x")])),
            "sink.httpCustomHeaders[0].header: Host is set already",
        ),
        (
            Made(type="http", sink=sink(http_custom_headers=[HttpCustomHeader(header="X")])),
            "sink.httpCustomHeaders[0].value: is required of a new header",
        ),
    ],
)
def test_what_cannot_be_delivered_is_refused_by_name(client: Auth0, body: Any, message: str) -> None:
    before = client.log_streams.list()
    with pytest.raises(BadRequestError) as refused:
        client.log_streams.create(request=body)
    assert refused.value.body["message"].startswith(message)
    assert client.log_streams.list() == before


def test_a_status_of_suspended_is_not_for_callers(client: Auth0) -> None:
    made = client.log_streams.create(request=Made(type="http", sink=sink()))
    with pytest.raises(BadRequestError, match="status: must be active or paused"):
        client.log_streams.update(made.id, status="suspended")
    client.log_streams.delete(made.id)


def test_a_tenant_has_at_most_twenty(client: Auth0) -> None:
    made = [client.log_streams.create(request=Made(type="http", sink=sink())) for _ in range(20)]
    with pytest.raises(BadRequestError, match="log_stream_limit_exceeded"):
        client.log_streams.create(request=Made(type="http", sink=sink()))
    for each in made:
        client.log_streams.delete(each.id)


def test_each_operation_has_its_scope(server: Server, http: httpx.Client) -> None:
    other = Auth0(base_url=f"{server.url}/api/v2", token=server.token("read:logs"), httpx_client=http).log_streams
    for operation in (
        other.list,
        lambda: other.get("lst_1"),
        lambda: other.delete("lst_1"),
        lambda: other.update("lst_1", name="x"),
        lambda: other.create(request=Made(type="http", sink=sink())),
    ):
        with pytest.raises(ForbiddenError):
            operation()


def test_in_production_an_endpoint_is_https_and_public(start_server: StartServer, http: httpx.Client) -> None:
    server = start_server()
    streams = Auth0(base_url=f"{server.url}/api/v2", token=server.token(SCOPES), httpx_client=http).log_streams
    for url, rule in (
        ("http://logs.example.com/", "must be https"),
        ("https://127.0.0.1/", "is at an address that is not public"),
        ("https://[::1]/", "is at an address that is not public"),
        ("https://169.254.169.254/latest", "is at an address that is not public"),
    ):
        with pytest.raises(BadRequestError, match=rule):
            streams.create(request=Made(type="http", sink=sink(url)))
    assert streams.list() == []
