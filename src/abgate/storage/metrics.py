"""Metrics of a tenant's own, stored. The built-in ones are beside them in every tenant, and in no table."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection

from abgate.core.built_in_metrics import BUILT_IN
from abgate.core.errors import Conflict, NotFound
from abgate.core.metric import Metric, MetricId, MetricKind, MetricStatus
from abgate.storage import changes, rows
from abgate.storage.changes import Author
from abgate.storage.rows import Page, Stored
from abgate.storage.tables import metrics

BUILT_IN_REVISION = 0


def get(connection: Connection, tenant: str, id: MetricId) -> Stored[Metric]:
    """Return the metric, which may be a built-in one. Raises `NotFound`."""
    if id in BUILT_IN:
        return Stored(BUILT_IN[id], BUILT_IN_REVISION)
    stored = rows.find(connection, metrics, Metric, tenant, id)
    if stored is None:
        raise NotFound("metric", id)
    return stored


def find_many(connection: Connection, tenant: str, ids: Collection[MetricId]) -> dict[MetricId, Metric]:
    """Return those of the metrics that there are, by id."""
    own = [id for id in ids if id not in BUILT_IN]
    found = {metric.id: metric for metric in rows.find_by_ids(connection, metrics, Metric, tenant, own)}
    return {id: BUILT_IN[id] for id in ids if id in BUILT_IN} | found


def list_page(
    connection: Connection,
    tenant: str,
    *,
    kind: MetricKind | None,
    status: MetricStatus | None,
    after: int | None,
    take: int,
) -> Page[Metric]:
    """Return a page of metrics: the tenant's own, newest first, then the built-in ones.

    Archived ones only when `status` asks for them. The built-in metrics have the first checkpoints.
    """
    built_in = [each for each in BUILT_IN.values() if kind in (None, each.kind) and status in (None, each.status)]
    count = len(built_in)
    values: list[Metric] = []
    if after is None or after >= count:
        before = None if after is None else after - count
        equal = {"kind": kind, "status": status}
        own = rows.page(connection, metrics, Metric, tenant, equal, only_live=status is None, after=before, take=take)
        if own.next is not None:
            return Page(own.values, own.next + count)
        values, after = own.values, count
    left = built_in[count - after :][: take - len(values)]
    following = after - len(left)
    return Page(values + left, following if following > 0 else None)


def add(connection: Connection, author: Author, metric: Metric) -> None:
    """Store a new metric. Raises `Conflict` ``name_conflict``."""
    _check_name_is_free(connection, author.tenant, metric)
    number = changes.append(connection, author, "create", "metric", metric.id, before=None, after=metric)
    rows.add(connection, metrics, author.tenant, metric, _columns(metric), number=number)


def save(connection: Connection, author: Author, stored: Stored[Metric], metric: Metric) -> None:
    """Store the metric's new value. Raises `Conflict` ``name_conflict`` or ``conflict``."""
    if metric.name != stored.value.name:
        _check_name_is_free(connection, author.tenant, metric)
    changes.append(connection, author, "update", "metric", metric.id, before=stored.value, after=metric)
    rows.save(connection, metrics, author.tenant, stored, value=metric, columns=_columns)


def remove(connection: Connection, author: Author, metric: Metric) -> None:
    """Delete the metric. Raises `Conflict` ``conflict`` when it is gone."""
    changes.append(connection, author, "delete", "metric", metric.id, before=metric, after=None)
    rows.remove(connection, metrics, author.tenant, metric.id)


def _check_name_is_free(connection: Connection, tenant: str, metric: Metric) -> None:
    if metric.name in BUILT_IN:
        raise Conflict(
            f"name: {metric.name!r} is taken by a built-in metric. Choose another name.", code="name_conflict"
        )
    rows.check_name_is_free(connection, metrics, tenant, metric.name, id=metric.id)


def _columns(metric: Metric) -> dict[str, Any]:
    return {"id": metric.id, "name": metric.name, "kind": metric.kind, "status": metric.status}
