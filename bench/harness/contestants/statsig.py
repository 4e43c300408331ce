"""Statsig's server SDK, whose evaluator is written in Rust: its specification from a data store, no network, no log."""

import json
from collections.abc import Sequence
from typing import Any

from statsig_python_core import DataStore, DataStoreResponse, Statsig, StatsigOptions, StatsigUser

from harness.workloads import BROWSER, BY_RULE, CONTROL, COUNTRIES, REGIONS, TREATMENT, Config, Contestant, Login

_TIME = 1_700_000_000_000


def contestants() -> list[Contestant]:
    """Return Statsig. The users are made beforehand."""
    client = _client()

    def prepare(logins: Sequence[Login]) -> list[StatsigUser]:
        return [_user(each) for each in logins]

    def run(workload: str, users: Sequence[StatsigUser]) -> None:
        for user in users:
            client.get_experiment(user, workload)

    def answer(workload: str, user: StatsigUser) -> Config | None:
        found = client.get_experiment(user, workload)
        config: Config = found.value
        return config if found.details.reason.endswith(":Recognized") and found.rule_id else None

    return [Contestant("statsig", prepare, run, answer)]


def _user(login: Login) -> StatsigUser:
    attributes = login.attributes
    return StatsigUser(
        user_id=login.device,
        country=attributes["country"],
        user_agent=attributes["user_agent"],
        custom={"region": attributes["region"]},
    )


class _Given(DataStore):
    def get(self, key: str) -> DataStoreResponse:  # noqa: ARG002 - there is one document
        return DataStoreResponse(result=json.dumps(_DOCUMENT), time=_TIME)


def _client() -> Any:
    options = StatsigOptions(
        data_store=_Given(),
        disable_network=True,
        disable_all_logging=True,
        disable_country_lookup=True,
        output_log_level="none",
    )
    client = Statsig("secret-none", options)
    client.initialize().wait()
    return client


_CONDITIONS: dict[str, dict[str, Any]] = {}


def _condition(type_: str, operator: str | None, target: Any, field: str | None = None, **more: str) -> str:
    name = str(len(_CONDITIONS))
    _CONDITIONS[name] = {
        "type": type_,
        "targetValue": target,
        "operator": operator,
        "field": field,
        "additionalValues": more,
        "idType": "userID",
    }
    return name


def _group(name: str, config: Config | bool, *conditions: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "groupName": name,
        "isExperimentGroup": True,
        "salt": name,
        "idType": "userID",
        "passPercentage": 100,
        "conditions": list(conditions),
        "returnValue": config,
    }


def _spec(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "dynamic_config",
        "entity": "experiment",
        "salt": name,
        "enabled": True,
        "isActive": True,
        "hasSharedParams": False,
        "version": 1,
        "idType": "userID",
        "defaultValue": {},
        "rules": rules,
    }


def _half(salt: str) -> list[dict[str, Any]]:
    return [
        _group("control", CONTROL, _condition("user_bucket", "lt", 500, salt=salt)),
        _group("treatment", TREATMENT, _condition("user_bucket", "lt", 1000, salt=salt)),
    ]


_COUNTRY = _condition("user_field", "any", COUNTRIES, "country")
_FIREFOX = _condition("user_field", "str_contains_any", [BROWSER], "userAgent")
_RULES = {
    "split": _half("split"),
    "segment": [
        _group("firefox", TREATMENT, _COUNTRY, _FIREFOX),
        _group("rest", CONTROL, _condition("public", None, None)),
    ],
    # The console writes targeting like this: who fails the gate leaves by the first rule.
    "targeted": [_group("targetingGate", {}, _condition("fail_gate", None, "firefox")), *_half("targeted")],
    "ten_rules": [
        _group(region, BY_RULE[number], _COUNTRY, _condition("user_field", "any", [region], "region"))
        for number, region in enumerate(REGIONS)
    ],
}
_GATE = _spec("firefox", [_group("firefox", True, _COUNTRY, _FIREFOX)])
_GATE |= {"type": "feature_gate", "entity": "feature_gate", "defaultValue": False}
_DOCUMENT = {
    "dynamic_configs": {name: _spec(name, rules) for name, rules in _RULES.items()},
    "condition_map": _CONDITIONS,
    "feature_gates": {"firefox": _GATE},
    "layer_configs": {},
    "experiment_to_layer": {},
    "id_lists": {},
    "diagnostics": {},
    "has_updates": True,
    "time": _TIME,
    "company_id": "bench",
    "response_format": "dcs-v2",
}
