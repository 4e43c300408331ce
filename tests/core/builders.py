"""Small valid values, any field of them by keyword, and how a refusal is asserted."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from msgspec.structs import replace

from abgate.core.allocation import AllocationInput, References
from abgate.core.errors import InvalidInput, Refusal
from abgate.core.experiment import Experiment, ExperimentChanges, ExperimentStatus, NewExperiment
from abgate.core.feature_flag import (
    ArrayParameter,
    BooleanParameter,
    FeatureFlag,
    NumberParameter,
    ObjectParameter,
    Override,
    Parameter,
    StringParameter,
    Variation,
)
from abgate.core.ids import ExperimentId, FeatureFlagId, SegmentId, Timestamp, VariationId, make_id
from abgate.core.lifecycle import draft_experiment, revise
from abgate.core.readiness import Rival
from abgate.core.segment import Conditions, Rule, Segment

# A property says what holds, not how fast: another process on the machine must not fail it.
settings.register_profile("without a deadline", deadline=None)
settings.load_profile("without a deadline")


def minute(number: int) -> Timestamp:
    """A moment; a later one for a larger number."""
    return f"2026-11-24T{9 + number // 60:02d}:{number % 60:02d}:00.000Z"


CREATED = minute(0)
NOW = minute(1)
LATER = minute(59)


def flag_id(number: int = 1) -> FeatureFlagId:
    return make_id("flg", number.to_bytes(32))


def variation_id(number: int) -> VariationId:
    return make_id("var", number.to_bytes(32))


def segment_id(number: int) -> SegmentId:
    return make_id("seg", number.to_bytes(32))


def experiment_id(number: int = 1) -> ExperimentId:
    return make_id("exp", number.to_bytes(32))


def parameters() -> dict[str, Parameter]:
    """One parameter of each type."""
    return {
        "title": StringParameter(value="Sign in"),
        "prompt": BooleanParameter(value=False),
        "attempts": NumberParameter(value=3),
        "methods": ArrayParameter(value=["password"]),
        "theme": ObjectParameter(value={"color": "blue"}),
    }


def overrides(**values: Any) -> dict[str, Override]:
    return {name: Override(value) for name, value in values.items()}


def feature_flag(**fields: Any) -> FeatureFlag:
    """An active flag."""
    defaults: dict[str, Any] = {"id": flag_id(), "name": "passkey-prompt", "status": "active"}
    stamps = {"created_at": CREATED, "updated_at": CREATED}
    return FeatureFlag(**{**defaults, **stamps, "parameters": parameters(), **fields})


def variation(number: int = 1, **fields: Any) -> Variation:
    """The flag's variation of that number: the first is the baseline, the others override the title."""
    defaults: dict[str, Any] = {
        "id": variation_id(number),
        "feature_flag_id": flag_id(),
        "name": f"variation {number}",
        "overrides": {} if number == 1 else overrides(title=f"Welcome {number}"),
    }
    return Variation(**{**defaults, "created_at": CREATED, "updated_at": CREATED, **fields})


def segment(number: int = 1, **fields: Any) -> Segment:
    """An active segment."""
    defaults: dict[str, Any] = {
        "id": segment_id(number),
        "name": f"segment {number}",
        "rules": [Rule(match=Conditions(country=["FR"]))],
    }
    return Segment(**{**defaults, "created_at": CREATED, "updated_at": CREATED, **fields})


def references(
    flag: FeatureFlag | None = None,
    variations: Iterable[Variation] | None = None,
    segments: Iterable[Segment] | None = None,
) -> References:
    """An active flag with three variations, and two active segments."""
    variations = [variation(number) for number in (1, 2, 3)] if variations is None else variations
    segments = [segment(number) for number in (1, 2)] if segments is None else segments
    return References(
        flag or feature_flag(), {each.id: each for each in variations}, {each.id: each for each in segments}
    )


def by_percentage(*weights: int) -> list[AllocationInput]:
    """The variations 1, 2, … with these weights; the first is the control."""
    return [
        AllocationInput(variation_id=variation_id(number), is_control=number == 1, weight=weight)
        for number, weight in enumerate(weights, 1)
    ]


def by_segment(*segments: int) -> list[AllocationInput]:
    """The variations 2, 3, … for these segments, by priority, and variation 1, the control, for everyone left."""
    return [
        *(
            AllocationInput(variation_id=variation_id(place + 1), is_control=False, segment_id=segment_id(segment))
            for place, segment in enumerate(segments, 1)
        ),
        AllocationInput(variation_id=variation_id(1), is_control=True, is_fallback=True),
    ]


def new_experiment(**fields: Any) -> NewExperiment:
    """What creates an experiment that is ready for activation."""
    defaults: dict[str, Any] = {
        "name": "passkey-prompt-q2",
        "feature_flag_id": flag_id(),
        "authentication_flow": "authentication",
        "allocations": by_percentage(90, 10),
    }
    return NewExperiment(**{**defaults, **fields})


def rival(flow: str = "authentication", number: int = 9) -> Rival:
    return Rival(experiment_id(number), "the other one", flow)


# How each status is reached, with one minute between the steps.
PATHS: dict[ExperimentStatus, list[ExperimentStatus]] = {
    "draft": [],
    "active": ["active"],
    "paused": ["active", "paused"],
    "completed": ["active", "completed"],
    "archived": ["active", "completed", "archived"],
}


def experiment(status: ExperimentStatus = "draft", refers_to: References | None = None, **fields: Any) -> Experiment:
    """An experiment that was created with these fields and then went its way to `status`."""
    refers_to = refers_to or references()
    made = draft_experiment(new_experiment(**fields), refers_to, id=experiment_id(), now=CREATED)
    for number, target in enumerate(PATHS[status], 1):
        made = moved(made, target, refers_to, now=minute(number))
    return made


def moved(
    experiment: Experiment, status: ExperimentStatus, refers_to: References | None = None, *, now: Timestamp = LATER
) -> Experiment:
    return revise(experiment, ExperimentChanges(status=status), refers_to or references(), rivals=[], now=now)


def with_flag(refers_to: References, **fields: Any) -> References:
    return replace(refers_to, feature_flag=replace(refers_to.feature_flag, **fields))


def fits(value: Any, type_: Any) -> bool:
    """Whether a client may send this JSON value where the type is asked."""
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return False
    return True


@contextmanager
def refused(refusal: type[Refusal], code: str, *words: str) -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """Expect this very class and code, and a message with each of these words in it."""
    with pytest.raises(Refusal) as caught:
        yield caught
    assert (type(caught.value), caught.value.code) == (refusal, code)
    missing = [word for word in words if word not in caught.value.message]
    assert not missing, f"{caught.value.message!r} does not say {missing}"


@contextmanager
def invalid(field: str, *rule: str) -> Iterator[None]:
    """Expect an `InvalidInput` at this path, whose message begins with it and says the rule."""
    with refused(InvalidInput, "invalid_body", *rule) as caught:
        yield
    assert getattr(caught.value, "field", None) == field
    assert caught.value.message.startswith(f"{field}: ")
