"""What clients send and get, where it differs from the domain's own values, and how a body is read.

Answers are the domain's values with the names beside the ids; the first generation of the contract leaves the second
one's fields out, which here is to leave them unset.
"""

import json
import math
import re
from typing import Annotated, Any, TypeVar

import msgspec
import msgspec.inspect
from msgspec import UNSET, Meta, Struct, UnsetType

from abgate.core.allocation import Allocation, AllocationStrategy
from abgate.core.errors import InvalidInput
from abgate.core.experiment import Experiment, ExperimentChanges, ExperimentStatus, NewExperiment
from abgate.core.feature_flag import (
    FeatureFlag,
    FeatureFlagChanges,
    FeatureFlagStatus,
    Overrides,
    Parameters,
    Variation,
    VariationChanges,
)
from abgate.core.ids import Description, ExperimentId, FeatureFlagId, Name, VariationId
from abgate.core.readiness import Blocker
from abgate.core.segment import RuleInputs, Segment, SegmentStatus
from abgate.storage.changes import Change

T = TypeVar("T")

MAX_DEPTH = 64
MAX_INTEGER = 2**63


class _Patch(Struct, frozen=True):
    def __post_init__(self) -> None:
        if all(getattr(self, name) is UNSET for name in self.__struct_fields__):
            raise ValueError("at least one field is required")


class CreateFeatureFlag(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new feature flag."""

    name: Name
    description: Description | None = None
    parameters: Parameters


class UpdateFeatureFlag(FeatureFlagChanges, _Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a feature flag; at least one."""


class UpdateFeatureFlagStatus(Struct, frozen=True, forbid_unknown_fields=True):
    """The status a feature flag should move to."""

    status: FeatureFlagStatus


class CreateVariation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new variation; without overrides it is the baseline."""

    name: Name
    description: Description | None = None
    overrides: Overrides


class UpdateVariation(VariationChanges, _Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a variation; at least one."""


class CreateSegment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new segment."""

    name: Name
    description: Description | None = None
    rules: RuleInputs


class UpdateSegment(_Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a segment; at least one."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    rules: RuleInputs | UnsetType = UNSET
    status: SegmentStatus | UnsetType = UNSET


class CreateExperiment(NewExperiment, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new experiment, a draft."""


class UpdateExperiment(ExperimentChanges, _Patch, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to an experiment; at least one.

    `feature_flag_id` and `allocation_strategy` are known only to be refused by name: they never change.
    """

    feature_flag_id: FeatureFlagId | UnsetType = UNSET
    allocation_strategy: AllocationStrategy | UnsetType = UNSET


class UpdateExperimentStatus(Struct, frozen=True, forbid_unknown_fields=True):
    """The status an experiment should move to; `draft` is none."""

    status: ExperimentStatus


class AdvanceRamp(Struct, frozen=True, forbid_unknown_fields=True):
    """The next level of the ramp, in percent."""

    target_level: Annotated[int, Meta(ge=0, le=100)]


class RollOut(Struct, frozen=True, forbid_unknown_fields=True):
    """The variation that everyone is to get."""

    variation_id: VariationId


class FeatureFlagAnswer(FeatureFlag, frozen=True, kw_only=True):
    """A feature flag."""

    served_variation_id: VariationId | UnsetType | None = UNSET  # type: ignore[assignment]  # the first generation has none


class FeatureFlagList(Struct, frozen=True):
    """A page of feature flags; `next` is there when there is another page."""

    feature_flags: list[FeatureFlagAnswer]
    next: str | UnsetType = UNSET


class VariationList(Struct, frozen=True):
    """Every variation of a feature flag."""

    variations: list[Variation]


class SegmentAnswer(Segment, frozen=True, kw_only=True):
    """A segment."""

    status: SegmentStatus | UnsetType = UNSET  # type: ignore[assignment]  # the first generation has none


class SegmentList(Struct, frozen=True):
    """A page of segments; `next` is there when there is another page."""

    segments: list[SegmentAnswer]
    next: str | UnsetType = UNSET


class AllocationAnswer(Allocation, frozen=True, kw_only=True):
    """An allocation, with the names of its variation and segment."""

    variation_name: str | UnsetType = UNSET
    segment_name: str | UnsetType = UNSET


class ExperimentAnswer(Experiment, frozen=True, kw_only=True):
    """An experiment, with names beside ids and the fields that may be edited now."""

    feature_flag_name: str | UnsetType = UNSET
    allocations: list[AllocationAnswer]  # type: ignore[assignment]  # a list that is only read
    current_level: int | UnsetType | None = UNSET  # type: ignore[assignment]  # the first generation has none
    editable_fields: list[str] | UnsetType = UNSET


class ExperimentList(Struct, frozen=True):
    """A page of experiments; `next` is there when there is another page."""

    experiments: list[ExperimentAnswer]
    next: str | UnsetType = UNSET


class Readiness(Struct, frozen=True):
    """Whether an experiment can be activated, and everything that keeps it from it."""

    is_valid: bool
    errors: list[Blocker]


class RampAdvance(Struct, frozen=True):
    """A step of a ramp, in percents."""

    experiment_id: ExperimentId
    from_level: int
    to_level: int
    current_level: int


class ChangeList(Struct, frozen=True):
    """A page of the change history; `next` is there when there is another page."""

    changes: list[Change]
    next: str | UnsetType = UNSET


class ErrorAnswer(Struct, frozen=True):
    """What went wrong, for people (`message`) and for programs (`errorCode`)."""

    statusCode: int
    error: str
    message: str
    errorCode: str


_RULES_IN_WORDS = {
    "^(?!.*\\x00)\\S(.*\\S)?(?!\\n)$": "must not begin or end with white space, nor hold a NUL or a line break",
    "^[A-Za-z][A-Za-z0-9_-]{0,63}(?!\\n)$": (
        "parameter names begin with a letter and have at most 64 letters, digits, underscores and dashes"
    ),
    "^[a-z][a-z0-9_]{1,63}(?!\\n)$": (
        "must be 2 to 64 lower-case letters, digits and underscores, beginning with a letter"
    ),
}


def decode(raw: bytes, type_: type[T]) -> T:
    """Return the body `raw` as a `type_`.

    Raises `InvalidInput` naming the field and the rule. Stricter than JSON: no duplicate keys, NaN, NUL, lone
    surrogates, integers past 64 bits or nesting past 64 levels, since stores and clients disagree on what they mean.
    """
    value = _parsed(raw)
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        field, rule = _field_and_rule(_with_known_key(value, type_, str(error)))
        if rule.startswith(("Invalid enum value", "Invalid value")):
            rule += f"; must be one of {', '.join(_allowed_values(msgspec.inspect.type_info(type_), field.split('.')))}"
        raise InvalidInput(field, rule) from None


def _parsed(raw: bytes) -> Any:
    if not raw.strip():
        raise InvalidInput("", "the body is empty; send a JSON object")
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
        _check_value(value, 0)
    except UnicodeDecodeError:
        raise InvalidInput("", "the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidInput("", f"the body is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidInput("", f"the body is not valid JSON: {error}") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(twice, "stands twice in the same object")
    return made


def _refuse_constant(name: str) -> None:
    raise InvalidInput("", f"{name} is not a JSON number")


def _check_value(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_text(name)
            _check_value(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput("", "a number is too large for a double")
    elif isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise InvalidInput("", "an integer is past 64 bits")


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise InvalidInput("", "a string holds a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("", "a string holds half of a surrogate pair")


def _with_known_key(value: Any, type_: Any, message: str) -> str:
    """Return `message` with the name of the wrong entry where msgspec's path leaves it out.

    It does so for dictionaries (``$.parameters[...]`` and ``key in $.parameters``), which in our bodies stand at the
    top level: each entry is tried alone until the wrong one is found.
    """
    found = re.search(r"\$\.(\w+)\[\.\.\.\]|`key` in `\$\.(\w+)`", message)
    if found is None:
        return message
    name = found[1] or found[2]
    for key, item in value[name].items():
        try:
            msgspec.convert({**value, name: {key: item}}, type_)
        except msgspec.ValidationError as error:
            alone = str(error)
            if found[1]:
                return alone.replace("[...]", f".{key}", 1)
            return alone.replace(f"`key` in `$.{name}`", f"`$.{name}.{key}`")
    return message


def _field_and_rule(message: str) -> tuple[str, str]:
    rule, _, path = message.partition(" - at `")
    for pattern, words in _RULES_IN_WORDS.items():
        if rule.endswith(f"matching regex {pattern!r}"):
            rule = words
    named = re.search(r"(?:unknown|required) field `([^`]*)`", rule)
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
        rule = "is required" if "required" in rule else "is not a field that can be given here"
    return field, rule


def _allowed_values(info: msgspec.inspect.Type, path: list[str]) -> list[str]:
    """Return what a text at `path` may be, by the type that the body is read as."""
    if isinstance(info, msgspec.inspect.Metadata):
        return _allowed_values(info.type, path)
    if isinstance(info, msgspec.inspect.UnionType):
        return [value for member in info.types for value in _allowed_values(member, path)]
    if isinstance(info, msgspec.inspect.ListType):
        return _allowed_values(info.item_type, path)
    if isinstance(info, msgspec.inspect.DictType) and path:
        return _allowed_values(info.value_type, path[1:])
    if isinstance(info, msgspec.inspect.LiteralType) and not path:
        return [str(value) for value in info.values]
    if isinstance(info, msgspec.inspect.StructType) and path:
        if path == [info.tag_field]:
            return [str(info.tag)]
        name = path[0].partition("[")[0]
        return [value for each in info.fields if each.name == name for value in _allowed_values(each.type, path[1:])]
    return []
