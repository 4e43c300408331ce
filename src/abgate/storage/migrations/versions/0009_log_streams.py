"""Log streams, and how their deliveries go."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TEXT = sa.Text()


def upgrade() -> None:
    op.create_table(
        "log_streams",
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("created_in", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=False),
        sa.Column("delivered_at", TEXT),
        sa.Column("failing_since", TEXT),
        sa.Column("error", TEXT),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_log_streams"),
    )
