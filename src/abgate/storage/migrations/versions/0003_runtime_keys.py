"""Runtime keys, stored by their hash."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "runtime_keys",
        *(
            sa.Column(name, sa.LargeBinary() if name == "hash" else sa.Text(), nullable=False)
            for name in ("tenant", "id", "kind", "name", "origins", "hash", "created_at")
        ),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_runtime_keys"),
        sa.UniqueConstraint("hash", name="uq_runtime_keys_hash"),
    )
