"""The provider in process says what every OFREP client says."""

import threading
from collections.abc import Iterator

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ProviderNotReadyError
from openfeature.provider import ProviderStatus

from abgate.client import Client
from abgate.client.openfeature import AbgateProvider
from tests.contract.test_openfeature_python import evaluated
from tests.contract.things import make_flag
from tests.scenarios import SCENARIOS, Scenario, make_key, make_scenarios
from tests.server import Server, StartServer


@pytest.fixture(scope="module")
def prepared(start_server: StartServer) -> tuple[Server, str]:
    server = start_server()
    make_scenarios(server)
    key = make_key(server, "server")
    return server.restart(), key


@pytest.fixture(scope="module")
def openfeature(prepared: tuple[Server, str]) -> Iterator[OpenFeatureClient]:
    with Client(*_address(prepared)) as client:
        api.set_provider_and_wait(AbgateProvider(client))
        yield api.get_client()
        api.shutdown()


def _address(prepared: tuple[Server, str]) -> tuple[str, str]:
    server, key = prepared
    return server.url, key


@pytest.mark.parametrize("asked", SCENARIOS)
def test_evaluates(openfeature: OpenFeatureClient, asked: Scenario) -> None:
    details = evaluated(openfeature, asked)
    assert (details.value, details.reason, details.error_code) == (asked.value, asked.reason, asked.error)
    if asked.error is None:
        assert details.variant == asked.variant


def test_integers_are_whole_numbers(openfeature: OpenFeatureClient) -> None:
    context = EvaluationContext("device-1")
    assert openfeature.get_integer_value("banner/attempts", 9, context) == 5
    assert openfeature.get_integer_details("banner/ratio", 9, context).error_code == "TYPE_MISMATCH"


def test_changes_are_told(openfeature: OpenFeatureClient, prepared: tuple[Server, str]) -> None:
    told = threading.Event()
    openfeature.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, lambda _details: told.set())
    with prepared[0].client() as client:
        make_flag(client)
    assert told.wait(5)


def test_without_a_snapshot_defaults_are_given() -> None:
    with Client("http://127.0.0.1:9", "abk_x") as client:
        api.set_provider(AbgateProvider(client, ready_s=0.05), domain="away")
        details = api.get_client("away").get_string_details("banner/title", "?", EvaluationContext("d"))
        assert (details.value, details.error_code) == ("?", "PROVIDER_NOT_READY")


def test_a_provider_whose_first_snapshot_comes_late_is_ready_then(prepared: tuple[Server, str]) -> None:
    server = prepared[0]
    server.kill()
    ready = threading.Event()
    with Client(*_address(prepared), poll_s=0.1) as client:
        away = api.get_client("late")
        away.add_handler(ProviderEvent.PROVIDER_READY, lambda _details: ready.set())
        with pytest.raises(ProviderNotReadyError):
            api.set_provider_and_wait(AbgateProvider(client, ready_s=0.05), domain="late")
        ready.clear()
        server.start()
        assert ready.wait(10)
        assert away.get_provider_status() == ProviderStatus.READY
