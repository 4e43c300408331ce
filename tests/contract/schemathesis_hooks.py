"""What schemathesis does besides its own checks: it works on things that exist, demands a reason for every 400, and
counts.

Loaded by name from schemathesis.toml.
"""

import atexit
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any
from zlib import crc32

import hypothesis
import schemathesis

# It would climb towards requests that are accepted: for a third of the time, 1,224 of 3,869 were, and 1,225 of 3,932
# without.
hypothesis.target = lambda *_, **__: None

# How often each operation was answered, written at the end for the test to read.
COUNTS: Counter[str] = Counter()
atexit.register(lambda: Path(os.environ["ABGATE_TEST_COUNTS"]).write_text(json.dumps(COUNTS)))

# What the test made before: {"experiments": […], "segments": […], …, "feature-flags": {id: [variation]}}.
THINGS: dict[str, Any] = json.loads(Path(os.environ["ABGATE_TEST_THINGS"]).read_text())

ID = re.compile(r"(exp|flg|var|seg|met)_[A-HJ-NP-Za-km-z1-9]+")
MADE_ID = re.compile(r"(exp|flg|var|seg|met|lst)_[A-HJ-NP-Za-km-z1-9]{22}")

# Rules that JSON Schema cannot say, by the message of the refusal. A schema-valid request may be refused with 400 by
# one of these, and by no other.
UNSAYABLE = re.compile(
    "|".join(
        [
            # Sizes of a value's serialization, in bytes.
            r".*: must serialize to at most \d+ bytes",
            # Order and distinctness among the items of a list.
            r"levels\[\d+\]: levels must be strictly increasing",
            r"allocations\[\d+\]\.priority: no two allocations",
            r"allocations\[\d+\]\.variation_id: a variation may stand in one allocation only",
            r"rules\[\d+\]\.conditions: (two conditions on|at most 10 attributes)",
            r"rules: at most 50 rules, each condition of `any` counting as one",
            # What is stored decides: the flag's parameters and variations, the experiment's strategy.
            r"allocations\[\d+\]\.variation_id: must be a variation of the experiment's feature flag",
            r"allocations\[\d+\]\.weight: is required with the percentage strategy",
            r"allocations\[\d+\]\.\w+: belongs to the \w+ strategy",
            r"allocations\[\d+\]\.segment_id: there is no such segment",
            r"(served_)?variation_id: must be one of",
            r"overrides\..*: the feature flag has no such parameter",
            r"overrides\..*\.value: must (be of the parameter's type|differ from the parameter's default)",
            r"default_config: is for built-in flags only",
            # Spelling of a number: to JSON Schema 70.0 is an integer, and 1e300 and 2**64 are of one kind.
            r".*Expected `int( \| null)?`, got `float`",
            r".*an integer is past 64 bits",
            # Which fields of a metric go with its kind; what an analysis refers to.
            r"(denominator\.)?events: needs `types` or `event`",
            r"(denominator\.)?events\.where\.user_agent: is not kept with events",
            r"(denominator\.)?value: (does not go with|is required with|must be one of)",
            r"(denominator|quantile|window_start|winsorize|cuped): (goes with|is required with)",
            r"window_start: must be less than window",
            r"(primary|secondary\[\d+\]|guardrails\[\d+\]\.metric): (there is no|the metric|a quantile|\S+ is given)",
            r"horizon: needs `subjects` or `days`",
            # Which fields of a plan go with each other, and what no experiment can be like.
            r"(rate|sd|mean|effect): is required",
            r"(mean|sd|relative_effect|subjects|days|experiment_id|authentication_flow): goes without",
            r"(relative_)?effect: (must not be zero|would make a rate|takes more than)",
            r"(subjects|days): ([\d,]+ subjects are not|tell of no)",
            r"weights: must add up to 100",
            r"(experiment_id|authentication_flow): exposed nobody",
            # Checkpoints are opaque, and a log may be gone.
            r"from: (is not a checkpoint|there is no log)",
            # Moments, and addresses that are delivered to; a new secret's value; no header twice.
            r"(as_of|startFrom): (must be a|is no date that can be)",
            r"sink\.httpEndpoint: (must be an absolute URL|must be https|is at an address that is not public)",
            r"sink\.httpCustomHeaders\[\d+\]\.(value: is required of a new header|header: .* is set already)",
            # Lists of names, the language of searches, and how far one can page.
            r"fields: must be at most 64 names",
            r"(q|search): ",
            r"page: only the first 1000 results",
        ]
    ),
    re.DOTALL,
)

# Refusals by the state of the thing, not by the request.
BY_STATE = {
    "invalid_status_transition", "field_not_editable", "experiment_requires_pause", "experiment_active",
    "invalid_ramp_level", "feature_flag_requires_variations", "variation_limit_exceeded", "feature_flag_not_active",
    "experiment_missing_allocations", "experiment_missing_control", "experiment_invalid_allocation_weights",
    "experiment_missing_default", "segment_not_active", "experiment_missing_segment",
    "experiment_active_limit_exceeded", "log_stream_limit_exceeded", "log_stream_secrets_required",
}  # fmt: skip


@schemathesis.hook
def before_load_schema(_context: Any, schema: dict[str, Any]) -> None:
    """Have the events of metrics asked for by only some of the attributes, whose schemas are all the same."""
    names = os.environ["ABGATE_TEST_ATTRIBUTES"].split()
    schemas = schema["components"]["schemas"]
    conditions = schemas["Conditions"]
    assert all(each == conditions["properties"][names[0]] for each in conditions["properties"].values())
    schemas["EventFilter"]["properties"]["where"]["anyOf"][0] = conditions | {
        "properties": {name: conditions["properties"][name] for name in names},
        "anyOf": [each for each in conditions["anyOf"] if each["required"][0] in names],
    }


@schemathesis.check
def refusal_has_a_reason(_context: Any, response: Any, case: Any) -> None:
    """A request that follows the schema is refused only by a rule that JSON Schema cannot say, or by the state."""
    COUNTS[case.operation.label] += 1
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    refusal = response.json()
    if "errorCode" not in refusal:
        # RFC 6749's shape, of /oauth/token.
        assert refusal["error"] == "invalid_request", refusal
        return
    explained = refusal["errorCode"] in BY_STATE or UNSAYABLE.match(refusal["message"])
    assert explained, f"refused although it follows the schema: {refusal['message']}"


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Give two of three requests the id of a thing that exists."""
    found = re.search(r"/v2/(?:experimentation/)?((?!logs)[a-z-]+)/\{id\}", context.operation.path)
    if path_parameters is None or found is None or MADE_ID.fullmatch(str(path_parameters.get("id"))):
        return path_parameters
    number = crc32(repr(path_parameters).encode())
    if number % 3 == 0:
        return path_parameters
    things = sorted(THINGS[found[1]])
    # What is deleted is gone for the others.
    half = len(things) // 2
    id = _pick(things[:half] if context.operation.method == "delete" else things[half:], number)
    made = path_parameters | {"id": id}
    if "vid" in path_parameters:
        made["vid"] = _pick(THINGS["feature-flags"][id], number)
    return made


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Give two of three bodies ids of things that exist, where they have any ids."""
    number = crc32(repr(body).encode())
    if number % 3 == 0:
        return body
    flag = _pick(sorted(THINGS["feature-flags"]), number)
    return _with_ids(body, flag, iter(range(number, number + 10_000)))


def _with_ids(value: Any, flag: str, numbers: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_ids(each, flag, numbers) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_ids(each, flag, numbers) for each in value]
    if not isinstance(value, str) or not ID.fullmatch(value):
        return value
    if value.startswith("flg_"):
        return flag
    things = {"var_": THINGS["feature-flags"][flag], "seg_": THINGS["segments"], "exp_": THINGS["experiments"]}
    things["met_"] = THINGS["metrics"]
    return _pick(sorted(things[value[:4]]), next(numbers))


def _pick(things: list[str], number: int) -> str:
    return things[number % len(things)]
