"""Every table. A resource is stored as the JSON of its value, beside the columns that are searched or guarded."""

import sqlalchemy
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)


class Text(TypeDecorator[str]):
    """Text, without the NUL that PostgreSQL cannot hold.

    An id with a NUL in it, out of a URL or a token, is then simply not there, where PostgreSQL would fail.
    """

    impl = sqlalchemy.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return `value` with each NUL replaced."""
        return value if value is None else value.replace("\x00", "\ufffd")


# As a literal, not a parameter: a prepared statement's plan may use a partial index only when it can see the value.
LIVE = "status <> 'archived'"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
    }
)


def _index_of_live(*columns: str) -> Index:
    """Return an index of the rows that lists show unless asked otherwise: archived ones only ever pile up."""
    return Index(None, *columns, sqlite_where=text(LIVE), postgresql_where=text(LIVE))


def _index_where_known(tenant: str, column: str, *others: str) -> Index:
    """Return an index by a column that many rows leave empty."""
    known = text(f"{column} IS NOT NULL")
    return Index(None, tenant, column, *others, sqlite_where=known, postgresql_where=known)


tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, nullable=False),
    Column("domain", Text, nullable=False),
    # The number of the tenant's latest change, and so of its latest snapshot.
    Column("number", BigInteger, nullable=False),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("domain"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("encrypted_private_key", LargeBinary, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
)

clients = Table(
    "clients",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("scope", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
)

feature_flags = Table(
    "feature_flags",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("created_in", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("tenant", "name"),
    _index_of_live("tenant", "created_in"),
    Index(None, "tenant", "status", "created_in"),
)

variations = Table(
    "variations",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("created_in", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("feature_flag_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("tenant", "feature_flag_id", "name"),
    ForeignKeyConstraint(["tenant", "feature_flag_id"], [feature_flags.c.tenant, feature_flags.c.id]),
)

segments = Table(
    "segments",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("created_in", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("tenant", "name"),
    Index(None, "tenant", "created_in"),
)

experiments = Table(
    "experiments",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("created_in", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("authentication_flow", Text, nullable=False),
    Column("feature_flag_id", Text, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("tenant", "name"),
    _index_of_live("tenant", "created_in"),
    _index_of_live("tenant", "authentication_flow", "created_in"),
    _index_of_live("tenant", "feature_flag_id", "created_in"),
    Index(None, "tenant", "status", "created_in"),
    Index(None, "tenant", "authentication_flow", "status", "created_in"),
    Index(None, "tenant", "feature_flag_id", "status", "created_in"),
)

# At most one active experiment a flow, in the database itself. That `all` tolerates no other is held by a constraint
# (SQLite: triggers) that the first migration creates: no index can say it on both databases.
one_active = Index(
    "one_active_experiment",
    experiments.c.tenant,
    experiments.c.authentication_flow,
    unique=True,
    sqlite_where=experiments.c.status == "active",
    postgresql_where=experiments.c.status == "active",
)

experiment_segments = Table(
    "experiment_segments",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("segment_id", Text, nullable=False),
    Column("experiment_id", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "segment_id", "experiment_id"),
    ForeignKeyConstraint(["tenant", "experiment_id"], [experiments.c.tenant, experiments.c.id]),
    Index(None, "tenant", "experiment_id"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("created_in", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("tenant", "name"),
    _index_of_live("tenant", "created_in"),
    Index(None, "tenant", "status", "created_in"),
)

# How experiments are analyzed; `id` is the experiment's.
analyses = Table(
    "analyses",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("created_in", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    ForeignKeyConstraint(["tenant", "id"], [experiments.c.tenant, experiments.c.id]),
)

changes = Table(
    "changes",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("at", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("resource_id", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    Column("why", Text),
    PrimaryKeyConstraint("tenant", "number"),
    Index(None, "tenant", "resource_id", "number"),
)


def _sequence() -> Column[int]:
    """Return the column that numbers rows as they come. SQLite counts up only an INTEGER, and never one down again."""
    return Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


# Moments in the event log are microseconds since 1970: arithmetic on dates differs between every two databases.
exposures = Table(
    "exposures",
    metadata,
    _sequence(),
    Column("tenant", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("experiment_id", Text, nullable=False),
    Column("variation_id", Text, nullable=False),
    Column("forced", Boolean, nullable=False),
    Column("subject", Text),
    Column("device", Text),
    Column("user_id", Text),
    Column("organization_id", Text),
    Column("transaction_id", Text),
    Column("body", Text, nullable=False),
    Index(None, "tenant", "experiment_id", "subject", "at"),
    Index(None, "tenant", "transaction_id", "at"),
    Index(None, "tenant", "device", "at"),
    Index(None, "tenant", "user_id", "at"),
    sqlite_autoincrement=True,
)

# Exposures that are not yet in the table above: `abgate.storage.exposure_groups` says why.
exposure_groups = Table(
    "exposure_groups",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("body", LargeBinary, nullable=False),
)

auth_events = Table(
    "auth_events",
    metadata,
    _sequence(),
    Column("tenant", Text, nullable=False),
    Column("log_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("event", Text),
    Column("client_id", Text),
    Column("device", Text),
    Column("user_id", Text),
    Column("organization_id", Text),
    Column("transaction_id", Text),
    Column("body", Text, nullable=False),
    UniqueConstraint("tenant", "log_id"),
    Index(None, "tenant", "at"),
    Index(None, "tenant", "type", "at"),
    *(_index_where_known("tenant", column, "at") for column in ("device", "user_id", "transaction_id")),
    sqlite_autoincrement=True,
)

runtime_keys = Table(
    "runtime_keys",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("origins", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("created_at", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("hash"),
)

# What the enricher found each event to belong to. An event has a row as soon as it belongs to an exposure or to a
# device that it does not name; what is right may change as late data comes in, and then the row gets the enricher's
# next `revision`, which is 0 until then.
enrichments = Table(
    "enrichments",
    metadata,
    Column("event_sequence", BigInteger().with_variant(Integer, "sqlite"), nullable=False, autoincrement=False),
    Column("tenant", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("exposure_sequence", BigInteger),
    Column("experiment_id", Text),
    Column("variation_id", Text),
    Column("forced", Boolean, nullable=False),
    Column("subject", Text),
    Column("device", Text),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("event_sequence"),
    Index(None, "tenant", "experiment_id", "at"),
    Index(None, "exposure_sequence"),
    Index(None, "revision", sqlite_where=text("revision > 0"), postgresql_where=text("revision > 0")),
)

# Events whose enrichment may have changed and is to be looked at again.
stale_enrichments = Table(
    "stale_enrichments",
    metadata,
    Column("event_sequence", BigInteger().with_variant(Integer, "sqlite"), nullable=False, autoincrement=False),
    PrimaryKeyConstraint("event_sequence"),
)

# When each user was first seen with each device; the first of them is the one that the user is stitched to.
sightings = Table(
    "sightings",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "user_id", "device"),
    Index(None, "tenant", "user_id", "at"),
    Index(None, "tenant", "device"),
)

# When experiments were completed, also those that were deleted since.
experiment_ends = Table(
    "experiment_ends",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("experiment_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "experiment_id"),
)

positions = Table(
    "positions",
    metadata,
    Column("consumer", Text, nullable=False),
    Column("log", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    PrimaryKeyConstraint("consumer", "log"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, nullable=False),
    Column("holder", Text),
    # Goes up with every renewal, so that whoever waits sees that the holder lives.
    Column("term", BigInteger, nullable=False),
    PrimaryKeyConstraint("name"),
)

# A link to sign in becomes the session of whoever opens it: then `link_hash` is emptied, and the link works no more.
sessions = Table(
    "sessions",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("link_hash", LargeBinary),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("link_hash"),
    Index(None, "expires_at"),
)

# `position` of a stream is in `positions`. `failing_since`, `error` and `delivered_at` say how its deliveries go.
log_streams = Table(
    "log_streams",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("created_in", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("secrets", LargeBinary, nullable=False),
    Column("delivered_at", Text),
    Column("failing_since", Text),
    Column("error", Text),
    PrimaryKeyConstraint("tenant", "id"),
)
