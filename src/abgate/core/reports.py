"""What clients in process report of the assignments they made: `POST /runtime/v1/exposures` takes lists of these."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from abgate.core.compiled import CompiledAllocation, CompiledExperiment
from abgate.core.events import MAX_SUBJECT_LENGTH, Microseconds
from abgate.core.ids import ExperimentId, SegmentId, VariationId

MAX_REPORTS = 1000
"""In one batch."""

# PostgreSQL stores no U+0000.
Reported = Annotated[str, Meta(max_length=MAX_SUBJECT_LENGTH, pattern="^[^\\x00]*$")]


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One assignment that was delivered. What the variation says the server knows itself."""

    at: Annotated[Microseconds, Meta(ge=0, le=4_000_000_000_000_000)]
    experiment_id: ExperimentId
    variation_id: VariationId
    segment_id: SegmentId | None = None
    reason: Literal["split", "segment", "fallback"]
    device: Reported | None = None
    user: Reported | None = None
    organization: Reported | None = None
    transaction_id: Reported | None = None
    snapshot_number: Annotated[int, Meta(ge=0, le=2**53)]
    attributes: Annotated[Mapping[str, Reported], Meta(max_length=20)] = {}


def find_allocation(experiment: CompiledExperiment, report: Report) -> CompiledAllocation | None:
    """Return the allocation that the report is about, or None when the experiment has no such one."""
    for allocation in experiment.allocations:
        if (allocation.context.variation_id, allocation.segment_id) == (report.variation_id, report.segment_id):
            return allocation
    return None
