"""Segments, stored."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection

from abgate.core.errors import NotFound
from abgate.core.ids import SegmentId
from abgate.core.segment import Segment, SegmentType
from abgate.storage import changes, rows
from abgate.storage.changes import Author
from abgate.storage.rows import Page, Stored
from abgate.storage.tables import segments


def get(connection: Connection, tenant: str, id: SegmentId) -> Stored[Segment]:
    """Return the segment. Raises `NotFound`."""
    stored = rows.find(connection, segments, Segment, tenant, id)
    if stored is None:
        raise NotFound("segment", id)
    return stored


def find_many(connection: Connection, tenant: str, ids: Collection[SegmentId]) -> dict[SegmentId, Segment]:
    """Return those of the segments that there are, by id."""
    return {segment.id: segment for segment in rows.find_by_ids(connection, segments, Segment, tenant, ids)}


def list_page(
    connection: Connection, tenant: str, *, type: SegmentType | None, after: int | None, take: int
) -> Page[Segment]:
    """Return a page of segments, newest first."""
    return rows.page(connection, segments, Segment, tenant, {"type": type}, only_live=False, after=after, take=take)


def add(connection: Connection, author: Author, segment: Segment) -> None:
    """Store a new segment. Raises `Conflict` ``name_conflict``."""
    rows.check_name_is_free(connection, segments, author.tenant, segment.name, id=segment.id)
    number = changes.append(connection, author, "create", "segment", segment.id, before=None, after=segment)
    rows.add(connection, segments, author.tenant, segment, _columns(segment), number=number)


def save(connection: Connection, author: Author, stored: Stored[Segment], segment: Segment) -> None:
    """Store the segment's new value. Raises `Conflict` ``name_conflict`` or ``conflict``."""
    if segment.name != stored.value.name:
        rows.check_name_is_free(connection, segments, author.tenant, segment.name, id=segment.id)
    changes.append(connection, author, "update", "segment", segment.id, before=stored.value, after=segment)
    rows.save(connection, segments, author.tenant, stored, value=segment, columns=_columns)


def remove(connection: Connection, author: Author, segment: Segment) -> None:
    """Delete the segment. Raises `Conflict` ``conflict`` when it is gone."""
    changes.append(connection, author, "delete", "segment", segment.id, before=segment, after=None)
    rows.remove(connection, segments, author.tenant, segment.id)


def _columns(segment: Segment) -> dict[str, Any]:
    return {"id": segment.id, "name": segment.name, "type": segment.type}
