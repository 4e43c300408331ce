"""A server of the first generation (ABGATE_API_GENERATION=1) answers as the OpenAPI document published for it says.

Requests and answers are both held against the document, so that what is shown is what its own clients do.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from tests.contract.things import by_segment, make_flag, make_segment, shares, unique
from tests.server import API, StartServer

PUBLISHED = json.loads((Path(__file__).parent / "published" / "experimentation-openapi-2026-06.json").read_text())
OPERATIONS = {
    (method.upper(), path): operation
    for path, operations in PUBLISHED["paths"].items()
    for method, operation in operations.items()
    if method in ("get", "post", "patch", "delete")
}
LATER_FIELDS = {
    "experiment": {
        *("feature_flag_name", "default_config", "feature_flag_snapshot", "levels", "current_level", "editable_fields"),
    },
    "allocation": {"variation_name", "segment_name", "variation_snapshot", "segment_snapshot"},
    "segment": {"status"},
    "feature flag": {"served_variation_id"},
}


class Contract:
    """Checks every exchange with the server against the published document, and remembers the operations."""

    def __init__(self) -> None:
        self.answered: set[tuple[str, str]] = set()

    def check(self, response: httpx.Response) -> None:
        request = response.request
        method, path = request.method, self._template(request.url.path)
        operation = OPERATIONS[method, path]
        documented = operation["responses"][str(response.status_code)]
        if response.status_code >= 400:
            return
        if request.content:
            self._validate(json.loads(request.content), operation["requestBody"]["content"]["application/json"])
        response.read()
        if documented.get("content"):
            assert response.headers["content-type"] == "application/json"
            self._validate(response.json(), documented["content"]["application/json"])
        else:
            assert not response.content
        self.answered.add((method, path))

    def _template(self, path: str) -> str:
        relative = path.removeprefix("/api/v2")
        [found] = {
            template for _, template in OPERATIONS if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), relative)
        }
        return found

    def _validate(self, value: object, content: dict[str, Any]) -> None:
        schema = content["schema"] | {"components": PUBLISHED["components"]}
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


@pytest.fixture(scope="module")
def first_generation(start_server: StartServer) -> Iterator[tuple[httpx.Client, Contract]]:
    server = start_server(environment={"ABGATE_API_GENERATION": "1"})
    contract = Contract()
    with server.client() as client:
        client.event_hooks["response"].append(contract.check)
        yield client, contract


@pytest.fixture
def client(first_generation: tuple[httpx.Client, Contract]) -> httpx.Client:
    return first_generation[0]


def test_the_published_document_is_held_to_with_formats() -> None:
    assert validator_for({"$schema": "https://json-schema.org/draft/2020-12/schema"}) is Draft202012Validator
    assert len(OPERATIONS) == 23
    checker = Draft202012Validator.FORMAT_CHECKER
    assert not checker.conforms("2026-01-02 03:04", "date-time")
    with pytest.raises(Exception, match="Additional properties"):
        Contract()._validate(
            {"is_valid": True, "errors": [], "more": 1},
            {"schema": {"$ref": "#/components/schemas/ValidateExperimentResponseContent"}},
        )


def ok(response: httpx.Response) -> Any:
    assert response.is_success, response.text
    return response.json() if response.content else None


def later_fields(value: object) -> set[str]:
    """Return every name of the second generation's fields that stands anywhere in an answer."""
    if isinstance(value, list):
        return {name for each in value for name in later_fields(each)}
    if not isinstance(value, dict):
        return set()
    later = set().union(*LATER_FIELDS.values()) - {"status"}
    return (value.keys() & later) | {name for each in value.values() for name in later_fields(each)}


def test_every_answer_of_all_23_operations_validates(first_generation: tuple[httpx.Client, Contract]) -> None:
    client, contract = first_generation
    answers: list[Any] = []
    flags_and_variations(client, answers)
    segments(client, answers)
    for description in (None, "What it is about"):
        experiments_in_every_status(client, answers, description, "percentage")
        experiments_in_every_status(client, answers, description, "segment")
    lists(client, answers)
    assert contract.answered == OPERATIONS.keys()
    assert later_fields(answers) == set()


def flags_and_variations(client: httpx.Client, answers: list[Any]) -> None:
    values = {"string": "x", "boolean": True, "number": 1.5, "array": [1, "a", None], "object": {"a": {"b": []}}}
    parameters = {f"a_{type_}": {"type": type_, "value": value} for type_, value in values.items()}
    parameters["a_string"]["description"] = "A text"
    flag = ok(client.post("/feature-flags", json={"name": unique("flag"), "parameters": parameters}))
    path = f"/feature-flags/{flag['id']}"
    answers += [flag, ok(client.get(path))]
    body = {"name": "control", "overrides": {}}
    control = ok(client.post(f"{path}/variations", json=body))
    body = {"name": "treatment", "description": "On by default", "overrides": {"a_number": {"value": 2}}}
    treatment = ok(client.post(f"{path}/variations", json=body))
    answers += [control, treatment, ok(client.get(f"{path}/variations"))]
    answers.append(ok(client.patch(f"{path}/variations/{control['id']}", json={"name": "renamed"})))
    answers.append(ok(client.get(f"{path}/variations/{control['id']}")))
    answers.append(ok(client.patch(path, json={"name": unique("flag"), "description": "Described"})))
    for status in ("active", "active", "archived"):
        answers.append(ok(client.post(f"{path}/status", json={"status": status})))
        answers.append(ok(client.get(path)))
    ok(client.delete(f"{path}/variations/{treatment['id']}"))
    ok(client.delete(path))


def segments(client: httpx.Client, answers: list[Any]) -> None:
    rules = [
        {"match": {"country": ["FR"], "browser": {"contains": ["Chr"]}}, "not_match": {"platform": {"exists": True}}},
        {"match": {"domain": {"starts_with": ["a"]}, "region": {"ends_with": ["z"]}}},
    ]
    segment = ok(client.post("/segments", json={"name": unique("segment"), "rules": rules}))
    described = {"name": unique("segment"), "description": "Described", "rules": rules[:1]}
    answers += [segment, ok(client.post("/segments", json=described))]
    assert segment["rules"] == rules
    answers.append(
        ok(client.patch(f"/segments/{segment['id']}", json={"rules": rules[1:], "description": "Now it is"}))
    )
    answers.append(ok(client.get(f"/segments/{segment['id']}")))
    ok(client.delete(f"/segments/{segment['id']}"))


def experiments_in_every_status(
    client: httpx.Client, answers: list[Any], description: str | None, strategy: str
) -> None:
    flag = make_flag(client, variations=2, active=True)
    allocations = shares(flag, 70, 30) if strategy == "percentage" else by_segment(flag, make_segment(client))
    body = {
        "name": unique("experiment"),
        "feature_flag_id": flag["id"],
        "authentication_flow": unique("login").replace("-", "_"),
        "allocation_strategy": strategy,
        "assignment_config": {"subject": "device"},
        "allocations": allocations,
    }
    if description is not None:
        body["description"] = description
    created = ok(client.post("/experiments", json=body))
    path = f"/experiments/{created['id']}"
    assert created["assignment_config"] == {"subject": "device"}
    assert created["allocations"] == allocations
    assert created.get("description") == description
    answers.append(created)
    for status in ("draft", "active", "paused", "active", "completed", "archived"):
        if status != "draft":
            answers.append(ok(client.post(f"{path}/status", json={"status": status})))
        answers += [ok(client.get(path)), ok(client.post(f"{path}/validate"))]
        if status != "archived":
            answers.append(ok(client.patch(path, json={"name": unique("experiment")})))
        assert answers[-1].get("status", status) == status
    draft = ok(client.post("/experiments", json=body | {"name": unique("experiment")}))
    not_ready = {"allocations": [allocations[0] | {"is_control": False}], "assignment_config": {"subject": "device"}}
    answers.append(ok(client.patch(f"/experiments/{draft['id']}", json=not_ready)))
    readiness = ok(client.post(f"/experiments/{draft['id']}/validate"))
    assert not readiness["is_valid"]
    assert readiness["errors"]
    answers.append(readiness)
    answers.append(ok(client.patch(f"/experiments/{draft['id']}", json={"description": None})))
    answers.append(ok(client.post(f"/experiments/{draft['id']}/status", json={"status": "archived"})))
    ok(client.delete(f"/experiments/{draft['id']}"))


def lists(client: httpx.Client, answers: list[Any]) -> None:
    flag = make_flag(client, variations=2)
    for status in ("draft", "active", "paused", "completed", "archived"):
        answers.append(ok(client.get("/experiments", params={"status": status, "take": 2})))
    answers.append(ok(client.get("/experiments", params={"feature_flag_id": flag["id"]})))
    for resource in ("experiments", "feature-flags", "segments"):
        first = ok(client.get(f"/{resource}", params={"take": 1}))
        answers.append(first)
        if "next" in first:
            answers.append(ok(client.get(f"/{resource}", params={"take": 50, "from": first["next"]})))
    for status in ("draft", "active", "archived"):
        answers.append(ok(client.get("/feature-flags", params={"status": status})))


def test_what_the_second_generation_sends_is_accepted_and_not_told(first_generation: Any) -> None:
    # Without the check of requests, since these are not the first generation's.
    with httpx.Client(base_url=first_generation[0].base_url, headers=first_generation[0].headers) as client:
        flag = make_flag(client, variations=2, active=True)
        body = {
            "name": unique("experiment"),
            "feature_flag_id": flag["id"],
            "authentication_flow": unique("login").replace("-", "_"),
            "levels": [5, 100],
        }
        path = f"/experiments/{ok(client.post('/experiments', json=body))['id']}"
        activated = ok(client.patch(path, json={"allocations": shares(flag, 50, 50), "status": "active"}))
        assert later_fields(activated) == set()
        assert ok(client.post(f"{path}/advance-ramp", json={"target_level": 100}))["from_level"] == 5
        assert later_fields(ok(client.get(path))) == set()
        segment = make_segment(client)
        archived = ok(client.patch(f"/segments/{segment['id']}", json={"status": "archived"}))
        assert "status" not in archived


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/history"), ("GET", "/experiments/{id}/history"), ("POST", "/experiments/{id}/rollout")],
)
def test_what_is_ours_is_not_there(first_generation: Any, method: str, path: str) -> None:
    known = first_generation[0]
    with httpx.Client(base_url=known.base_url, headers=known.headers) as client:
        answer = client.request(method, path.format(id="exp_1"), json={"variation_id": "var_1"})
        documented = client.get(f"{str(known.base_url).removesuffix(API + '/')}/openapi.json").json()["paths"]
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "not_found")
    assert API + path not in documented
