"""The event log: exposures, and the auth events that identity servers send."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT, MOMENT = sa.Text(), sa.BigInteger()


def upgrade() -> None:
    _create_log(
        "exposures",
        _required("at", MOMENT),
        _required("experiment_id", TEXT),
        _required("variation_id", TEXT),
        _required("forced", sa.Boolean()),
        *_optional("subject", "device", "user_id", "organization_id", "transaction_id"),
        _required("body", TEXT),
    )
    _create_index("exposures", "experiment_id", "subject", "at")
    for column in ("transaction_id", "device", "user_id"):
        _create_index("exposures", column, "at")
    _create_log(
        "auth_events",
        _required("log_id", TEXT),
        _required("at", MOMENT),
        _required("type", TEXT),
        *_optional("event", "client_id", "device", "user_id", "organization_id", "transaction_id"),
        *_optional("experiment_id", "variation_id"),
        _required("forced", sa.Boolean()),
        _required("body", TEXT),
        sa.UniqueConstraint("tenant", "log_id", name="uq_auth_events_tenant_log_id"),
    )
    _create_index("auth_events", "at")
    for column in ("device", "user_id", "organization_id"):
        _create_index("auth_events", column, "type", "at")


def _create_log(name: str, *columns: sa.Column[Any] | sa.UniqueConstraint) -> None:
    op.create_table(
        name,
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        _required("tenant", TEXT),
        *columns,
        sa.PrimaryKeyConstraint("sequence", name=f"pk_{name}"),
        sqlite_autoincrement=True,
    )


def _create_index(table: str, *columns: str) -> None:
    indexed = ["tenant", *columns]
    op.create_index(f"ix_{table}_{'_'.join(indexed)}", table, indexed)


def _required(name: str, type_: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False)


def _optional(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, TEXT) for name in names]
