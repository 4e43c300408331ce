"""LaunchDarkly's server SDK: its flags read from a file, no events sent."""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ldclient import Config as ClientConfig
from ldclient import Context, LDClient
from ldclient.integrations import Files

from harness.workloads import BROWSER, BY_RULE, CONTROL, COUNTRIES, REGIONS, TREATMENT, Config, Contestant, Login

_VARIATIONS = [CONTROL, TREATMENT, *BY_RULE]


def contestants() -> list[Contestant]:
    """Return LaunchDarkly. The contexts are made beforehand."""
    client = _client()

    def prepare(logins: Sequence[Login]) -> list[Context]:
        return [_context(each) for each in logins]

    def run(workload: str, contexts: Sequence[Context]) -> None:
        for context in contexts:
            client.variation_detail(workload, context, None)

    def answer(workload: str, context: Context) -> Config | None:
        detail = client.variation_detail(workload, context, None)
        found: Any = detail.value
        return found if detail.reason["kind"] in {"RULE_MATCH", "FALLTHROUGH"} else None

    return [Contestant("launchdarkly", prepare, run, answer)]


def _client() -> LDClient:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "flags.json"
        file.write_text(json.dumps({"flags": {name: _flag(name) for name in _FALLTHROUGHS}}))
        source = Files.new_data_source(paths=[str(file)])
        client = LDClient(ClientConfig("none", update_processor_class=source, send_events=False))
    assert client.is_initialized()
    return client


def _context(login: Login) -> Context:
    builder = Context.builder(login.device)
    for name, value in login.attributes.items():
        builder.set(name, value)
    return builder.build()


def _flag(name: str) -> dict[str, Any]:
    return {
        "key": name,
        "on": True,
        "version": 1,
        "salt": name,
        "variations": _VARIATIONS,
        "offVariation": 0,
        "rules": _RULES[name],
        "fallthrough": _FALLTHROUGHS[name],
    }


def _clause(attribute: str, operator: str, values: list[str]) -> dict[str, Any]:
    return {"contextKind": "user", "attribute": attribute, "op": operator, "values": values, "negate": False}


_HALF = {
    "rollout": {
        "kind": "experiment",
        "contextKind": "user",
        "seed": 1,
        "variations": [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}],
    }
}
_FIREFOX = {
    "id": "firefox",
    "clauses": [_clause("country", "in", COUNTRIES), _clause("user_agent", "contains", [BROWSER])],
}
_RULES: dict[str, list[dict[str, Any]]] = {
    "split": [],
    "segment": [_FIREFOX | {"variation": 1}],
    "targeted": [_FIREFOX | _HALF],
    "ten_rules": [
        {
            "id": region,
            "clauses": [_clause("country", "in", COUNTRIES), _clause("region", "in", [region])],
            "variation": 2 + number,
        }
        for number, region in enumerate(REGIONS)
    ],
}
_FALLTHROUGHS: dict[str, dict[str, Any]] = {name: {"variation": 0} for name in _RULES} | {"split": _HALF}
