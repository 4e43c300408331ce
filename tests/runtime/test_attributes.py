from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abgate.runtime import attributes
from abgate.runtime.attributes import AttributeReader, WrongGeoipDatabase, of_user_agent

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 "
    "Mobile/15E148 Safari/604.1"
)
KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (IPHONE, ("mobile", "Mobile Safari", "iOS")),
        (IPHONE.replace("iPhone", "iPad"), ("tablet", "Mobile Safari", "iOS")),
        (f"Mozilla/5.0 (Linux; Android 13; Pixel 7) {KIT} Chrome/120.0.0.0 Mobile Safari/537.36",
         ("mobile", "Chrome Mobile", "Android")),
        (f"Mozilla/5.0 (Linux; Android 13; SM-X700) {KIT} Chrome/120.0.0.0 Safari/537.36",
         ("tablet", "Chrome", "Android")),
        (f"Mozilla/5.0 (Linux; Android 12; CUBOT NOTE 21) {KIT} Chrome/120.0.0.0 Mobile Safari/537.36",
         ("mobile", "Chrome Mobile", "Android")),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KIT} Chrome/120.0.0.0 Safari/537.36",
         ("desktop", "Chrome", "Windows")),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {KIT} Chrome/120.0.0.0 Safari/537.36 Edg/120.0.0.0",
         ("desktop", "Edge", "Mac OS X")),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", ("desktop", "Firefox", "Linux")),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {KIT} Chrome/119.0.0.0 Safari/537.36",
         ("desktop", "Chrome", "Chrome OS")),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", ("bot", "Googlebot", None)),
        (f"Mozilla/5.0 (X11; Linux x86_64) {KIT} HeadlessChrome/120.0.0.0 Safari/537.36",
         ("bot", "HeadlessChrome", "Linux")),
        ("curl/8.5.0", ("bot", "curl", None)),
        ("Acme-Crawl 1", ("bot", "Acme-Crawl", None)),
        ("my app", (None, None, None)),
    ],
)  # fmt: skip
def test_a_user_agent_says_device_type_browser_and_platform(user_agent: str, expected: tuple[str | None, ...]) -> None:
    found = of_user_agent(user_agent)
    assert (found.get("device_type"), found.get("browser"), found.get("platform")) == expected
    assert None not in found.values(), "what cannot be derived is absent"


def test_what_is_given_goes_before_what_is_derived() -> None:
    given = {"user_agent": IPHONE, "browser": "Own", "country": "FR"}
    found = AttributeReader().complete(given, ip="203.0.113.9")
    assert found == given | {"device_type": "mobile", "platform": "iOS"}


def test_nothing_is_derived_of_nothing() -> None:
    assert AttributeReader().complete({"user_agent": ""}, ip=None) == {"user_agent": ""}


def test_a_very_long_user_agent_is_read_at_its_beginning_and_kept_whole() -> None:
    long = IPHONE + "x" * 60_000
    found = AttributeReader().complete({"user_agent": long}, ip=None)
    assert found["platform"] == "iOS"
    assert found["user_agent"] == long


@given(st.text(max_size=200))
def test_any_text_is_a_user_agent(text: str) -> None:
    assert set(AttributeReader().complete({"user_agent": text}, ip=text)) <= {
        "user_agent", "device_type", "browser", "platform"
    }  # fmt: skip


def test_user_agents_are_remembered_within_bounds() -> None:
    of_user_agent.cache_clear()
    for number in (1, 2, 1, 1):
        of_user_agent(f"agent {number}")
    information = of_user_agent.cache_info()
    assert (information.hits, information.misses, information.maxsize) == (2, 2, attributes.REMEMBERED)


PLACES: dict[str, Any] = {
    "203.0.113.9": {"country": {"iso_code": "FR"}, "subdivisions": [{"iso_code": "IDF"}, {"iso_code": "75"}]},
    "203.0.113.10": {"country": {"iso_code": "MC"}},
    "203.0.113.11": {"continent": {}},
    "203.0.113.12": "odd",
}


class Places:
    """A stand-in for the reader of a MaxMind-format database."""

    def __init__(self) -> None:
        self.asked = 0

    def get(self, ip: str) -> Any:
        self.asked += 1
        if not ip[0].isdigit():
            raise ValueError(ip)
        return PLACES.get(ip)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("203.0.113.9", {"country": "FR", "region": "IDF"}),
        ("203.0.113.10", {"country": "MC"}),
        ("203.0.113.11", {}),
        ("203.0.113.12", {}),
        ("203.0.113.99", {}),
        ("unix:", {}),
        (None, {}),
    ],
)
def test_an_address_says_country_and_region(
    monkeypatch: pytest.MonkeyPatch, ip: str | None, expected: dict[str, str]
) -> None:
    places = Places()
    monkeypatch.setattr(attributes, "open_places", lambda _path: places)
    reader = AttributeReader("geo.mmdb")
    assert reader.complete({}, ip=ip) == reader.complete({}, ip=ip) == expected
    assert places.asked == (ip is not None), "each address is looked up once"
    assert reader.complete({"country": "DE"}, ip=ip).get("country") == "DE"


def test_a_database_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mmdb"
    broken.write_bytes(b"no database")
    for path in (broken, tmp_path / "missing.mmdb"):
        with pytest.raises(WrongGeoipDatabase, match=f"ABGATE_GEOIP_DATABASE: {path}"):
            AttributeReader(str(path))
