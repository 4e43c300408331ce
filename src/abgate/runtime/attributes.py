"""Attributes of a request that it does not say itself: from its user agent and its address."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import maxminddb
from ua_parser import Parser
from ua_parser.loaders import load_lazy_builtins
from ua_parser.regex import Resolver

REMEMBERED = 10_000
MAX_USER_AGENT_LENGTH = 1024

_BOT_FAMILIES = frozenset({"curl", "HeadlessChrome", "Python Requests", "Wget"})
# The library knows thousands of bots by name; these words catch those that are new. CUBOT makes telephones.
_BOT = re.compile(r"(?<!cu)bot\b|crawl|spider|HeadlessChrome|PhantomJS", re.IGNORECASE)
_TABLET = re.compile(r"iPad|Tablet|Kindle|Silk/|PlayBook")
_MOBILE = re.compile(r"Mobi|iPhone|iPod|Windows Phone")
_DESKTOPS = frozenset({"Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS", "FreeBSD", "OpenBSD"})

_user_agents = Parser(Resolver(load_lazy_builtins()))


class WrongGeoipDatabase(Exception):
    """The setting `geoip_database` names a file that is not there or is no such database."""


class AttributeReader:
    """Completes the attributes that a request gives by those that can be derived; what cannot be is left out."""

    def __init__(self, geoip_database: str = "") -> None:
        """Read country and region from this MaxMind-format file, if any. Raises `WrongGeoipDatabase`."""
        self._places = None if not geoip_database else open_places(geoip_database)
        self._place_of = lru_cache(REMEMBERED)(self._look_up)

    def complete(self, given: Mapping[str, str], *, ip: str | None) -> dict[str, str]:
        """Return the attributes, the given ones over the derived ones."""
        attributes: dict[str, str] = {}
        user_agent = given.get("user_agent")
        if user_agent:
            attributes.update(of_user_agent(user_agent[:MAX_USER_AGENT_LENGTH]))
        if ip and self._places is not None:
            attributes.update(self._place_of(ip))
        attributes.update(given)
        return attributes

    def _look_up(self, ip: str) -> Mapping[str, str]:
        try:
            found: Any = None if self._places is None else self._places.get(ip)
        except ValueError:  # not an address
            return {}
        if not isinstance(found, dict):
            return {}
        country = found.get("country", {}).get("iso_code")
        regions = found.get("subdivisions") or [{}]
        return _present(country=country, region=regions[0].get("iso_code"))


@lru_cache(REMEMBERED)
def of_user_agent(text: str) -> Mapping[str, str]:
    """Return ``device_type``, ``browser`` and ``platform``, as far as ua-parser knows this user agent.

    Browser and platform are its families: ``Chrome``, ``Mobile Safari``; ``iOS``, ``Mac OS X``, ``Windows``.
    """
    parsed = _user_agents.parse(text)
    browser = None if parsed.user_agent is None else parsed.user_agent.family
    platform = None if parsed.os is None else parsed.os.family
    device = None if parsed.device is None else parsed.device.family
    return _present(device_type=_device_type(text, browser, platform, device), browser=browser, platform=platform)


def _device_type(text: str, browser: str | None, platform: str | None, device: str | None) -> str | None:
    """Return mobile, tablet, desktop or bot. ua-parser does not say it; Android's tablets leave out ``Mobile``."""
    if device == "Spider" or browser in _BOT_FAMILIES or _BOT.search(text):
        return "bot"
    if _TABLET.search(text) or (platform == "Android" and not _MOBILE.search(text)):
        return "tablet"
    if _MOBILE.search(text):
        return "mobile"
    return "desktop" if platform in _DESKTOPS else None


def _present(**attributes: str | None) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if value}


def open_places(path: str) -> maxminddb.Reader:
    """Open a MaxMind-format file. Raises `WrongGeoipDatabase`."""
    try:
        return maxminddb.open_database(path)
    except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
        raise WrongGeoipDatabase(
            f"ABGATE_GEOIP_DATABASE: {path} cannot be read as a MaxMind database ({error}). Give the path of an .mmdb "
            "file, or unset it: country and region are then known only when a request says them."
        ) from error
