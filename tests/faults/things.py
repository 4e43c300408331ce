"""What these tests make over HTTP before something goes wrong."""

from typing import Any

import httpx


def answered(answer: httpx.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()


def make_flag(client: httpx.Client, name: str) -> tuple[str, list[str]]:
    """Make an active flag with two variations; return its id and theirs, the control's first."""
    parameters = {"title": {"type": "string", "value": "Log in"}}
    flag = answered(client.post("/feature-flags", json={"name": name, "parameters": parameters}))["id"]
    variations = [
        answered(client.post(f"/feature-flags/{flag}/variations", json={"name": name, "overrides": overrides}))["id"]
        for name, overrides in (("control", {}), ("modal", {"title": {"value": "No password needed"}}))
    ]
    answered(client.post(f"/feature-flags/{flag}/status", json={"status": "active"}))
    return flag, variations


def make_segment(client: httpx.Client, name: str) -> str:
    """Make a segment; return its id."""
    rules = [{"match": {"device_type": ["phone"]}}]
    return str(answered(client.post("/segments", json={"name": name, "rules": rules}))["id"])


def split(variations: list[str], *, treated: int = 50) -> list[dict[str, Any]]:
    """Return allocations by share, `treated` percent to the second variation."""
    return [
        {"variation_id": variations[0], "is_control": True, "weight": 100 - treated},
        {"variation_id": variations[1], "is_control": False, "weight": treated},
    ]


def by_segment(variations: list[str], segment: str) -> list[dict[str, Any]]:
    """Return allocations that give the second variation to `segment`, the first to everyone else."""
    return [
        {"variation_id": variations[0], "is_control": True, "is_fallback": True},
        {"variation_id": variations[1], "is_control": False, "segment_id": segment, "priority": 1},
    ]
