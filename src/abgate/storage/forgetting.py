"""Finds and removes what the database has of a person, in whichever table. `abgate.core.person` says what that is.

Events and exposures are looked through from the first to the last, since no index knows every field that may name
somebody; a page at a time, in transactions that only read. What is found is deleted in small transactions of its own.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    delete,
    false,
    func,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from abgate.core.person import Links, Person, user_name_of
from abgate.storage.exposure_groups import file_one_by_one
from abgate.storage.tables import auth_events, enrichments, exposure_groups, exposures, sightings, stale_enrichments

PAGE = 5_000


class Found(Struct, frozen=True):
    """The sequences of what was found among a page of rows, and the last one looked at; None at the end."""

    sequences: Sequence[int]
    last: int | None


def last_group(connection: Connection) -> int:
    """Return the last group of exposures that are not in the log yet; 0 when there is none."""
    last: int = connection.execute(select(func.coalesce(func.max(exposure_groups.c.id), 0))).scalar_one()
    return last


def file_group_up_to(connection: Connection, group: int) -> bool:
    """File a group of exposures, and return whether there are more up to this one."""
    file_one_by_one(connection)
    left = select(func.count()).where(exposure_groups.c.id <= group)
    return bool(connection.execute(left).scalar_one())


def find_events(connection: Connection, person: Person, after: int) -> Found:
    """Look for the person's events in a page of the log."""
    page, last = _page(connection, auth_events, after)
    rows = connection.execute(
        _select_events(connection, page, person).where(auth_events.c.tenant == person.tenant)
    ).all()
    naming, own = (re.compile(each) if each else None for each in (person.naming, person.sent_under_own_name))
    found = [row.sequence for row in rows if _is_theirs(row, naming, own)]
    return Found(found, last)


def find_exposures(connection: Connection, person: Person, after: int) -> Found:
    """Look for the person's exposures in a page of the log."""
    page, last = _page(connection, exposures, after)
    exposure = exposures
    theirs = _is_named(person, exposure.c.user_id, exposure.c.device, exposure.c.subject)
    query = select(exposure.c.sequence).where(page, exposure.c.tenant == person.tenant, theirs)
    return Found(connection.execute(query).scalars().all(), last)


def delete_events(connection: Connection, sequences: Sequence[int]) -> None:
    """Delete these events, and what enrichment found of them."""
    connection.execute(delete(enrichments).where(enrichments.c.event_sequence.in_(sequences)))
    connection.execute(delete(stale_enrichments).where(stale_enrichments.c.event_sequence.in_(sequences)))
    connection.execute(delete(auth_events).where(auth_events.c.sequence.in_(sequences)))


def delete_exposures(connection: Connection, sequences: Sequence[int]) -> None:
    """Delete these exposures; events of others that belonged to one are to be looked at again."""
    found = enrichments
    others = select(found.c.event_sequence).where(found.c.exposure_sequence.in_(sequences))
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(stale_enrichments)
    connection.execute(insert.from_select(["event_sequence"], others).on_conflict_do_nothing())
    connection.execute(delete(exposures).where(exposures.c.sequence.in_(sequences)))


def delete_sightings(connection: Connection, person: Person) -> int:
    """Delete with which devices the user, or which users with the device, were seen; return how many that were."""
    return connection.execute(delete(sightings).where(_is_sighting(person))).rowcount


def count_sightings(connection: Connection, person: Person) -> int:
    """Return how many of them there are."""
    found: int = connection.execute(
        select(func.count()).select_from(sightings).where(_is_sighting(person))
    ).scalar_one()
    return found


def count_waiting(connection: Connection, person: Person) -> int:
    """Return how many groups of exposures that are not in the log yet name them; of other tenants' as well."""
    texts = [msgspec.json.encode(each) for each in (*person.named, *person.own_devices)]
    bodies = connection.execute(select(exposure_groups.c.body)).scalars()
    return sum(any(text in body for text in texts) for body in bodies)


def find_links(connection: Connection, tenant: str, user_id: str) -> Links:
    """Return the devices that the user was seen with, and the user names that his events were sent with."""
    seen, event = sightings, auth_events
    devices = select(seen.c.device).where(seen.c.tenant == tenant, seen.c.user_id == user_id)
    bodies = select(event.c.body).where(event.c.tenant == tenant, event.c.user_id == user_id)
    names = {user_name_of(body) for body in connection.execute(bodies).scalars()} - {None}
    return Links(frozenset(connection.execute(devices).scalars()), frozenset(name for name in names if name))


def find_shared(connection: Connection, tenant: str, user_id: str, links: Links) -> Links:
    """Return those of the devices that another user was seen with, and of the names that are another user's as well."""
    seen, event = sightings, auth_events
    devices = select(seen.c.device).where(
        seen.c.tenant == tenant, seen.c.user_id != user_id, seen.c.device.in_(links.devices)
    )
    others = select(event.c.body).where(
        event.c.tenant == tenant, event.c.user_id != user_id, _holds_any(connection, event.c.body, links.names)
    )
    names = {user_name_of(body) for body in connection.execute(others).scalars()}
    return Links(frozenset(connection.execute(devices).scalars()), links.names & names)


def _page(connection: Connection, table: Table, after: int) -> tuple[ColumnElement[bool], int | None]:
    """Return the condition of a page of rows after this sequence, and the last of it; None when it is the last page."""
    sequence = table.c.sequence
    following = select(sequence).where(sequence > after).order_by(sequence).limit(PAGE).subquery()
    last, count = connection.execute(select(func.max(following.c.sequence), func.count()).select_from(following)).one()
    return and_(sequence > after, sequence <= (last or after)), last if count == PAGE else None


def _select_events(connection: Connection, page: ColumnElement[bool], person: Person) -> Select[Any]:
    event, found, exposure = auth_events, enrichments, exposures
    joined = event.outerjoin(found, found.c.event_sequence == event.c.sequence).outerjoin(
        exposure, exposure.c.sequence == found.c.exposure_sequence
    )
    user_id = func.coalesce(event.c.user_id, exposure.c.user_id)
    device = func.coalesce(event.c.device, found.c.device)
    named = func.coalesce(_is_named(person, user_id, device, found.c.subject), false())
    mentioned = _holds_any(connection, event.c.body, [*person.named, *person.own_names])
    columns = (event.c.sequence, event.c.body, named.label("is_named"), user_id.is_(None).label("is_anonymous"))
    return select(*columns).select_from(joined).where(page, or_(named, mentioned))


def _is_theirs(row: Row[Any], naming: re.Pattern[str] | None, own: re.Pattern[str] | None) -> bool:
    return bool(
        row.is_named
        or (naming is not None and naming.search(row.body))
        or (own is not None and row.is_anonymous and own.search(row.body))
    )


def _is_named(
    person: Person, user_id: ColumnElement[Any], device: ColumnElement[Any], exposed: ColumnElement[Any]
) -> ColumnElement[bool]:
    """Return the condition that a record names them, or is an anonymous one of a device of theirs."""
    own = or_(device.in_(person.own_devices), exposed.in_(person.own_devices))
    either = [and_(user_id.is_(None), own)] if person.own_devices else []
    if person.user_id is not None:
        either += [user_id == person.user_id, exposed == person.user_id]
    if person.device is not None:
        either += [device == person.device, exposed == person.device]
    return or_(false(), *either)


def _is_sighting(person: Person) -> ColumnElement[bool]:
    either = [sightings.c.user_id == person.user_id] if person.user_id is not None else []
    either += [sightings.c.device == person.device] if person.device is not None else []
    return and_(sightings.c.tenant == person.tenant, or_(false(), *either))


def _holds_any(connection: Connection, body: ColumnElement[str], texts: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that one of these stands in the JSON, in a string."""
    position = func.strpos if connection.dialect.name == "postgresql" else func.instr
    return or_(false(), *(position(body, msgspec.json.encode(text).decode()[1:-1]) > 0 for text in texts))
