"""Every rule of the management API, broken over HTTP: the right refusal, naming field and rule, and nothing changed.

One world is made for the module. A row is a request that breaks one rule in it; ``{name}`` in paths and bodies stands
for the id of a thing of that world.
"""

import gzip
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.contract.things import (
    by_segment,
    make_experiment,
    make_flag,
    make_metric,
    make_segment,
    make_variation,
    sent,
    shares,
)
from tests.server import API, Server, StartServer

JSON = "application/json"
UNKNOWN = {kind: f"{kind}_{22 * '1'}" for kind in ("exp", "flg", "var", "seg", "met")}
STATUSES = ("draft", "active", "paused", "completed", "archived")
DEFAULTS = {"string": "off", "boolean": False, "number": 1, "array": [1], "object": {"a": 1}}
SEGMENT_RULES = [{"match": {"country": ["FR"]}}]

Row = tuple[str, str, Any, int, str, str]
"""Method, path, body, status, errorCode, and the words that the message must hold, separated by ``|``."""


class World:
    """The things that the rows refer to, and everything that must not change."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.ids: dict[str, str] = {}
        self._make_flags()
        self._make_segments()
        self._make_experiments()
        self._make_metrics()

    def state(self) -> list[object]:
        """Return all there is, history included: the lists of every status, to their ends."""
        paths = [f"/experiments?status={status}" for status in STATUSES]
        paths += [f"/feature-flags?status={status}" for status in ("draft", "active", "archived")]
        paths += [f"/feature-flags/{self.ids[name]}/variations" for name in ("flag", "full", "single", "served")]
        paths += ["/segments", "/metrics", "/metrics?status=archived", "/history"]
        return [page for path in paths for page in self._pages(path)]

    def fingerprint(self, path: str) -> tuple[object, object]:
        """Return the latest change and the thing that `path` is about: what is cheap to see of any write."""
        latest = sent(self.client, "GET", "/history?take=1")["changes"]
        parts = path.split("/")[:3]
        thing = self.client.get("/".join(parts)).text if len(parts) == 3 and "\x00" not in path else None
        return latest, thing

    def filled(self, value: Any) -> Any:
        """Return `value` with the ids of things in the place of their names."""
        if isinstance(value, str):
            return self.ids[value[1:-1]] if value[:1] == "{" else value
        if isinstance(value, dict):
            return {name: self.filled(each) for name, each in value.items()}
        return [self.filled(each) for each in value] if isinstance(value, list) else value

    def _pages(self, path: str) -> Iterator[object]:
        mark = "&" if "?" in path else "?"
        take = "" if path.endswith("/variations") else f"{mark}take=50"
        page = sent(self.client, "GET", path + take)
        yield page
        while "next" in page:
            page = sent(self.client, "GET", f"{path}{take}&from={page['next']}")
            yield page

    def _make_flags(self) -> None:
        parameters = {f"a_{type_}": {"type": type_, "value": value} for type_, value in DEFAULTS.items()}
        flag = make_flag(self.client, name="the flag", parameters=parameters)
        control = make_variation(self.client, flag, name="control")
        treatment = make_variation(self.client, flag, {"a_string": "on", "a_number": 2}, name="treatment")
        sent(self.client, "POST", f"/feature-flags/{flag['id']}/status", {"status": "active"})
        self.flag = flag | {"variations": [control, treatment]}
        other = make_flag(self.client, variations=2, active=True, name="another flag")
        empty = make_flag(self.client, name="no variation")
        single = make_flag(self.client, variations=1)
        full = make_flag(self.client, variations=20)
        archived = make_flag(self.client, variations=2, active=True)
        of_archived = make_experiment(self.client, archived, status="completed")
        sent(self.client, "POST", f"/feature-flags/{archived['id']}/status", {"status": "archived"})
        served = make_flag(self.client, variations=2, active=True)
        served_id = served["variations"][1]["id"]
        sent(self.client, "PATCH", f"/feature-flags/{served['id']}", {"served_variation_id": served_id})
        self.ids |= {
            "flag": flag["id"],
            "control": control["id"],
            "treatment": treatment["id"],
            "other_flag": other["id"],
            "foreign": other["variations"][0]["id"],
            "empty": empty["id"],
            "single": single["id"],
            "last": single["variations"][0]["id"],
            "full": full["id"],
            "archived_flag": archived["id"],
            "archived_flags_variation": archived["variations"][1]["id"],
            "of_archived_flag": of_archived["id"],
            "served": served["id"],
            "served_variation": served_id,
        }

    def _make_segments(self) -> None:
        self.segment = make_segment(self.client, name="the segment")
        archived = make_segment(self.client, name="another segment")
        sent(self.client, "PATCH", f"/segments/{archived['id']}", {"status": "archived"})
        self.ids |= {"segment": self.segment["id"], "archived_segment": archived["id"]}

    def _make_metrics(self) -> None:
        used = make_metric(self.client, name="the metric")
        archived = make_metric(self.client, name="another metric")
        sent(self.client, "PATCH", f"/metrics/{archived['id']}", {"status": "archived"})
        sent(self.client, "PUT", f"/experiments/{self.ids['paused']}/analysis", {"primary": used["id"]})
        self.ids |= {"metric": used["id"], "archived_metric": archived["id"]}

    def _make_experiments(self) -> None:
        flag = self.flag
        for status in STATUSES:
            fields = {"name": f"the {status} one", "levels": [5, 25, 100], "authentication_flow": f"flow_of_{status}"}
            self.ids[status] = make_experiment(self.client, flag, status=status, **fields)["id"]
        made = {
            "by_segment": make_experiment(
                self.client, flag, allocation_strategy="segment", allocations=by_segment(flag, self.segment)
            ),
            "without_ramp": make_experiment(self.client, flag, status="active"),
            "last_level": make_experiment(self.client, flag, status="active", levels=[100]),
            "not_ready": make_experiment(self.client, flag, allocations=shares(flag, 50, 49)),
            "rival": make_experiment(self.client, flag, authentication_flow="flow_of_active"),
            "rival_of_all": make_experiment(self.client, flag, authentication_flow="all"),
        }
        self.ids |= {name: experiment["id"] for name, experiment in made.items()}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def unlimited(start_server: StartServer) -> Iterator[httpx.Client]:
    """A client of another server, which has no rate limit and on which things may change."""
    with start_server(environment={"ABGATE_RATE_LIMIT": "0"}).client() as client:
        yield client


@pytest.fixture(scope="module")
def world(client: httpx.Client) -> Iterator[World]:
    made = World(client)
    before = made.state()
    yield made
    assert made.state() == before, "a refused request of this module changed something"


# The least that each operation takes: whatever is added to it is what is refused.
CREATE_FLAG = {"name": "a new flag", "parameters": {"on": {"type": "boolean", "value": False}}}
CREATE_VARIATION = {"name": "a new variation", "overrides": {}}
CREATE_SEGMENT = {"name": "a new segment", "rules": SEGMENT_RULES}
CREATE_METRIC = {
    "name": "a new metric",
    "kind": "proportion",
    "events": {"types": ["s"]},
    "window": 60,
    "direction": "increase",
}
CREATE_EXPERIMENT = {"name": "a new one", "feature_flag_id": "{flag}", "authentication_flow": "new_flow"}
CREATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "flag": ("/feature-flags", CREATE_FLAG),
    "variation": ("/feature-flags/{flag}/variations", CREATE_VARIATION),
    "segment": ("/segments", CREATE_SEGMENT),
    "experiment": ("/experiments", CREATE_EXPERIMENT),
    "metric": ("/metrics", CREATE_METRIC),
}
PATCHES = {
    "flag": "/feature-flags/{flag}",
    "variation": "/feature-flags/{flag}/variations/{treatment}",
    "segment": "/segments/{segment}",
    "experiment": "/experiments/{draft}",
    "metric": "/metrics/{metric}",
}
ACTIONS = {
    "/feature-flags/{flag}/status": {"status": "active"},
    "/experiments/{active}/status": {"status": "active"},
    "/experiments/{active}/advance-ramp": {"target_level": 5},
    "/experiments/{active}/rollout": {"variation_id": "{control}"},
}


def bad(method: str, path: str, body: object, words: str, *, code: str = "invalid_body", status: int = 400) -> Row:
    return method, path, body, status, code, words


def rows_of_names() -> Iterator[Row]:
    wrong = {
        "ab": "length >= 3",
        "x" * 256: "length <= 255",
        " leading": "white space",
        "trailing ": "white space",
        "trailing\n": "white space",
        "two\nlines": "line break",
        "nul\0": "NUL",
        "": "length >= 3",
    }
    for kind, (path, body) in CREATIONS.items():
        for name, rule in wrong.items():
            yield bad("POST", path, body | {"name": name}, f"name: |{rule}")
            yield bad("PATCH", PATCHES[kind], {"name": name}, f"name: |{rule}")
        for name in (None, 7, ["x"]):
            yield bad("POST", path, body | {"name": name}, "name|Expected `str`")
            yield bad("PATCH", PATCHES[kind], {"name": name}, "name|Expected `str`")
        yield bad("POST", path, {key: value for key, value in body.items() if key != "name"}, "name|is required")
        for description in ("ab", "x" * 1025, " x ", "", 7):
            yield bad("POST", path, body | {"description": description}, "description")
            yield bad("PATCH", PATCHES[kind], {"description": description}, "description")


def rows_of_taken_names() -> Iterator[Row]:
    taken = {
        "flag": "another flag",
        "variation": "control",
        "segment": "another segment",
        "experiment": "the paused one",
        "metric": "login_success",
    }
    for kind, (path, body) in CREATIONS.items():
        for method, where, what in (("POST", path, body), ("PATCH", PATCHES[kind], {})):
            named = what | {"name": taken[kind]}
            yield bad(method, where, named, f"name|{taken[kind]}", status=409, code="name_conflict")


def rows_of_fields() -> Iterator[Row]:
    """Unknown, missing and null fields; bodies that are no object."""
    bodies = [("POST", path, body) for path, body in CREATIONS.values()]
    bodies += [("POST", path, body) for path, body in ACTIONS.items()]
    bodies += [("PATCH", path, {"name": "renamed"}) for path in PATCHES.values()]
    for method, path, body in bodies:
        yield bad(method, path, body | {"surprise": 1}, "surprise|is not a field")
        for no_object in ([], [body], "text", 7, True, None):
            yield bad(method, path, no_object, "Expected `object`")
    for path in PATCHES.values():
        yield bad("PATCH", path, {}, "at least one field")
    for path, body in ACTIONS.items():
        yield bad("POST", path, {}, f"{next(iter(body))}|is required")
    for kind, required in {
        "flag": ["parameters"],
        "variation": ["overrides"],
        "segment": ["rules"],
        "experiment": ["feature_flag_id", "authentication_flow"],
        "metric": ["kind", "events", "window", "direction"],
    }.items():
        path, body = CREATIONS[kind]
        for field in required:
            yield bad("POST", path, {key: value for key, value in body.items() if key != field}, f"{field}|is required")
            yield bad("POST", path, body | {field: None}, field)
    for kind, fields in {
        "flag": ["name", "parameters", "status"],
        "variation": ["name", "overrides"],
        "segment": ["name", "rules", "status"],
        "experiment": ["name", "authentication_flow", "assignment_config", "allocations", "status"],
    }.items():
        for field in fields:
            yield bad("PATCH", PATCHES[kind], {field: None}, f"{field}|null")
    # Decided by the server.
    for field in ("id", "type", "status", "created_at"):
        for path, body in CREATIONS.values():
            yield bad("POST", path, body | {field: "draft"}, f"{field}|is not a field")


def rows_of_flags() -> Iterator[Row]:
    for wrong, words in [
        ({}, "parameters|length >= 1"),
        ({f"p{n}": {"type": "boolean", "value": True} for n in range(11)}, "parameters|length <= 10"),
        *(({key: {"type": "boolean", "value": True}}, "parameters|letter") for key in ("1a", "a b", "", "ä", "a" * 65)),
        ({"on\n": {"type": "boolean", "value": True}}, "parameters|letter"),
        ({"on": {"type": "integer", "value": 1}}, "parameters.on.type|string, boolean, number, array, object"),
        ({"on": {"value": 1}}, "parameters.on.type|is required"),
        ({"on": {"type": "string"}}, "parameters.on.value|is required"),
        ({"on": {"type": "string", "value": None}}, "parameters.on.value"),
        ({"on": {"type": "string", "value": "x", "more": 1}}, "parameters.on.more"),
        ({"on": {"type": "string", "value": "x", "description": "x" * 256}}, "parameters.on.description|<= 255"),
        ({"on": {"type": "string", "value": "x" * 1023}}, "parameters.on.value|1024 bytes"),
        ({"on": {"type": "array", "value": ["x" * 1021]}}, "parameters.on.value|1024 bytes"),
        ({"on": {"type": "object", "value": {"ü" * 510: 1}}}, "parameters.on.value|1024 bytes"),
        (["on"], "parameters"),
    ]:
        yield bad("POST", "/feature-flags", CREATE_FLAG | {"parameters": wrong}, words)
        yield bad("PATCH", "/feature-flags/{empty}", {"parameters": wrong}, words)
    for type_, other in itertools.permutations(DEFAULTS, 2):
        parameters = {"on": {"type": type_, "value": DEFAULTS[other]}}
        yield bad("POST", "/feature-flags", CREATE_FLAG | {"parameters": parameters}, "parameters.on.value")
    kept = {f"a_{type_}": {"type": type_, "value": value} for type_, value in DEFAULTS.items()}
    in_use = {"status": 409, "code": "in_use"}
    without = {name: parameter for name, parameter in kept.items() if name != "a_string"}
    yield bad("PATCH", "/feature-flags/{flag}", {"parameters": without}, "a_string|removed|treatment", **in_use)
    retyped = kept | {"a_number": {"type": "boolean", "value": True}}
    yield bad("PATCH", "/feature-flags/{flag}", {"parameters": retyped}, "a_number|type|treatment", **in_use)
    # Together or not at all.
    both = {"name": "renamed", "description": "Described", "parameters": retyped}
    yield bad("PATCH", "/feature-flags/{flag}", both, "a_number", **in_use)
    for id in ("{foreign}", UNKNOWN["var"], "{served_variation}"):
        yield bad("PATCH", "/feature-flags/{flag}", {"served_variation_id": id}, "served_variation_id|own variations")
    yield bad("PATCH", "/feature-flags/{flag}", {"served_variation_id": "nonsense"}, "served_variation_id")
    yield bad("DELETE", "/feature-flags/{flag}", None, "the flag|used by", **in_use)
    for name, status, code, words in [
        ("empty", "active", "feature_flag_requires_variations", "at least 2|0"),
        ("single", "active", "feature_flag_requires_variations", "at least 2|1"),
        ("flag", "draft", "invalid_status_transition", "active|draft|can become archived"),
        ("archived_flag", "active", "invalid_status_transition", "archived|active|final"),
        ("archived_flag", "draft", "invalid_status_transition", "archived|draft|final"),
        ("flag", "paused", "invalid_body", "status|active, archived, draft"),
        ("flag", 1, "invalid_body", "status"),
    ]:
        yield bad("POST", f"/feature-flags/{{{name}}}/status", {"status": status}, words, code=code)
        yield bad("PATCH", f"/feature-flags/{{{name}}}", {"name": "renamed", "status": status}, words, code=code)


def rows_of_variations() -> Iterator[Row]:
    create, patch = "/feature-flags/{flag}/variations", "/feature-flags/{flag}/variations/{control}"
    wrong: list[tuple[Any, str]] = [
        ({"unknown": {"value": 1}}, "overrides.unknown|no such parameter"),
        ({"a_string": "on"}, "overrides.a_string|object"),
        ({"a_string": {}}, "overrides.a_string.value|is required"),
        ({"a_string": {"value": "x", "type": "string"}}, "overrides.a_string.type"),
        ({"a_string": {"value": "x" * 1023}}, "overrides.a_string.value|1024 bytes"),
        ({"a_string": {"value": None}}, "overrides.a_string.value|string"),
        ([], "overrides"),
    ]
    wrong += [({f"a_{t}": {"value": value}}, f"overrides.a_{t}.value|default") for t, value in DEFAULTS.items()]
    wrong += [
        ({f"a_{type_}": {"value": DEFAULTS[other]}}, f"overrides.a_{type_}.value|type, {type_}")
        for type_, other in itertools.permutations(DEFAULTS, 2)
    ]
    for overrides, words in wrong:
        yield bad("POST", create, CREATE_VARIATION | {"overrides": overrides}, words)
        yield bad("PATCH", patch, {"overrides": overrides}, words)
    yield bad(
        "POST", "/feature-flags/{full}/variations", CREATE_VARIATION, "at most 20", code="variation_limit_exceeded"
    )
    in_use = {"status": 409, "code": "in_use"}
    yield bad("DELETE", patch, None, "control|used by", **in_use)
    served = "/feature-flags/{served}/variations/{served_variation}"
    yield bad("DELETE", served, None, "serves|served_variation_id", **in_use)
    last = "/feature-flags/{single}/variations/{last}"
    yield bad("DELETE", last, None, "last variation", code="feature_flag_requires_variations")


def rows_of_segments() -> Iterator[Row]:
    eleven = {
        **{name: ["x"] for name in ("client_id", "connection", "connection_type", "organization_id", "domain")},
        **{name: ["x"] for name in ("device_type", "browser", "platform", "user_agent", "country", "region")},
    }
    condition = {"attribute": "country", "operator": "in", "value": ["FR"]}
    large = {"match": {"country": ["x" * 1000] * 4}}
    wrong: list[tuple[Any, str]] = [
        ([], "rules|length >= 1"),
        (SEGMENT_RULES * 51, "rules|length <= 50"),
        ("FR", "rules"),
        ([{}], "rules[0]|match"),
        ([*SEGMENT_RULES, {}], "rules[1]|match"),
        ([{"match": None}], "rules[0]|match"),
        ([{"match": {}}], "rules[0].match|1 to 10"),
        ([{"match": eleven}], "rules[0].match|1 to 10|11"),
        ([{"not_match": {}}], "rules[0].not_match|1 to 10"),
        ([{"match": {"city": ["x"]}}], "rules[0].match.city"),
        ([{"matches": {"country": ["x"]}}], "rules[0].matches"),
        ([{"match": {"country": []}}], "rules[0].match.country|length >= 1"),
        ([{"match": {"country": "FR"}}], "rules[0].match.country"),
        ([{"match": {"country": [7]}}], "rules[0].match.country"),
        ([{"match": {"country": ["x" * 1025]}}], "rules[0].match.country|length <= 1024"),
        ([{"match": {"country": {}}}], "rules[0].match.country|exactly one"),
        ([{"match": {"country": {"contains": ["x"], "exists": True}}}], "rules[0].match.country|exactly one|2"),
        ([{"match": {"country": {"contains": []}}}], "rules[0].match.country.contains|length >= 1"),
        ([{"match": {"country": {"contains": "x"}}}], "rules[0].match.country.contains"),
        ([{"match": {"country": {"exists": "yes"}}}], "rules[0].match.country.exists"),
        ([{"match": {"country": {"equals": ["x"]}}}], "rules[0].match.country.equals"),
        ([{"match": {"country": ["x" * 1024] * 4}}], "rules[0]|4096 bytes"),
        ([large, large, large], "rules|10240 bytes"),
        ([{"match_type": "all"}], "rules[0]|conditions"),
        ([{"conditions": [condition]}], "rules[0]|match_type"),
        ([{"match_type": "none", "conditions": [condition]}], "rules[0].match_type|all, any"),
        ([{"match_type": "any", "conditions": []}], "rules[0].conditions|length >= 1"),
        ([{"match_type": "any", "conditions": [condition] * 51}], "rules[0].conditions|length <= 50"),
        ([{"match_type": "any", "conditions": [condition] * 26}] * 2, "rules|at most 50|52"),
        ([{"match_type": "all", "conditions": [condition, condition]}], "rules[0].conditions|country"),
        ([{"match_type": "all", "conditions": [condition], "match": {"country": ["x"]}}], "rules[0]|match"),
        ([{"match_type": "all", "conditions": [condition | {"operator": "matches"}]}], "operator|contains, ends_with"),
        ([{"match_type": "all", "conditions": [condition | {"attribute": "city"}]}], "attribute|client_id"),
        ([{"match_type": "all", "conditions": [condition | {"value": []}]}], "rules[0].conditions[0].value"),
        ([{"match_type": "all", "conditions": [condition | {"value": "x" * 1025}]}], "rules[0].conditions[0].value"),
        ([{"match_type": "all", "conditions": [{"attribute": "country", "operator": "in"}]}], "value|is required"),
    ]
    for rules, words in wrong:
        yield bad("POST", "/segments", CREATE_SEGMENT | {"rules": rules}, words)
        yield bad("PATCH", "/segments/{segment}", {"name": "renamed", "rules": rules}, words)
    back = {"name": "renamed", "status": "active"}
    yield bad("PATCH", "/segments/{archived_segment}", back, "archived|active", code="invalid_status_transition")
    yield bad("PATCH", "/segments/{segment}", {"status": "paused"}, "status|active, archived")
    yield bad("DELETE", "/segments/{segment}", None, "the segment|used by", status=409, code="in_use")


def rows_of_experiments() -> Iterator[Row]:
    def create(words: str, **fields: Any) -> Row:
        return bad("POST", "/experiments", CREATE_EXPERIMENT | fields, words)

    yield bad(
        *("POST", "/experiments", CREATE_EXPERIMENT | {"feature_flag_id": UNKNOWN["flg"]}, UNKNOWN["flg"]),
        **{"status": 404, "code": "feature_flag_not_found"},
    )
    for id in ("flg_0OIl", "flg_", "exp_1", "flg_1\n", "flg_" + "1" * 61, ""):
        yield create("feature_flag_id", feature_flag_id=id)
    for subject in ("session", None, 1):
        yield create("assignment_config.subject", assignment_config={"subject": subject})
    yield create("assignment_config", assignment_config="device")
    yield create("assignment_config.unit", assignment_config={"subject": "device", "unit": "x"})
    yield create("allocation_strategy|percentage, segment", allocation_strategy="random")
    yield create("default_config|built-in", default_config="flag")
    yield create("default_config|flag, tenant", default_config="both")
    for flow in ("A", "a", "Login", "log-in", "_login", "1login", "a" * 65, "login\n", "", 7):
        yield create("authentication_flow", authentication_flow=flow)
        yield bad("PATCH", "/experiments/{draft}", {"authentication_flow": flow}, "authentication_flow")
    for levels, words in [
        ([], "levels|length >= 1"),
        (list(range(21)), "levels|length <= 20"),
        ([5, 5], "levels[1]|strictly increasing"),
        ([5, 25, 10], "levels[2]|strictly increasing"),
        ([101], "levels[0]|<= 100"),
        ([-1, 5], "levels[0]|>= 0"),
        ([2.5], "levels[0]|int"),
        (["5"], "levels[0]|int"),
        (5, "levels"),
    ]:
        yield create(words, levels=levels)
        yield bad("PATCH", "/experiments/{draft}", {"name": "renamed", "levels": levels}, words)
    for allocations, words in wrong_shares():
        yield create(words, allocations=allocations)
        yield bad("PATCH", "/experiments/{draft}", {"name": "renamed", "allocations": allocations}, words)
    for allocations, words in wrong_segment_allocations():
        yield create(words, allocation_strategy="segment", allocations=allocations)
        yield bad("PATCH", "/experiments/{by_segment}", {"name": "renamed", "allocations": allocations}, words)
    yield bad("PATCH", "/experiments/{draft}", {"allocations": []}, "allocations|length >= 1")


def wrong_shares() -> Iterator[tuple[Any, str]]:
    share = {"variation_id": "{control}", "is_control": True, "weight": 50}
    second = {"variation_id": "{treatment}", "is_control": False, "weight": 50}
    yield [share] * 21, "allocations|length <= 20"
    yield [{"variation_id": "{control}", "weight": 50}], "allocations[0].is_control|is required"
    yield [{"is_control": True, "weight": 50}], "allocations[0].variation_id|is required"
    yield [share, second | {"is_control": None}], "allocations[1].is_control"
    yield [share | {"variation_id": "{foreign}"}], "allocations[0].variation_id|feature flag"
    yield [share | {"variation_id": UNKNOWN["var"]}], "allocations[0].variation_id|feature flag"
    yield [share | {"variation_id": "control"}], "allocations[0].variation_id"
    yield [share, second, share], "allocations[2].variation_id|one allocation only"
    yield [{"variation_id": "{control}", "is_control": True}], "allocations[0].weight|is required"
    yield [share | {"weight": None}], "allocations[0].weight|is required"
    for weight in (-1, 101, 50.5, 50.0, 1e1, "50", True):
        yield [share | {"weight": weight}], "allocations[0].weight"
    yield [share | {"segment_id": "{segment}"}], "allocations[0].segment_id|segment strategy"
    yield [share, second | {"priority": 1}], "allocations[1].priority|segment strategy"
    yield [share | {"is_fallback": True}], "allocations[0].is_fallback|segment strategy"
    yield [share | {"name": "control"}], "allocations[0].name|is not a field"
    yield share, "allocations"


def wrong_segment_allocations() -> Iterator[tuple[Any, str]]:
    targeted = {"variation_id": "{treatment}", "is_control": False, "segment_id": "{segment}", "priority": 1}
    fallback = {"variation_id": "{control}", "is_control": True, "is_fallback": True}
    yield [targeted | {"segment_id": UNKNOWN["seg"]}], "allocations[0].segment_id|no such segment"
    yield [targeted | {"segment_id": "FR"}], "allocations[0].segment_id"
    yield [targeted | {"weight": 50}], "allocations[0].weight|percentage strategy"
    for priority in (0, -1, 1.5, "1", 1_000_001):
        yield [targeted | {"priority": priority}], "allocations[0].priority"
    yield [targeted, fallback, targeted], "allocations[2].priority|same priority"
    last = targeted | {"priority": 1_000_000}
    yield [targeted | {"priority": None}, fallback, last], "allocations[0].priority|required|1000000"
    yield [targeted, fallback | {"segment_id": "{segment}"}], "allocations[1].segment_id|fallback"
    yield [targeted, fallback | {"priority": 2}], "allocations[1].priority|fallback"
    yield [targeted | {"variation_id": "{foreign}"}], "allocations[0].variation_id|feature flag"


def rows_of_the_lifecycle() -> Iterator[Row]:
    allowed = {
        *(("draft", "active"), ("draft", "archived"), ("active", "paused"), ("active", "completed")),
        *(("paused", "active"), ("paused", "completed"), ("completed", "archived")),
    }
    for since, to in itertools.product(STATUSES, STATUSES):
        if (since, to) in allowed or (since == to != "draft"):
            continue
        words, code = f"{since}|{to}", "invalid_status_transition"
        yield bad("POST", f"/experiments/{{{since}}}/status", {"status": to}, words, code=code)
        yield bad("PATCH", f"/experiments/{{{since}}}", {"status": to}, words, code=code)
    yield bad("POST", "/experiments/{draft}/status", {"status": "running"}, "status|active, archived, completed")
    for name, code, words in [
        ("not_ready", "experiment_invalid_allocation_weights", "99"),
        ("rival", "experiment_active_limit_exceeded", "flow_of_active|the active one"),
        ("rival_of_all", "experiment_active_limit_exceeded", "flow_of_active"),
    ]:
        yield bad("POST", f"/experiments/{{{name}}}/status", {"status": "active"}, words, code=code)
        together = {"description": "Described", "status": "active"}
        yield bad("PATCH", f"/experiments/{{{name}}}", together, words, code=code)
    # The code of the first blocker, and every blocker in the message.
    one = [{"variation_id": "{control}", "is_control": False, "weight": 1}]
    yield bad(
        *("PATCH", "/experiments/{draft}", {"allocations": one, "status": "active"}),
        "experiment_missing_control|experiment_invalid_allocation_weights",
        code="experiment_missing_control",
    )
    yield bad("DELETE", "/experiments/{active}", None, "active", code="experiment_active")
    yield from rows_of_editing()
    yield from rows_of_ramps()


def rows_of_editing() -> Iterator[Row]:
    editable = {
        "draft": {"name", "description", "authentication_flow", "assignment_config", "allocations", "levels"},
        "active": {"name", "description"},
        "paused": {"name", "description", "allocations"},
        "completed": {"name", "description"},
        "archived": set(),
    }
    edits = {
        "name": "renamed",
        "description": "Described",
        "authentication_flow": "another_flow",
        "assignment_config": {"subject": "user"},
        "allocations": [{"variation_id": "{control}", "is_control": True, "weight": 100}],
        "levels": [1, 2],
    }
    for status, (field, edit) in itertools.product(STATUSES, edits.items()):
        if field not in editable[status]:
            code, words = "field_not_editable", "only while it is draft"
            if (status, field) == ("active", "allocations"):
                code, words = "experiment_requires_pause", "Pause it first"
            yield bad("PATCH", f"/experiments/{{{status}}}", {field: edit}, f"{field}|{status}|{words}", code=code)
            # One field that may be edited does not carry the other through.
            both = {"description": "Described", field: edit}
            yield bad("PATCH", f"/experiments/{{{status}}}", both, status, code=code if status != "archived" else "*")
    for status in STATUSES:
        path = f"/experiments/{{{status}}}"
        for field, value in {"feature_flag_id": "{other_flag}", "allocation_strategy": "segment"}.items():
            yield bad("PATCH", path, {field: value}, f"{field}|never", code="field_not_editable")
        yield bad("PATCH", path, {"default_config": "flag"}, "default_config|built-in")


def rows_of_ramps() -> Iterator[Row]:
    for level, words in [(100, "5|25|100"), (0, "5|25"), (50, "5|25|50")]:
        path = "/experiments/{active}/advance-ramp"
        yield bad("POST", path, {"target_level": level}, f"target_level|{words}", code="invalid_ramp_level")
    for name, words in {"without_ramp": "no ramp", "last_level": "last level"}.items():
        path = f"/experiments/{{{name}}}/advance-ramp"
        yield bad("POST", path, {"target_level": 50}, words, code="invalid_ramp_level")
    for level in (-1, 101, 25.0, "25", None, True):
        yield bad("POST", "/experiments/{active}/advance-ramp", {"target_level": level}, "target_level")
    for status in (each for each in STATUSES if each != "active"):
        path = f"/experiments/{{{status}}}/advance-ramp"
        yield bad("POST", path, {"target_level": 25}, status, status=409, code="experiment_not_active")
    for status in ("active", "draft"):
        path = f"/experiments/{{{status}}}/rollout"
        yield bad("POST", path, {"variation_id": "{foreign}"}, "variation_id|feature flag")
    path, body = "/experiments/{of_archived_flag}/rollout", {"variation_id": "{archived_flags_variation}"}
    yield bad("POST", path, body, "archived|serves nobody", code="feature_flag_not_active")
    path = "/experiments/{draft}/rollout"
    yield bad("POST", path, {"variation_id": "{control}"}, "draft|completed", code="invalid_status_transition")


def rows_of_metrics() -> Iterator[Row]:
    counted = {"kind": "mean", "value": "count"}
    ratio = {"kind": "ratio", "value": "count", "denominator": {"events": {"types": ["s"]}}}
    for wrong, words in [
        ({"kind": "median"}, "kind|must be one of mean, proportion, quantile, ratio, retention"),
        ({"events": {}}, "events|needs `types` or `event`"),
        ({"events": {"types": []}}, "events.types|length >= 1"),
        ({"events": {"types": ["s"], "where": {}}}, "events.where|1 to 10"),
        ({"events": {"types": ["s"], "where": {"country": {}}}}, "events.where.country|exactly one"),
        ({"events": {"types": ["s"], "where": {"user_agent": ["x"]}}}, "events.where.user_agent|not kept"),
        ({"events": {"types": ["s"], "fields": [{"path": "a..b", "equals": ["x"]}]}}, "events.fields[0].path"),
        ({"window": 0}, "window|>= 1"),
        ({"window": 90 * 86400 + 1}, "window|<= 7776000"),
        ({"window": 1.5}, "window|int"),
        ({"direction": "up"}, "direction|decrease, increase"),
        ({"value": "count"}, "value|does not go with the kind proportion"),
        ({"value": "sum:"}, "value|must be count, missing, seconds_to_first, or sum:"),
        ({"kind": "mean"}, "value|is required with the kind mean"),
        ({"kind": "mean", "value": "each:value"}, "value|count, sum:<field>, first:<field>, seconds_to_first"),
        ({"kind": "quantile", "value": "count", "quantile": "p50"}, "value|seconds_to_first, each:<field>"),
        ({"kind": "quantile", "value": "seconds_to_first"}, "quantile|is required"),
        ({"kind": "quantile", "value": "seconds_to_first", "quantile": "p51"}, "quantile|p50, p90, p99"),
        ({"quantile": "p50"}, "quantile|goes with the kind quantile, not proportion"),
        ({"kind": "ratio", "value": "count"}, "denominator|is required"),
        (ratio | {"denominator": {"events": {}}}, "denominator.events|needs"),
        (ratio | {"denominator": {"events": {"types": ["s"]}, "value": "missing"}}, "denominator.value|count"),
        (
            ratio | {"value": "missing", "denominator": {"events": {"types": ["s"]}, "value": "sum:value"}},
            "denominator.value|must be one of count with the value missing",
        ),
        (counted | {"denominator": ratio["denominator"]}, "denominator|goes with the kind ratio, not mean"),
        ({"kind": "retention"}, "window_start|is required"),
        ({"kind": "retention", "window_start": 60}, "window_start|less than window, 60"),
        ({"window_start": 5}, "window_start|goes with the kind retention"),
        ({"winsorize": 0.99}, "winsorize|goes with the kind mean, not proportion"),
        (counted | {"winsorize": 1}, "winsorize|< 1"),
        (ratio | {"cuped": 60}, "cuped|goes with the kind mean or proportion, not ratio"),
        ({"kind": "mean", "value": "seconds_to_first", "cuped": 60}, "cuped|not there before an exposure"),
    ]:
        yield bad("POST", "/metrics", CREATE_METRIC | wrong, words)
    patch = "/metrics/{metric}"
    yield bad("PATCH", patch, {"kind": "mean"}, "kind|is not a field")
    yield bad("PATCH", patch, {"name": "renamed", "value": "count"}, "value|does not go with")
    yield bad("PATCH", patch, {"window": None}, "window|null")
    yield bad("DELETE", patch, None, "the metric|the paused one", status=409, code="in_use")
    for method, body in (("PATCH", {"name": "renamed"}), ("DELETE", None)):
        yield bad(method, "/metrics/login_success", body, "login_success|built in", code="field_not_editable")
    archived = {"name": "renamed", "status": "active"}
    yield bad("PATCH", "/metrics/{archived_metric}", archived, "archived", code="invalid_status_transition")


def rows_of_analyses() -> Iterator[Row]:
    guardrail = {"metric": "lockout_rate", "margin": 0.1}
    for body, words in [
        ({"primary": UNKNOWN["met"]}, f"primary|there is no metric {UNKNOWN['met']}"),
        ({"primary": "nothing_of_ours"}, "primary|there is no metric"),
        ({"primary": "{flag}"}, "primary"),
        ({"primary": "{archived_metric}"}, "primary|is archived; take an active one"),
        ({"secondary": ["{metric}", "{metric}"]}, "secondary[1]|twice"),
        ({"secondary": ["login_success"]}, "secondary[0]|login_success is given twice"),
        ({"secondary": ["lockout_rate"] * 21}, "secondary|length <= 20"),
        ({"guardrails": [guardrail | {"margin": 0}]}, "guardrails[0].margin|> 0"),
        ({"guardrails": [{"metric": "lockout_rate"}]}, "guardrails[0].margin|is required"),
        ({"guardrails": [guardrail | {"metric": "time_to_login"}]}, "guardrails[0].metric|a quantile"),
        ({"alpha": 0.5}, "alpha|<= 0.2"),
        ({"horizon": {}}, "horizon|needs `subjects` or `days`"),
        ({"horizon": {"days": 14, "subjects": 1000}}, "horizon|not both"),
        ({"horizon": {"days": 0}}, "horizon.days|>= 1"),
        ({"crossover": "last"}, "crossover|exclude, first"),
        ({"bots": True}, "bots"),
        ({"surprise": 1}, "surprise|is not a field"),
    ]:
        yield bad("PUT", "/experiments/{paused}/analysis", body, words)
    yield bad("PUT", "/experiments/{archived}/analysis", {}, "archived", code="field_not_editable")


def rows_of_plans() -> Iterator[Row]:
    """Which fields go together, and what no experiment can be like."""
    rate, number, effect = {"rate": 0.9}, {"mean": 8.0, "sd": 5.0}, {"effect": 0.01}
    for body, words in [
        (effect, "rate|is required, or `sd`"),
        (effect | {"mean": 8.0}, "sd|is required, with `mean`"),
        (rate | number | effect, "mean|goes without `rate`"),
        (rate | effect | {"sd": 5.0}, "sd|goes without `rate`"),
        ({"sd": 5.0, "relative_effect": 0.1}, "mean|is required with `relative_effect`"),
        ({"sd": 5.0, "mean": 0, "relative_effect": 0.1}, "mean|must not be zero"),
        (rate, "effect|is required, or one of relative_effect, subjects and days"),
        (rate | effect | {"relative_effect": 0.1}, "relative_effect|goes without effect"),
        (rate | effect | {"subjects": 1000}, "subjects|goes without effect"),
        (rate | {"subjects": 1000, "days": 14}, "days|goes without subjects"),
        (rate | {"days": 14}, "days|per_day, experiment_id, authentication_flow"),
        (rate | effect | {"per_day": 10, "experiment_id": "{active}"}, "experiment_id|goes without per_day"),
        (rate | {"effect": 0}, "effect|must not be zero"),
        (rate | {"effect": 0.2}, "effect|would make a rate of 1.1 of 0.9"),
        (rate | {"relative_effect": -1}, "relative_effect|would make a rate of 0 of 0.9"),
        (number | {"effect": 1e-9}, "effect|more than 1,000,000,000 subjects"),
        (rate | {"subjects": 50}, "subjects|50 subjects are not from 100"),
        (rate | {"days": 1, "per_day": 50}, "days|50 subjects are not from 100"),
        (rate | effect | {"weights": [50, 40]}, "weights|must add up to 100, not 90"),
        (rate | effect | {"weights": [100]}, "weights|length >= 2"),
        (rate | effect | {"weights": [5] * 21}, "weights|length <= 20"),
        (rate | effect | {"weights": [100, 0]}, "weights[0]|<= 99"),
        (rate | effect | {"weights": [99.0, 1]}, "weights[0]|int"),
        ({"rate": 1} | effect, "rate|<= 0.999999"),
        ({"rate": 0} | effect, "rate|>= 1e-06"),
        ({"sd": 0} | effect, "sd|> 0.0"),
        (rate | {"subjects": 1}, "subjects|>= 2"),
        (rate | {"days": 366, "per_day": 10}, "days|<= 365"),
        (rate | effect | {"alpha": 0.5}, "alpha|<= 0.2"),
        (rate | effect | {"power": 1}, "power|<= 0.99"),
        (rate | effect | {"per_day": 0}, "per_day|> 0.0"),
        (rate | effect | {"authentication_flow": "Log in"}, "authentication_flow"),
        (rate | effect | {"authentication_flow": "unseen"}, "authentication_flow|exposed nobody|per_day"),
        (rate | effect | {"experiment_id": "{active}"}, "experiment_id|exposed nobody|per_day"),
        (rate | effect | {"surprise": 1}, "surprise|is not a field"),
        ([], "Expected `object`"),
    ]:
        yield bad("POST", "/plan", body, words)
    unknown = rate | effect | {"experiment_id": UNKNOWN["exp"]}
    yield bad("POST", "/plan", unknown, UNKNOWN["exp"], status=404, code="experiment_not_found")


def rows_of_unknown_things() -> Iterator[Row]:
    def missing(method: str, path: str, body: object, code: str) -> Row:
        return bad(method, path, body, "", status=404, code=f"{code}_not_found")

    for id in (UNKNOWN["exp"], "{flag}", "nonsense", "exp_0", "%00", "exp_%00", "%ff", "%F0%9F%90%88", "x" * 3000):
        path = f"/experiments/{id}"
        yield missing("GET", path, None, "experiment")
        yield missing("PATCH", path, {"name": "renamed"}, "experiment")
        yield missing("GET", f"{path}/history", None, "experiment")
        yield missing("GET", f"{path}/analysis", None, "experiment")
        yield missing("GET", f"{path}/results", None, "experiment")
        yield missing("PUT", f"{path}/analysis", {}, "experiment")
        yield missing("POST", f"{path}/validate", None, "experiment")
        yield missing("POST", f"{path}/status", {"status": "active"}, "experiment")
        yield missing("POST", f"{path}/advance-ramp", {"target_level": 5}, "experiment")
        yield missing("POST", f"{path}/rollout", {"variation_id": "{control}"}, "experiment")
    for id in (UNKNOWN["flg"], "{segment}", "nonsense", "flg_%00"):
        path = f"/feature-flags/{id}"
        yield missing("GET", path, None, "feature_flag")
        yield missing("PATCH", path, {"name": "renamed"}, "feature_flag")
        yield missing("POST", f"{path}/status", {"status": "active"}, "feature_flag")
        yield missing("GET", f"{path}/variations", None, "feature_flag")
        yield missing("POST", f"{path}/variations", CREATE_VARIATION, "feature_flag")
        for method, body in (("GET", None), ("PATCH", {"name": "renamed"}), ("DELETE", None)):
            yield missing(method, f"{path}/variations/{{control}}", body, "feature_flag")
    for id in (UNKNOWN["var"], "{foreign}", "nonsense", "var_%00"):
        path = f"/feature-flags/{{flag}}/variations/{id}"
        yield missing("GET", path, None, "variation")
        yield missing("PATCH", path, {"name": "renamed"}, "variation")
    for id in (UNKNOWN["seg"], "{flag}", "nonsense", "seg_%00"):
        yield missing("GET", f"/segments/{id}", None, "segment")
        yield missing("PATCH", f"/segments/{id}", {"name": "renamed"}, "segment")
    for id in (UNKNOWN["met"], "{flag}", "nonsense", "met_%00"):
        yield missing("GET", f"/metrics/{id}", None, "metric")
        yield missing("PATCH", f"/metrics/{id}", {"name": "renamed"}, "metric")


def rows_of_queries() -> Iterator[Row]:
    def query(path: str, words: str) -> Row:
        return bad("GET", path, None, words, code="invalid_query_string")

    paths = ("/experiments", "/feature-flags", "/segments", "/metrics", "/history", "/experiments/{active}/history")
    for path in paths:
        for take in ("0", "51", "-1", "1.5", "many", "", "1%00", "99999999999999999999"):
            yield query(f"{path}?take={take}", "take")
        for token in ("nonsense", "", "%00", "djE6", "djI6MQ", "djE6LTE", "%F0%9F%90%88", "x" * 3000):
            yield query(f"{path}?from={token}", "from")
        yield query(f"{path}?take=1&take=2", "take|twice")
        yield query(f"{path}?surprise=1", "surprise|not a query parameter")
        yield query(f"{path}?per_page=1", "per_page|not a query parameter")
        yield query(f"{path}?%00=1", "not a query parameter")
    for path, name, wrong in [
        ("/experiments", "status", "running"),
        ("/experiments", "status", "null"),
        ("/experiments", "status", ""),
        ("/feature-flags", "status", "paused"),
        ("/feature-flags", "type", "own"),
        ("/segments", "type", "null"),
        ("/metrics", "kind", "median"),
        ("/metrics", "status", "draft"),
    ]:
        yield query(f"{path}?{name}={wrong}", f"{name}|must be one of")
    yield query("/experiments?authentication_flow=a%00", "authentication_flow|NUL")
    yield query("/experiments?status=draft&status=active", "status|twice")
    yield query("/experiments/{active}/results?dimension=user_id", "dimension|must be one of")
    for moment in ("yesterday", "2026-01-01", "2026-01-01T00:00:00"):
        yield query(f"/experiments/{{active}}/results?as_of={moment}", "as_of|timestamp such as")
    yield query("/experiments/{active}/results?as_of=2126-01-01T00:00:00Z", "as_of|still to come")
    yield query("/experiments/{active}/results?as_of=2020-01-01T00:00:00Z", "as_of|before the experiment")
    for path in ("/experiments/{active}", "/feature-flags/{flag}/variations", "/segments/{segment}"):
        yield query(f"{path}?take=1", "take|takes none")


ROWS = [
    *rows_of_names(),
    *rows_of_taken_names(),
    *rows_of_fields(),
    *rows_of_flags(),
    *rows_of_variations(),
    *rows_of_segments(),
    *rows_of_experiments(),
    *rows_of_the_lifecycle(),
    *rows_of_metrics(),
    *rows_of_analyses(),
    *rows_of_plans(),
    *rows_of_unknown_things(),
    *rows_of_queries(),
]


def check_refusal(answer: httpx.Response, status: int, code: str, words: str = "") -> None:
    refusal = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, JSON), answer.text
    assert refusal.keys() == {"statusCode", "error", "message", "errorCode"}
    assert refusal["statusCode"] == status
    assert refusal["error"] == httpx.codes.get_reason_phrase(status)
    assert refusal["errorCode"] == code or code == "*", refusal["message"]
    assert "regex" not in refusal["message"]
    for word in filter(None, words.split("|")):
        assert word in refusal["message"]
    check_rate_limit(answer)


def check_rate_limit(answer: httpx.Response) -> None:
    limit, remaining, _ = (int(answer.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset"))
    assert 0 <= remaining <= limit


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "words"),
    ROWS,
    ids=[f"{row[0]} {row[1][:60]} {json.dumps(row[2])[:60]}" for row in ROWS],
)
def test_a_broken_rule_is_named_and_changes_nothing(
    world: World, method: str, path: str, body: Any, status: int, code: str, words: str
) -> None:
    path = "/".join(world.filled(part.partition("?")[0]) + "".join(part.partition("?")[1:]) for part in path.split("/"))
    before = world.fingerprint(path)
    content = None if body is None and method in ("GET", "DELETE") else json.dumps(world.filled(body))
    headers = {} if content is None or path.endswith("/validate") else {"Content-Type": JSON}
    answer = world.client.request(method, path, content=content, headers=headers)
    check_refusal(answer, status, code, words)
    assert world.fingerprint(path) == before


def raw(world: World, content: Any, *, path: str = "/segments", content_type: str | None = JSON) -> httpx.Response:
    """Return the answer to a POST of these bytes; sent in chunks, without a length, when they come one by one."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    return world.client.post(path, content=content, headers=headers)


NAME = b'{"name": "a new segment", "rules": [{"match": {"country": [%b]}}]}'
FLAG = b'{"name": "a new flag", "parameters": {"on": {"type": "%b", "value": %b}}}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "JSON"),
        (b"{}{}", "JSON"),
        (b"{'name': 1}", "JSON"),
        (b'{"name": "a new segment",}', "JSON"),
        (b'{"name": "tab\there"}', "JSON"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (NAME % b'"\xff"', "UTF-8"),
        (NAME % b'"\xed\xa0\x80"', "UTF-8"),
        (NAME % b'"\xc0\x80"', "UTF-8"),
        ('{"name": "a new segment"}'.encode("utf-16"), "UTF-8"),
        (NAME % b'"\\ud800"', "rules[0].match.country[0]: |surrogate"),
        (NAME % b'"\\u0000"', "rules[0].match.country[0]: |NUL"),
        (NAME % b'"\x00"', "JSON"),
        (b'{"na\\u0000me": 1}', "na\ufffdme: |NUL"),
        (b'{"na\\ud800me": 1}', "na?me: |surrogate"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "?: |twice"),
        (b'{"name": "one", "name": "two"}', "name|twice"),
        (b'{"rules": [{"match": {"country": ["a"], "country": ["b"]}}]}', "country|twice"),
        (NAME % b"NaN", "NaN"),
        (NAME % b"Infinity", "Infinity"),
        (NAME % b"-Infinity", "Infinity"),
        (NAME % b"1e400", "rules[0].match.country[0]: |too large"),
        (NAME % b"-1e400", "too large"),
        (NAME % b"9223372036854775808", "rules[0].match.country[0]: |64 bits"),
        (NAME % b"-9223372036854775809", "64 bits"),
        (NAME % (b"9" * 5000), "64 bits"),
        (b"[" * 65 + b"]" * 65, "64 levels"),
        (b"[" * 100_000 + b"]" * 100_000, "64 levels"),
        (b"[" * 900_000, "64 levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "64 levels"),
        (b"[" + b"0," * 450_000 + b"0]", "object"),
        (b"{" + b",".join(b'"%05d":0' % n for n in range(90_000)) + b"}", "00000"),
        (b"{" + b",".join(b'"%05d":0' % n for n in range(90_000)) + b',"89999":1}', "89999|twice"),
        (b'"' + b"a" * 999_000 + b'"', "object"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_a_body_that_no_two_readers_would_read_alike_is_refused(world: World, content: bytes, words: str) -> None:
    before = world.fingerprint("")
    answer = raw(world, content)
    check_refusal(answer, 400, "invalid_body", words)
    # Read, checked and refused at once: a body of 1 MB is no way to keep a processor busy. Measured: below 0.5 s.
    assert answer.elapsed.total_seconds() < 10
    assert world.fingerprint("") == before


@pytest.mark.parametrize(
    "body",
    [
        CREATE_SEGMENT | {"x" * 900_000: 1},
        CREATE_VARIATION | {"overrides": {"x" * 900_000: {"value": 1}}},
        CREATE_SEGMENT | {"rules": [{"match": {"x" * 900_000: 1}}]},
    ],
    ids=["field", "override", "attribute"],
)
def test_a_refusal_does_not_repeat_a_name_of_a_megabyte(world: World, body: dict[str, Any]) -> None:
    path = f"/feature-flags/{world.ids['flag']}/variations" if "overrides" in body else "/segments"
    answer = raw(world, json.dumps(body).encode(), path=path)
    check_refusal(answer, 400, "invalid_body", "xxx")
    assert len(answer.content) < 5000


@pytest.mark.parametrize("type_", ["number", "array", "object"])
@pytest.mark.parametrize("value", [b"1e400", b"NaN", b"9223372036854775808", b'"\\u0000"', b"[" * 65 + b"]" * 65])
def test_a_value_of_any_type_is_held_to_the_same(world: World, type_: str, value: bytes) -> None:
    within = {"number": b"%b", "array": b"[%b]", "object": b'{"a": %b}'}[type_] % value
    check_refusal(raw(world, FLAG % (type_.encode(), within), path="/feature-flags"), 400, "invalid_body")


def test_what_is_just_within_the_limits_is_taken(unlimited: httpx.Client) -> None:
    def made(value: object, type_: str) -> Any:
        parameters = {"on": {"type": type_, "value": value}}
        flag = sent(unlimited, "POST", "/feature-flags", CREATE_FLAG | {"parameters": parameters}, status=201)
        sent(unlimited, "DELETE", f"/feature-flags/{flag['id']}", status=204)
        return flag["parameters"]["on"]["value"]

    for number in (2**63 - 1, -(2**63), 1.7976931348623157e308, 5e-324, 1e300):
        assert made(number, "number") == number
    deep: Any = []
    # The body, its parameters and the parameter are levels too.
    for _ in range(60):
        deep = [deep]
    assert made(deep, "array") == deep
    assert made("x" * 1022, "string") == "x" * 1022
    text = "\U0001f408\x01\x7f\u2028\ufeff"
    assert made(text, "string") == text


def test_an_archived_experiment_outlives_its_flag(unlimited: httpx.Client) -> None:
    flag = make_flag(unlimited, variations=2, active=True)
    experiment = make_experiment(unlimited, flag, status="archived")
    path = f"/experiments/{experiment['id']}"
    sent(unlimited, "DELETE", f"/feature-flags/{flag['id']}", status=204)
    kept = sent(unlimited, "GET", path)
    assert sent(unlimited, "POST", f"{path}/status", {"status": "archived"}) == kept
    assert sent(unlimited, "PATCH", path, {"status": "archived"}) == kept
    blockers = sent(unlimited, "POST", f"{path}/validate")["errors"]
    assert [blocker["code"] for blocker in blockers] == ["feature_flag_not_active", *2 * ["variation_not_from_flag"]]
    for method, where, body, code, words in [
        ("PATCH", path, {"name": "renamed"}, "field_not_editable", "name|archived"),
        ("POST", f"{path}/status", {"status": "active"}, "invalid_status_transition", "archived|final"),
        ("POST", f"{path}/rollout", {"variation_id": flag["variations"][0]["id"]}, "invalid_body", "variation_id"),
    ]:
        check_refusal(unlimited.request(method, where, json=body), 400, code, words)
    assert sent(unlimited, "GET", path) == kept


@pytest.mark.parametrize("size", [1_000_001, 5_000_000])
def test_a_body_over_a_megabyte_is_refused_by_its_length_and_in_chunks(world: World, size: int) -> None:
    before = world.fingerprint("")
    body = json.dumps(CREATE_SEGMENT).encode().ljust(size)
    check_refusal(raw(world, body), 413, "body_too_large", "1 MB")
    chunks = (body[start : start + 50_000] for start in range(0, size, 50_000))
    check_refusal(raw(world, chunks), 413, "body_too_large", "1 MB")
    assert world.fingerprint("") == before


def test_a_body_of_just_a_megabyte_is_read_whole_and_in_chunks(world: World) -> None:
    body = json.dumps(CREATE_SEGMENT | {"name": "ab"}).encode().ljust(1_000_000)
    chunks = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    for content in (body, chunks):
        check_refusal(raw(world, content), 400, "invalid_body", "name|length >= 3")


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", "json"],
)
def test_a_body_that_is_not_said_to_be_json_is_refused(world: World, content_type: str | None) -> None:
    before = world.fingerprint("")
    body = json.dumps(CREATE_SEGMENT).encode()
    check_refusal(raw(world, body, content_type=content_type), 415, "unsupported_media_type", JSON)
    assert world.fingerprint("") == before


def test_a_compressed_body_is_refused_by_its_encoding(world: World) -> None:
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    answer = world.client.post("/segments", content=gzip.compress(json.dumps(CREATE_SEGMENT).encode()), headers=headers)
    check_refusal(answer, 415, "unsupported_media_type", "Content-Encoding|gzip|as it is")


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_json_may_be_declared_in_any_of_its_spellings(world: World, content_type: str) -> None:
    body = json.dumps(CREATE_SEGMENT | {"name": "ab"}).encode()
    check_refusal(raw(world, body, content_type=content_type), 400, "invalid_body", "name")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json"])
def test_a_post_without_a_body_needs_no_content_type(world: World, content_type: str | None) -> None:
    answer = raw(world, b"", path=f"/experiments/{world.ids['draft']}/validate", content_type=content_type)
    assert (answer.status_code, answer.json()["is_valid"]) == (200, True)


METHODS = {
    "/experiments": "GET, POST",
    "/experiments/exp_1": "DELETE, GET, PATCH",
    "/experiments/exp_1/status": "POST",
    "/experiments/exp_1/validate": "POST",
    "/experiments/exp_1/advance-ramp": "POST",
    "/experiments/exp_1/rollout": "POST",
    "/experiments/exp_1/history": "GET",
    "/experiments/exp_1/analysis": "GET, PUT",
    "/experiments/exp_1/results": "GET",
    "/feature-flags": "GET, POST",
    "/feature-flags/flg_1": "DELETE, GET, PATCH",
    "/feature-flags/flg_1/status": "POST",
    "/feature-flags/flg_1/variations": "GET, POST",
    "/feature-flags/flg_1/variations/var_1": "DELETE, GET, PATCH",
    "/segments": "GET, POST",
    "/segments/seg_1": "DELETE, GET, PATCH",
    "/metrics": "GET, POST",
    "/metrics/met_1": "DELETE, GET, PATCH",
    "/history": "GET",
}


@pytest.mark.parametrize(("path", "allowed"), METHODS.items())
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "HEAD", "TRACE"])
def test_a_path_says_which_methods_it_knows(world: World, path: str, allowed: str, method: str) -> None:
    if method in allowed:
        return
    answer = world.client.request(method, path)
    assert sorted(answer.headers["allow"].split(", ")) == allowed.split(", ")
    check_rate_limit(answer)
    if method == "HEAD":
        assert (answer.status_code, answer.content) == (405, b"")
    else:
        check_refusal(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["", "/", "/nothing", "/experiments/exp_1/nothing", "//experiments", "/Experiments"])
def test_a_path_that_is_not_there_is_said_to_be_so(world: World, path: str) -> None:
    check_refusal(world.client.get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["/nothing", "/nothing/at/all", "/api/v2/", "/oauth", "/docs.json"])
def test_so_it_is_outside_the_group(server: Server, path: str) -> None:
    answer = httpx.get(server.url + path)
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "not_found")


@pytest.mark.parametrize(
    "path",
    ["/experiments/{0}", "/feature-flags/{0}", "/feature-flags/{1}/variations/{0}", "/segments/{0}", "/metrics/{0}"],
)
@pytest.mark.parametrize("id", ["exp_1", "nonsense", "%00", "x" * 3000])
def test_deleting_what_is_not_there_is_no_error_and_no_change(world: World, path: str, id: str) -> None:
    before = world.fingerprint("")
    assert sent(world.client, "DELETE", path.format(id, world.ids["flag"]), status=204) is None
    assert world.fingerprint("") == before


SCOPES = {"GET": "read", "POST": "create", "PATCH": "update", "DELETE": "delete"}


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        *(
            (method, path, SCOPES[method])
            for path in METHODS
            for method in METHODS[path].split(", ")
            if "_1/" not in path
        ),
        ("POST", "/experiments/exp_1/status", "update"),
        ("POST", "/experiments/exp_1/validate", "read"),
        ("POST", "/experiments/exp_1/advance-ramp", "update"),
        ("POST", "/experiments/exp_1/rollout", "update"),
        ("GET", "/experiments/exp_1/history", "read"),
        ("GET", "/experiments/exp_1/analysis", "read"),
        ("GET", "/experiments/exp_1/results", "read"),
        ("PUT", "/experiments/exp_1/analysis", "update"),
        ("POST", "/feature-flags/flg_1/status", "update"),
        ("GET", "/feature-flags/flg_1/variations", "read"),
        ("POST", "/feature-flags/flg_1/variations", "create"),
        ("GET", "/feature-flags/flg_1/variations/var_1", "read"),
        ("PATCH", "/feature-flags/flg_1/variations/var_1", "update"),
        ("DELETE", "/feature-flags/flg_1/variations/var_1", "delete"),
    ],
)
def test_every_operation_asks_for_its_scope(server: Server, method: str, path: str, scope: str) -> None:
    others = " ".join(f"{each}:experimentation" for each in SCOPES.values() if each != scope)
    with server.client(others) as client:
        answer = client.request(method, path)
    check_refusal(answer, 403, "insufficient_scope", f"{scope}:experimentation")
    assert f'scope="{scope}:experimentation"' in answer.headers["www-authenticate"]
    with server.client(f"{scope}:experimentation") as client:
        assert client.request(method, path).status_code != 403


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer x", "Bearer a.b.c", "Basic eDp5", "bearer\tx", "{token}x", "x"],
)
def test_without_a_valid_token_nothing_is_told(server: Server, authorization: str | None) -> None:
    headers = {}
    if authorization is not None:
        headers["Authorization"] = authorization.replace("{token}", f"Bearer {server.token()}")
    for path in ("/experiments", "/experiments/exp_1", "/segments?take=0"):
        answer = httpx.get(server.url + API + path, headers=headers)
        check_refusal(answer, 401, "invalid_token")
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_past_the_rate_limit_a_token_waits_for_the_next_second(start_server: StartServer) -> None:
    limited = start_server(environment={"ABGATE_RATE_LIMIT": "3"})
    with limited.client() as one, limited.client("read:experimentation") as other:
        left = 0
        # A second may end at any time, so it takes some requests until a fourth comes within one.
        for _ in range(500):
            answer = one.get("/segments")
            assert answer.headers["x-ratelimit-limit"] == "3"
            if answer.status_code != 200:
                break
            assert int(answer.headers["x-ratelimit-remaining"]) in {left - 1, 2}
            left = int(answer.headers["x-ratelimit-remaining"])
        check_refusal(answer, 429, "too_many_requests")
        assert left == 0
        assert (answer.headers["retry-after"], answer.headers["x-ratelimit-remaining"]) == ("1", "0")
        # Another token has its own.
        assert other.get("/segments").status_code == 200
        time.sleep(1.1)
        assert one.get("/segments").status_code == 200


def test_a_token_has_one_limit_however_its_header_is_spelt(start_server: StartServer) -> None:
    limited = start_server(environment={"ABGATE_RATE_LIMIT": "3"})
    with httpx.Client() as client:
        # As above, it takes some requests until a fourth comes within one second.
        for spaces in range(1, 200):
            headers = {"Authorization": f"{'Bearer' if spaces % 2 else 'bearer'}{spaces * ' '}{limited.token()}"}
            answer = client.get(f"{limited.url}{API}/segments", headers=headers)
            if answer.status_code != 200:
                break
    check_refusal(answer, 429, "too_many_requests")


def test_every_answer_says_what_is_left_and_when_it_is_all_back(start_server: StartServer) -> None:
    requests = [
        ("GET", "/segments"),
        ("GET", "/segments?take=0"),
        ("GET", "/segments/seg_1"),
        ("GET", "/nothing"),
        ("PUT", "/segments"),
        ("POST", "/segments"),
        ("DELETE", "/segments/seg_1"),
    ]
    with start_server().client() as client:
        for method, path in requests:
            before, answer, after = time.time(), client.request(method, path), time.time()
            check_rate_limit(answer)
            assert answer.headers["x-ratelimit-limit"] == "1000"
            # Never more than a second ahead, and never past: auth0-python sleeps until then when it tries a 409 again.
            assert before <= int(answer.headers["x-ratelimit-reset"]) <= after + 1


def test_a_server_without_a_rate_limit_says_so_by_a_large_one(unlimited: httpx.Client) -> None:
    answers = [unlimited.get("/segments") for _ in range(50)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-ratelimit-remaining"] for answer in answers} == {"1000000"}
