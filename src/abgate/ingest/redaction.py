"""What of an event is not stored as it was sent: network addresses are cut short, and user names hashed.

Both are looked for in all that an event says, since every identity server repeats them in places of its own:

- an **address** is whatever can be one under a key that tells of one (``ip``, ``ipAddress``, ``client_ip``,
  ``X-Forwarded-For``, …), and the event's own ``ip`` wherever it stands;
- a **user name** is the text under ``user_name``, ``username``, ``email``, ``phone_number`` and their like; what
  someone is called (``name``, ``nickname``, …) in an object that has one of these; and the event's own ``user_name``
  where it is a value of its details, and within any text when it is an e-mail address.

What names a subject (``user_id``, ``device_id``, …) stays as it is: by it events belong together.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, ip_address
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from abgate.core.events import AuthEvent
from abgate.ingest.formats import NotAnEvent

IPV4_BITS, IPV6_BITS = 24, 48
"""So many bits of an address stay: the network of a provider's customer, and of an organization's site."""

_ADDRESS = re.compile(r"[0-9A-Fa-f]*[:.][0-9A-Fa-f:.]*[0-9A-Fa-f:]")
_HASHED = re.compile(r"hmac:[0-9a-f]{32}")
_NAMES = frozenset(
    {"username", "userusername", "preferredusername", "loginhint"}
    | {"email", "useremail", "emailaddress", "phone", "phonenumber"}
)
_CALLED = frozenset({"name", "givenname", "familyname", "firstname", "lastname", "nickname", "displayname"})
_SUBJECTS = frozenset({"userid", "deviceid", "organizationid", "transactionid", "subjects", "logid"})

Kind = Literal["subject", "name", "called", "address", "other"]


class Redaction(Struct, frozen=True):
    """What the settings say: with a `name_key`, a user name becomes a hash, the same for the same name."""

    truncates_ips: bool = False
    name_key: bytes | None = None

    def redacted(self, tenant: str, event: AuthEvent) -> AuthEvent:
        """Return the event as it is to be stored. Raises `NotAnEvent` when it is nested too deeply."""
        if not self.truncates_ips and self.name_key is None:
            return event
        try:
            return replace(event, data=_Walk(self, tenant, event.data).top())
        except RecursionError:
            raise NotAnEvent("This is nested too deeply.") from None

    def hashed(self, tenant: str, name: str) -> str:
        """Return the hash of a user name; it differs from tenant to tenant and from installation to installation."""
        if self.name_key is None or _HASHED.fullmatch(name):
            return name
        # Servers, like people, take capital and small letters for the same.
        text = f"{tenant}\0{name.strip().casefold()}"
        return f"hmac:{hmac.new(self.name_key, text.encode('utf-8', 'replace'), hashlib.sha256).hexdigest()[:32]}"


class _Walk:
    """One event's way through the redaction, which knows the event's own address and name."""

    def __init__(self, redaction: Redaction, tenant: str, data: dict[str, Any]) -> None:
        self._data = data
        self._cuts = redaction.truncates_ips
        self._hash: Callable[[str], str] | None = None
        if redaction.name_key is not None:
            self._hash = lambda name: redaction.hashed(tenant, name)
        self._ip, self._name = (value if isinstance(value := data.get(key), str) else "" for key in ("ip", "user_name"))
        self._mention = re.compile(re.escape(self._name), re.IGNORECASE) if "@" in self._name else None

    def top(self) -> dict[str, Any]:
        """Return the event's own object; a name may be equal to its type, or to any other word there."""
        return self._object(self._data, own_name=None)

    def _object(self, given: dict[str, Any], own_name: str | None) -> dict[str, Any]:
        kinds = {key: _kind_of(key) for key in given}
        is_of_someone = "name" in kinds.values()
        return {
            key: self._value(given[key], "other" if kind == "called" and not is_of_someone else kind, own_name)
            for key, kind in kinds.items()
        }

    def _value(self, value: Any, kind: Kind, own_name: str | None) -> Any:
        if kind == "subject":
            return value
        if isinstance(value, str):
            return self._text(value, kind, own_name)
        if isinstance(value, list):
            return [self._value(each, kind, own_name) for each in value]
        if isinstance(value, dict):
            return self._object(value, self._name.casefold())
        return value

    def _text(self, text: str, kind: Kind, own_name: str | None) -> str:
        if self._hash is not None and text:
            if kind in ("name", "called") or text.casefold() == own_name:
                return self._hash(text)
            if self._mention is not None:
                text = self._mention.sub(lambda found: self._hashed(found[0]), text)
        if self._cuts and (kind == "address" or (self._ip and self._ip in text)):
            return _ADDRESS.sub(lambda found: self._cut(found[0], kind), text)
        return text

    def _hashed(self, name: str) -> str:
        return name if self._hash is None else self._hash(name)

    def _cut(self, text: str, kind: Kind) -> str:
        return truncated(text) if kind == "address" or self._ip in text else text


@lru_cache(4096)
def truncated(text: str) -> str:
    """Return an IP address, with its port if it has one, without what tells its network's hosts apart."""
    address, colon, port = text, "", ""
    if "." in text and text.count(":") == 1:
        address, colon, port = text.partition(":")
    try:
        parsed = ip_address(address)
    except ValueError:
        return text
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    host_bits = parsed.max_prefixlen - (IPV4_BITS if isinstance(parsed, IPv4Address) else IPV6_BITS)
    return f"{ip_address(parsed.packed[: -host_bits // 8].ljust(parsed.max_prefixlen // 8, bytes(1)))}{colon}{port}"


@lru_cache(4096)
def _kind_of(key: str) -> Kind:
    plain = re.sub(r"[\W_]", "", key).lower()
    if plain in _SUBJECTS:
        return "subject"
    if plain in _NAMES:
        return "name"
    if plain in _CALLED:
        return "called"
    # Of other things that are called so, such as a zip, none can be an address.
    is_address = plain.endswith(("ip", "ips")) or any(word in plain for word in ("ipaddr", "remoteaddr", "forwarded"))
    return "address" if is_address else "other"
