"""Every table. A resource is stored as the JSON of its value, beside the columns that are searched or guarded."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

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
    Index(None, "tenant", "created_in"),
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
    Index(None, "tenant", "created_in"),
    Index(None, "tenant", "status", "created_in"),
    Index(None, "tenant", "authentication_flow", "created_in"),
    Index(None, "tenant", "feature_flag_id", "created_in"),
)

# At most one active experiment a flow, in the database itself. That `all` tolerates no other is held by a trigger,
# which the first migration creates: no index can say it on both databases.
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
    Index(None, "tenant", "experiment_id"),
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
    PrimaryKeyConstraint("tenant", "number"),
    Index(None, "tenant", "resource_id", "number"),
)
