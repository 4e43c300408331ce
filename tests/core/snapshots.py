"""Snapshots made of values."""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from abgate.core.allocation import References
from abgate.core.experiment import Experiment
from abgate.core.snapshot import EMPTY, Changes, Snapshot
from tests.core.builders import references


def json_of(values: Iterable[Struct]) -> Mapping[str, bytes]:
    return {value.id: msgspec.json.encode(value) for value in values}  # type: ignore[attr-defined]


def changes(*experiments: Experiment, refers_to: References | None = None, number: int = 1) -> Changes:
    """The experiments and what they refer to."""
    refers_to = refers_to or references()
    return Changes(
        number=number,
        experiments=json_of(experiments),
        feature_flags=json_of([refers_to.feature_flag]),
        variations=json_of(refers_to.variations.values()),
        segments=json_of(refers_to.segments.values()),
    )


def snapshot(*experiments: Experiment, refers_to: References | None = None) -> Snapshot:
    """A snapshot of the experiments and what they refer to."""
    return EMPTY.with_changes(changes(*experiments, refers_to=refers_to))
