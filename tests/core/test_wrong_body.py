"""What a body breaks is said in words, whichever pattern it does not match."""

import json
import re
from typing import Any

import msgspec
import pytest

from abgate.core.reports import Report
from abgate.core.wrong_body import field_and_rule
from abgate.management import bodies

SENT = [
    each
    for each in vars(bodies).values()
    if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__struct_config__.forbid_unknown_fields
]


@pytest.mark.parametrize("body", [*SENT, Report], ids=lambda body: body.__name__)
def test_no_refusal_shows_a_regular_expression(body: Any) -> None:
    for pattern in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(msgspec.json.schema(body))):
        said = f"Expected `str` matching regex {json.loads(pattern)!r} - at `$.name`"
        field, rule = field_and_rule(said)
        assert (field, "regex" in rule) == ("name", False), rule
