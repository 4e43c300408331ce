"""One table of OpenFeature evaluations, for every way to ask: OFREP by each published client, and in process.

The flags are made over HTTP on a server of the test's own: `sign-in` targets France, `banner` splits (all to its
treatment), `footer` has no experiment and `hidden` is a draft.
"""

from typing import Any, NamedTuple

from tests.contract.things import (
    JSON,
    by_segment,
    make_experiment,
    make_flag,
    make_segment,
    make_variation,
    sent,
    shares,
)
from tests.server import Server

DEVICE = {"targetingKey": "device-1"}
FRANCE = DEVICE | {"country": "FR"}

PARAMETERS: JSON = {
    "title": {"type": "string", "value": "Sign in"},
    "prompt": {"type": "boolean", "value": False},
    "attempts": {"type": "number", "value": 3},
    "ratio": {"type": "number", "value": 0.5},
    "theme": {"type": "object", "value": {"color": "blue"}},
    "methods": {"type": "array", "value": ["password"]},
}
DEFAULTS = {name: parameter["value"] for name, parameter in PARAMETERS.items()}
TREATED = {
    "title": "Bonjour",
    "prompt": True,
    "attempts": 5,
    "ratio": 0.25,
    "theme": {"color": "red"},
    "methods": ["passkey", "password"],
}


class Scenario(NamedTuple):
    """What is asked, and what every client must say; `type` is boolean, string, number or object."""

    type: str
    key: str
    default: Any
    value: Any
    reason: str
    variant: str | None = None
    context: dict[str, Any] = DEVICE
    error: str | None = None


def _targeted(type_: str, name: str, default: Any, control: Any, treated: Any) -> list[Scenario]:
    key = f"sign-in/{name}" if name else "sign-in"
    return [
        Scenario(type_, key, default, control, "TARGETING_MATCH", "control"),
        Scenario(type_, key, default, treated, "TARGETING_MATCH", "treatment", FRANCE),
    ]


SCENARIOS = [
    *_targeted("string", "title", "?", "Sign in", "Bonjour"),
    *_targeted("boolean", "prompt", True, False, True),
    *_targeted("number", "attempts", 9.0, 3, 5),
    *_targeted("number", "ratio", 9.0, 0.5, 0.25),
    *_targeted("object", "theme", {}, {"color": "blue"}, {"color": "red"}),
    *_targeted("object", "methods", {}, {"value": ["password"]}, {"value": ["passkey", "password"]}),
    *_targeted("object", "", {}, DEFAULTS, TREATED),
    Scenario("string", "banner/title", "?", "Bonjour", "SPLIT", "treatment"),
    Scenario("string", "footer/title", "?", "Sign in", "STATIC", "default"),
    Scenario("string", "hidden/title", "?", "Sign in", "DISABLED", "default"),
    Scenario("string", "unknown", "?", "?", "ERROR", error="FLAG_NOT_FOUND"),
    Scenario("string", "banner/unknown", "?", "?", "ERROR", error="FLAG_NOT_FOUND"),
    Scenario("string", "banner/prompt", "?", "?", "ERROR", error="TYPE_MISMATCH"),
    Scenario("boolean", "banner/title", True, True, "ERROR", error="TYPE_MISMATCH"),
    Scenario("string", "banner/title", "?", "?", "ERROR", context={"country": "FR"}, error="TARGETING_KEY_MISSING"),
]


def make_scenarios(server: Server) -> JSON:
    """Make the flags and experiments; return the flags by name."""
    with server.client() as client:
        flags: JSON = {}
        for name in ("sign-in", "banner", "footer", "hidden"):
            flag = make_flag(client, name=name, parameters=PARAMETERS)
            control = make_variation(client, flag, {}, name="control")
            treatment = make_variation(client, flag, TREATED, name="treatment")
            flags[name] = flag | {"variations": [control, treatment]}
            if name != "hidden":
                sent(client, "POST", f"/feature-flags/{flag['id']}/status", {"status": "active"})
        france = make_segment(client)
        targeted = {"allocation_strategy": "segment", "allocations": by_segment(flags["sign-in"], france)}
        make_experiment(client, flags["sign-in"], status="active", **targeted)
        make_experiment(client, flags["banner"], status="active", allocations=shares(flags["banner"], 0, 100))
    return flags


def make_key(server: Server, kind: str, *origins: str) -> str:
    """Return a new runtime key; browsers are told of its origins within a second."""
    options = [word for origin in origins for word in ("--origin", origin)]
    return server.command("keys", "create", *server.storage, "--kind", kind, *options).splitlines()[-1]
