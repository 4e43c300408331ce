"""Phases: while the weights stay, all exposures are alike; after a change of them a new phase begins."""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, Struct

from abgate.core.events import Microseconds, parse_timestamp
from abgate.core.experiment import Experiment
from abgate.core.ids import Timestamp, VariationId


class Phase(Struct, frozen=True):
    """From when on which variations had which weights; none with the segment strategy."""

    starts_at: Timestamp
    weights: Mapping[VariationId, int]

    @property
    def begins(self) -> Microseconds:
        """When it begins, in microseconds."""
        return parse_timestamp(self.starts_at)


def phases_of(history: Sequence[tuple[Timestamp, Experiment]]) -> list[Phase]:
    """Return the phases of an experiment by its stored values, oldest first; none before its first activation.

    A step of the ramp begins no phase: it lets more subjects in, and moves none. Edits that never were active are none
    either. A phase begins with the first edit after the last activation, since a paused experiment still answers.
    """
    phases: list[tuple[Timestamp, object, Phase]] = []
    changed_at: Timestamp | None = None
    for at, experiment in history:
        if experiment.started_at is UNSET:
            continue
        shares = _shares(experiment)
        if phases and shares == phases[-1][1]:
            changed_at = None
            continue
        changed_at = changed_at or (at if phases else experiment.started_at)
        if experiment.status == "active":
            phases.append((changed_at, shares, Phase(changed_at, _weights(experiment))))
            changed_at = None
    return [phase for _, _, phase in phases]


def _shares(experiment: Experiment) -> object:
    return [
        (each.variation_id, each.weight, each.segment_id, each.priority, each.is_fallback is True)
        for each in experiment.allocations
    ]


def _weights(experiment: Experiment) -> dict[VariationId, int]:
    return {each.variation_id: each.weight for each in experiment.allocations if each.weight is not UNSET}
