"""The control plane: tenants, keys, clients, flags, variations, segments, experiments, changes."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT, NUMBER = sa.Text(), sa.BigInteger()


def upgrade() -> None:
    _create_identity_tables()
    _create_resource_tables()
    _create_history_tables()
    op.create_index(
        "one_active_experiment",
        "experiments",
        ["tenant", "authentication_flow"],
        unique=True,
        sqlite_where=sa.text("status = 'active'"),
        postgresql_where=sa.text("status = 'active'"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _create_postgresql_triggers()
    else:
        _create_sqlite_triggers()


def _create_identity_tables() -> None:
    op.create_table(
        "tenants",
        _column("id", TEXT),
        _column("domain", TEXT),
        _column("number", NUMBER),
        _column("created_at", TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
        sa.UniqueConstraint("domain", name="uq_tenants_domain"),
    )
    op.create_table(
        "signing_keys",
        _column("tenant", TEXT),
        _column("id", TEXT),
        _column("encrypted_private_key", sa.LargeBinary()),
        _column("public_key", TEXT),
        _column("created_at", TEXT),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_signing_keys"),
    )
    op.create_table(
        "clients",
        _column("tenant", TEXT),
        _column("id", TEXT),
        _column("name", TEXT),
        _column("secret_hash", sa.LargeBinary()),
        _column("scope", TEXT),
        _column("created_at", TEXT),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_clients"),
    )


def _create_resource_tables() -> None:
    _create_resource_table("feature_flags", "name", "type", "status")
    _create_resource_table("variations", "feature_flag_id", "name", unique=("feature_flag_id", "name"))
    _create_resource_table("segments", "name", "type")
    _create_resource_table("experiments", "name", "status", "authentication_flow", "feature_flag_id")
    for table, columns in {
        "feature_flags": ((), ("status",)),
        "segments": ((),),
        "experiments": ((), ("status",), ("authentication_flow",), ("feature_flag_id",)),
    }.items():
        for column in columns:
            indexed = ["tenant", *column, "created_in"]
            op.create_index(f"ix_{table}_{'_'.join(indexed)}", table, indexed)
    op.create_table(
        "experiment_segments",
        _column("tenant", TEXT),
        _column("segment_id", TEXT),
        _column("experiment_id", TEXT),
        sa.PrimaryKeyConstraint("tenant", "segment_id", "experiment_id", name="pk_experiment_segments"),
    )
    op.create_index("ix_experiment_segments_tenant_experiment_id", "experiment_segments", ["tenant", "experiment_id"])


def _create_history_tables() -> None:
    op.create_table(
        "changes",
        _column("tenant", TEXT),
        _column("number", NUMBER),
        _column("at", TEXT),
        _column("actor", TEXT),
        _column("action", TEXT),
        _column("kind", TEXT),
        _column("resource_id", TEXT),
        sa.Column("before", TEXT),
        sa.Column("after", TEXT),
        sa.PrimaryKeyConstraint("tenant", "number", name="pk_changes"),
    )
    op.create_index("ix_changes_tenant_resource_id_number", "changes", ["tenant", "resource_id", "number"])


def _create_resource_table(name: str, *columns: str, unique: tuple[str, ...] = ("name",)) -> None:
    op.create_table(
        name,
        _column("tenant", TEXT),
        _column("id", TEXT),
        _column("created_in", NUMBER),
        _column("revision", sa.Integer()),
        *(_column(column, TEXT) for column in columns),
        _column("body", TEXT),
        sa.PrimaryKeyConstraint("tenant", "id", name=f"pk_{name}"),
        sa.UniqueConstraint("tenant", *unique, name=f"uq_{name}_{'_'.join(('tenant', *unique))}"),
    )


def _column(name: str, type_: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False)


CLASH = """
    SELECT 1 FROM experiments
    WHERE tenant = NEW.tenant AND status = 'active' AND id <> NEW.id
      AND (authentication_flow = 'all' OR NEW.authentication_flow = 'all')
"""


def _create_sqlite_triggers() -> None:
    for moment in ("INSERT", "UPDATE"):
        op.execute(
            f"""
            CREATE TRIGGER all_flows_tolerates_no_other_{moment.lower()} BEFORE {moment} ON experiments
            WHEN NEW.status = 'active' AND EXISTS ({CLASH})
            BEGIN SELECT RAISE(ABORT, 'all_flows_tolerates_no_other'); END
            """
        )


def _create_postgresql_triggers() -> None:
    # The lock makes two transactions that activate at once wait for each other, so that the second one sees the first.
    op.execute(
        f"""
        CREATE FUNCTION all_flows_tolerates_no_other() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          PERFORM pg_advisory_xact_lock(hashtextextended('abgate.active.' || NEW.tenant, 0));
          IF EXISTS ({CLASH}) THEN
            RAISE EXCEPTION 'all_flows_tolerates_no_other' USING ERRCODE = 'exclusion_violation';
          END IF;
          RETURN NEW;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER all_flows_tolerates_no_other BEFORE INSERT OR UPDATE ON experiments
        FOR EACH ROW WHEN (NEW.status = 'active') EXECUTE FUNCTION all_flows_tolerates_no_other()
        """
    )
