"""Eppo's server SDK, whose evaluator is written in Rust: its configuration handed over at the start, no polling.

Three of its calls are measured. `get_json_assignment` is the quickest that returns a configuration, and the one to
compare with: neither reason nor ids come with it, they would go to the assignment logger, which is off (`doLog`).
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import eppo_client
from eppo_client import AssignmentLogger, ClientConfig, Configuration, EppoClient

from harness.workloads import (
    BROWSER,
    BY_RULE,
    CONTROL,
    COUNTRIES,
    NAMES,
    REGIONS,
    TREATMENT,
    Attributes,
    Config,
    Contestant,
    Login,
)

Input = tuple[str, Attributes]

_SHARDS = 10_000
_VARIATIONS = {"control": CONTROL, "treatment": TREATMENT} | {f"rule-{n}": each for n, each in enumerate(BY_RULE)}


def contestants() -> list[Contestant]:
    """Return the call that the goal is about, the one that tells the reason too, and the one that gives a name only."""
    client = _client()

    def prepare(logins: Sequence[Login]) -> list[Input]:
        return [(each.device, each.attributes) for each in logins]

    def details(workload: str, given: Input) -> Config | None:
        result = client.get_json_assignment_details(workload, *given, None)
        found: Config | None = result.variation
        return found if result.evaluation_details["flagEvaluationCode"] == "MATCH" else None

    def json_value(workload: str, given: Input) -> Config | None:
        found: Config | None = client.get_json_assignment(workload, *given, None)
        return found

    def text_value(workload: str, given: Input) -> Config | None:
        return _VARIATIONS.get(client.get_string_assignment(f"{workload}-text", *given, "default"))

    return [
        Contestant("eppo", prepare, _calling(client.get_json_assignment, "{}", {}), json_value),
        Contestant("eppo_details", prepare, _calling(client.get_json_assignment_details, "{}", {}), details),
        Contestant("eppo_text", prepare, _calling(client.get_string_assignment, "{}-text", "default"), text_value),
    ]


def _calling(get: Callable[..., Any], key_form: str, default: Any) -> Callable[[str, Sequence[Input]], None]:
    def run(workload: str, inputs: Sequence[Input]) -> None:
        key = key_form.format(workload)
        for device, attributes in inputs:
            get(key, device, attributes, default)

    return run


def _client() -> EppoClient:
    flags = {name: _flag(name, "JSON") for name in NAMES} | {f"{name}-text": _flag(name, "STRING") for name in NAMES}
    document = {
        "createdAt": "2026-11-24T09:00:00.000Z",
        "format": "SERVER",
        "environment": {"name": "bench"},
        "flags": {key: flag | {"key": key} for key, flag in flags.items()},
    }
    return eppo_client.init(
        ClientConfig(
            api_key="none",
            base_url="http://127.0.0.1:9",
            assignment_logger=AssignmentLogger(),
            poll_interval_seconds=None,
            initial_configuration=Configuration(flags_configuration=json.dumps(document).encode()),
        )
    )


def _flag(workload: str, type_: str) -> dict[str, Any]:
    return {
        "enabled": True,
        "variationType": type_,
        "variations": {
            name: {"key": name, "value": json.dumps(config) if type_ == "JSON" else name}
            for name, config in _VARIATIONS.items()
        },
        "allocations": _ALLOCATIONS[workload],
        "totalShards": _SHARDS,
    }


def _allocation(key: str, splits: list[dict[str, Any]], *conditions: dict[str, Any]) -> dict[str, Any]:
    rules = {"rules": [{"conditions": list(conditions)}]} if conditions else {}
    return {"key": key, "splits": splits, "doLog": False} | rules


def _everyone(variation: str) -> list[dict[str, Any]]:
    return [{"variationKey": variation, "shards": []}]


def _half(salt: str) -> list[dict[str, Any]]:
    bounds = {"control": (0, _SHARDS // 2), "treatment": (_SHARDS // 2, _SHARDS)}
    return [
        {"variationKey": name, "shards": [{"salt": salt, "ranges": [{"start": start, "end": end}]}]}
        for name, (start, end) in bounds.items()
    ]


_COUNTRY = {"attribute": "country", "operator": "ONE_OF", "value": COUNTRIES}
_FIREFOX = {"attribute": "user_agent", "operator": "MATCHES", "value": BROWSER}
_ALLOCATIONS = {
    "split": [_allocation("all", _half("split"))],
    "segment": [
        _allocation("firefox", _everyone("treatment"), _COUNTRY, _FIREFOX),
        _allocation("rest", _everyone("control")),
    ],
    "targeted": [_allocation("firefox", _half("targeted"), _COUNTRY, _FIREFOX)],
    "ten_rules": [
        _allocation(
            region, _everyone(f"rule-{n}"), _COUNTRY, {"attribute": "region", "operator": "ONE_OF", "value": [region]}
        )
        for n, region in enumerate(REGIONS)
    ],
}
