"""Who is to be forgotten, and by which of its fields a record is about them.

A record is **named** by its user, its device or the subject of its exposure, each its own or, of an event, the one that
enrichment found; and by a second user or device in the event as it was sent. It is **anonymous** when it names no user.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct


class Person(Struct, frozen=True):
    """What is forgotten of one tenant: all that names this user or this device, or all that is anonymous and theirs.

    Anonymous records are theirs when they are of one of `own_devices`, or were sent with one of `own_names`.
    """

    tenant: str
    user_id: str | None = None
    device: str | None = None
    own_devices: Sequence[str] = ()
    own_names: Sequence[str] = ()

    @property
    def named(self) -> list[str]:
        """The identifiers by which records are named."""
        return [each for each in (self.user_id, self.device) if each is not None]

    @property
    def naming(self) -> str | None:
        """The regular expression, in RE2's syntax too, of the JSON of events that name them; None when none is."""
        users = []
        if self.user_id is not None:
            # Whom an administrator changed, Keycloak names by a path: users/ID, or users/ID/role-mappings.
            path = rf'"resource_?[pP]ath"\s*:\s*"users/{_quoted(self.user_id)[1:-1]}["/]'
            users = [_pattern("user(?:_?[iI]d)?", [self.user_id]), path]
        devices = [] if self.device is None else [_pattern("device(?:_?[iI]d)?", [self.device])]
        return "|".join(users + devices) or None

    @property
    def sent_under_own_name(self) -> str | None:
        """The same, of the JSON of events that were sent with one of their user names."""
        return _pattern("user_?[nN]ame", self.own_names) if self.own_names else None


class Links(Struct, frozen=True):
    """What else a user goes by: devices and user names that records name together with him."""

    devices: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def __or__(self, other: "Links") -> "Links":
        return Links(self.devices | other.devices, self.names | other.names)

    def __sub__(self, other: "Links") -> "Links":
        return Links(self.devices - other.devices, self.names - other.names)

    def __bool__(self) -> bool:
        return bool(self.devices or self.names)


class _Sent(Struct, frozen=True):
    user_name: str | None = None


_decode_sent = msgspec.json.Decoder(_Sent).decode


def user_name_of(body: str) -> str | None:
    """Return the user name in an event's JSON, if there is one."""
    try:
        return _decode_sent(body).user_name or None
    except msgspec.ValidationError:
        return None


def _pattern(key: str, values: Iterable[str]) -> str:
    quoted = "|".join(map(_quoted, values))
    return rf'"{key}"\s*:\s*(?:{quoted})'


def _quoted(value: str) -> str:
    return re.escape(msgspec.json.encode(value).decode())
