"""Makes things over HTTP for a test to work on, with what a test does not care about filled in."""

from itertools import count
from typing import Any

import httpx

JSON = dict[str, Any]

_numbers = count(1)


def unique(kind: str) -> str:
    """Return a name that no other test has."""
    return f"{kind}-{next(_numbers)}"


def sent(client: httpx.Client, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
    """Return the answer to a request that must be answered with `status`; None when it has no body."""
    answer = client.request(method, path, **({} if body is None else {"json": body}))
    assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def make_flag(client: httpx.Client, *, variations: int = 0, active: bool = False, **fields: Any) -> JSON:
    """Return a new feature flag; `variations` of it are under that key, the first of them the baseline."""
    body = {"name": unique("flag"), "parameters": {"prompt": {"type": "string", "value": "off"}}} | fields
    flag: JSON = sent(client, "POST", "/feature-flags", body, status=201)
    made = [make_variation(client, flag, {"prompt": f"on-{n}"} if n else {}) for n in range(variations)]
    if active:
        flag = sent(client, "POST", f"/feature-flags/{flag['id']}/status", {"status": "active"})
    return flag | {"variations": made}


def make_variation(client: httpx.Client, flag: JSON, values: JSON | None = None, **fields: Any) -> JSON:
    """Return a new variation of `flag` with these values for its parameters."""
    overrides = {name: {"value": value} for name, value in (values or {}).items()}
    body = {"name": unique("variation"), "overrides": overrides} | fields
    variation: JSON = sent(client, "POST", f"/feature-flags/{flag['id']}/variations", body, status=201)
    return variation


def make_segment(client: httpx.Client, **fields: Any) -> JSON:
    """Return a new segment."""
    body = {"name": unique("segment"), "rules": [{"match": {"country": ["FR"]}}]} | fields
    segment: JSON = sent(client, "POST", "/segments", body, status=201)
    return segment


def make_metric(client: httpx.Client, **fields: Any) -> JSON:
    """Return a new metric."""
    body = {"name": unique("metric"), "kind": "proportion", "events": {"types": ["s"]}, "window": 60}
    metric: JSON = sent(client, "POST", "/metrics", body | {"direction": "increase"} | fields, status=201)
    return metric


def make_log_stream(client: httpx.Client) -> JSON:
    """Return a new log stream, to a server that is never there."""
    body = {"type": "http", "sink": {"httpEndpoint": "https://receiver.example/"}}
    response = client.post(client.base_url.join("/api/v2/log-streams"), json=body)
    assert response.status_code == 200, response.text
    stream: JSON = response.json()
    return stream


def shares(flag: JSON, *weights: int) -> list[JSON]:
    """Return allocations that give these percentages to the variations of `flag`; the first is the control."""
    return [
        {"variation_id": variation["id"], "weight": weight, "is_control": index == 0}
        for index, (variation, weight) in enumerate(zip(flag["variations"], weights, strict=True))
    ]


def by_segment(flag: JSON, segment: JSON) -> list[JSON]:
    """Return allocations that give the second variation to `segment` and the first, the control, to everyone else."""
    control, treatment = flag["variations"][:2]
    return [
        {"variation_id": treatment["id"], "segment_id": segment["id"], "priority": 1, "is_control": False},
        {"variation_id": control["id"], "is_fallback": True, "is_control": True},
    ]


def make_experiment(client: httpx.Client, flag: JSON | None = None, *, status: str = "draft", **fields: Any) -> JSON:
    """Return a new experiment in `status`, on a flow of its own and 50:50 between the two variations of its flag."""
    if flag is None:
        flag = make_flag(client, variations=2, active=True)
    flow = unique("flow").replace("-", "_")
    body: JSON = {"name": unique("experiment"), "feature_flag_id": flag["id"], "authentication_flow": flow}
    if fields.get("allocation_strategy", "percentage") == "percentage":
        body["allocations"] = shares(flag, 50, 50)
    experiment: JSON = sent(client, "POST", "/experiments", body | fields, status=201)
    for target in ROUTES_TO[status]:
        experiment = sent(client, "POST", f"/experiments/{experiment['id']}/status", {"status": target})
    return experiment


ROUTES_TO = {
    "draft": [],
    "active": ["active"],
    "paused": ["active", "paused"],
    "completed": ["active", "completed"],
    "archived": ["archived"],
}
