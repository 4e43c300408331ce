import re
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from abgate.core.errors import Unavailable
from abgate.core.experiment import AssignmentConfig
from abgate.core.tokens import make_preview_token
from abgate.runtime.gateway import FORCING, TOKEN, read_parameters
from tests.asgi import Answer
from tests.core.builders import by_percentage, experiment, experiment_id, variation_id
from tests.runtime.harness import KEY, NOW, Harness
from tests.server import StartServer

DEVICE = "AAAAAAAAAAAAAAAAAAAAAA"
ALL_TO_TWO = by_percentage(0, 100)


def active(**settings: Any) -> Harness:
    return Harness(experiment("active", allocations=ALL_TO_TWO), **settings)


def go(harness: Harness, query: str | bytes = b"", **options: Any) -> Answer:
    raw = query.encode() if isinstance(query, str) else query
    return harness.request("GET", b"/authorize" + (b"?" + raw if raw else b""), **options)


def location(answer: Answer) -> str:
    assert answer.status == 302
    assert answer.body == b""
    found = answer.header("location")
    assert found is not None
    return found


def split_location(answer: Answer) -> tuple[str, str]:
    """The query as it was passed on, and what was added."""
    query = urlsplit(location(answer)).query
    passed, mark, added = query.partition("ext-experiment_id=")
    return passed.removesuffix("&"), mark + added


def added(answer: Answer) -> dict[str, str]:
    return dict(parse_qsl(split_location(answer)[1]))


def test_a_login_is_sent_on_with_its_assignment() -> None:
    harness = active()
    answer = go(harness, "client_id=app&state=xyz&nonce=n")
    assert location(answer).startswith(
        "https://idp.example/authorize?client_id=app&state=xyz&nonce=n&ext-experiment_id="
    )
    assert answer.header("cache-control") == "no-store"
    given = added(answer)
    assert given.pop(TOKEN).startswith("a2.")
    assert given == {"ext-experiment_id": experiment_id(), "ext-variation_id": variation_id(2)}
    [made] = harness.recorded
    assert made.attributes == {"client_id": "app", "domain": "localhost"}
    assert made.device == made.subject


def test_without_an_experiment_nothing_is_added() -> None:
    harness = Harness()
    assert location(go(harness, "client_id=app")) == "https://idp.example/authorize?client_id=app"
    assert location(go(harness)) == "https://idp.example/authorize"
    assert harness.recorded == []


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ("https://idp.example/authorize", "https://idp.example/authorize?a=1"),
        ("https://idp.example/authorize?tenant=x&y=%20", "https://idp.example/authorize?tenant=x&y=%20&a=1"),
        ("https://idp.example:8443", "https://idp.example:8443?a=1"),
        ("https://idp.example/authorisé", "https://idp.example/authoris%C3%A9?a=1"),
    ],
)
def test_the_provider_is_the_setting_s_with_its_own_query(upstream: str, expected: str) -> None:
    assert location(go(Harness(upstream_authorize_url=upstream), "a=1")) == expected


PKCE = (
    "response_type=code&client_id=s6BhdRkqt3&redirect_uri=https%3A%2F%2Fclient.example.org%2Fcb&scope=openid%20profile"
    "&state=af0ifjsldkj&nonce=n-0S6_WzA2Mj&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    "&code_challenge_method=S256"
)


@pytest.mark.parametrize(
    "query",
    [
        PKCE,
        "a=1&a=2&a=&a&=&&b",
        "&",
        "a=1&",
        'redirect_uri=https://a.example/cb?x=1;y=2&claims={"id_token":{}}',
        "state=%00%0d%0a%25%2B+%e4&ui_locales=fr-CA+fr&x=[]|\\^`<>'",
        "big=" + "x" * 8192,
        "%zz=%&%",
        "experiment=1&variation_idx=2&previews=3&ext-other=4",
    ],
)
@pytest.mark.parametrize("is_active", [True, False])
def test_every_parameter_passes_as_it_is_and_in_its_order(query: str, is_active: bool) -> None:
    answer = go(active() if is_active else Harness(), query)
    if is_active:
        assert f"?{query}&ext-experiment_id=" in location(answer)
    else:
        assert location(answer) == f"https://idp.example/authorize?{query}"


@pytest.mark.parametrize(
    "name", [*FORCING, *(f"ext-{name}" for name in FORCING), TOKEN, "%65xt-preview", "ext%2Dpreview"]
)
def test_what_forces_is_removed_wherever_it_stands_and_however_it_is_written(name: str) -> None:
    harness = Harness()
    with capture_logs():
        for query in (f"a=1&{name}=x&b=2", f"{name}=x&a=1&b=2&{name}", f"a=1&b=2&{name}="):
            assert location(go(harness, query)) == "https://idp.example/authorize?a=1&b=2"
        assert location(go(harness, f"{name}=x")) == "https://idp.example/authorize"


@given(st.lists(st.binary(max_size=8), max_size=6), st.sampled_from([b"&", b"="]))
def test_no_query_splits_or_ends_the_header(parts: list[bytes], between: bytes) -> None:
    with capture_logs():
        found = location(go(Harness(), between.join(parts).replace(b"?", b"")))
    assert re.fullmatch(r"[!-~]*", found)
    assert "#" not in found
    assert found.startswith("https://idp.example/authorize")


@given(st.binary(max_size=60))
def test_what_is_passed_on_means_what_was_sent(raw: bytes) -> None:
    kept = read_parameters(raw).kept.decode()
    expected = [
        (unquote_plus(name), unquote_plus(value))
        for name, _, value in (pair.decode("latin-1").partition("=") for pair in raw.split(b"&"))
    ]
    removed = {TOKEN, *FORCING, *(f"ext-{name}" for name in FORCING)}
    passed = [pair.partition("=") for pair in kept.split("&")]
    if raw.isascii() and not any(name in removed for name, _ in expected):
        assert [(unquote_plus(name), unquote_plus(value)) for name, _, value in passed] == expected


# Cookie


def cookie(answer: Answer) -> str | None:
    return answer.header("set-cookie")


def test_a_new_device_gets_a_cookie_for_400_days() -> None:
    harness = active(mode="production")
    found = cookie(go(harness, scheme="https"))
    assert found is not None
    name, _, rest = found.partition("=")
    device, *flags = rest.split("; ")
    assert name == "__Host-abgate_device"
    assert re.fullmatch("[A-Za-z0-9_-]{22}", device), "128 bits"
    assert flags == ["Path=/", "Max-Age=34560000", "HttpOnly", "Secure", "SameSite=Lax"]
    assert harness.recorded[0].device == device
    assert cookie(go(harness, scheme="https")) != found


@pytest.mark.parametrize(
    ("mode", "scheme", "expected"),
    [
        ("production", "http", "__Host-abgate_device"),
        ("production", "https", "__Host-abgate_device"),
        ("development", "https", "__Host-abgate_device"),
        ("development", "http", "abgate_device"),
    ],
)
def test_only_development_over_plain_http_goes_without_the_prefix(mode: str, scheme: str, expected: str) -> None:
    found = cookie(go(active(mode=mode), scheme=scheme)) or ""
    assert found.startswith(f"{expected}=")
    assert ("; Secure" in found) == expected.startswith("__Host-")


@pytest.mark.parametrize("header", ["{}", "a=b; {}", "a=b;{};c=d", "{}; abgate_device=BBBBBBBBBBBBBBBBBBBBBB"])
def test_a_device_that_is_known_keeps_its_cookie_and_its_variation(header: str) -> None:
    harness = Harness(experiment("active", allocations=by_percentage(50, 50)))
    headers = {"cookie": header.format(f"abgate_device={DEVICE}")}
    answers = [go(harness, headers=headers) for _ in range(3)]
    assert [cookie(answer) for answer in answers] == [None] * 3
    assert {added(answer)["ext-variation_id"] for answer in answers} == {added(answers[0])["ext-variation_id"]}
    assert {made.device for made in harness.recorded} == {DEVICE}


@pytest.mark.parametrize("value", ["", "x", DEVICE + "A", DEVICE[:-1] + "!", DEVICE[:-1] + "\xe9", f'"{DEVICE}"'])
def test_a_cookie_that_is_not_ours_is_replaced(value: str) -> None:
    harness = active()
    assert cookie(go(harness, headers={"cookie": f"abgate_device={value}"})) is not None
    assert harness.recorded[0].device != value


# Flows, subjects, forcing


@pytest.mark.parametrize(
    ("flow", "hint", "reached"),
    [
        ("authentication", "", True),
        ("pre_authentication", "", True),
        ("login", "", True),
        ("login", "signup", False),
        ("signup", "", False),
        ("signup", "signup", True),
        ("all", "signup", True),
        ("mfa_challenge", "", False),
    ],
)
def test_the_flow_is_the_first_with_an_active_experiment(flow: str, hint: str, reached: bool) -> None:
    harness = Harness(experiment("active", authentication_flow=flow))
    assert bool(added(go(harness, f"screen_hint={hint}"))) == reached


@pytest.mark.parametrize(("organization", "subject"), [("org_1", "org_1"), ("", None), ("o" * 257, None)])
def test_whole_organizations_move_together(organization: str, subject: str | None) -> None:
    harness = Harness(experiment("active", assignment_config=AssignmentConfig("organization")))
    assert bool(added(go(harness, f"organization={organization}"))) == (subject is not None)
    assert [made.subject for made in harness.recorded] == ([] if subject is None else [subject])


@pytest.mark.parametrize("prefix", ["", "ext-"])
def test_an_assignment_is_forced_by_parameters(prefix: str) -> None:
    harness = active()
    query = f"a=1&{prefix}experiment_id={experiment_id()}&{prefix}variation_id={variation_id(1)}"
    answer = go(harness, query)
    assert split_location(answer)[0] == "a=1"
    assert added(answer)["ext-variation_id"] == variation_id(1)
    assert harness.recorded[0].is_forced


def test_in_production_a_preview_token_is_needed() -> None:
    harness = active(mode="production")
    with capture_logs() as logs:
        answer = go(harness, f"experiment_id={experiment_id()}&variation_id={variation_id(1)}")
    assert added(answer)["ext-variation_id"] == variation_id(2)
    assert [log["event"] for log in logs] == ["forced_assignment_refused"]
    preview = make_preview_token(KEY, experiment_id(), variation_id=variation_id(1), now=NOW)
    assert added(go(harness, f"preview={preview}"))["ext-variation_id"] == variation_id(1)


def test_the_token_keeps_the_variation_and_is_replaced() -> None:
    harness = active()
    headers = {"cookie": f"abgate_device={DEVICE}"}
    token = added(go(harness, headers=headers))[TOKEN]
    harness.snapshots.snapshot = Harness(experiment("paused")).snapshots.snapshot
    answer = go(harness, f"{TOKEN}={token}&a=1", headers=headers)
    assert split_location(answer)[0] == "a=1"
    assert added(answer)["ext-variation_id"] == variation_id(2)
    assert harness.recorded[1].reason == "kept"
    assert added(go(harness, f"{TOKEN}={token}")) == {}, "another device's token"


# POST


def post(harness: Harness, body: bytes, target: str = "/authorize", **headers: str) -> Answer:
    given = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"} | headers
    return harness.request("POST", target, headers=given, body=body)


def test_a_form_is_sent_on_as_a_query() -> None:
    harness = active()
    assert split_location(post(harness, PKCE.encode()))[0] == PKCE
    answer = post(harness, b"b=2&preview=&state=x+y", "/authorize?a=1")
    assert split_location(answer)[0] == "a=1&b=2&state=x+y"
    assert len(harness.recorded) == 2


def test_a_form_cannot_split_the_header() -> None:
    answer = post(Harness(), b"a=1\r\nSet-Cookie: x=y\r\n\r\n<script>&b=\x00\xff#top")
    assert location(answer) == (
        "https://idp.example/authorize?a=1%0D%0ASet-Cookie:%20x=y%0D%0A%0D%0A<script>&b=%00%FF%23top"
    )


def test_a_form_of_another_type_or_size_is_refused() -> None:
    assert post(Harness(), b"{}", **{"content-type": "application/json"}).error() == (415, "unsupported_media_type")
    assert post(Harness(), b"a=" + b"x" * 70_000).error() == (413, "body_too_large")


# Faults


def test_without_a_provider_the_setting_is_named() -> None:
    answer = go(Harness(upstream_authorize_url=""), "client_id=app")
    assert answer.error() == (503, "unavailable")
    assert "ABGATE_UPSTREAM_AUTHORIZE_URL" in answer.json()["message"]


@pytest.mark.parametrize("fault", [ZeroDivisionError(), Unavailable("away")])
def test_a_fault_of_ours_sends_the_login_on_without_an_experiment(fault: Exception) -> None:
    harness = active()
    harness.snapshots.fault = fault
    with capture_logs() as logs:
        for _ in range(9):
            answer = go(harness, f"a=1&ext-preview=x&{TOKEN}=y&b=2")
            assert location(answer) == "https://idp.example/authorize?a=1&b=2"
            assert cookie(answer) is not None
    events = [log["event"] for log in logs]
    assert events == ["experiment_fault"] * 5 + ["experiment_circuit_open"]


@pytest.mark.parametrize(
    ("trusted", "cookie"),
    [({}, "__Host-abgate_device"), ({"FORWARDED_ALLOW_IPS": "192.0.2.0/24"}, "abgate_device")],
)
def test_a_proxy_that_is_trusted_says_how_people_came(
    start_server: StartServer, trusted: dict[str, str], cookie: str
) -> None:
    gateway = {"ABGATE_MODE": "development", "ABGATE_UPSTREAM_AUTHORIZE_URL": "https://idp.example/authorize"}
    server = start_server(environment=gateway | trusted)
    answer = httpx.get(f"{server.url}/authorize", headers={"X-Forwarded-Proto": "https"})
    assert list(SimpleCookie(answer.headers["set-cookie"])) == [cookie]
