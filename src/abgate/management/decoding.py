"""How a JSON body is read: strictly, with errors that name the field and the rule."""

import json
import math
import re
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from abgate.core.errors import InvalidInput
from abgate.core.wrong_body import field_and_rule

T = TypeVar("T")

MAX_DEPTH = 64
MAX_INTEGER = 2**63

_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")


def decode(raw: bytes, type_: type[T]) -> T:
    """Return the body `raw` as a `type_`.

    Raises `InvalidInput` naming the field and the rule. Stricter than JSON: no duplicate keys, NaN, NUL, lone
    surrogates, integers past 64 bits or nesting past 64 levels, since stores and clients disagree on what they mean.
    """
    value = _parsed(raw)
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        field, rule = field_and_rule(_with_known_key(value, type_, str(error)))
        if rule.startswith(("Invalid enum value", "Invalid value")):
            rule += f"; must be one of {', '.join(_allowed_values(msgspec.inspect.type_info(type_), field.split('.')))}"
        raise InvalidInput(field, rule) from None


def _parsed(raw: bytes) -> Any:
    if not raw.strip():
        raise InvalidInput("", "the body is empty; send a JSON object")
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
        _check_value(value, [])
    except UnicodeDecodeError:
        raise InvalidInput("", "the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidInput("", f"the body is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise InvalidInput("", f"the body is not valid JSON: {error}") from None
    except ValueError:
        # Python reads no integer of more than 4,300 digits.
        raise InvalidInput("", "an integer is past 64 bits") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidInput(name, "stands twice in the same object")
            seen.add(name)
    return made


def _refuse_constant(name: str) -> None:
    raise InvalidInput("", f"{name} is not a JSON number")


def _check_value(value: Any, path: list[str | int]) -> None:
    """Raise `InvalidInput` unless `value`, which stands at `path`, is one that every reader reads alike."""
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, dict | list):
        if len(path) == MAX_DEPTH:
            raise RecursionError
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            path.append(key)
            if isinstance(key, str):
                _check_text(key, path)
            _check_value(item, path)
            path.pop()
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(_named(path), "the number is too large for a double")
    elif isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
        raise InvalidInput(_named(path), "the integer is past 64 bits")


def _check_text(text: str, path: list[str | int]) -> None:
    if "\x00" in text:
        raise InvalidInput(_named(path), "must not hold a NUL character")
    if _HALF_OF_A_PAIR.search(text):
        raise InvalidInput(_named(path), "must not hold half of a surrogate pair")


def _named(path: list[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


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


def _allowed_values(info: msgspec.inspect.Type, path: list[str]) -> list[str]:
    """Return what a text at `path` may be, by the type that the body is read as."""
    values: list[str] = []
    match info:
        case msgspec.inspect.Metadata():
            values = _allowed_values(info.type, path)
        case msgspec.inspect.UnionType():
            values = [value for member in info.types for value in _allowed_values(member, path)]
        case msgspec.inspect.ListType():
            values = _allowed_values(info.item_type, path)
        case msgspec.inspect.DictType():
            values = _allowed_values(info.value_type, path[1:])
        case msgspec.inspect.LiteralType() if not path:
            values = [str(value) for value in info.values]
        case msgspec.inspect.StructType() if path == [info.tag_field]:
            values = [str(info.tag)]
        case msgspec.inspect.StructType() if path:
            name = path[0].partition("[")[0]
            types = [field.type for field in info.fields if field.encode_name == name]
            values = [value for type_ in types for value in _allowed_values(type_, path[1:])]
    return values
