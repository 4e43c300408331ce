"""GrowthBook's SDK: its features handed over at the start, no host to fetch from.

It is called as its own asynchronous client calls it, by the evaluation function with a context made for each call,
which is quicker than its synchronous class with `set_attributes`.
"""

from collections.abc import Sequence
from typing import Any

from growthbook.common_types import (
    EvaluationContext,
    GlobalContext,
    Options,
    StackContext,
    UserContext,
    features_from_dict,
)
from growthbook.core import eval_feature

from harness.workloads import BROWSER, BY_RULE, CONTROL, COUNTRIES, REGIONS, TREATMENT, Config, Contestant, Login

_COUNTRY = {"country": {"$in": COUNTRIES}}
_FIREFOX = {"user_agent": {"$regex": BROWSER}}


def contestants() -> list[Contestant]:
    """Return GrowthBook. The user contexts are made beforehand."""
    features = GlobalContext(options=Options(), features=features_from_dict(_FEATURES))

    def prepare(logins: Sequence[Login]) -> list[UserContext]:
        return [UserContext(attributes={"id": each.device, **each.attributes}) for each in logins]

    def context(user: UserContext) -> EvaluationContext:
        return EvaluationContext(user=user, global_ctx=features, stack=StackContext(evaluated_features=set()))

    def run(workload: str, users: Sequence[UserContext]) -> None:
        for user in users:
            eval_feature(
                workload,
                EvaluationContext(user=user, global_ctx=features, stack=StackContext(evaluated_features=set())),
            )

    def answer(workload: str, user: UserContext) -> Config | None:
        result: Any = eval_feature(workload, context(user))
        found: Config = result.value
        return found if result.source in {"experiment", "force"} else None

    return [Contestant("growthbook", prepare, run, answer)]


def _half(key: str) -> dict[str, Any]:
    return {
        "key": key,
        "variations": [CONTROL, TREATMENT],
        "weights": [0.5, 0.5],
        "hashAttribute": "id",
        "hashVersion": 2,
        "meta": [{"key": "control"}, {"key": "treatment"}],
    }


_RULES: dict[str, list[dict[str, Any]]] = {
    "split": [_half("split")],
    "segment": [{"id": "firefox", "condition": _COUNTRY | _FIREFOX, "force": TREATMENT}],
    "targeted": [_half("targeted") | {"condition": _COUNTRY | _FIREFOX}],
    "ten_rules": [
        {"id": region, "condition": _COUNTRY | {"region": {"$in": [region]}}, "force": BY_RULE[number]}
        for number, region in enumerate(REGIONS)
    ],
}
_FEATURES = {name: {"defaultValue": CONTROL, "rules": rules} for name, rules in _RULES.items()}
