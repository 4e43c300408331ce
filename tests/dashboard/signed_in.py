"""Somebody who is signed in, over plain HTTP and in a browser."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import httpx
from playwright.sync_api import Browser, BrowserContext, Page

from abgate.core.ids import make_id
from abgate.storage import sessions
from abgate.storage.engine import appending
from abgate.storage.sessions import Role, Session
from tests.conftest import CREATED, opened
from tests.server import Server


def login_link(server: Server, *, role: str = "admin", name: str = "Ada", expires_at: str = "9999") -> str:
    """Return a new link, as `abgate login-link` makes it, but without a process of its own."""
    secret = secrets.token_urlsafe(32)
    (known,) = [each for each in get_args(Role) if each == role]
    session = Session(tenant="default", id=make_id("ses", os.urandom(32)), name=name, role=known, expires_at=expires_at)
    with opened(f"sqlite:///{server.data / 'abgate.db'}") as engine, appending(engine) as connection:
        sessions.add_link(connection, session, secret=secret, now=CREATED)
    return f"{server.url}/sign-in?link={secret}"


def begin(link: str, *, next: str = "/", headers: dict[str, str] | None = None) -> httpx.Response:
    """Use the link."""
    url = httpx.URL(link)
    return httpx.post(url.copy_with(query=None), data={"link": url.params["link"], "next": next}, headers=headers)


@contextmanager
def signed_in(server: Server, *, role: str = "admin", name: str = "Ada") -> Iterator[httpx.Client]:
    """Give an HTTP client with a session; it follows redirects, and forms it posts carry the session's token."""
    cookies = begin(login_link(server, role=role, name=name)).cookies
    with httpx.Client(base_url=server.url, timeout=30, follow_redirects=True, cookies=cookies) as client:
        client.headers["X-CSRF-Token"] = csrf_of(client.get("/").text)
        yield client


def csrf_of(html: str) -> str:
    """Return the token that the forms of this page carry."""
    found = re.search(r'name="csrf" value="([^"]+)"', html)
    assert found is not None, html
    return found[1]


def open_pages(browser: Browser, server: Server, *, role: str = "admin") -> Page:
    """Return a browser's page, signed in by a link as a person would."""
    context: BrowserContext = browser.new_context(locale="en-GB", timezone_id="Europe/Paris")
    page = context.new_page()
    page.goto(login_link(server, role=role))
    page.get_by_role("button", name="Sign in").click()
    return page
