"""The events that follow the logins, as a tenant's log stream delivers them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import httpx
import msgspec
from msgspec import Struct

from abgate.cli.demo.children import DemoStopped
from abgate.cli.demo.traffic import CLIENT_ID, CONNECTION, Person
from abgate.core.ids import timestamp

BATCH = 1_000
SLIPS = 0.08
"""The share of people who mistype their password before they get it right."""

FAILURES = (
    (0.80, "fp", "Wrong email or password."),
    (0.92, "fu", "Wrong email or password."),
    (1.00, "f", "Login was not finished."),
)
"""How logins fail: up to this `slip`, the type of event and its description."""


class Delivered(Struct):
    """What became of the events that were sent."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    sent_again: int = 0
    """Of the events sent, those that had been delivered before."""


def make_events(people: Sequence[Person]) -> list[dict[str, Any]]:
    """Return every event of the logins, in the order in which they happened."""
    events = [event for person in people for event in _of_login(person)]
    return sorted(events, key=lambda event: str(event["data"]["date"]))


def deliver(events: Sequence[dict[str, Any]], url: str, token: str, advance: Callable[[int], None]) -> Delivered:
    """Post the events in batches, and the last batch once more, as a log stream does that lost an answer."""
    delivered = Delivered()
    batches = [events[start : start + BATCH] for start in range(0, len(events), BATCH)]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
        for number, batch in enumerate([*batches, batches[-1]]):
            answer = client.post("/runtime/v1/events", content=msgspec.json.encode(batch))
            if answer.status_code != 202:
                raise DemoStopped(f"POST /runtime/v1/events answered {answer.status_code}: {answer.text[:500]}")
            said = answer.json()
            delivered.sent += len(batch)
            delivered.accepted += said["accepted"]
            delivered.duplicates += said["duplicates"]
            delivered.rejected += len(said["rejected"])
            advance(len(batch) if number < len(batches) else 0)
    delivered.sent_again = len(batches[-1])
    return delivered


def _of_login(person: Person) -> Iterator[dict[str, Any]]:
    if person.asked_at is None or person.answered_at is None:
        return
    if not person.is_logged_in:
        type_, description = next((type_, words) for upto, type_, words in FAILURES if person.slip <= upto)
        yield _event(person, type_, description, person.answered_at)
        return
    if person.slip < SLIPS:
        yield _event(person, "fp", "Wrong email or password.", person.asked_at)
    yield _event(person, "s", "Successful login", person.answered_at)


def _event(person: Person, type_: str, description: str, at: datetime) -> dict[str, Any]:
    log_id = f"9002026{person.number:012}{type_}"
    return {
        "log_id": log_id,
        "data": {
            "log_id": log_id,
            "date": timestamp(at),
            "type": type_,
            "description": description,
            "client_id": CLIENT_ID,
            "client_name": "Shop",
            "connection": CONNECTION,
            "connection_id": "con_demo",
            "strategy": "auth0",
            "strategy_type": "database",
            # Of the blocks that are set aside for documentation (RFC 5737).
            "ip": f"203.0.113.{person.number % 254 + 1}",
            "user_agent": person.user_agent,
            "user_id": f"auth0|{person.name}",
            "user_name": f"{person.name}@shop.example",
            "hostname": "login.shop.example",
            "details": {"device_id": person.device},
        },
    }
