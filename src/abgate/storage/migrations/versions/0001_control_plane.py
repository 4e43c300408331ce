"""The control plane: tenants, keys, clients, flags, variations, segments, experiments, changes."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT, NUMBER = sa.Text(), sa.BigInteger()
ACTIVE, LIVE = sa.text("status = 'active'"), sa.text("status <> 'archived'")


def upgrade() -> None:
    _create_identity_tables()
    _create_resource_tables()
    _create_history_tables()
    op.create_index(
        "one_active_experiment",
        "experiments",
        ["tenant", "authentication_flow"],
        unique=True,
        sqlite_where=ACTIVE,
        postgresql_where=ACTIVE,
    )
    if op.get_bind().dialect.name == "postgresql":
        _hold_all_flows_on_postgresql()
        _hold_history_on_postgresql()
    else:
        _hold_all_flows_on_sqlite()
        _hold_history_on_sqlite()


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
    _create_resource_table(
        "variations",
        "feature_flag_id",
        "name",
        unique=("feature_flag_id", "name"),
        refers=sa.ForeignKeyConstraint(
            ["tenant", "feature_flag_id"],
            ["feature_flags.tenant", "feature_flags.id"],
            name="fk_variations_feature_flags",
        ),
    )
    _create_resource_table("segments", "name", "type")
    _create_resource_table("experiments", "name", "status", "authentication_flow", "feature_flag_id")
    _create_index("feature_flags", "created_in", where=LIVE)
    _create_index("feature_flags", "status", "created_in")
    _create_index("segments", "created_in")
    _create_index("experiments", "created_in", where=LIVE)
    _create_index("experiments", "authentication_flow", "created_in", where=LIVE)
    _create_index("experiments", "feature_flag_id", "created_in", where=LIVE)
    _create_index("experiments", "status", "created_in")
    # In this order: of two that fit alike SQLite takes the later one, and a flag has fewer experiments than a flow.
    _create_index("experiments", "authentication_flow", "status", "created_in")
    _create_index("experiments", "feature_flag_id", "status", "created_in")
    op.create_table(
        "experiment_segments",
        _column("tenant", TEXT),
        _column("segment_id", TEXT),
        _column("experiment_id", TEXT),
        sa.PrimaryKeyConstraint("tenant", "segment_id", "experiment_id", name="pk_experiment_segments"),
        sa.ForeignKeyConstraint(
            ["tenant", "experiment_id"],
            ["experiments.tenant", "experiments.id"],
            name="fk_experiment_segments_experiments",
        ),
    )
    _create_index("experiment_segments", "experiment_id")


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
    _create_index("changes", "resource_id", "number")


def _create_resource_table(
    name: str, *columns: str, unique: tuple[str, ...] = ("name",), refers: sa.ForeignKeyConstraint | None = None
) -> None:
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
        *(() if refers is None else (refers,)),
    )


def _create_index(table: str, *columns: str, where: sa.TextClause | None = None) -> None:
    indexed = ["tenant", *columns]
    op.create_index(f"ix_{table}_{'_'.join(indexed)}", table, indexed, sqlite_where=where, postgresql_where=where)


def _column(name: str, type_: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False)


def _hold_all_flows_on_postgresql() -> None:
    """Have `all` tolerate no other active experiment, at any isolation level.

    Two active experiments clash when their tenants are equal and their flows overlap, `all` being the flow without
    bounds. An exclusion constraint sees what other transactions have not committed yet; a trigger's query would not.
    """
    op.execute('CREATE TYPE text_range AS RANGE (subtype = text, collation = "C")')
    op.execute(
        """
        ALTER TABLE experiments ADD CONSTRAINT all_flows_tolerates_no_other EXCLUDE USING gist (
          text_range(tenant, tenant, '[]') WITH &&,
          (CASE WHEN authentication_flow = 'all' THEN text_range(NULL, NULL)
                ELSE text_range(authentication_flow, authentication_flow, '[]') END) WITH &&
        ) WHERE (status = 'active')
        """
    )


CLASH = """
    SELECT 1 FROM experiments
    WHERE tenant = NEW.tenant AND status = 'active' AND id <> NEW.id
      AND (authentication_flow = 'all' OR NEW.authentication_flow = 'all')
"""


def _hold_all_flows_on_sqlite() -> None:
    """Have `all` tolerate no other active experiment. SQLite has one writer at a time, so a trigger sees everything."""
    for moment in ("INSERT", "UPDATE"):
        op.execute(
            f"""
            CREATE TRIGGER all_flows_tolerates_no_other_{moment.lower()} BEFORE {moment} ON experiments
            WHEN NEW.status = 'active' AND EXISTS ({CLASH})
            BEGIN SELECT RAISE(ABORT, 'all_flows_tolerates_no_other'); END
            """
        )


def _hold_history_on_postgresql() -> None:
    op.execute(
        """
        CREATE FUNCTION changes_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'changes_are_append_only' USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER changes_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON changes
        FOR EACH STATEMENT EXECUTE FUNCTION changes_are_append_only()
        """
    )


def _hold_history_on_sqlite() -> None:
    for moment in ("UPDATE", "DELETE"):
        op.execute(
            f"""
            CREATE TRIGGER changes_are_append_only_{moment.lower()} BEFORE {moment} ON changes
            BEGIN SELECT RAISE(ABORT, 'changes_are_append_only'); END
            """
        )
