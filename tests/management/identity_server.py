"""A small identity server: a discovery document and keys over real HTTP, which can rotate, break and go away."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

AUDIENCE = "https://abgate.example/management"


@cache
def signing_key(kid: str) -> RSAKey:
    """One key for each id in a whole test run: making one takes a tenth of a second."""
    return RSAKey.generate_key(2048, {"kid": kid})


class IdentityServer:
    """What it publishes is in its attributes; each request's path is added to `asked`, its trace to `traces`."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}/"
        self.kids = ["one"]
        self.more_keys: list[Any] = []
        self.discovery: dict[str, Any] = {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}keys",
        }
        self.status = 200
        self.delay_s = 0.0
        self.body: bytes | None = None
        self.asked: list[str] = []
        self.traces: list[tuple[str | None, str | None]] = []

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        time.sleep(self.delay_s)
        if self.body is not None:
            return self.status, self.body
        keys = [signing_key(kid).as_dict(private=False) for kid in self.kids]
        documents = {
            "/.well-known/openid-configuration": self.discovery,
            "/keys": {"keys": [*self.more_keys, *keys]},
        }
        return (self.status, json.dumps(documents[path]).encode()) if path in documents else (404, b"{}")

    def token(self, kid: str = "one", **claims: Any) -> str:
        """Return a token of this server; a claim that is None is left out."""
        now = int(time.time())
        all_claims = {
            "iss": self.issuer,
            "sub": "auth0|alice",
            "aud": [AUDIENCE, f"{self.issuer}userinfo"],
            "iat": now,
            "exp": now + 3600,
            "scope": "openid read:experimentation",
        } | claims
        present = {name: value for name, value in all_claims.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": kid}, present, signing_key(kid))


@contextmanager
def running_identity_server() -> Iterator[IdentityServer]:
    """Give a server that is gone afterwards."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            identity_server.traces.append((self.headers["traceparent"], self.headers["tracestate"]))
            status, body = identity_server.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        identity_server = IdentityServer(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield identity_server
        finally:
            server.shutdown()
            thread.join()
