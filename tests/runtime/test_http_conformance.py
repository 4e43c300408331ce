"""One behaviour by two ways: resolve and OFREP before ASGI and over it, byte by byte over real connections."""

import json
import os
import re
import resource
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from abgate.runtime.protocol import MAX_HEAD_LENGTH, MAX_PIPELINED
from tests.server import Server, StartServer

RESOLVE = "/runtime/v1/resolve"
OFREP = "/ofrep/v1/evaluate/flags"
ASKED = json.dumps({"flow": "authentication", "subjects": {"device": "d"}}).encode()
CONTEXT = json.dumps({"context": {"targetingKey": "d"}}).encode()
ANSWERED = {
    "experiment": None,
    "reason": "no_experiment",
    "variation_name": None,
    "segment_id": None,
    "assignment_token": None,
    "served": {"passkey prompt": {"title": {"value": "hello"}}},
    "warnings": [],
}


class Answer(NamedTuple):
    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    def error(self) -> tuple[int, str]:
        return self.status, json.loads(self.body)["errorCode"]


class Asking(NamedTuple):
    """A server, a key of it, and a management token, which the server has not met yet."""

    server: Server
    key: str
    token: str

    def head(
        self, *lines: str, target: str = RESOLVE, method: str = "POST", version: str = "1.1", key: str = ""
    ) -> bytes:
        """Return a request's head, of which `lines` are further headers."""
        given = ["Content-Type: application/json", f"Authorization: Bearer {key or self.key}", *lines]
        text = "\r\n".join([f"{method} {target} HTTP/{version}", f"Host: {self.server.domain}", *given])
        return text.encode() + b"\r\n\r\n"

    def whole(self, body: bytes = ASKED, *lines: str, **options: str) -> bytes:
        """Return a whole request."""
        return self.head(f"Content-Length: {len(body)}", *lines, **options) + body


class Connection:
    """A connection on which every byte is ours."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.certificate:
            self.socket = server.ssl_context().wrap_socket(self.socket, server_hostname="localhost")
        self.received = b""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> "Connection":
        """Send the pieces, each so that the server meets it alone."""
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.03)
            self.socket.sendall(piece)
        return self

    def answer(self) -> Answer:
        """Receive one answer; a HEAD's has a length and no body, so it is not for here."""
        while b"\r\n\r\n" not in self.received:
            self._receive()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        version, status = first.split(" ")[:2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self.received) < length:
            self._receive()
        body, self.received = self.received[:length], self.received[length:]
        return Answer(version, int(status), headers, body)

    def is_closed(self) -> bool:
        """Wait for the server to close; False when it keeps the connection open."""
        self.socket.settimeout(0.3)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True

    def _receive(self) -> None:
        more = self.socket.recv(65536)
        assert more, f"closed after {self.received!r}"
        self.received += more


@pytest.fixture(scope="module", params=["true", "false"], ids=["before ASGI", "over ASGI"])
def asking(request: pytest.FixtureRequest, start_server: StartServer) -> Asking:
    server = start_server(environment={"ABGATE_FAST_HTTP": request.param})
    with server.client() as api:
        made = {"name": "passkey prompt", "parameters": {"title": {"type": "string", "value": "hello"}}}
        flag = api.post("/feature-flags", json=made)
        assert flag.status_code == 201, flag.text
        path = f"/feature-flags/{flag.json()['id']}"
        for name in ("control", "treatment"):
            varied = api.post(f"{path}/variations", json={"name": name, "overrides": {"title": {"value": name}}})
            assert varied.status_code == 201, varied.text
        activated = api.patch(path, json={"status": "active"})
        assert activated.status_code == 200, activated.text
    key = server.command("keys", "create", *server.storage, "--kind", "server").splitlines()[-1]
    made_token = server.token("evaluate:experimentation")
    deadline = time.monotonic() + 10
    while httpx.post(server.url + RESOLVE, json={}, headers={"Authorization": f"Bearer {key}"}).status_code == 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return Asking(server, key, made_token)


@pytest.fixture
def connection(asking: Asking) -> Iterator[Connection]:
    with Connection(asking.server) as made:
        yield made


def is_answered(answer: Answer) -> bool:
    assert (answer.version, answer.status, json.loads(answer.body)) == ("HTTP/1.1", 200, ANSWERED)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert "date" in answer.headers
    return True


def test_a_connection_is_kept(asking: Asking, connection: Connection) -> None:
    for _ in range(3):
        assert is_answered(connection.send(asking.whole()).answer())
    assert not connection.is_closed()


@pytest.mark.parametrize("cuts", [[1], [40], [-1], [-20, -10], [5, 30, 60, -30, -3]])
def test_a_request_may_come_in_pieces(asking: Asking, connection: Connection, cuts: list[int]) -> None:
    whole = asking.whole()
    places = [0, *(cut % len(whole) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(places)]
    assert is_answered(connection.send(*pieces).answer())
    assert is_answered(connection.send(whole).answer())


def test_pipelined_requests_are_answered_in_order(asking: Asking, connection: Connection) -> None:
    wrong = asking.whole(b"{}")
    chunked = asking.head("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(ASKED), ASKED)
    behind = asking.whole(b"", target="/nowhere")
    flags = asking.whole(CONTEXT, target=f"{OFREP}/passkey%20prompt/title")
    connection.send(asking.whole() + wrong + flags + chunked + asking.whole() + behind + asking.whole() * 2 + wrong)
    statuses = [connection.answer().status for _ in range(9)]
    assert statuses == [200, 400, 200, 200, 200, 404, 200, 200, 400]


def test_a_pipelined_request_may_be_cut_anywhere(asking: Asking, connection: Connection) -> None:
    both = asking.whole() * 3
    connection.send(both[:400], both[400:450], both[450:])
    assert all(is_answered(connection.answer()) for _ in range(3))


def test_what_is_no_request_is_refused_and_closed(asking: Asking, connection: Connection) -> None:
    answer = connection.send(asking.whole() + b"no request at all\r\n\r\n").answer()
    if asking.server.environment["ABGATE_FAST_HTTP"] == "true":
        # uvicorn itself refuses before it answers what came before.
        assert answer.status == 200
        answer = connection.answer()
    assert answer.status == 400
    assert connection.is_closed()
    lines = asking.server.log.read_text().splitlines()
    told = [json.loads(line) for line in lines if "Invalid HTTP request" in line]
    assert told[-1]["level"] == "warning"


def test_a_body_in_chunks(asking: Asking, connection: Connection) -> None:
    pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (ASKED[:7], ASKED[7:])]
    assert is_answered(connection.send(asking.head("Transfer-Encoding: chunked"), *pieces, b"0\r\n\r\n").answer())


def test_a_client_that_expects_100_is_told_to_go_on(asking: Asking, connection: Connection) -> None:
    connection.send(asking.head(f"Content-Length: {len(ASKED)}", "Expect: 100-continue"))
    assert connection.answer().status == 100
    assert is_answered(connection.send(ASKED).answer())


def test_close_is_closed(asking: Asking, connection: Connection) -> None:
    answer = connection.send(asking.whole(ASKED, "Connection: close")).answer()
    assert is_answered(answer)
    assert answer.headers["connection"] == "close"
    assert connection.is_closed()


def test_http_1_0_is_answered_and_closed(asking: Asking, connection: Connection) -> None:
    answer = connection.send(asking.whole(version="1.0")).answer()
    assert is_answered(answer)
    assert connection.is_closed()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"flow":"\xff"}', b'{"flow":"login","x":1}'])
def test_a_wrong_body_is_400_and_the_connection_kept(asking: Asking, connection: Connection, body: bytes) -> None:
    assert connection.send(asking.whole(body)).answer().error() == (400, "invalid_body")
    assert is_answered(connection.send(asking.whole()).answer())


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"context":{}}', b'{"context":{"targetingKey":5}}'])
def test_a_wrong_context_is_400(asking: Asking, connection: Connection, body: bytes) -> None:
    answer = connection.send(asking.whole(body, target=f"{OFREP}/passkey%20prompt")).answer()
    assert answer.status == 400
    assert set(json.loads(answer.body)) == {"errorCode", "errorDetails", "key"}


@pytest.mark.parametrize("target", [RESOLVE, OFREP, f"{OFREP}/passkey%20prompt"])
@pytest.mark.parametrize("key", ["abk_unknown", "nonsense", "a.b.c"])
def test_a_stranger_is_401(asking: Asking, connection: Connection, target: str, key: str) -> None:
    answer = connection.send(asking.whole(ASKED, target=target, key=key)).answer()
    assert answer.error() == (401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_who_may_not_is_403(asking: Asking, connection: Connection) -> None:
    server = asking.server
    client_key = server.command("keys", "create", *server.storage, "--kind", "client", "--origin", "https://a.test")
    other = server.token("read:experimentation")
    for _ in range(2):  # verified, then remembered
        assert connection.send(asking.whole(key=other)).answer().error() == (403, "insufficient_scope")
    time.sleep(1.2)
    assert connection.send(asking.whole(key=client_key.strip())).answer().error() == (403, "insufficient_scope")
    origin = "Origin: https://b.test"
    answer = connection.send(asking.whole(CONTEXT, origin, target=OFREP, key=client_key.strip())).answer()
    assert answer.error() == (403, "origin_not_admitted")
    origin = "Origin: https://a.test"
    answer = connection.send(asking.whole(CONTEXT, origin, target=OFREP, key=client_key.strip())).answer()
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://a.test")


def test_a_token_is_verified_once_and_then_remembered(asking: Asking, connection: Connection) -> None:
    for _ in range(3):
        assert is_answered(connection.send(asking.whole(key=asking.token)).answer())
    pipelined = asking.server.token("evaluate:experimentation", expires=500)
    connection.send(asking.whole(key=pipelined) * 3)
    assert all(is_answered(connection.answer()) for _ in range(3))


def test_a_verification_under_way_keeps_its_connections_manners(asking: Asking, connection: Connection) -> None:
    fresh = asking.server.token("evaluate:experimentation", expires=400)
    answer = connection.send(asking.whole(ASKED, "Connection: close", key=fresh)).answer()
    assert is_answered(answer)
    assert answer.headers["connection"] == "close"
    assert connection.is_closed()


def test_ofrep(asking: Asking, connection: Connection) -> None:
    for key in ("passkey%20prompt/title", "passkey%20prompt%2Ftitle"):
        answer = connection.send(asking.whole(CONTEXT, target=f"{OFREP}/{key}")).answer()
        assert (answer.status, json.loads(answer.body)["value"]) == (200, "hello")
    assert connection.send(asking.whole(CONTEXT, target=f"{OFREP}/unknown")).answer().status == 404
    bulk = connection.send(asking.whole(CONTEXT, target=OFREP)).answer()
    assert (bulk.status, len(json.loads(bulk.body)["flags"])) == (200, 2)
    known = f"If-None-Match: {bulk.headers['etag']}"
    again = connection.send(asking.whole(CONTEXT, known, target=OFREP)).answer()
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", bulk.headers["etag"])
    assert "content-length" not in again.headers
    told = connection.send(asking.whole(CONTEXT, target=f"{OFREP}?flagConfigEtag=999999999")).answer()
    assert told.status == 200
    assert connection.send(asking.whole(CONTEXT, target=OFREP)).answer().status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("target", [RESOLVE, OFREP])
def test_another_method_is_405(asking: Asking, connection: Connection, method: str, target: str) -> None:
    answer = connection.send(asking.whole(b"", target=target, method=method)).answer()
    assert answer.error() == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_head_is_405_without_a_body(asking: Asking, connection: Connection) -> None:
    head = asking.head(method="HEAD", target=RESOLVE)
    connection.send(head)
    while not connection.received.endswith(b"\r\n\r\n"):
        connection._receive()
    assert connection.received.startswith(b"HTTP/1.1 405 ")


def test_another_content_type_is_415(asking: Asking, connection: Connection) -> None:
    request = asking.whole().replace(b"application/json", b"text/plain")
    assert connection.send(request).answer().error() == (415, "unsupported_media_type")
    assert is_answered(connection.send(asking.whole()).answer())


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_a_body_too_large_is_a_413_that_can_be_read(asking: Asking, connection: Connection, size: int) -> None:
    answer = connection.send(asking.head(f"Content-Length: {size}"), b"x" * 1000).answer()
    assert answer.error() == (413, "body_too_large")
    assert answer.headers["connection"] == "close"


def test_too_many_chunks_are_413(asking: Asking, connection: Connection) -> None:
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    answer = connection.send(asking.head("Transfer-Encoding: chunked"), chunk, chunk, chunk).answer()
    assert answer.error() == (413, "body_too_large")


@pytest.mark.parametrize("length", ["-1", "x", "5, 5", "99999999999999999999999"])
def test_a_content_length_that_is_none_is_refused(asking: Asking, connection: Connection, length: str) -> None:
    answer = connection.send(asking.head(f"Content-Length: {length}") + ASKED).answer()
    assert answer.status in (400, 413)
    assert answer.headers["connection"] == "close"


def test_a_content_length_that_is_too_small_cuts_the_body(asking: Asking, connection: Connection) -> None:
    connection.send(asking.head(f"Content-Length: {len(ASKED) - 1}") + ASKED)
    # What is left over is no request, and may be met before the first is answered.
    assert connection.answer().status == 400
    while not connection.is_closed():
        pass


@pytest.mark.parametrize("sent", [b"POST /runtime", b"headers", b"body"])
def test_a_client_that_leaves_early_leaves_no_trace(asking: Asking, sent: bytes) -> None:
    whole = asking.whole()
    part = {b"headers": whole[: -len(ASKED)], b"body": whole[:-5]}.get(sent, sent)
    with Connection(asking.server) as leaving:
        leaving.send(part)
        time.sleep(0.05)
    with Connection(asking.server) as connection:
        assert is_answered(connection.send(whole).answer())
    assert not re.search(r"Traceback|runtime_fault|experiment_fault", asking.server.log.read_text())


def test_the_trace_and_the_metrics_are_kept(asking: Asking, connection: Connection) -> None:
    def counted() -> float:
        found = re.search(
            r'abgate_request_seconds_count\{entry="resolve"\} (\S+)', httpx.get(asking.server.url + "/metrics").text
        )
        return float(found[1]) if found else 0.0

    before = counted()
    trace = "0af7651916cd43dd8448eb211c80319c"
    orphaned = json.dumps(json.loads(ASKED) | {"forced": {"variation_id": "var_x"}, "assignment_token": "x"}).encode()
    answer = connection.send(asking.whole(orphaned, f"traceparent: 00-{trace}-b7ad6b7169203331-01")).answer()
    assert json.loads(answer.body)["warnings"] == ["forced_assignment_refused"]
    connection.send(asking.whole(orphaned)).answer()
    assert counted() == before + 2
    lines = [json.loads(line) for line in asking.server.log.read_text().splitlines() if "forced_assignment" in line]
    assert [line.get("trace_id") for line in lines] == [trace, None]


def test_a_stop_answers_what_is_on_its_way(start_server: StartServer, asking: Asking) -> None:
    fast = asking.server.environment["ABGATE_FAST_HTTP"]
    server = start_server(environment={"ABGATE_FAST_HTTP": fast})
    key = server.token("evaluate:experimentation")
    here = Asking(server, key, key)
    with Connection(server) as connection:
        connection.send(here.whole()).answer()
        connection.send(here.whole()[:-5])
        time.sleep(0.1)
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.5)
        answer = connection.send(here.whole()[-5:]).answer()
        assert answer.status == 200
        assert connection.is_closed()
    server.stop()


def test_https(start_server: StartServer, asking: Asking) -> None:
    fast = asking.server.environment["ABGATE_FAST_HTTP"]
    server = start_server(environment={"ABGATE_FAST_HTTP": fast}, tls=True)
    here = Asking(server, server.token("evaluate:experimentation"), "")
    with Connection(server) as connection:
        assert isinstance(connection.socket, ssl.SSLSocket)
        for pieces in ([here.whole()], [here.whole()], [here.whole()[:60], here.whole()[60:]]):
            assert json.loads(connection.send(*pieces).answer().body)["reason"] == "no_experiment"


HEADS = (b"GET / HTTP/1.1\r\nX: ", b"GET /", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;")


@pytest.mark.parametrize("head", HEADS, ids=["header", "target", "chunk"])
def test_what_is_no_body_and_never_ends_is_refused(asking: Asking, connection: Connection, head: bytes) -> None:
    connection.send(head)
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        connection.send(*[b"x" * MAX_HEAD_LENGTH] * 100)


def test_who_sends_on_and_on_and_takes_no_answer_is_cut_off(asking: Asking, connection: Connection) -> None:
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        connection.send(*[b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1000] * 50)


def test_many_requests_at_once_are_all_answered(asking: Asking, connection: Connection) -> None:
    connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * MAX_PIPELINED)
    assert {connection.answer().status for _ in range(MAX_PIPELINED)} == {200}


def test_long_targets_are_not_kept(asking: Asking) -> None:
    before = memory_of(asking.server)
    for number in range(50):
        with Connection(asking.server) as connection:
            connection.send(asking.whole(target=f"/{number}{'x' * 1_000_000}")).is_closed()
    assert memory_of(asking.server) < before + 25_000_000


def memory_of(server: Server) -> int:
    """The bytes of memory that the server's process has."""
    pages = Path(f"/proc/{server.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
