"""Operations on log streams, as the published Management API has them."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from litestar.datastructures import State
from msgspec import UNSET
from sqlalchemy import Connection

from abgate.core.errors import InvalidInput, NotFound, RuleBroken
from abgate.core.events import Microseconds, parse_moment
from abgate.core.log_stream import MAX_STREAMS, HttpSink, LogStream, Secrets, host_of, revise, separated
from abgate.management.bodies import CreateLogStream, LogStreamAnswer, UpdateLogStream
from abgate.management.caller import Caller
from abgate.settings import Settings, is_public_or_in
from abgate.storage import log_streams
from abgate.storage.log_streams import Known


def list_log_streams(caller: Caller, state: State) -> list[LogStreamAnswer]:
    """List log streams, oldest first, with how their deliveries go."""
    with caller.reading() as connection:
        return [_answer(known) for known in log_streams.list_all(connection, state.vault, caller.tenant)]


def create_log_stream(caller: Caller, state: State, data: CreateLogStream) -> LogStreamAnswer:
    """Create a log stream: it delivers what is stored from now on, or from the event at `startFrom` on."""
    start = None if data.start_from is None else _moment(data.start_from)
    _check_endpoint(data.sink, state.settings)
    sink, secrets = separated(data.sink, Secrets())
    stream = LogStream(
        id=caller.new_id("lst"),
        name=data.name or host_of(sink),
        is_priority=bool(data.is_priority),
        filters=data.filters or [],
        sink=sink,
        created_at=caller.now,
        updated_at=caller.now,
    )
    with caller.writing() as connection:
        if len(log_streams.list_all(connection, state.vault, caller.tenant)) >= MAX_STREAMS:
            raise RuleBroken(
                f"A tenant has at most {MAX_STREAMS} log streams. Delete one first.", code="log_stream_limit_exceeded"
            )
        after = log_streams.place_at(connection, caller.tenant, start)
        log_streams.add(connection, state.vault, caller.author, stream, secrets, after=after)
        return _shown(connection, caller, state, stream.id)


def get_log_stream(caller: Caller, state: State, id: str) -> LogStreamAnswer:
    """Return a log stream, with how its deliveries go."""
    with caller.reading() as connection:
        return _shown(connection, caller, state, id)


def update_log_stream(caller: Caller, state: State, id: str, data: UpdateLogStream) -> LogStreamAnswer:
    """Change a log stream: only the given fields. An active one that was paused or suspended goes on where it was."""
    if data.sink is not UNSET:
        _check_endpoint(data.sink, state.settings)
    with caller.writing() as connection:
        known = log_streams.get(connection, state.vault, caller.tenant, id)
        stream, secrets = revise(known.stored.value, known.secrets, data, now=caller.now)
        log_streams.save(connection, state.vault, caller.author, known, stream, secrets)
        return _shown(connection, caller, state, id)


def delete_log_stream(caller: Caller, state: State, id: str) -> None:
    """Delete a log stream."""
    with caller.writing() as connection:
        try:
            stream = log_streams.get(connection, state.vault, caller.tenant, id).stored.value
        except NotFound:
            return
        log_streams.remove(connection, caller.author, stream)


def _shown(connection: Connection, caller: Caller, state: State, id: str) -> LogStreamAnswer:
    return _answer(log_streams.get(connection, state.vault, caller.tenant, id))


def _answer(known: Known) -> LogStreamAnswer:
    stream = known.stored.value
    return LogStreamAnswer(
        id=stream.id,
        name=stream.name,
        status=stream.status,
        is_priority=stream.is_priority,
        filters=stream.filters,
        sink=stream.sink,
        health=known.health,
        created_at=stream.created_at,
        updated_at=stream.updated_at,
    )


def _check_endpoint(sink: HttpSink, settings: Settings) -> None:
    """Raise `InvalidInput` for an address that is never delivered to; what a name stands for is asked when it is."""
    field = "sink.httpEndpoint"
    try:
        parts = urlsplit(sink.http_endpoint)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or "@" in parts.netloc or parts.fragment or "\\" in sink.http_endpoint:
        raise InvalidInput(field, "must be an absolute URL without a user or a fragment")
    if parts.scheme != "https" and settings.mode != "development":
        raise InvalidInput(
            field, "must be https, or the events could be read on their way; development mode allows http"
        )
    host = parts.hostname or ""
    if re.fullmatch(r"[0-9.]+|[0-9a-f:.%]*:[0-9a-f:.%]*", host) and not _may_be_reached(host, settings):
        raise InvalidInput(
            field, "is at an address that is not public; ABGATE_LOG_STREAM_NETWORKS can allow its network"
        )


def _may_be_reached(host: str, settings: Settings) -> bool:
    try:
        return is_public_or_in(ip_address(host), settings.log_stream_allowed)
    except ValueError:
        return False


def _moment(text: str) -> Microseconds:
    try:
        return parse_moment(text)
    except ValueError:
        raise InvalidInput("startFrom", "must be a date and time such as 2026-01-31T12:00:00.000Z") from None
