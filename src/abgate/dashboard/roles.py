"""Who may do what at the pages, and how a browser proves who it is."""

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hmac import compare_digest
from hmac import digest as hmac

from abgate.core.principal import Principal
from abgate.storage.sessions import Role, Session

SESSION_LIFE_S = 12 * 60 * 60
"""A working day: in the morning one asks for a new link."""

_VIEWER = frozenset({"read:experimentation", "read:logs", "read:log_streams"})
_EDITOR = _VIEWER | {"create:experimentation", "update:experimentation", "delete:experimentation"}
# Not a scope of the Management API: keys and clients are made by commands there.
MANAGE_KEYS = "manage:keys"
_ADMIN = _EDITOR | {"create:log_streams", "update:log_streams", "delete:log_streams", MANAGE_KEYS}

SCOPES: Mapping[Role, frozenset[str]] = {"viewer": _VIEWER, "editor": _EDITOR, "admin": _ADMIN}


def principal_of(session: Session) -> Principal:
    """Return who is signed in, as operations know their callers."""
    return Principal(session.tenant, f"user:{session.name}", SCOPES[session.role])


def sign(key: bytes, session: Session) -> str:
    """Return the cookie's value for the session."""
    return f"{session.id}.{_mac(key, f'session.{session.tenant}.{session.id}')}"


def read_signed(key: bytes, tenant: str, cookie: str) -> str | None:
    """Return the id of the tenant's session that `sign` made the cookie for; None for anything else."""
    id, _, mac = cookie.rpartition(".")
    return id if _equal(mac, _mac(key, f"session.{tenant}.{id}")) else None


def csrf_token(key: bytes, session: Session) -> str:
    """Return what each form of this session carries, and no other site can know."""
    return _mac(key, f"csrf.{session.tenant}.{session.id}")


def is_csrf_token(key: bytes, session: Session, given: str) -> bool:
    """Return whether a form came from a page of this session."""
    return _equal(given, csrf_token(key, session))


def _equal(given: str, expected: str) -> bool:
    return given.isascii() and compare_digest(given, expected)


def _mac(key: bytes, text: str) -> str:
    return urlsafe_b64encode(hmac(key, text.encode(), "sha256")).rstrip(b"=").decode()
