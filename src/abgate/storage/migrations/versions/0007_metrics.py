"""Metrics of a tenant's own, and how experiments are analyzed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LIVE = sa.text("status <> 'archived'")


def upgrade() -> None:
    _create_resource(
        "metrics",
        *(_required(name) for name in ("name", "kind", "status")),
        sa.UniqueConstraint("tenant", "name", name="uq_metrics_tenant_name"),
    )
    op.create_index(
        "ix_metrics_tenant_created_in",
        "metrics",
        ["tenant", "created_in"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    op.create_index("ix_metrics_tenant_status_created_in", "metrics", ["tenant", "status", "created_in"])
    _create_resource(
        "analyses",
        sa.ForeignKeyConstraint(
            ["tenant", "id"], ["experiments.tenant", "experiments.id"], name="fk_analyses_experiments"
        ),
    )


def _create_resource(name: str, *more: sa.Column[str] | sa.UniqueConstraint | sa.ForeignKeyConstraint) -> None:
    op.create_table(
        name,
        _required("tenant"),
        _required("id"),
        sa.Column("created_in", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        _required("body"),
        *more,
        sa.PrimaryKeyConstraint("tenant", "id", name=f"pk_{name}"),
    )


def _required(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
