"""The language in which logs are searched: a subset of Lucene's, as Auth0 documents it for its tenant logs.

``type:s AND (user_id:"auth0|1" OR ip:203.0.113.*) AND NOT connection:sms AND date:[2026-01 TO 2026-02-15}``

- A term is ``field:value``; ``field:(a OR b)`` says the field once. A value without a field is looked for in
  `BARE_FIELDS`.
- ``*`` stands for any text, at any place and any number of times; not in quotes. After a backslash, a character is only
  itself.
- ``NOT`` binds closest, then ``AND``, then ``OR``. Two terms side by side are refused: Lucene takes that for OR, and
  whoever writes it mostly means AND.
- Ranges are of dates: ``[`` and ``]`` include what they name, ``{`` and ``}`` leave it out; ``*`` is open. A date may
  stop at the year, the month, the day, or at any part of the time.

What is parsed is a tree of values. Nothing in it is ever part of a statement: `abgate.storage.log_search` binds it.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from abgate.core.errors import InvalidInput
from abgate.core.events import Microseconds, microseconds

FIELDS = (
    "log_id", "date", "type", "event", "client_id", "client_name", "connection", "connection_id", "description",
    "hostname", "ip", "organization_id", "strategy", "strategy_type", "user_agent", "user_id", "user_name",
)  # fmt: skip
BARE_FIELDS = ("client_name", "connection", "description", "ip", "log_id", "type", "user_name")
SEARCH_FIELDS = ("client_name", "connection", "user_name")
"""Where the parameter `search` looks for a value without a field."""

MAX_LENGTH = 2000
"""In characters."""
MAX_DEPTH = 16
MAX_TERMS = 64

_PATH = re.compile(r"details(\.[^.\"\\\x00]{1,64}){1,8}")
_FIELD = r"(?P<field>[A-Za-z_$][\w$.-]*):"
_VALUE = r"""
    (?P<bracket>[()])
  | "(?P<quoted>(?:[^"\\]|\\.)*)"
  | (?P<range>[\[{]\s*(?P<low>"[^"]*"|[^\s"\]}]+)\s+TO\s+(?P<high>"[^"]*"|[^\s"\]}]+)\s*[\]}])
  | (?P<word>(?:[^\s()"\\\[{]|\\.)(?:[^\s()"\\]|\\.)*)
"""
_TERM = re.compile(rf"\s*(?:{_FIELD}|{_VALUE})", re.VERBOSE | re.DOTALL)
# After a field, what looks like another one is a value that holds a colon: an IPv6 address, a time.
_AFTER_FIELD = re.compile(rf"\s*(?:{_VALUE})", re.VERBOSE | re.DOTALL)
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)?Z?)?)?)?")
_PIECE = re.compile(r"\\(.)|(\*)|([^\\*]+|\\)", re.DOTALL)


class Match(Struct, frozen=True):
    """One of the fields is, in order, these parts with anything in between; one part alone is the whole value.

    `folded`: whatever the case of its letters.
    """

    fields: tuple[str, ...]
    parts: tuple[str, ...]
    folded: bool = False


class Within(Struct, frozen=True):
    """The date is at or after `start` and before `end`, where they are given."""

    start: Microseconds | None
    end: Microseconds | None


class Not(Struct, frozen=True):
    """The query does not hold; of an event without the field, it does not."""

    query: "Query"


class And(Struct, frozen=True):
    """All of the queries hold."""

    queries: tuple["Query", ...]


class Or(Struct, frozen=True):
    """One of the queries holds."""

    queries: tuple["Query", ...]


Query = Match | Within | Not | And | Or


def parse(text: str, *, parameter: str = "q") -> Query:
    """Return what the query parameter `parameter` asks for. Raises `InvalidInput` naming it and the rule.

    Of the parameter ``search``, as Auth0 documents it, a value without quotes is the beginning of a text, no value
    minds the case of letters, and terms side by side must all hold.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidInput(parameter, f"must have at most {MAX_LENGTH} characters", code="invalid_query_string")
    try:
        return _Parser(text, is_search=parameter == "search").parsed()
    except _Wrong as wrong:
        raise InvalidInput(parameter, str(wrong), code="invalid_query_string") from None


class _Wrong(Exception):
    """What is wrong with a query, in words."""


class _Token(Struct, frozen=True):
    kind: str
    text: str
    low: str = ""
    high: str = ""


class _Parser:
    """A recursive descent over the tokens, at most `MAX_DEPTH` deep."""

    def __init__(self, text: str, *, is_search: bool) -> None:
        self._tokens = [*_tokens(text), _Token("end", "the end")]
        self._is_search = is_search
        self._place = 0
        self._terms = 0

    def parsed(self) -> Query:
        query = self._either(None, 0)
        if self._next.kind != "end":
            raise _Wrong("a parenthesis is closed that was not opened")
        return query

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _taken(self) -> _Token:
        self._place += 1
        return self._tokens[self._place - 1]

    def _either(self, field: str | None, depth: int) -> Query:
        if depth > MAX_DEPTH:
            raise _Wrong(f"is nested deeper than {MAX_DEPTH} levels")
        queries = [self._all(field, depth)]
        while self._is_word("OR"):
            self._taken()
            queries.append(self._all(field, depth))
        return queries[0] if len(queries) == 1 else Or(tuple(queries))

    def _all(self, field: str | None, depth: int) -> Query:
        queries = [self._one(field, depth)]
        while True:
            if self._is_word("AND"):
                self._taken()
            elif self._next.kind == "end" or self._is_close() or self._is_word("OR"):
                return queries[0] if len(queries) == 1 else And(tuple(queries))
            elif not self._is_search:
                raise _Wrong(f"AND or OR must stand before {self._next.text[:60]!r}")
            queries.append(self._one(field, depth))

    def _one(self, field: str | None, depth: int) -> Query:
        if self._is_word("NOT"):
            negations = 0
            while self._is_word("NOT"):
                self._taken()
                negations += 1
            query = self._one(field, depth)
            return Not(query) if negations % 2 else query
        token = self._taken()
        if token.kind == "field":
            if field is not None:
                raise _Wrong(f"{token.text}: stands within the parentheses of {field}")
            self._check_field(token.text)
            return self._one_of(token.text, self._taken(), depth)
        return self._one_of(field, token, depth)

    def _one_of(self, field: str | None, token: _Token, depth: int) -> Query:
        if token.text == "(" and token.kind == "bracket":
            query = self._either(field, depth + 1)
            if not self._is_close():
                raise _Wrong("a parenthesis is not closed")
            self._taken()
            return query
        if token.kind in ("end", "bracket") or (token.kind == "word" and token.text in ("AND", "OR", "NOT")):
            raise _Wrong(f"a term is missing before {token.text}" if field is None else f"{field}: a value is missing")
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise _Wrong(f"has more than {MAX_TERMS} terms")
        return self._term(field, token)

    def _term(self, field: str | None, token: _Token) -> Query:
        if token.kind == "range":
            if field != "date":
                raise _Wrong(f"{field or token.text[:60]}: ranges are of dates only, as in date:[2026-01-01 TO *]")
            return _range(token)
        if field == "date":
            start, end = _interval(token.text)
            return Within(start, end)
        fields = (field,) if field else SEARCH_FIELDS if self._is_search else BARE_FIELDS
        parts = (_unescaped(token.text),) if token.kind == "quoted" else _parts(token.text)
        if self._is_search and token.kind == "word" and parts[-1]:
            parts = (*parts, "")
        return Match(fields, parts, self._is_search)

    def _is_close(self) -> bool:
        return self._next.kind == "bracket" and self._next.text == ")"

    def _is_word(self, word: str) -> bool:
        return self._next.kind == "word" and self._next.text == word

    @staticmethod
    def _check_field(name: str) -> None:
        if name in FIELDS:
            return
        if name.startswith("details.experiment."):
            if name.rpartition(".")[2] not in ("experiment_id", "variation_id") or name.count(".") != 2:
                raise _Wrong(f"{name[:60]}: of an experiment, experiment_id and variation_id are searched")
        elif not _PATH.fullmatch(name):
            raise _Wrong(f"{name[:60]!r} is not a field that is searched; these are: {', '.join(FIELDS)}, details.…")


def _tokens(text: str) -> Iterator[_Token]:
    place, end, pattern = 0, len(text.rstrip()), _TERM
    while place < end:
        found = pattern.match(text, place)
        if found is None:
            unread = text[place : place + 20].strip()
            raise _Wrong(f"cannot be read from {unread!r} on; put into quotes what is to be taken as it is")
        groups = found.groupdict()
        if groups["range"]:
            yield _Token("range", groups["range"], groups["low"].strip('"'), groups["high"].strip('"'))
        else:
            kind = str(found.lastgroup)
            yield _Token(kind, groups[kind])
        place = found.end()
        pattern = _AFTER_FIELD if groups.get("field") else _TERM


def _parts(word: str) -> tuple[str, ...]:
    parts = [""]
    for escaped, star, plain in _PIECE.findall(word):
        if star:
            parts.append("")
        else:
            parts[-1] += escaped or plain
    # Stars side by side are one.
    return tuple(part for place, part in enumerate(parts) if part or place in (0, len(parts) - 1))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _range(token: _Token) -> Within:
    start = end = None
    if token.low != "*":
        first, past = _interval(token.low)
        start = first if token.text[0] == "[" else past
    if token.high != "*":
        first, past = _interval(token.high)
        end = past if token.text[-1] == "]" else first
    return Within(start, end)


def _interval(text: str) -> tuple[Microseconds, Microseconds]:
    """Return the first moment that a date means, and the first after it."""
    found = _DATE.fullmatch(text)
    if found is None:
        raise _Wrong(f"date: {text[:60]!r} is not a date such as 2026, 2026-01, 2026-01-31 or 2026-01-31T12:00:00.000Z")
    year, month, day, hour, minute, second = (int(part) if part else None for part in found.groups()[:6])
    fraction = found[7] or ""
    try:
        start = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0, tzinfo=UTC)
        first = microseconds(start) + int(fraction.ljust(6, "0"))
        if fraction:
            return first, first + 10 ** (6 - len(fraction))
        if day is not None:
            steps = [("hours", hour), ("minutes", minute), ("seconds", second)]
            unit = next((unit for unit, given in reversed(steps) if given is not None), "days")
            return first, microseconds(start + timedelta(**{unit: 1}))
        following = (start.year, start.month + 1) if month and month < 12 else (start.year + 1, 1)
        return first, microseconds(start.replace(year=following[0], month=following[1]))
    except (ValueError, OverflowError):
        raise _Wrong(f"date: {text[:60]!r} is not a day that there is") from None
