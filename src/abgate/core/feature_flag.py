"""Feature flags, their typed parameters, and the variations that override them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from abgate.core.errors import Conflict, InvalidInput, RuleBroken
from abgate.core.ids import Description, FeatureFlagId, Name, Timestamp, VariationId

MAX_VALUE_BYTES = 1024
MAX_VARIATIONS = 20
MIN_VARIATIONS_TO_ACTIVATE = 2

FeatureFlagStatus = Literal["draft", "active", "archived"]
FeatureFlagType = Literal["self", "auth0"]
ParameterName = Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_-]{0,63}(?!\\n)$")]

TRANSITIONS: frozenset[tuple[str, str]] = frozenset(
    {("draft", "active"), ("draft", "archived"), ("active", "archived")}
)


class _Parameter(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag_field="type"):
    description: Annotated[str, Meta(max_length=255)] | None = None


class StringParameter(_Parameter, frozen=True, tag="string"):
    """A parameter whose value is a string."""

    value: str


class BooleanParameter(_Parameter, frozen=True, tag="boolean"):
    """A parameter whose value is true or false."""

    value: bool


class NumberParameter(_Parameter, frozen=True, tag="number"):
    """A parameter whose value is a number; a boolean is none."""

    value: int | float


class ArrayParameter(_Parameter, frozen=True, tag="array"):
    """A parameter whose value is a JSON array."""

    value: list[Any]


class ObjectParameter(_Parameter, frozen=True, tag="object"):
    """A parameter whose value is a JSON object."""

    value: dict[str, Any]


Parameter = StringParameter | BooleanParameter | NumberParameter | ArrayParameter | ObjectParameter
Parameters = Annotated[dict[ParameterName, Parameter], Meta(min_length=1, max_length=10)]

_VALUE_TYPES: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "number": int | float,
    "array": list[Any],
    "object": dict[str, Any],
}


class Override(Struct, frozen=True, forbid_unknown_fields=True):
    """The value that a variation gives to one parameter."""

    value: Any


Overrides = dict[str, Override]


class FeatureFlag(Struct, frozen=True, kw_only=True):
    """A named set of parameters; as it is stored and as it is answered."""

    id: FeatureFlagId
    name: Name
    description: Description | UnsetType = UNSET
    type: FeatureFlagType = "self"
    status: FeatureFlagStatus = "draft"
    parameters: Parameters
    served_variation_id: VariationId | None = None
    created_at: Timestamp
    updated_at: Timestamp


class Variation(Struct, frozen=True, kw_only=True):
    """One alternative of a flag: the parameters it overrides. No override at all is the baseline."""

    id: VariationId
    feature_flag_id: FeatureFlagId
    name: Name
    description: Description | UnsetType = UNSET
    overrides: Overrides
    created_at: Timestamp
    updated_at: Timestamp


class FeatureFlagChanges(Struct, frozen=True, kw_only=True):
    """What a revision of a flag changes; what is unset stays."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    parameters: Parameters | UnsetType = UNSET
    status: FeatureFlagStatus | UnsetType = UNSET
    served_variation_id: VariationId | UnsetType | None = UNSET


class VariationChanges(Struct, frozen=True, kw_only=True):
    """What a revision of a variation changes; what is unset stays."""

    name: Name | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    overrides: Overrides | UnsetType = UNSET


def parameter_type(parameter: Parameter) -> str:
    """Return the type's name as it stands on the wire."""
    return str(parameter.__struct_config__.tag)


def merged_config(parameters: Mapping[str, Parameter], overrides: Mapping[str, Override]) -> dict[str, Any]:
    """Return every parameter's value, the overrides merged over the defaults."""
    return {
        name: overrides[name].value if name in overrides else parameter.value for name, parameter in parameters.items()
    }


def check_parameters(parameters: Mapping[str, Parameter]) -> None:
    """Raise `InvalidInput` when a default value is larger than 1 KB."""
    for name, parameter in parameters.items():
        _check_size(f"parameters.{name}.value", parameter.value)


def check_overrides(overrides: Mapping[str, Override], parameters: Mapping[str, Parameter]) -> None:
    """Raise `InvalidInput` unless every override names a parameter of the flag and is of its type, of at most
    1 KB, and different from its default.
    """
    for name, override in overrides.items():
        field = f"overrides.{name}"
        parameter = parameters.get(name)
        if parameter is None:
            raise InvalidInput(field, f"the feature flag has no such parameter; it has {', '.join(sorted(parameters))}")
        kind = parameter_type(parameter)
        try:
            msgspec.convert(override.value, _VALUE_TYPES[kind])
        except msgspec.ValidationError:
            raise InvalidInput(f"{field}.value", f"must be of the parameter's type, {kind}") from None
        _check_size(f"{field}.value", override.value)
        if _same_json(override.value, parameter.value):
            raise InvalidInput(
                f"{field}.value", "must differ from the parameter's default; leave it out to keep the default"
            )


def revise_feature_flag(
    flag: FeatureFlag, changes: FeatureFlagChanges, *, variations: Iterable[Variation], now: Timestamp
) -> FeatureFlag:
    """Return `flag` with `changes` applied, all or none.

    Raises `InvalidInput` (a value breaks a rule), `Conflict` ``in_use`` (a parameter that a variation overrides would
    go or change type) and `RuleBroken` (the status cannot move so).
    """
    variations = list(variations)
    parameters = flag.parameters if changes.parameters is UNSET else changes.parameters
    if changes.parameters is not UNSET:
        check_parameters(changes.parameters)
        _check_still_overridable(flag.parameters, changes.parameters, variations)
    served = flag.served_variation_id if changes.served_variation_id is UNSET else changes.served_variation_id
    if changes.served_variation_id is not UNSET and served not in {None, *(variation.id for variation in variations)}:
        raise InvalidInput("served_variation_id", "must be one of the feature flag's own variations, or null")
    revised = msgspec.structs.replace(
        flag,
        name=flag.name if changes.name is UNSET else changes.name,
        description=revised_description(flag.description, changes.description),
        parameters=parameters,
        served_variation_id=served,
    )
    if changes.status is not UNSET:
        revised = _transition(revised, changes.status, variation_count=len(variations))
    return flag if is_unchanged(flag, revised) else msgspec.structs.replace(revised, updated_at=now)


def revise_variation(
    variation: Variation, changes: VariationChanges, *, parameters: Mapping[str, Parameter], now: Timestamp
) -> Variation:
    """Return `variation` with `changes` applied. Raises `InvalidInput`."""
    if changes.overrides is not UNSET:
        check_overrides(changes.overrides, parameters)
    revised = msgspec.structs.replace(
        variation,
        name=variation.name if changes.name is UNSET else changes.name,
        description=revised_description(variation.description, changes.description),
        overrides=variation.overrides if changes.overrides is UNSET else changes.overrides,
    )
    return variation if is_unchanged(variation, revised) else msgspec.structs.replace(revised, updated_at=now)


def revised_description(present: str | UnsetType, change: str | UnsetType | None) -> str | UnsetType:
    """Return the description after `change`: unset keeps it, None clears it."""
    if change is UNSET:
        return present
    return UNSET if change is None else change


def is_unchanged(before: Struct, after: Struct) -> bool:
    """Return whether both are stored as the same JSON. ``==`` would lose an edit of ``[1]`` to ``[true]``."""
    return msgspec.json.encode(before) == msgspec.json.encode(after)


def check_transition(what: str, present: str, wanted: str, transitions: Collection[tuple[str, str]]) -> None:
    """Raise `RuleBroken` unless `what` may move from the one status to the other; it says where it may."""
    if (present, wanted) not in transitions:
        targets = [to for since, to in sorted(transitions) if since == present]
        raise RuleBroken(
            f"status: {what} cannot move from {present} to {wanted}; "
            + (f"from here it can become {' or '.join(targets)}." if targets else "this status is final."),
            code="invalid_status_transition",
        )


def _transition(flag: FeatureFlag, status: FeatureFlagStatus, *, variation_count: int) -> FeatureFlag:
    if status == flag.status:
        return flag
    check_transition("a feature flag", flag.status, status, TRANSITIONS)
    if status == "active" and variation_count < MIN_VARIATIONS_TO_ACTIVATE:
        raise RuleBroken(
            f"status: a feature flag needs at least {MIN_VARIATIONS_TO_ACTIVATE} variations to become active, "
            f"this one has {variation_count}. Create the missing ones first.",
            code="feature_flag_requires_variations",
        )
    return msgspec.structs.replace(flag, status=status)


def _check_still_overridable(
    before: Mapping[str, Parameter], after: Mapping[str, Parameter], variations: Iterable[Variation]
) -> None:
    for variation in variations:
        for name in variation.overrides:
            kept = after.get(name)
            if kept is None or parameter_type(kept) != parameter_type(before[name]):
                change = "removed" if kept is None else "given another type"
                raise Conflict(
                    f"parameters.{name}: cannot be {change} while the variation {variation.name!r} ({variation.id}) "
                    "overrides it. Take it out of that variation's overrides first.",
                    code="in_use",
                )


def _check_size(field: str, value: Any) -> None:
    size = len(msgspec.json.encode(value))
    if size > MAX_VALUE_BYTES:
        raise InvalidInput(field, f"must serialize to at most {MAX_VALUE_BYTES} bytes of JSON, this one takes {size}")


def _same_json(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal; unlike ``==``, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same_json(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same_json, left, right))
    return bool(left == right)
