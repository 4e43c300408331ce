"""Everything abgate can refuse, as one closed tree.

    Refusal
    ├── InvalidInput       the input breaks a rule; names the field             400
    ├── RuleBroken         the state of the thing forbids it                    400
    ├── InvalidToken       who is asking is not known                           401
    ├── InsufficientScope  who is asking may not                                403
    ├── NotFound           there is no such thing in this tenant                404
    ├── Conflict           another thing, or another writer, is in the way      409
    ├── TooManyRequests    try again later                                      429
    └── Unavailable        a part that is needed is away; try again             503

The statuses are given to them in one place, ``management.errors``; callers match on class and on ``code``.
"""


class Refusal(Exception):
    """A request that abgate understood and will not carry out.

    ``code`` is stable and meant for programs, ``message`` for people: it names the field and the rule.
    """

    code: str
    message: str

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class InvalidInput(Refusal):
    """The input breaks a rule that holds in every state; ``field`` is its path, such as ``allocations[0].weight``."""

    def __init__(self, field: str, rule: str, *, code: str = "invalid_body") -> None:
        super().__init__(f"{field}: {rule}" if field else rule, code=code)
        self.field = field


class RuleBroken(Refusal):
    """The input is well formed, but the thing's present state does not allow it."""


class InvalidToken(Refusal):
    """No token, or one that this tenant does not trust."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_token")


class InsufficientScope(Refusal):
    """A valid token that lacks a scope."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token lacks the scope {scope}. Ask for a token with it.", code="insufficient_scope")
        self.scope = scope


class NotFound(Refusal):
    """There is no such thing in this tenant."""

    def __init__(self, kind: str, identifier: str) -> None:
        words = kind.replace("_", " ")
        super().__init__(
            f"There is no {words} {identifier[:64]!r}. List the {words}s to see their ids.", code=f"{kind}_not_found"
        )


class Conflict(Refusal):
    """Another thing or another writer stands in the way: ``name_conflict``, ``in_use``, ``conflict``, …"""


class TooManyRequests(Refusal):
    """The rate limit is used up; ``retry_after`` is in whole seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, code="too_many_requests")
        self.retry_after = retry_after


class Unavailable(Refusal):
    """A part that is needed (the database) is away; ``retry_after`` is in whole seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, code="unavailable")
        self.retry_after = retry_after
