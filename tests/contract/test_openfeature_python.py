"""openfeature-provider-ofrep 0.3, unmodified, over HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

from tests.scenarios import SCENARIOS, Scenario, make_key, make_scenarios
from tests.server import Server, StartServer


@pytest.fixture(scope="module")
def prepared(start_server: StartServer) -> Server:
    server = start_server()
    make_scenarios(server)
    return server


@pytest.fixture(scope="module", params=["token", "server key", "client key"])
def client(request: pytest.FixtureRequest, prepared: Server) -> Iterator[OpenFeatureClient]:
    kind = request.param.partition(" ")[0]
    key = prepared.token("evaluate:experimentation") if kind == "token" else make_key(prepared, kind)
    yield connected(prepared, key)
    api.shutdown()


def connected(server: Server, key: str) -> OpenFeatureClient:
    provider = OFREPProvider(server.url, headers_factory=lambda: {"Authorization": f"Bearer {key}"})
    api.set_provider(provider)
    return api.get_client()


def evaluated(client: OpenFeatureClient, asked: Scenario) -> Any:
    attributes = {name: value for name, value in asked.context.items() if name != "targetingKey"}
    context = EvaluationContext(asked.context.get("targetingKey"), attributes)
    ask = {
        "boolean": client.get_boolean_details,
        "string": client.get_string_details,
        "number": client.get_float_details,
        "object": client.get_object_details,
    }[asked.type]
    return ask(asked.key, asked.default, context)


@pytest.mark.parametrize("asked", SCENARIOS)
def test_evaluates(client: OpenFeatureClient, asked: Scenario) -> None:
    details = evaluated(client, asked)
    assert (details.value, details.reason, details.error_code) == (asked.value, asked.reason, asked.error)
    if asked.error is None:
        assert details.variant == asked.variant
        assert (set(details.flag_metadata) == {"experiment_id", "variation_id", "is_control"}) == (
            asked.reason in ("SPLIT", "TARGETING_MATCH")
        )


def test_numbers_are_floats(client: OpenFeatureClient) -> None:
    # This provider takes only one of the two for a number, and OFREP tells them apart no more than JSON does.
    details = client.get_integer_details("banner/attempts", 9, EvaluationContext("device-1"))
    assert (details.value, details.error_code) == (9, "TYPE_MISMATCH")


def test_without_a_key_the_default_is_given(prepared: Server) -> None:
    details = evaluated(connected(prepared, "abk_unknown"), SCENARIOS[0])
    assert (details.value, details.reason) == ("?", "ERROR")
    api.shutdown()
