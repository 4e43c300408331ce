"""What Prometheus reads, from one server process and from several."""

import re

import httpx
import pytest

from abgate.runtime.metrics import PATH
from tests.runtime.test_explain import ASKED, call
from tests.runtime.test_snapshots import until
from tests.server import Server, StartServer


def value(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not in\n{text}"
    return float(found[1])


def told(server: Server) -> str:
    return httpx.get(server.url + PATH).text


@pytest.mark.parametrize("workers", [1, 2])
def test_it_counts_what_was_answered_by_every_process(start_server: StartServer, workers: int) -> None:
    server = start_server(workers=workers)
    for _ in range(20):
        assert call(server, "POST", "/runtime/v1/resolve", ASKED)["reason"] == "no_experiment"
    # One process writes at once what it counted when it is asked, and the others four times a second.
    until(lambda: value(told(server), 'abgate_request_seconds_count{entry="resolve"}') == 20)
    text = told(server)
    assert value(text, 'abgate_assignments_total{reason="no_experiment"}') == 20
    orphaned = ASKED | {"forced": {"variation_id": "var_unknown"}}
    call(server, "POST", "/runtime/v1/resolve", orphaned)
    assert "abgate_warnings_total{warning=" in told(server)
    assert "snapshot_checked_timestamp" in text
    assert "default" not in text
