"""Exposures on their way into the event log, many a row: so they are durable at a tenth of the cost.

Most of what it takes to store an exposure goes into its indexes, which nobody needs at the moment of the login. A group
is stored as one row without any, and filed into the event log, exposure by exposure, when there is time.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, func, insert, select

from abgate.core.assignment import Reason
from abgate.core.compiled import ExperimentDetails
from abgate.core.events import Exposure, Microseconds
from abgate.storage.event_log import add_exposures
from abgate.storage.tables import exposure_groups

GROUP = 200
"""Exposures of a group. On SQLite to file so many keeps other writers out for some 15 ms."""

Packed = tuple[bytes, bytes]
"""An exposure as it is queued: its `ExperimentDetails` as JSON, which many share, and the rest of it as JSON."""


class _Rest(Struct, frozen=True, array_like=True, gc=False):
    tenant: str
    at: Microseconds
    reason: Reason
    subject: str | None
    device: str | None
    user_id: str | None
    organization_id: str | None
    transaction_id: str | None
    snapshot_number: int
    attributes: dict[str, str]


class _Lot(Struct, frozen=True, array_like=True):
    """The exposures of a group that share their details."""

    experiment: ExperimentDetails
    rests: list[_Rest]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Lot]).decode


def pack(tenant: str, exposure: Exposure) -> Packed:
    """Return the exposure as it is queued. Raises an exception when JSON cannot hold it."""
    rest = _Rest(
        tenant,
        exposure.at,
        exposure.reason,
        exposure.subject,
        exposure.device,
        exposure.user_id,
        exposure.organization_id,
        exposure.transaction_id,
        exposure.snapshot_number,
        exposure.attributes,  # type: ignore[arg-type]  # encoded here and never changed
    )
    return exposure.experiment.json, _encode(rest)


def joined(exposures: Iterable[Packed]) -> bytes:
    """Return exposures as one message: their number in four bytes, and what `add_messages` stores."""
    lots: dict[bytes, list[bytes]] = {}
    count = 0
    for experiment, rest in exposures:
        lots.setdefault(experiment, []).append(rest)
        count += 1
    body = b",".join(b"[%b,[%b]]" % (experiment, b",".join(rests)) for experiment, rests in lots.items())
    return count.to_bytes(4) + body


def count_exposures(messages: Iterable[bytes]) -> int:
    """Return how many exposures the messages hold."""
    return sum(int.from_bytes(message[:4]) for message in messages)


def add_messages(connection: Connection, messages: Iterable[bytes]) -> None:
    """Store messages, in as few groups of at most `GROUP` exposures as they make."""
    groups: list[list[bytes]] = []
    held = 0
    for message in messages:
        count = count_exposures([message])
        if not groups or held + count > GROUP:
            groups.append([])
            held = 0
        groups[-1].append(message[4:])
        held += count
    connection.execute(insert(exposure_groups), [{"body": b"[%b]" % b",".join(group)} for group in groups])


def count_groups(connection: Connection) -> int:
    """Return how many groups wait to be filed, at most: some between the oldest and the newest may be filed already."""
    oldest, newest = connection.execute(select(func.min(exposure_groups.c.id), func.max(exposure_groups.c.id))).one()
    return 0 if newest is None else int(newest - oldest + 1)


def file_group(connection: Connection) -> int:
    """File the oldest group that nobody else is filing; return how many exposures it held, 0 when there is none."""
    found = _take(connection)
    add_exposures(connection, found)
    return len(found)


def file_one_by_one(connection: Connection) -> tuple[int, list[Exception]]:
    """Do the same for a group of which some cannot be stored; return why as well. The others are filed."""
    found = _take(connection)
    why: list[Exception] = []
    for one in found:
        try:
            with connection.begin_nested():
                add_exposures(connection, [one])
        except Exception as error:
            if getattr(error, "connection_invalidated", False):
                raise
            why.append(error)
    return len(found), why


def _take(connection: Connection) -> Sequence[tuple[str, Exposure]]:
    table = exposure_groups
    oldest = select(table).order_by(table.c.id).limit(1).with_for_update(skip_locked=True)
    row = connection.execute(oldest).one_or_none()
    if row is None:
        return []
    connection.execute(delete(table).where(table.c.id == row.id))
    return [(rest.tenant, _exposure(lot.experiment, rest)) for lot in _decode(row.body) for rest in lot.rests]


def _exposure(experiment: ExperimentDetails, rest: _Rest) -> Exposure:
    return Exposure(
        at=rest.at,
        experiment=experiment,
        reason=rest.reason,
        subject=rest.subject,
        device=rest.device,
        user_id=rest.user_id,
        organization_id=rest.organization_id,
        transaction_id=rest.transaction_id,
        snapshot_number=rest.snapshot_number,
        attributes=rest.attributes,
    )
