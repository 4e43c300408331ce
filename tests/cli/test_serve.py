"""``abgate serve`` as a process of its own: its one line, its workers, https, and the published client against it."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from auth0.management import ManagementClient

from .run import Run, values

LINE = re.compile(r"abgate serves (https?://127\.0\.0\.1:(\d+)) as https://(\S+)/ \(stop it with Ctrl-C\)\n")


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], line: str) -> None:
        self.process = process
        found = LINE.fullmatch(line)
        assert found is not None, (line, process.stderr and process.stderr.read())
        self.address, self.port, self.domain = found[1], int(found[2]), found[3]

    def stop(self, with_signal: int = signal.SIGTERM) -> str:
        """Stop it and return what it wrote to stderr."""
        self.process.send_signal(with_signal)
        _, err = self.process.communicate(timeout=30)
        return err


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "abgate", "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        assert process.stdout is not None
        yield Server(process, process.stdout.readline())
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def get(server: Server, path: str, **options: Any) -> httpx.Response:
    return httpx.get(server.address + path, timeout=20, **options)


@pytest.mark.parametrize(("workers", "with_signal"), [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM)])
def test_it_says_its_address_serves_and_stops(tmp_path: Path, workers: int, with_signal: int) -> None:
    with serving("--data", tmp_path, "--workers", workers) as server:
        # The line is a promise: who connects now waits, and is not refused.
        assert get(server, "/healthz").status_code == 200
        assert server.domain == f"localhost:{server.port}"
        err = server.stop(with_signal)
        assert "Traceback" not in err
        assert server.process.returncode in (0, -with_signal)


def test_a_token_made_beside_it_is_good_there(tmp_path: Path, run: Run) -> None:
    with serving("--data", tmp_path, ABGATE_RATE_LIMIT="7") as server:
        token = run("token", "--data", tmp_path).out.strip()
        answer = get(server, "/api/v2/experimentation/experiments", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (200, "7")


def test_workers_share_secret_settings_and_keys(tmp_path: Path, run: Run) -> None:
    with serving("--data", tmp_path, "--workers", 2, ABGATE_DOMAIN="ab.test") as server:
        made = values(run("clients", "create", "--scope", "read:experimentation", "--data", tmp_path).out)
        credentials = {name: made[name] for name in ("client_id", "client_secret")}
        for _ in range(5):
            asked = httpx.post(
                f"{server.address}/oauth/token", json=credentials | {"grant_type": "client_credentials"}, timeout=20
            )
            headers = {"Authorization": f"Bearer {asked.json()['access_token']}"}
            assert get(server, "/api/v2/experimentation/experiments", headers=headers).status_code == 200
            time.sleep(0.2)
        document = get(server, "/.well-known/openid-configuration").json()
        assert document["issuer"] == "https://ab.test/" == f"https://{server.domain}/"


def test_a_tenant_made_beside_it_is_served_within_a_second(tmp_path: Path, run: Run) -> None:
    with serving("--data", tmp_path) as server:
        assert get(server, "/healthz").status_code == 200
        run("tenants", "create", "acme", "--domain", "acme.test", "--data", tmp_path)
        token = run("token", "--tenant", "acme", "--data", tmp_path).out.strip()
        time.sleep(1)
        headers = {"Host": "acme.test", "Authorization": f"Bearer {token}"}
        assert get(server, "/api/v2/experimentation/experiments", headers=headers).status_code == 200
        del headers["Host"]
        assert get(server, "/api/v2/experimentation/experiments", headers=headers).status_code == 401


def test_the_published_client_by_its_credentials_over_https(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = values(run("dev-cert", "--data", tmp_path).out)
    with serving("--data", tmp_path, "--tls-cert", made["cert"], "--tls-key", made["key"]) as server:
        assert server.address.startswith("https://")
        monkeypatch.setenv("SSL_CERT_FILE", made["ca"])
        client = values(run("clients", "create", "--scope", "read:experimentation", "--data", tmp_path).out)
        credentials = {name: client[name] for name in ("client_id", "client_secret")}
        with httpx.Client(timeout=20) as connections:
            management = ManagementClient(domain=server.domain, **credentials, httpx_client=connections)
            assert list(management.experimentation.experiments.list()) == []


def test_a_port_that_is_taken(tmp_path: Path, run: Run) -> None:
    with serving("--data", tmp_path) as server:
        result = run("serve", "--data", tmp_path / "other", "--port", server.port)
        assert (result.code, result.out) == (1, "")
        assert f"Cannot listen on http://127.0.0.1:{server.port}: Address already in use." in result.err
        assert not (tmp_path / "other").exists()


def test_as_many_connections_as_the_system_allows(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with serving("--data", tmp_path) as server:
            assert get(server, "/healthz").status_code == 200
            assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] > 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nothing_is_left_of_a_server_that_was_killed(tmp_path: Path) -> None:
    with serving("--data", tmp_path, "--workers", 2) as server:
        assert get(server, "/readyz").status_code == 200
        server.process.kill()
        deadline = time.monotonic() + 30
        while is_listening(server.port):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionError:
        return False
    return True
