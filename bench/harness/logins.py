"""Exposures and logs of a tenant's users, as benchmarks store and send them."""

import random
from typing import Any

from abgate.core.compiled import ExperimentDetails
from abgate.core.events import AuthEvent, Exposure, to_timestamp
from abgate.core.ids import make_id

EXPERIMENTS = 5
SECOND = 1_000_000
START = 1_780_000_000 * SECOND
# As in a tenant's log: logins, then tokens, a few failures, hardly a sign-up.
TYPES = ["s"] * 50 + ["seacft"] * 35 + ["fp"] * 8 + ["f"] * 3 + ["ss"] * 2 + ["slo"]


def experiment_id(number: int) -> str:
    """Return the id of one of the experiments that users are in."""
    return make_id("exp", number.to_bytes(32))


def exposure(user: int) -> Exposure:
    """Return the exposure of a user: one in two is in an experiment, the others' logs come before it began."""
    details = ExperimentDetails(
        experiment_id=experiment_id(user % EXPERIMENTS),
        variation_id=make_id("var", (user % 2).to_bytes(32)),
        is_control=user % 2 == 0,
        allocation_strategy="percentage",
        config={"prompt": {"value": user % 2 == 1}},
    )
    return Exposure(
        at=START if user % 2 else START + 10**9 * SECOND,
        experiment=details,
        reason="split",
        subject=f"auth0|{user}",
        device=None,
        user_id=f"auth0|{user}",
        organization_id=None,
        transaction_id=None,
        snapshot_number=1,
        attributes={"country": "FR"},
    )


def log(number: int, user: int, chance: random.Random) -> AuthEvent:
    """Return one log of a user, a second after the last."""
    at = START + number * SECOND
    type_ = TYPES[chance.randrange(len(TYPES))]
    data: dict[str, Any] = {
        "date": to_timestamp(at),
        "type": type_,
        "connection": "Username-Password-Authentication",
        "client_id": f"client-{user % 7}",
        "client_name": "Shop",
        "ip": f"203.0.113.{user % 250}",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "user_id": f"auth0|{user}",
        "user_name": f"user-{user}@example.com",
        "hostname": "login.example.com",
        "details": {"session_id": f"{number:x}", "elapsedTime": number % 3000},
    }
    return AuthEvent(
        log_id=f"log-{number}", at=at, type=type_, client_id=data["client_id"], user_id=data["user_id"], data=data
    )
