import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from abgate.core.errors import InvalidInput, InvalidToken, Unavailable
from abgate.runtime.circuit import Circuit, fail_open

Logs = list[MutableMapping[str, Any]]


@pytest.fixture(autouse=True)
def logs() -> Iterator[Logs]:
    with capture_logs() as captured:
        yield captured


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def well() -> str:
    return "assigned"


def failing(error: BaseException) -> Callable[[], Awaitable[str]]:
    async def fail() -> str:
        raise error

    return fail


FAULT = failing(ZeroDivisionError("ours"))


def ask(circuit: Circuit, decide: Callable[[], Awaitable[str]] = well) -> str:
    return asyncio.run(fail_open(circuit, "resolve", decide, "without"))


def opened(clock: Clock) -> Circuit:
    circuit = Circuit(clock=clock)
    for _ in range(5):
        ask(circuit, FAULT)
    assert circuit.is_open
    return circuit


@pytest.mark.parametrize("error", [ZeroDivisionError(), TimeoutError(), Unavailable("away"), RecursionError()])
def test_a_fault_of_ours_costs_the_login_its_experiment_only(error: Exception, logs: Logs) -> None:
    assert ask(Circuit(), failing(error)) == "without"
    assert [(log["event"], log["log_level"], log["entry"]) for log in logs] == [
        ("experiment_fault", "warning", "resolve")
    ]


@pytest.mark.parametrize("refusal", [InvalidInput("flow", "is wrong"), InvalidToken("No token.")])
def test_what_the_caller_did_wrong_is_told_and_opens_nothing(refusal: Exception) -> None:
    circuit = Circuit()
    for _ in range(9):
        with pytest.raises(type(refusal)):
            ask(circuit, failing(refusal))
    assert not circuit.is_open


def test_five_faults_in_a_row_open_it_with_one_warning(logs: Logs) -> None:
    circuit = Circuit(clock=Clock())
    for _ in range(4):
        ask(circuit, FAULT)
    assert ask(circuit) == "assigned"
    for _ in range(4):
        ask(circuit, FAULT)
    assert not circuit.is_open
    ask(circuit, FAULT)
    assert circuit.is_open
    assert [ask(circuit) for _ in range(3)] == ["without"] * 3
    assert [log["event"] for log in logs].count("experiment_circuit_open") == 1


def test_five_faults_in_more_than_ten_seconds_do_not() -> None:
    clock = Clock()
    circuit = Circuit(clock=clock)
    for _ in range(9):
        ask(circuit, FAULT)
        clock.now += 2.6
    assert not circuit.is_open
    for _ in range(4):
        ask(circuit, FAULT)
    assert circuit.is_open


def test_after_five_seconds_one_request_tries_and_closes_it() -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 4.9
    assert ask(circuit) == "without"
    clock.now += 0.2

    async def both() -> tuple[str, str]:
        release = asyncio.Event()

        async def slow() -> str:
            await release.wait()
            return "tried"

        first = asyncio.create_task(fail_open(circuit, "resolve", slow, "without"))
        await asyncio.sleep(0)
        second = await fail_open(circuit, "resolve", well, "without")
        release.set()
        return await first, second

    assert asyncio.run(both()) == ("tried", "without")
    assert not circuit.is_open
    assert ask(circuit) == "assigned"


def test_when_that_one_fails_too_it_stays_open_for_five_more_seconds(logs: Logs) -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 5.1
    logs.clear()
    assert ask(circuit, FAULT) == "without"
    assert [log["event"] for log in logs] == ["experiment_fault", "experiment_circuit_open"]
    clock.now += 4.9
    assert ask(circuit) == "without"
    clock.now += 0.2
    assert ask(circuit) == "assigned"


@pytest.mark.parametrize("error", [InvalidToken("No token."), asyncio.CancelledError()])
def test_when_that_one_was_the_caller_s_mistake_the_next_one_tries(error: BaseException) -> None:
    clock = Clock()
    circuit = opened(clock)
    clock.now += 5.1
    with pytest.raises(type(error)):
        ask(circuit, failing(error))
    assert circuit.is_open
    assert ask(circuit) == "assigned"
    assert not circuit.is_open
