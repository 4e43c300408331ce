"""Where a browser finds a tenant, and what the path of a page, and its query, look like."""

import re

from abgate.settings import Settings
from abgate.storage.tenants import Tenant

_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_PAGE = re.compile(r"/([\w.~-][\w./~-]*)?(\?[!-~]*)?")


def address_of(tenant: Tenant, settings: Settings) -> str:
    """Return where a browser finds the tenant: by plain http only on this machine, and only without a certificate."""
    is_plain = not settings.tls_cert and _LOOPBACK.fullmatch(tenant.domain)
    return f"{'http' if is_plain else 'https'}://{tenant.domain}"


def is_page(path: str) -> bool:
    """Return whether a browser that is told to go there, with a query or without, stays on this site."""
    return _PAGE.fullmatch(path) is not None
