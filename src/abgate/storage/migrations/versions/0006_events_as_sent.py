"""Events as they were sent, and no more: what they belong to is in ``enrichments``."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("device", "user_id", "organization_id"):
        op.drop_index(f"ix_auth_events_tenant_{column}_type_at", "auth_events")
    for column in ("experiment_id", "variation_id", "forced"):
        op.drop_column("auth_events", column)
    op.create_index("ix_auth_events_tenant_type_at", "auth_events", ["tenant", "type", "at"])
    for column in ("device", "user_id", "transaction_id"):
        known = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"ix_auth_events_tenant_{column}_at",
            "auth_events",
            ["tenant", column, "at"],
            sqlite_where=known,
            postgresql_where=known,
        )
