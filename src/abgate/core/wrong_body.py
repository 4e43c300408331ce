"""What a JSON body breaks, in words: of what msgspec says of it, the field and the rule."""

import re
from typing import Any, get_args

from abgate.core.feature_flag import ParameterName
from abgate.core.ids import ExperimentId, FeatureFlagId, Flow, Name, SegmentId, VariationId
from abgate.core.log_stream import ContentType, Endpoint, HeaderName, StreamName
from abgate.core.metric import EventText, FieldPath, MetricId, Value
from abgate.core.reports import Reported

_IN_WORDS: list[tuple[Any, str]] = [
    (Name, "must not begin or end with white space, nor hold a NUL or a line break"),
    (ParameterName, "parameter names begin with a letter and have at most 64 letters, digits, underscores and dashes"),
    (Flow, "must be 2 to 64 lower-case letters, digits and underscores, beginning with a letter"),
    (ExperimentId, "must be the id of an experiment: exp_ with letters and digits behind it"),
    (FeatureFlagId, "must be the id of a feature flag: flg_ with letters and digits behind it"),
    (VariationId, "must be the id of a variation: var_ with letters and digits behind it"),
    (SegmentId, "must be the id of a segment: seg_ with letters and digits behind it"),
    (MetricId, "must be the id of a metric: met_ with letters and digits behind it, or a built-in one's"),
    (Value, "must be count, missing, seconds_to_first, or sum:, first: or each: with a field behind it"),
    (FieldPath, "must be at most 8 names with dots between them, such as details.elapsed"),
    (EventText, "must not hold a NUL"),
    (Reported, "must not hold a NUL"),
    (StreamName, "must not hold control characters"),
    (Endpoint, "must be an http or https URL of printable ASCII characters, without spaces"),
    (HeaderName, "must be the name of an HTTP header"),
    (ContentType, "must be printable ASCII characters"),
]
_RULES_IN_WORDS: dict[str, str] = {get_args(type_)[1].pattern: words for type_, words in _IN_WORDS}


def field_and_rule(message: str) -> tuple[str, str]:
    """Return which field a `msgspec.ValidationError` names (empty: the body itself), and the rule that it breaks."""
    rule, _, path = message.partition(" - at `")
    for pattern, words in _RULES_IN_WORDS.items():
        if rule.endswith(f"matching regex {pattern!r}"):
            rule = words
    named = re.search(r"(?:unknown|required) field `([^`]*)`", rule)
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
        rule = "is required" if rule.startswith("Object missing") else "is not a field that can be given here"
    return field, rule
