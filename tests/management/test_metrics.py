"""Metrics and analyses over HTTP: a tenant's own beside the built-in ones, kept in the history, on both databases."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from abgate.core.built_in_metrics import BUILT_IN
from tests.contract.things import make_experiment, make_metric, sent
from tests.server import Server, on_both_databases

pytestmark = on_both_databases


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def listed(client: httpx.Client, take: int, query: str = "") -> list[str]:
    """The ids on every page, walked to the end."""
    page = sent(client, "GET", f"/metrics?take={take}{query}")
    ids = [metric["id"] for metric in page["metrics"]]
    while "next" in page:
        assert len(page["metrics"]) == take
        page = sent(client, "GET", f"/metrics?take={take}{query}&from={page['next']}")
        ids += [metric["id"] for metric in page["metrics"]]
    return ids


def test_the_built_in_metrics_are_listed_after_ones_own_on_pages_of_any_size(client: httpx.Client) -> None:
    own = [make_metric(client)["id"] for _ in range(3)][::-1]
    whole = listed(client, 50)
    assert whole[:3] == own
    assert whole[-len(BUILT_IN) :] == list(BUILT_IN)
    for take in (1, 2, 3, 4, 7):
        assert listed(client, take) == whole
    ratios = [id for id, metric in BUILT_IN.items() if metric.kind == "ratio"]
    assert listed(client, 2, "&kind=ratio") == ratios
    assert listed(client, 50, "&status=archived") == []


def test_a_metric_is_created_changed_archived_and_deleted(client: httpx.Client) -> None:
    body: dict[str, Any] = {
        "kind": "mean",
        "value": "sum:details.items",
        "events": {"event": "purchase", "where": {"country": ["FR", "DE"]}},
        "winsorize": 0.99,
        "cuped": 86400,
        "window": 3600,
    }
    metric = make_metric(client, description=None, **body)
    assert metric | body == metric
    assert "description" not in metric
    path = f"/metrics/{metric['id']}"
    assert sent(client, "GET", path) == metric
    changed = sent(client, "PATCH", path, {"window": 7200, "winsorize": None})
    assert changed["window"] == 7200
    assert "winsorize" not in changed
    archived = sent(client, "PATCH", path, {"status": "archived"})
    assert metric["id"] not in listed(client, 50)
    assert metric["id"] in listed(client, 50, "&status=archived")
    sent(client, "DELETE", path, status=204)
    history = sent(client, "GET", "/history?take=4")["changes"]
    assert [(each["kind"], each["action"]) for each in history] == [
        ("metric", action) for action in ("delete", "update", "update", "create")
    ]
    assert (history[0]["before"], history[-1]["after"]) == (archived, metric)


def test_an_experiment_is_analyzed_by_the_built_in_metrics_until_something_is_set(client: httpx.Client) -> None:
    experiment = make_experiment(client, status="active")
    path = f"/experiments/{experiment['id']}/analysis"
    unset = sent(client, "GET", path)
    assert unset["primary"] == "login_success"
    assert (unset["alpha"], unset["auto_pause"], unset["crossover"], unset["bots"]) == (0.05, False, "first", "exclude")
    metric = make_metric(client)
    guardrails = [{"metric": "lockout_rate", "margin": 0.2}]
    analysis = sent(client, "PUT", path, {"primary": metric["id"], "guardrails": guardrails, "horizon": {"days": 14}})
    assert (analysis["primary"], analysis["secondary"], analysis["horizon"]) == (metric["id"], [], {"days": 14})
    assert sent(client, "GET", path) == analysis
    # The same again is no change; and the whole is replaced.
    sent(client, "PUT", path, analysis)
    assert "horizon" not in sent(client, "PUT", path, {"primary": metric["id"]})
    history = sent(client, "GET", f"/experiments/{experiment['id']}/history")["changes"]
    assert [each["kind"] for each in history[:3]] == ["analysis", "analysis", "experiment"]
    assert history[0]["before"] == analysis
    # The runtime reads the same history, and goes on serving.
    assert sent(client, "GET", f"/experiments/{experiment['id']}")["status"] == "active"


def test_what_an_experiment_was_analyzed_by_goes_with_it(client: httpx.Client) -> None:
    experiment, metric = make_experiment(client), make_metric(client)
    sent(client, "PUT", f"/experiments/{experiment['id']}/analysis", {"primary": metric["id"]})
    sent(client, "DELETE", f"/metrics/{metric['id']}", status=409)
    sent(client, "DELETE", f"/experiments/{experiment['id']}", status=204)
    sent(client, "GET", f"/experiments/{experiment['id']}/analysis", status=404)
    sent(client, "DELETE", f"/metrics/{metric['id']}", status=204)
