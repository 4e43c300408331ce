"""What `bench/assign.py` asks of every library, in words that each of them puts in its own configuration.

========== ============================================================================================================
split      50/50 by a hash of the subject
segment    ten countries and a user agent that contains "Firefox" get the treatment, whoever is left the control
targeted   the same two conditions, and a hash of the subject
ten_rules  ten rules by priority, of which the last matches; each has the list of ten countries and one region
========== ============================================================================================================

For `targeted`, the others split the matching logins 50/50. abgate's segments need no hash, so its experiment has a
ramp at 99 percent, which hashes every subject and leaves hardly a login out of the work.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from msgspec import Struct

Config = dict[str, Any]
Attributes = dict[str, str]

NAMES = ("split", "segment", "targeted", "ten_rules")
COUNTRIES = ["FR", "DE", "IT", "ES", "NL", "BE", "AT", "PT", "IE", "FI"]
BROWSER = "Firefox"
REGIONS = [f"region-{number}" for number in range(10)]

CONTROL: Config = {"title": "Sign in", "prompt": False}
TREATMENT: Config = {"title": "Welcome", "prompt": True}
BY_RULE: list[Config] = [{"title": f"Welcome {number}", "prompt": True} for number in range(10)]

EXPECTED: dict[str, list[Config]] = {
    "split": [CONTROL, TREATMENT],
    "segment": [TREATMENT],
    "targeted": [CONTROL, TREATMENT],
    "ten_rules": [BY_RULE[-1]],
}
"""The configurations that the logins below get."""


class Login(Struct, frozen=True):
    """Who logs in, and from where."""

    device: str
    attributes: Attributes


class Contestant(Struct, frozen=True):
    """One way to call one library.

    `prepare` makes of logins what the library takes, `run` makes the calls for that, and `answer` gives the
    configuration that one of them returns, None when the library fell back to a default.
    """

    name: str
    prepare: Callable[[Sequence[Login]], Sequence[Any]]
    run: Callable[[str, Sequence[Any]], None]
    answer: Callable[[str, Any], Config | None]


def logins(first: int, count: int) -> list[Login]:
    """Return logins of distinct devices; equal ones in new objects each time, as every request's JSON makes them."""
    return [_login(number) for number in range(first, first + count)]


def _login(number: int) -> Login:
    version = 100 + number % 40
    attributes = {
        "country": COUNTRIES[number % len(COUNTRIES)],
        "region": REGIONS[-1],
        "user_agent": f"Mozilla/5.0 (X11; Linux x86_64; rv:{version}.0) Gecko/20100101 Firefox/{version}.0",
    }
    device = urlsafe_b64encode(blake2b(number.to_bytes(8), digest_size=16).digest())
    return Login(device.rstrip(b"=").decode(), json.loads(json.dumps(attributes)))
