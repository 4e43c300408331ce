"""What the lake's two tables hold: their columns, and the rows that the event log becomes. See ``docs/lake.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import UNSET, Struct

from abgate.core.events import TRACKED, Exposure, Microseconds, to_timestamp
from abgate.storage.logged import LoggedEvent, LoggedExposure

if TYPE_CHECKING:
    from pyarrow import Schema
    from pyarrow import Table as Rows

TableName = Literal["events", "exposures"]
TABLES: tuple[TableName, ...] = ("exposures", "events")

_DAY = timedelta(days=1) // timedelta(microseconds=1)

ATTRIBUTES = (
    "client_id",
    "connection",
    "connection_type",
    "domain",
    "device_type",
    "browser",
    "platform",
    "country",
    "region",
)
"""What results are broken down by: of an exposure's attributes, those with a column."""

_NOT_TEXT: Mapping[str, str] = {
    "sequence": "int64",
    "at": "timestamp",
    "value": "float64",
    "is_control": "bool",
    "forced": "bool",
    "snapshot_number": "int64",
}


class _Sent(Struct, frozen=True):
    """What is looked for in an event as it was sent; of any type, since what servers send in them is their own."""

    connection: Any = None
    value: Any = None


_decode_sent = msgspec.json.Decoder(_Sent).decode


def _of_exposure(read: Callable[[Exposure], Any], default: Any = None) -> Callable[[Any], Any]:
    return lambda logged: default if logged.exposure is None else read(logged.exposure)


def _segment_id(exposure: Exposure) -> str | None:
    segment_id = exposure.experiment.segment_id
    return None if segment_id is UNSET else segment_id


def _attribute(name: str) -> Callable[[Any], Any]:
    return lambda logged: logged.exposure.attributes.get(name)


_ASSIGNED: Mapping[str, Callable[[Any], Any]] = {
    "experiment_id": _of_exposure(lambda exposure: exposure.experiment.experiment_id),
    "variation_id": _of_exposure(lambda exposure: exposure.experiment.variation_id),
    "is_control": _of_exposure(lambda exposure: exposure.experiment.is_control),
    "segment_id": _of_exposure(_segment_id),
}

_EXPOSURES: Mapping[str, Callable[[LoggedExposure], Any]] = {
    "tenant": attrgetter("tenant"),
    "day": lambda logged: day_of(logged.exposure.at),
    "sequence": attrgetter("sequence"),
    "at": _of_exposure(attrgetter("at")),
    **_ASSIGNED,
    "allocation_strategy": lambda logged: logged.exposure.experiment.allocation_strategy,
    "reason": _of_exposure(attrgetter("reason")),
    "forced": _of_exposure(attrgetter("is_forced")),
    "subject": _of_exposure(attrgetter("subject")),
    "device": _of_exposure(attrgetter("device")),
    "user_id": _of_exposure(attrgetter("user_id")),
    "organization_id": _of_exposure(attrgetter("organization_id")),
    "transaction_id": _of_exposure(attrgetter("transaction_id")),
    "snapshot_number": _of_exposure(attrgetter("snapshot_number")),
    **{name: _attribute(name) for name in ATTRIBUTES},
}

_EVENTS: Mapping[str, Callable[[LoggedEvent], Any]] = {
    "tenant": attrgetter("tenant"),
    "day": lambda event: day_of(event.at),
    **{name: attrgetter(name) for name in ("sequence", "log_id", "at", "type", "event", "client_id")},
    "connection": lambda event: connection_of(event.body),
    **{name: attrgetter(name) for name in ("device", "user_id", "organization_id", "transaction_id")},
    "value": lambda event: value_of(event.body) if event.type == TRACKED else None,
    **_ASSIGNED,
    "forced": _of_exposure(attrgetter("is_forced"), default=False),
    "subject": _of_exposure(attrgetter("subject")),
    "body": attrgetter("body"),
}

_COLUMNS: Mapping[TableName, Mapping[str, Callable[[Any], Any]]] = {"events": _EVENTS, "exposures": _EXPOSURES}


def columns_of(name: TableName) -> list[str]:
    """Return the columns of a table in their order."""
    return list(_COLUMNS[name])


def schema_of(name: TableName) -> Schema:
    """Return a table's columns with their types."""
    import pyarrow

    types = {
        "text": pyarrow.string(),
        "int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
        "bool": pyarrow.bool_(),
        "timestamp": pyarrow.timestamp("us", tz="UTC"),
    }
    return pyarrow.schema([(column, types[_NOT_TEXT.get(column, "text")]) for column in _COLUMNS[name]])


def rows_of(name: TableName, logged: Sequence[LoggedEvent] | Sequence[LoggedExposure]) -> Rows:
    """Return what a part of the event log becomes in the table."""
    import pyarrow

    schema = schema_of(name)
    columns = [
        pyarrow.array([read(each) for each in logged], type=schema.field(column).type)
        for column, read in _COLUMNS[name].items()
    ]
    return pyarrow.Table.from_arrays(columns, schema=schema)


@lru_cache(1024)
def _day(number: int) -> str:
    return to_timestamp(number * _DAY)[:10]


def day_of(at: Microseconds) -> str:
    """Return the UTC date of a moment, as in ``2026-01-31``."""
    return _day(at // _DAY)


def connection_of(body: str) -> str | None:
    """Return the connection that an event names, if any."""
    connection = _decode_sent(body).connection
    return connection if isinstance(connection, str) else None


def value_of(body: str) -> float | None:
    """Return the value of a tracked event, if it has a number that fits."""
    value = _decode_sent(body).value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
