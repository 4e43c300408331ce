"""auth0-python 6.8, unmodified, over real HTTP: synchronous and asynchronous, over http and over https.

The whole lifecycle is one story, told to each of the four clients. It is written with ``await``; `Awaitable` lets the
synchronous clients hear it too.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
from auth0.management import AsyncAuth0, AsyncManagementClient, Auth0, ManagementClient
from auth0.management.errors import (
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TooManyRequestsError,
    UnauthorizedError,
)
from auth0.management.types import (
    AllocationRequestItem,
    FeatureFlagConfigParam,
    SegmentContainsExpression,
    SegmentExistsExpression,
    SegmentMatchConditions,
    SegmentNotMatchConditions,
    SegmentRule,
    SegmentStartsWithExpression,
)

from tests.contract.things import unique
from tests.server import Server, StartServer

ALL_SCOPES = " ".join(f"{action}:experimentation" for action in ("read", "create", "update", "delete"))
UNKNOWN = "exp_" + 22 * "1"


class Awaitable:
    """A synchronous client whose methods can be awaited."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return Awaitable(found)

        async def call(*arguments: Any, **named: Any) -> Any:
            return found(*arguments, **named)

        return call


class Traffic:
    """What went over the wire. Both clients sleep only before they try again, and then there is one more request."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.statuses: list[int] = []

    def hooks(self) -> dict[str, list[Callable[..., Any]]]:
        return {"request": [self._requested], "response": [self._answered]}

    def async_hooks(self) -> dict[str, list[Callable[..., Any]]]:
        async def requested(request: httpx.Request) -> None:
            self._requested(request)

        async def answered(response: httpx.Response) -> None:
            self._answered(response)

        return {"request": [requested], "response": [answered]}

    def _requested(self, request: httpx.Request) -> None:
        self.requests[request.method] += 1

    def _answered(self, response: httpx.Response) -> None:
        self.statuses.append(response.status_code)


@pytest.fixture(scope="module")
def tls_server(start_server: StartServer) -> Server:
    return start_server(tls=True)


@asynccontextmanager
async def opened(kind: str, server: Server, tls_server: Server, traffic: Traffic) -> AsyncIterator[Any]:
    """Give the experimentation group of one of the published clients."""
    base_url = f"{server.url}/api/v2"
    if kind == "Auth0":
        with httpx.Client(event_hooks=traffic.hooks()) as http:
            yield Awaitable(Auth0(base_url=base_url, token=server.token(), httpx_client=http).experimentation)
    elif kind == "AsyncAuth0":
        async with httpx.AsyncClient(event_hooks=traffic.async_hooks()) as async_http:
            yield AsyncAuth0(base_url=base_url, token=server.token(), httpx_client=async_http).experimentation
    else:
        id, secret = tls_server.create_client(ALL_SCOPES)
        named: dict[str, Any] = {"domain": tls_server.domain, "client_id": id, "client_secret": secret}
        if kind == "ManagementClient":
            with httpx.Client(event_hooks=traffic.hooks()) as http:
                yield Awaitable(ManagementClient(**named, httpx_client=http).experimentation)
        else:
            async with httpx.AsyncClient(event_hooks=traffic.async_hooks()) as async_http:
                yield AsyncManagementClient(**named, httpx_client=async_http).experimentation


def plain(answer: Any) -> dict[str, Any]:
    """Return an answer's fields: the clients have a class of its own for the same thing in every operation's answer."""
    fields: dict[str, Any] = answer.model_dump()
    return fields


async def items(pager: Any) -> list[Any]:
    return [item async for item in pager] if hasattr(pager, "__aiter__") else list(pager)


async def pages(pager: Any) -> list[list[Any]]:
    if hasattr(pager, "__aiter__"):
        return [page.items async for page in pager.iter_pages()]
    return [page.items for page in pager.iter_pages()]


@pytest.mark.parametrize("kind", ["Auth0", "AsyncAuth0", "ManagementClient", "AsyncManagementClient"])
def test_the_whole_lifecycle_at_full_speed(
    kind: str, server: Server, tls_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How httpx, which these clients are built on, is told of one more CA.
    monkeypatch.setenv("SSL_CERT_FILE", tls_server.ca_file)
    traffic = Traffic()

    async def run() -> None:
        async with opened(kind, server, tls_server, traffic) as api:
            await tell(api)

    asyncio.run(run())
    # Nothing was tried again: the clients do so after 408, 409, 429, 5xx and a broken connection, and sleep only then.
    assert set(traffic.statuses) <= {200, 201, 204}
    assert traffic.requests.total() == len(traffic.statuses)
    assert {"GET", "POST", "PATCH", "DELETE"} == traffic.requests.keys()


async def tell(api: Any) -> None:
    flag, control, treatment = await a_flag_with_every_type(api)
    country, phones = await segments_of_both_forms(api)
    await an_experiment_by_percentage(api, flag, control, treatment)
    await an_experiment_by_segment(api, flag, control, treatment, country, phones)
    await pages_and_filters(api, flag)
    await deletions(api)


async def a_flag_with_every_type(api: Any) -> tuple[Any, Any, Any]:
    values = {
        "text": ("string", "off"),
        "enabled": ("boolean", False),
        "seconds": ("number", 1.5),
        "steps": ("array", ["password", 1, None]),
        "theme": ("object", {"colour": {"dark": True}}),
    }
    flag = await api.feature_flags.create(
        name=unique("flag"),
        description="Every type of parameter",
        parameters={
            name: FeatureFlagConfigParam(type=type_, value=value, description=f"A {type_}")
            for name, (type_, value) in values.items()
        },
    )
    assert (flag.type, flag.status, flag.description) == ("self", "draft", "Every type of parameter")
    assert {name: (each.type, each.value) for name, each in flag.parameters.items()} == values
    assert flag.parameters["text"].description == "A string"

    control = await api.feature_flags.variations.create(flag.id, name="control", overrides={})
    overrides = {
        "text": {"value": "on"},
        "enabled": {"value": True},
        "seconds": {"value": 2},
        "steps": {"value": []},
        "theme": {"value": {"colour": {"dark": False}}},
    }
    treatment = await api.feature_flags.variations.create(
        flag.id, name="treatment", overrides=overrides, description="Everything on"
    )
    assert treatment.feature_flag_id == flag.id
    assert treatment.overrides == overrides
    third = await api.feature_flags.variations.create(flag.id, name="third", overrides={"text": {"value": "maybe"}})
    changed = await api.feature_flags.variations.update(
        flag.id, third.id, name="third, renamed", overrides={"seconds": {"value": 3}}
    )
    assert plain(await api.feature_flags.variations.get(flag.id, third.id)) == plain(changed)
    assert (changed.name, changed.overrides) == ("third, renamed", {"seconds": {"value": 3}})
    listed = await api.feature_flags.variations.list(flag.id)
    assert [variation.id for variation in listed.variations] == [control.id, treatment.id, third.id]
    await api.feature_flags.variations.delete(flag.id, third.id)
    assert len((await api.feature_flags.variations.list(flag.id)).variations) == 2

    # Several edits and the status in one request.
    flag = await api.feature_flags.update(flag.id, name=flag.name + "!", description="Changed", status="active")
    assert plain(await api.feature_flags.get(flag.id)) == plain(flag)
    assert (flag.name[-1], flag.description, flag.status) == ("!", "Changed", "active")
    return flag, control, treatment


async def segments_of_both_forms(api: Any) -> tuple[Any, Any]:
    country = await api.segments.create(
        name=unique("country"),
        rules=[
            SegmentRule(
                match=SegmentMatchConditions(
                    country=["FR", "CH"],
                    browser=SegmentStartsWithExpression(starts_with=["Chrome"]),
                    user_agent=SegmentContainsExpression(contains=["Mobile", "Tablet"]),
                ),
                not_match=SegmentNotMatchConditions(organization_id=SegmentExistsExpression(exists=True)),
            ),
            SegmentRule(not_match=SegmentNotMatchConditions(region=["IDF"])),
        ],
    )
    assert (country.type, country.status) == ("self", "active")
    assert country.rules[0].match.country == ["FR", "CH"]
    assert country.rules[0].match.browser.starts_with == ["Chrome"]
    assert country.rules[0].not_match.organization_id.exists is True
    assert country.rules[1].match is None
    # The other published form; it comes back in the canonical one.
    conditions = [
        {"attribute": "device_type", "operator": "equals", "value": "mobile"},
        {"attribute": "country", "operator": "not_in", "value": ["FR"]},
    ]
    phones = await api.segments.create(
        name=unique("phones"),
        rules=[],
        request_options={"additional_body_parameters": {"rules": [{"match_type": "all", "conditions": conditions}]}},
    )
    assert phones.rules == [
        SegmentRule(
            match=SegmentMatchConditions(device_type=["mobile"]), not_match=SegmentNotMatchConditions(country=["FR"])
        )
    ]
    phones = await api.segments.update(phones.id, name=phones.name + "!", rules=[SegmentRule(match=country_is("DE"))])
    assert plain(await api.segments.get(phones.id)) == plain(phones)
    assert phones.rules == [SegmentRule(match=country_is("DE"))]
    return country, phones


def country_is(*countries: str) -> SegmentMatchConditions:
    return SegmentMatchConditions(country=list(countries))


async def an_experiment_by_percentage(api: Any, flag: Any, control: Any, treatment: Any) -> None:
    flow = unique("flow").replace("-", "_")
    experiment = await api.experiments.create(name=unique("shares"), feature_flag_id=flag.id, authentication_flow=flow)
    assert (experiment.status, experiment.is_valid, experiment.allocations) == ("draft", False, [])
    assert (experiment.allocation_strategy, experiment.feature_flag_name) == ("percentage", flag.name)
    assert (experiment.levels, experiment.current_level, experiment.started_at) == (None, None, None)
    assert set(experiment.editable_fields) == {
        "name", "description", "authentication_flow", "assignment_config", "allocations", "levels", "status",
    }  # fmt: skip
    readiness = await api.experiments.validate(experiment.id)
    assert not readiness.is_valid
    assert [error.code for error in readiness.errors] == [
        "experiment_missing_allocations",
        "experiment_missing_control",
        "experiment_invalid_allocation_weights",
    ]

    # Several edits and the activation in one request.
    experiment = await api.experiments.update(
        experiment.id,
        name=experiment.name + "!",
        description="Half and half",
        allocations=[
            AllocationRequestItem(variation_id=control.id, weight=50, is_control=True),
            AllocationRequestItem(variation_id=treatment.id, weight=50, is_control=False),
        ],
        levels=[5, 25, 100],
        status="active",
    )
    assert (experiment.status, experiment.is_valid, experiment.name[-1]) == ("active", True, "!")
    assert (experiment.levels, experiment.current_level) == ([5, 25, 100], 5)
    assert experiment.started_at == experiment.updated_at
    assert experiment.editable_fields == ["name", "description", "status"]
    assert experiment.feature_flag_snapshot["name"] == flag.name
    assert experiment.feature_flag_snapshot["parameters"].keys() == flag.parameters.keys()
    assert [(item.variation_name, item.weight, item.is_control) for item in experiment.allocations] == [
        ("control", 50, True),
        ("treatment", 50, False),
    ]
    assert experiment.allocations[1].variation_snapshot == {
        "id": treatment.id,
        "name": "treatment",
        "overrides": treatment.overrides,
    }
    assert (await api.experiments.validate(experiment.id)).is_valid

    step = await api.experiments.advance_ramp(experiment.id, target_level=25)
    assert (step.from_level, step.to_level, step.current_level) == (5, 25, 25)
    again = await api.experiments.advance_ramp(experiment.id, target_level=25)
    assert (again.from_level, again.current_level) == (25, 25)

    paused = await api.experiments.update(experiment.id, status="paused")
    assert (paused.status, paused.current_level) == ("paused", 25)
    assert "allocations" in paused.editable_fields
    resumed = await api.experiments.update(
        experiment.id,
        allocations=[
            AllocationRequestItem(variation_id=control.id, weight=20, is_control=True),
            AllocationRequestItem(variation_id=treatment.id, weight=80, is_control=False),
        ],
        status="active",
    )
    assert [item.weight for item in resumed.allocations] == [20, 80]
    assert (resumed.started_at, resumed.current_level) == (experiment.started_at, 25)
    completed = await api.experiments.update(experiment.id, status="completed")
    assert completed.ended_at == completed.updated_at
    archived = await api.experiments.update(experiment.id, status="archived")
    assert (archived.status, archived.editable_fields) == ("archived", [])
    # A lost answer is asked for again.
    assert plain(await api.experiments.update(experiment.id, status="archived")) == plain(archived)


async def an_experiment_by_segment(
    api: Any, flag: Any, control: Any, treatment: Any, country: Any, phones: Any
) -> None:
    experiment = await api.experiments.create(
        name=unique("segments"),
        feature_flag_id=flag.id,
        authentication_flow=unique("flow").replace("-", "_"),
        allocation_strategy="segment",
        allocations=[
            AllocationRequestItem(variation_id=treatment.id, segment_id=phones.id, priority=2, is_control=False),
            AllocationRequestItem(variation_id=treatment.id, segment_id=country.id, priority=1, is_control=False),
            AllocationRequestItem(variation_id=control.id, is_fallback=True, is_control=True),
        ],
    )
    assert experiment.is_valid
    assert [(item.segment_name, item.priority, item.is_fallback) for item in experiment.allocations] == [
        (phones.name, 2, None),
        (country.name, 1, None),
        (None, None, True),
    ]
    active = await api.experiments.update(experiment.id, status="active")
    assert active.allocations[1].segment_snapshot["id"] == country.id
    assert active.allocations[1].segment_snapshot["rules"][0]["match"]["country"] == ["FR", "CH"]
    # Later edits of the segment do not reach what runs.
    await api.segments.update(country.id, name=unique("renamed"), rules=[SegmentRule(match=country_is("IT"))])
    running = await api.experiments.get(experiment.id)
    assert running.allocations[1].segment_snapshot == active.allocations[1].segment_snapshot
    assert running.allocations[1].segment_name.startswith("renamed")
    await api.experiments.update(experiment.id, status="completed")


async def pages_and_filters(api: Any, flag: Any) -> None:
    flow = unique("paging").replace("-", "_")
    made = [
        (await api.experiments.create(name=unique("page"), feature_flag_id=flag.id, authentication_flow=flow)).id
        for _ in range(7)
    ]
    newest_first = list(reversed(made))
    paged = await pages(await api.experiments.list(take=3, authentication_flow=flow))
    assert [[item.id for item in page] for page in paged] == [newest_first[:3], newest_first[3:6], newest_first[6:]]
    assert [item.id for item in await items(await api.experiments.list(take=2, authentication_flow=flow))] == (
        newest_first
    )
    ours = {item.id for item in await items(await api.experiments.list(feature_flag_id=flag.id))}
    assert ours >= set(made)
    assert {item.status for item in await items(await api.experiments.list(status="completed"))} == {"completed"}
    assert {item.status for item in await items(await api.experiments.list(status="archived"))} == {"archived"}
    assert "archived" not in {item.status for item in await items(await api.experiments.list())}
    assert flag.id in {item.id for item in await items(await api.feature_flags.list(take=1, status="active"))}
    assert flag.id not in {item.id for item in await items(await api.feature_flags.list(status="draft"))}
    assert await items(await api.feature_flags.list(type="auth0")) == []
    assert await items(await api.segments.list(type="auth0")) == []
    segments = await items(await api.segments.list(take=1, type="self"))
    assert len(segments) == len({segment.id for segment in segments}) >= 2


async def deletions(api: Any) -> None:
    parameters = {"on": FeatureFlagConfigParam(type="boolean", value=False)}
    flag = await api.feature_flags.create(name=unique("flag"), parameters=parameters)
    segment = await api.segments.create(name=unique("segment"), rules=[SegmentRule(match=country_is("FR"))])
    experiment = await api.experiments.create(
        name=unique("experiment"), feature_flag_id=flag.id, authentication_flow="authentication"
    )
    for resource, id in ((api.experiments, experiment.id), (api.feature_flags, flag.id), (api.segments, segment.id)):
        assert await resource.delete(id) is None
        # Idempotent.
        assert await resource.delete(id) is None


@contextmanager
def connected(server: Server, token: str | None = None) -> Iterator[Auth0]:
    """Give a client that raises at once what it would try again by default."""
    with httpx.Client() as http:
        yield Auth0(base_url=f"{server.url}/api/v2", token=token or server.token(), httpx_client=http, max_retries=0)


@pytest.fixture
def auth0(server: Server) -> Iterator[Auth0]:
    with connected(server) as client:
        yield client


def refused(error: type[Exception], call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[str, str]:
    """Return the code and the message of the refusal that the client raises as `error`."""
    with pytest.raises(error) as raised:
        call(*arguments, **named)
    body: dict[str, str] = raised.value.body  # type: ignore[attr-defined]  # every error of theirs has it
    return body["errorCode"], body["message"]


def test_a_broken_rule_is_a_bad_request_error(auth0: Auth0) -> None:
    code, message = refused(BadRequestError, auth0.experimentation.segments.create, name="ab", rules=[])
    assert code == "invalid_body"
    assert "name" in message
    code, _ = refused(BadRequestError, auth0.experimentation.experiments.list, take=51)
    assert code == "invalid_query_string"


@pytest.mark.parametrize("id", [UNKNOWN, "nonsense", "exp_%00"])
def test_an_unknown_id_is_a_not_found_error(auth0: Auth0, id: str) -> None:
    assert refused(NotFoundError, auth0.experimentation.experiments.get, id)[0] == "experiment_not_found"
    assert refused(NotFoundError, auth0.experimentation.feature_flags.get, id)[0] == "feature_flag_not_found"
    assert refused(NotFoundError, auth0.experimentation.segments.get, id)[0] == "segment_not_found"
    variations = auth0.experimentation.feature_flags.variations
    assert refused(NotFoundError, variations.list, id)[0] == "feature_flag_not_found"
    flag = auth0.experimentation.feature_flags.create(
        name=unique("flag"), parameters={"on": FeatureFlagConfigParam(type="boolean", value=False)}
    )
    assert refused(NotFoundError, variations.get, flag.id, id)[0] == "variation_not_found"


def test_a_taken_name_is_a_conflict_error(auth0: Auth0) -> None:
    rules = [SegmentRule(match=country_is("FR"))]
    taken = auth0.experimentation.segments.create(name=unique("segment"), rules=rules).name
    code, message = refused(ConflictError, auth0.experimentation.segments.create, name=taken, rules=rules)
    assert code == "name_conflict"
    assert taken in message


def test_a_conflict_costs_a_client_with_default_options_two_short_waits(server: Server) -> None:
    traffic = Traffic()
    with httpx.Client(event_hooks=traffic.hooks()) as http:
        api = Auth0(base_url=f"{server.url}/api/v2", token=server.token(), httpx_client=http).experimentation
        rules = [SegmentRule(match=country_is("FR"))]
        taken = api.segments.create(name=unique("segment"), rules=rules).name
        since = time.monotonic()
        refused(ConflictError, api.segments.create, name=taken, rules=rules)
        taken_s = time.monotonic() - since
    assert traffic.statuses == [201, 409, 409, 409]
    # Each wait lasts until X-RateLimit-Reset, which is at most a second ahead, and up to a fifth longer by the client's
    # own choice: 2.4 s together, and the rest is for a busy machine. A reset of a minute ahead would make it 120 s.
    assert taken_s < 10


def test_a_missing_scope_is_a_forbidden_error(server: Server) -> None:
    with connected(server, server.token("read:experimentation")) as reader:
        api = reader.experimentation
        list(api.segments.list())
        code, message = refused(ForbiddenError, api.segments.create, name="segment", rules=[])
        assert code == "insufficient_scope"
        assert "create:experimentation" in message
        assert refused(ForbiddenError, api.experiments.delete, UNKNOWN)[0] == "insufficient_scope"


def test_a_wrong_token_is_an_unauthorized_error(server: Server) -> None:
    for token in ("nonsense", server.token()[:-4] + "AAAA"):
        with connected(server, token) as stranger:
            assert refused(UnauthorizedError, stranger.experimentation.segments.list)[0] == "invalid_token"


def test_the_rate_limit_is_a_too_many_requests_error_which_the_client_waits_out(start_server: StartServer) -> None:
    limited = start_server(environment={"ABGATE_RATE_LIMIT": "1"})
    with connected(limited) as impatient:

        def ask() -> None:
            # At most one of these is the first of its second, unless the machine is very slow: then some more.
            for _ in range(20):
                impatient.experimentation.segments.list()

        assert refused(TooManyRequestsError, ask)[0] == "too_many_requests"
    traffic = Traffic()
    with httpx.Client(event_hooks=traffic.hooks()) as http:
        patient = Auth0(base_url=f"{limited.url}/api/v2", token=limited.token(), httpx_client=http)
        for _ in range(3):
            patient.experimentation.segments.list()
    # Refused in between, unless the machine took a second for each; and every call was answered in the end.
    assert Counter(traffic.statuses)[200] == 3
    assert set(traffic.statuses) <= {200, 429}
