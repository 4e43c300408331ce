"""Operations on segments."""

from typing import Annotated

from litestar.params import QueryParameter
from msgspec import UNSET

from abgate.core.errors import NotFound
from abgate.core.segment import Segment, SegmentChanges, SegmentType, canonical_rules, revise_segment
from abgate.management.answers import segment_answer
from abgate.management.bodies import CreateSegment, SegmentAnswer, SegmentList, UpdateSegment
from abgate.management.caller import Caller
from abgate.management.feature_flags import in_use
from abgate.management.pagination import DEFAULT_TAKE, MAX_TAKE, from_checkpoint, to_checkpoint
from abgate.storage import experiments, segments


def list_segments(
    caller: Caller,
    *,
    from_: Annotated[str | None, QueryParameter(name="from", description="The `next` of the page before.")] = None,
    take: Annotated[int, QueryParameter(name="take", ge=1, le=MAX_TAKE)] = DEFAULT_TAKE,
    type: Annotated[SegmentType | None, QueryParameter(name="type")] = None,
) -> SegmentList:
    """List segments, newest first."""
    with caller.reading() as connection:
        page = segments.list_page(connection, caller.tenant, type=type, after=from_checkpoint(from_), take=take)
    return SegmentList([segment_answer(each, caller.generation) for each in page.values], to_checkpoint(page.next))


def create_segment(caller: Caller, data: CreateSegment) -> SegmentAnswer:
    """Create a segment."""
    segment = Segment(
        id=caller.new_id("seg"),
        name=data.name,
        description=UNSET if data.description is None else data.description,
        rules=canonical_rules(data.rules),
        created_at=caller.now,
        updated_at=caller.now,
    )
    with caller.writing() as connection:
        segments.add(connection, caller.author, segment)
    return segment_answer(segment, caller.generation)


def get_segment(caller: Caller, id: str) -> SegmentAnswer:
    """Return a segment."""
    with caller.reading() as connection:
        return segment_answer(segments.get(connection, caller.tenant, id).value, caller.generation)


def update_segment(caller: Caller, id: str, data: UpdateSegment) -> SegmentAnswer:
    """Change a segment: only the given fields, all of them or none. Archiving is final."""
    changes = SegmentChanges(
        name=data.name,
        description=data.description,
        rules=UNSET if data.rules is UNSET else canonical_rules(data.rules),
        status=data.status,
    )
    with caller.writing() as connection:
        stored = segments.get(connection, caller.tenant, id)
        revised = revise_segment(stored.value, changes, now=caller.now)
        if revised is not stored.value:
            segments.save(connection, caller.author, stored, revised)
        if revised.status != stored.value.status:
            referring = experiments.referring_to_segment(connection, caller.tenant, id)
            experiments.revalidate(connection, caller.tenant, referring)
    return segment_answer(revised, caller.generation)


def delete_segment(caller: Caller, id: str) -> None:
    """Delete a segment, unless an experiment that is not archived refers to it."""
    with caller.writing() as connection:
        try:
            segment = segments.get(connection, caller.tenant, id).value
        except NotFound:
            return
        referring = experiments.referring_to_segment(connection, caller.tenant, id)
        if referring:
            raise in_use(f"The segment {segment.name!r}", [stored.value for stored in referring])
        segments.remove(connection, caller.author, segment)
