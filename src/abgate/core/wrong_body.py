"""What a JSON body breaks, in words: of what msgspec says of it, the field and the rule."""

import re

_RULES_IN_WORDS = {
    "^(?!.*\\x00)\\S(.*\\S)?(?!\\n)$": "must not begin or end with white space, nor hold a NUL or a line break",
    "^[A-Za-z][A-Za-z0-9_-]{0,63}(?!\\n)$": (
        "parameter names begin with a letter and have at most 64 letters, digits, underscores and dashes"
    ),
    "^[a-z][a-z0-9_]{1,63}(?!\\n)$": (
        "must be 2 to 64 lower-case letters, digits and underscores, beginning with a letter"
    ),
}


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
