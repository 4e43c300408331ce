"""Asking an identity server that the operator trusts: what it is, by its discovery document, and for JSON.

The only addresses asked are the setting's and those that its discovery document names (OpenID Connect Discovery 1.0,
section 4), never one out of a request.
"""

import time
from typing import TypeVar

import httpx
import msgspec
from msgspec import Struct

from abgate.trace import passed_on

PATH = "/.well-known/openid-configuration"
MAX_ANSWER_BYTES = 1_000_000


class Discovered(Struct):
    """What every discovery document says; a subclass adds what else is needed of it."""

    issuer: str


D = TypeVar("D", bound=Discovered)
T = TypeVar("T")


def discover(client: httpx.Client, issuer: str, type_: type[D], deadline: float) -> D:
    """Return the discovery document of an issuer. Raises as `read_json`, and `ValueError` when it is of another one."""
    found = get_json(client, issuer.rstrip("/") + PATH, type_, deadline)
    if found.issuer != issuer:
        raise ValueError(f"its discovery document is of the issuer {found.issuer!r}")
    return found


def check_transport(issuer: str, name: str, address: str) -> None:
    """Raise `ValueError` when a document names an address that is less safe than its issuer's own."""
    if not address.startswith("https://" if issuer.startswith("https:") else ("https://", "http://")):
        raise ValueError(f"its {name} {address!r} is not https")


def get_json(client: httpx.Client, address: str, type_: type[T], deadline: float) -> T:
    """Return what an address answers as a `type_`. Raises as `read_json`."""
    return read_json(client, client.build_request("GET", address), type_, deadline)


def read_json(client: httpx.Client, request: httpx.Request, type_: type[T], deadline: float) -> T:
    """Return the answer to a request, to which the caller's trace is added, as a `type_`.

    Raises `httpx.HTTPError`, and `ValueError` for another status than 200, another shape, and too much or too late.
    """
    request.headers.update(passed_on.get())
    response = client.send(request, stream=True)
    try:
        if response.status_code != 200:
            raise ValueError(f"{request.url} answers {response.status_code}")
        body = b""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                raise ValueError(f"{request.url} answers too much or too slowly")
    finally:
        response.close()
    return msgspec.json.decode(body, type=type_)
