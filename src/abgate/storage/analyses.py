"""How experiments are analyzed, stored: a row for each that something was set for."""

from typing import Any

import msgspec
from sqlalchemy import Connection, select

from abgate.core.analysis import UNPLANNED, Analysis
from abgate.core.ids import ExperimentId
from abgate.core.metric import MetricId
from abgate.storage import changes, rows
from abgate.storage.changes import Author
from abgate.storage.rows import Stored
from abgate.storage.tables import analyses, experiments


class _Row(Analysis, frozen=True, kw_only=True):
    id: ExperimentId


def find(connection: Connection, tenant: str, id: ExperimentId) -> Analysis:
    """Return how the experiment is analyzed: as was set, else by the built-in metrics."""
    stored = _find(connection, tenant, id)
    return UNPLANNED if stored is None else _analysis(stored.value)


def put(connection: Connection, author: Author, id: ExperimentId, analysis: Analysis) -> None:
    """Store how the experiment is analyzed. Raises `Conflict` ``conflict``."""
    stored = _find(connection, author.tenant, id)
    row = _Row(id=id, **_fields(analysis))
    if stored is not None and stored.value == row:
        return
    before = None if stored is None else _analysis(stored.value)
    action = "create" if stored is None else "update"
    number = changes.append(connection, author, action, "analysis", id, before=before, after=analysis)
    if stored is None:
        rows.add(connection, analyses, author.tenant, row, _columns(row), number=number)
    else:
        rows.save(connection, analyses, author.tenant, stored, value=row, columns=_columns)


def experiments_measured_by(connection: Connection, tenant: str, id: MetricId) -> list[tuple[ExperimentId, str]]:
    """Return id and name of the experiments that are not archived and whose analysis names the metric."""
    table = analyses
    found = connection.execute(
        select(table.c.body, experiments.c.id, experiments.c.name)
        .join(experiments, (experiments.c.tenant == table.c.tenant) & (experiments.c.id == table.c.id))
        .where(table.c.tenant == tenant, rows.is_live(experiments))
        .order_by(experiments.c.created_in)
    )
    return [(row.id, row.name) for row in found if id in msgspec.json.decode(row.body, type=_Row).metric_ids()]


def experiments_to_watch(connection: Connection) -> list[tuple[str, ExperimentId]]:
    """Return tenant and id of every active experiment, of all tenants, whose analysis has `auto_pause`."""
    table = analyses
    found = connection.execute(
        select(table.c.tenant, table.c.id, table.c.body)
        .join(experiments, (experiments.c.tenant == table.c.tenant) & (experiments.c.id == table.c.id))
        .where(experiments.c.status == "active")
        .order_by(table.c.tenant, experiments.c.created_in)
    )
    return [(row.tenant, row.id) for row in found if msgspec.json.decode(row.body, type=_Row).auto_pause]


def _find(connection: Connection, tenant: str, id: ExperimentId) -> Stored[_Row] | None:
    return rows.find(connection, analyses, _Row, tenant, id)


def _fields(analysis: Analysis) -> dict[str, Any]:
    return {name: getattr(analysis, name) for name in Analysis.__struct_fields__}


def _analysis(row: _Row) -> Analysis:
    return Analysis(**_fields(row))


def _columns(row: _Row) -> dict[str, Any]:
    return {"id": row.id}
