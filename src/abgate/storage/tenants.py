"""Tenants: whose things they are, and the domain under which each is reached."""

from msgspec import Struct
from sqlalchemy import Connection, insert, select, update

from abgate.core.errors import Conflict, NotFound
from abgate.core.ids import Timestamp
from abgate.storage.tables import tenants

DEFAULT_TENANT = "default"


class Tenant(Struct, frozen=True):
    """A tenant; its `domain` is the host (and port) in issuer and audience."""

    id: str
    domain: str


def list_tenants(connection: Connection) -> list[Tenant]:
    """Return every tenant, the default one first."""
    rows = connection.execute(select(tenants.c.id, tenants.c.domain).order_by(tenants.c.created_at, tenants.c.id))
    found = [Tenant(row.id, row.domain) for row in rows]
    return sorted(found, key=lambda tenant: tenant.id != DEFAULT_TENANT)


def find(connection: Connection, id: str) -> Tenant | None:
    """Return the tenant with this id, or None."""
    row = connection.execute(select(tenants.c.id, tenants.c.domain).where(tenants.c.id == id)).one_or_none()
    return None if row is None else Tenant(row.id, row.domain)


def add(connection: Connection, tenant: Tenant, *, now: Timestamp) -> None:
    """Store a new tenant. Raises `Conflict` ``name_conflict`` when its id or domain is taken."""
    if find(connection, tenant.id) is not None:
        raise Conflict(f"A tenant {tenant.id!r} is there already.", code="name_conflict")
    _check_domain_is_free(connection, tenant.domain, id=tenant.id)
    connection.execute(insert(tenants).values(id=tenant.id, domain=tenant.domain, number=0, created_at=now))


def move(connection: Connection, id: str, domain: str) -> None:
    """Give the tenant another domain; its tokens for the former one are worth nothing from then on.

    Raises `NotFound`, and `Conflict` ``name_conflict`` when the domain is another tenant's.
    """
    _check_domain_is_free(connection, domain, id=id)
    moved = connection.execute(update(tenants).where(tenants.c.id == id).values(domain=domain))
    if moved.rowcount != 1:
        raise NotFound("tenant", id)


def _check_domain_is_free(connection: Connection, domain: str, *, id: str) -> None:
    other = connection.execute(select(tenants.c.id).where(tenants.c.domain == domain, tenants.c.id != id)).scalar()
    if other is not None:
        raise Conflict(f"domain: {domain!r} is taken by the tenant {other!r}.", code="name_conflict")
