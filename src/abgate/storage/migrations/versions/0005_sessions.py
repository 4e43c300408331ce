"""Sessions of the pages, each begun by a link that works once."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sessions",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "id", "name", "role")),
        sa.Column("link_hash", sa.LargeBinary()),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("created_at", "expires_at")),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_sessions"),
        sa.UniqueConstraint("link_hash", name="uq_sessions_link_hash"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
