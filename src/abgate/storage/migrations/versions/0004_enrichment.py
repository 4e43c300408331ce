"""Enrichment apart from the events, and what those who follow the event log keep: their positions and leases."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT, NUMBER = sa.Text(), sa.BigInteger()
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "enrichments",
        sa.Column("event_sequence", SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("at", NUMBER, nullable=False),
        sa.Column("exposure_sequence", NUMBER),
        sa.Column("experiment_id", TEXT),
        sa.Column("variation_id", TEXT),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("subject", TEXT),
        sa.Column("device", TEXT),
        sa.Column("revision", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("event_sequence", name="pk_enrichments"),
    )
    op.create_index("ix_enrichments_tenant_experiment_id_at", "enrichments", ["tenant", "experiment_id", "at"])
    op.create_index("ix_enrichments_exposure_sequence", "enrichments", ["exposure_sequence"])
    corrected = sa.text("revision > 0")
    op.create_index(
        "ix_enrichments_revision", "enrichments", ["revision"], sqlite_where=corrected, postgresql_where=corrected
    )
    op.create_table(
        "stale_enrichments",
        sa.Column("event_sequence", SEQUENCE, autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("event_sequence", name="pk_stale_enrichments"),
    )
    _create_table("sightings", ["tenant", "user_id", "device"], sa.Column("at", NUMBER, nullable=False))
    op.create_index("ix_sightings_tenant_user_id_at", "sightings", ["tenant", "user_id", "at"])
    op.create_index("ix_sightings_tenant_device", "sightings", ["tenant", "device"])
    _create_table("experiment_ends", ["tenant", "experiment_id"], sa.Column("at", NUMBER, nullable=False))
    _create_table("positions", ["consumer", "log"], sa.Column("position", NUMBER, nullable=False))
    _create_table("leases", ["name"], sa.Column("holder", TEXT), sa.Column("term", NUMBER, nullable=False))


def _create_table(name: str, key: list[str], *columns: sa.Column[object]) -> None:
    op.create_table(
        name,
        *(sa.Column(each, TEXT, nullable=False) for each in key),
        *columns,
        sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"),
    )
