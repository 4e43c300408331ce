"""Lists, read page by page with the published Python client while others insert and delete."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event, Semaphore, Thread
from typing import Any

import httpx
import pytest
from auth0.management.client import Auth0

from tests.faults.things import answered, make_flag
from tests.server import Server, on_both_databases

STAYING = 30
TAKE = 3

RULES = [{"match": {"country": ["DE"]}}]
PARAMETERS = {"title": {"type": "string", "value": "Log in"}}


@on_both_databases
@pytest.mark.parametrize("kind", ["experiments", "feature-flags", "segments"])
def test_every_row_is_visited_exactly_once_while_others_insert_and_delete(server: Server, kind: str) -> None:
    with server.client() as client:
        body = bodies(client, kind)
        names = [f"{number:03} {kind}" for number in range(2 * STAYING)]
        ids = [answered(client.post(f"/{kind}", json=body(name)))["id"] for name in names]
        staying, leaving = ids[::2], ids[1::2]
        visited: list[str] = []
        with others(server, kind, body, leaving) as wait_for_more:
            for page in pages(server, kind):
                visited += page
                wait_for_more()

        assert len(visited) == len(set(visited))
        assert [id for id in visited if id in set(staying)] == staying[::-1]
        for id in staying:
            client.delete(f"/{kind}/{id}")


@on_both_databases
def test_a_page_may_start_after_a_row_that_is_deleted_by_then(server: Server) -> None:
    with server.client() as client:
        body = bodies(client, "experiments")
        ids = [answered(client.post("/experiments", json=body(f"deleted {number}")))["id"] for number in range(6)]
        first = answered(client.get("/experiments", params={"take": 3}))
        assert [experiment["id"] for experiment in first["experiments"]] == ids[:2:-1]

        client.delete(f"/experiments/{ids[3]}")
        client.delete(f"/experiments/{ids[2]}")

        rest = answered(client.get("/experiments", params={"take": 3, "from": first["next"]}))
        assert [experiment["id"] for experiment in rest["experiments"]][:2] == ids[1::-1]


def bodies(client: httpx.Client, kind: str) -> Callable[[str], dict[str, Any]]:
    """Return what makes the body of a new one by its name."""
    if kind == "feature-flags":
        return lambda name: {"name": name, "parameters": PARAMETERS}
    if kind == "segments":
        return lambda name: {"name": name, "rules": RULES}
    flags = answered(client.get("/feature-flags"))["feature_flags"]
    flag = flags[0]["id"] if flags else make_flag(client, "paged")[0]
    return lambda name: {"name": name, "feature_flag_id": flag, "authentication_flow": "authentication"}


def pages(server: Server, kind: str) -> Iterator[list[str]]:
    """The ids of every row, page by page, as users of the published client get them."""
    with httpx.Client() as http:
        client = Auth0(base_url=f"{server.url}/api/v2", token=server.token(), httpx_client=http)
        lists = {
            "experiments": client.experimentation.experiments.list,
            "feature-flags": client.experimentation.feature_flags.list,
            "segments": client.experimentation.segments.list,
        }
        for page in lists[kind](take=TAKE).iter_pages():
            yield [row.id for row in page.items]


@contextmanager
def others(
    server: Server, kind: str, body: Callable[[str], dict[str, Any]], leaving: list[str]
) -> Iterator[Callable[[], None]]:
    """Insert new rows all the while, and delete those and `leaving`; gives what waits until more of it happened."""
    until, happened = Event(), Semaphore(0)

    def run() -> None:
        chance = random.Random(1)
        present = list(leaving)
        with server.client() as client:
            for number in count():
                if until.is_set():
                    break
                present.append(answered(client.post(f"/{kind}", json=body(f"new {number:04} {kind}")))["id"])
                for _ in range(min(2, len(present))):
                    client.delete(f"/{kind}/{present.pop(chance.randrange(len(present)))}")
                happened.release()
            for id in present:
                client.delete(f"/{kind}/{id}")

    def wait_for_more() -> None:
        assert happened.acquire(timeout=30)

    thread = Thread(target=run)
    thread.start()
    try:
        yield wait_for_more
    finally:
        until.set()
        thread.join()
