"""A caller's trace goes on to whom the server asks on its behalf."""

from pathlib import Path

import httpx
import pytest

from tests.management.identity_server import AUDIENCE, running_identity_server
from tests.server import API, running_server

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ({"traceparent": TRACE}, (TRACE, None)),
        ({"traceparent": TRACE, "tracestate": "a=1"}, (TRACE, "a=1")),
        ({}, (None, None)),
        ({"traceparent": "00-none-of-it", "tracestate": "a=1"}, (None, None)),
    ],
)
def test_the_issuer_of_a_token_is_asked_within_the_trace(
    tmp_path: Path, given: dict[str, str], passed_on: tuple[str | None, str | None]
) -> None:
    with running_identity_server() as issuer:
        environment = {"ABGATE_TRUSTED_ISSUER": issuer.issuer, "ABGATE_TRUSTED_AUDIENCE": AUDIENCE}
        with running_server(tmp_path, environment=environment) as server:
            headers = {"Authorization": f"Bearer {issuer.token()}", **given}
            assert httpx.get(f"{server.url}{API}/experiments", headers=headers).status_code == 200
        assert issuer.traces == [passed_on] * 2
