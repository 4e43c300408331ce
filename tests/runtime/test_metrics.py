"""What Prometheus reads, from one server process and from several."""

import os
import re
import signal
import time

import httpx
import pytest

from abgate.runtime.metrics import PATH
from tests.runtime.test_explain import ASKED, call
from tests.runtime.test_snapshots import until
from tests.server import Server, StartServer

CHECKED = "abgate_snapshot_checked_timestamp_seconds"


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
    assert value(text, CHECKED) > time.time() - 10
    assert "default" not in text


def test_what_a_process_that_was_killed_said_last_does_not_hold_for_ever(start_server: StartServer) -> None:
    server = start_server(workers=2)
    # Each process has files of its own; this one is of a process that answers.
    (kept, *_) = server.data.glob("abgate-*/gauge_livemin_*.db")
    os.kill(int(kept.stem.rpartition("_")[2]), signal.SIGKILL)
    killed = time.time()
    until(lambda: value(told(server), CHECKED) > killed)
