"""Every setting, read once from the environment (``ABGATE_…``) and the command's options when a process starts."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

PREFIX = "ABGATE_"

MIN_SECRET_LENGTH = 32

_NOT_OURS = ("VECTORS", "TEST_", "BENCH_", "CLIENT_")
"""What tests, benchmarks and clients of abgate read under the same prefix; never a misspelt setting."""

_UNSPOKEN = frozenset({"secret", "database", "lake", "openid_client_secret"})
"""Settings whose value may hold a password, and so is never repeated in a message."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = IPv6Network("64:ff9b::/96")
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")
_DATABASE = re.compile(r"sqlite:///.|(postgres|postgresql(\+psycopg)?)://.")
_LAKE = re.compile(r"(s3a?|gs|az|azure|abfss?|adl)://[^@?#\s]+")
_DOMAIN = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(:(?P<port>[1-9][0-9]{0,4}))?")


_ROLE = re.compile(r"(?P<claim>[^=;\s]+)=(?P<value>[^;]+):(?P<role>viewer|editor|admin)")


class OpenIdRole(Struct, frozen=True):
    """A rule that gives a role at the pages to whom a claim of the OpenID provider has a value for; ``*`` is any."""

    claim: str
    value: str
    role: Literal["viewer", "editor", "admin"]


class Settings(Struct, frozen=True, kw_only=True):
    """The settings of one server. The environment variable of a field is its name in capitals after ``ABGATE_``."""

    data: Annotated[
        str,
        Meta(description="Directory of the SQLite database, the master secret and the event files; made when missing."),
    ] = "data"
    database: Annotated[
        str,
        Meta(description="`postgresql://…` or `sqlite:///…` URL; unset, SQLite in the data directory."),
    ] = ""
    host: Annotated[str, Meta(description="Address that `serve` listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port that `serve` listens on; 0 takes a free one.")] = 8000
    workers: Annotated[int, Meta(ge=1, le=256, description="Server processes that `serve` starts.")] = 1
    tls_cert: Annotated[
        str,
        Meta(description="Certificate file (PEM, with its chain); with `tls_key`, `serve` speaks https."),
    ] = ""
    tls_key: Annotated[str, Meta(description="Private key file (PEM) of `tls_cert`.")] = ""
    fast_http: Annotated[
        bool,
        Meta(
            description="Whether resolve and OFREP are answered before ASGI, by a shorter way. "
            "`false` serves them over ASGI as everything else, with the same answers."
        ),
    ] = True
    domain: Annotated[
        str,
        Meta(
            description="The default tenant's `host` or `host:port`, as clients write it: tokens are issued by "
            "`https://{domain}/`, for `https://{domain}/api/v2/`. It is kept in the database; unset, the one kept "
            "there holds, at first `localhost:{port}`."
        ),
    ] = ""
    secret: Annotated[
        str,
        Meta(
            description="Master secret, at least 32 characters, from which the keys that encrypt and sign are derived; "
            "the same on every host. Unset, the file `secret.key` in the data directory, made when missing."
        ),
    ] = ""
    api_generation: Annotated[
        Literal[1, 2],
        Meta(
            description="Generation of the contract in which the Management API answers; "
            "1 leaves the fields of the second and our own routes out."
        ),
    ] = 2
    rate_limit: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Management API requests a second for each token and server process; asking for a token "
            "counts as 100 for its client. 0 = no limit; the headers then say 1000000.",
        ),
    ] = 1000
    mode: Annotated[
        Literal["production", "development"],
        Meta(description="`development` admits forced assignments unsigned, and outside issuers over plain http."),
    ] = "production"
    forced_assignment: Annotated[
        Literal["", "open", "signed", "off"],
        Meta(
            description="Who may force an assignment: `open` anyone, `signed` who has a preview token, `off` no one; "
            "unset, `signed` in production mode, `open` in development mode."
        ),
    ] = ""
    upstream_authorize_url: Annotated[
        str,
        Meta(
            description="Authorization endpoint of the OpenID provider that `GET /authorize` sends logins on to; "
            "unset, there is no gateway."
        ),
    ] = ""
    trusted_issuer: Annotated[
        str,
        Meta(
            description="Outside issuer whose tokens the default tenant trusts as well, as in their `iss`; its keys "
            "are found by discovery. https, except on this host and in development mode."
        ),
    ] = ""
    trusted_audience: Annotated[
        str, Meta(description="The `aud` that tokens of the outside issuer must have; goes with `trusted_issuer`.")
    ] = ""
    openid_issuer: Annotated[
        str,
        Meta(
            description="OpenID provider that people sign in to the default tenant's pages with, as its discovery "
            "document writes its issuer. https, except on this host and in development mode (`docs/pages.md`)."
        ),
    ] = ""
    openid_client_id: Annotated[str, Meta(description="abgate's client id at the OpenID provider.")] = ""
    openid_client_secret: Annotated[
        str, Meta(description="The client's secret at the OpenID provider; unset for a public client.")
    ] = ""
    openid_roles: Annotated[
        str,
        Meta(
            description="Who gets which role at the pages, as `claim=value:role`, separated by semicolons, such as "
            "`groups=identity-team:editor;email=ada@example.com:admin;sub=*:viewer`. The strongest holds; whom no rule "
            "fits is refused; an email counts when the provider has verified it."
        ),
    ] = ""
    geoip_database: Annotated[
        str,
        Meta(
            description="MaxMind-format file (`.mmdb`) that gives country and region of an IP address; "
            "unset, they are only known when the request says them."
        ),
    ] = ""
    lake: Annotated[
        str,
        Meta(
            description="Directory of the lake, or its URL in an object store, such as `s3://bucket/abgate`; unset, "
            "`lake` in the data directory. Endpoint, region and credentials come from the store's own variables "
            "(`docs/lake.md`)."
        ),
    ] = ""
    lake_retention_days: Annotated[
        int,
        Meta(ge=1, le=3650, description="Days for which past versions of the lake can be read, as `as_of` does."),
    ] = 30

    log_retention_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description="Days for which the database keeps events and exposures, by their own dates; then they are "
            "purged once they are in the lake and delivered, and events so old are refused. 0 = for ever "
            "(`docs/logs.md`).",
        ),
    ] = 0
    truncate_ips: Annotated[
        bool,
        Meta(
            description="Whether events are stored with the network of each IP address only: IPv4 /24, IPv6 /48 "
            "(`docs/privacy.md`)."
        ),
    ] = False
    hash_user_names: Annotated[
        bool,
        Meta(
            description="Whether events are stored with a keyed hash in the place of user names, e-mail addresses and "
            "phone numbers; the key is derived from the master secret (`docs/privacy.md`)."
        ),
    ] = False
    log_stream_networks: Annotated[
        str,
        Meta(
            description="Networks that are not public and that log streams may deliver to, comma-separated, such as "
            "`10.0.0.0/8,fd00::/8`. Unset, none in production mode, and any in development mode."
        ),
    ] = ""
    log_stream_patience_s: Annotated[
        int,
        Meta(
            ge=1,
            le=31_536_000,
            description="Seconds after which a log stream whose deliveries all fail is suspended; 86400 is a day.",
        ),
    ] = 86_400

    @property
    def log_stream_allowed(self) -> tuple[Network, ...]:
        """The networks beside the public ones that log streams may deliver to."""
        listed = self.log_stream_networks or ("0.0.0.0/0,::/0" if self.mode == "development" else "")
        return tuple(ip_network(each.strip()) for each in listed.split(",") if each.strip())

    @property
    def openid_role_rules(self) -> tuple[OpenIdRole, ...]:
        """The rules of `openid_roles`."""
        found = (_ROLE.fullmatch(each.strip()) for each in self.openid_roles.split(";") if each.strip())
        return tuple(msgspec.convert(_rule_of(each), OpenIdRole) for each in found if each)

    @property
    def database_url(self) -> str:
        """The database's URL: SQLite in the data directory unless another is set."""
        return self.database or f"sqlite:///{Path(self.data).absolute() / 'abgate.db'}"

    @property
    def lake_url(self) -> str:
        """Where the lake is: in the data directory unless another place is set."""
        return self.lake or str(Path(self.data).absolute() / "lake")

    @property
    def forced_assignment_policy(self) -> str:
        """``open``, ``signed`` or ``off``; unset, it is ``open`` in development and ``signed`` in production."""
        return self.forced_assignment or ("open" if self.mode == "development" else "signed")


class SettingsError(Exception):
    """A setting is unknown or has a wrong value; the message names the variable and the rule."""


def read_settings(environment: Mapping[str, str] = os.environ, **options: object) -> Settings:
    """Return the settings that `environment` gives, with the command's `options` over them.

    An empty variable and an option that is None count as not given, so that a compose file may list every variable.
    Variables that resemble no setting are left alone: clients of abgate keep theirs under the same prefix.
    Raises `SettingsError`.
    """
    given = {name.removeprefix(PREFIX): text for name, text in environment.items() if name.startswith(PREFIX) and text}
    _refuse_misspelt(given)
    chosen = {name: str(value) for name, value in options.items() if value is not None}
    values = {}
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        if text := chosen.get(name) or given.get(name.upper()):
            values[name] = _read(name, text, hint, _label(name, chosen))
    settings = Settings(**values)
    for name, holds, rule in _RULES:
        if getattr(settings, name) and not holds(settings):
            raise _wrong(name, str(getattr(settings, name)), rule, _label(name, chosen))
    return settings


def to_environment(settings: Settings) -> dict[str, str]:
    """Return the variables from which `read_settings` makes these settings again."""
    return {variable(name): str(getattr(settings, name)) for name in settings.__struct_fields__}


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def meaning(name: str) -> str:
    """Return what a setting means, in the words of ``docs/settings.md``."""
    hint = get_type_hints(Settings, include_extras=True)[name]
    return next(str(meta.description) for meta in get_args(hint) if isinstance(meta, Meta))


def is_domain(text: str) -> bool:
    """Return whether `text` can be a tenant's domain: ``host`` or ``host:port``, lower case."""
    found = _DOMAIN.fullmatch(text)
    return found is not None and int(found["port"] or 0) <= 65535


def is_public_or_in(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether an address is one of the public internet's, or of one of the networks."""
    # An IPv4 address in the clothes of IPv6 leads where the former does, some by way of a translator (RFC 6052).
    plain = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    if plain in _NAT64:
        plain = IPv4Address(int(plain) & 0xFFFFFFFF)
    is_public = plain.is_global and not plain.is_multicast
    return is_public or any(plain.version == network.version and plain in network for network in networks)


def _are_networks(text: str) -> bool:
    try:
        return all(ip_network(each.strip()) for each in text.split(","))
    except ValueError:
        return False


def _read(name: str, text: str, hint: Any, label: str) -> Any:
    if not text.isprintable():
        raise _wrong(name, text, "must not hold control characters", label)
    try:
        return msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError:
        rule = _rule_in_words(hint)
    if text.startswith("tcp://"):
        rule += " (Kubernetes set this for a Service named abgate: set enableServiceLinks: false on the pod)"
    raise _wrong(name, text, rule, label)


def _rule_in_words(hint: Any) -> str:
    of, *metas = get_args(hint)
    if of is bool:
        return "must be true or false"
    if get_origin(of) is Literal:
        return "must be one of " + ", ".join(str(choice) for choice in get_args(of) if choice != "")
    return f"must be a whole number from {metas[0].ge} to {metas[0].le}"


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not ("@" in parts.netloc or "#" in url or re.search(r"[\s\\]", url))
        )
    except ValueError:
        return False


def _is_safe_issuer(issuer: str, settings: Settings) -> bool:
    parts = urlsplit(issuer)
    local = _LOOPBACK.fullmatch(parts.hostname or "") is not None
    return parts.scheme == "https" or local or settings.mode == "development"


def _is_issuer(url: str) -> bool:
    return _is_endpoint(url) and "?" not in url


def _are_roles(text: str) -> bool:
    return all(_ROLE.fullmatch(each.strip()) for each in text.split(";") if each.strip())


def _rule_of(found: "re.Match[str]") -> dict[str, str]:
    rule = {name: text.strip() for name, text in found.groupdict().items()}
    # Addresses are written in any case.
    return rule | ({"value": rule["value"].lower()} if rule["claim"] == "email" else {})


_ISSUER_RULE = "must be an absolute https URL without a user, a query or a fragment"
_SAFE_RULE = "must be https, since keys read over plain http could be anyone's; development mode allows it"


_OF_OPENID = ("openid_client_id", "openid_client_secret", "openid_roles")

_RULES: tuple[tuple[str, Callable[[Settings], bool], str], ...] = (
    (
        "secret",
        lambda s: len(s.secret) >= MIN_SECRET_LENGTH,
        f"must have at least {MIN_SECRET_LENGTH} characters; `openssl rand -base64 32` makes one",
    ),
    (
        "database",
        lambda s: _DATABASE.match(s.database) is not None,
        "must be a URL that begins with postgresql:// or sqlite:///",
    ),
    (
        "lake",
        lambda s: "://" not in s.lake or _LAKE.fullmatch(s.lake) is not None,
        "must be a directory, or a URL such as s3://bucket/abgate, gs://… or az://… without a user or a password",
    ),
    (
        "domain",
        lambda s: is_domain(s.domain),
        "must be host or host:port in lower case, without https:// or a path",
    ),
    (
        "upstream_authorize_url",
        lambda s: _is_endpoint(s.upstream_authorize_url),
        "must be an absolute http or https URL without a user or a fragment",
    ),
    (
        "trusted_issuer",
        lambda s: _is_issuer(s.trusted_issuer),
        _ISSUER_RULE,
    ),
    ("trusted_issuer", lambda s: _is_safe_issuer(s.trusted_issuer, s), _SAFE_RULE),
    ("trusted_issuer", lambda s: bool(s.trusted_audience), "needs ABGATE_TRUSTED_AUDIENCE as well"),
    ("trusted_audience", lambda s: bool(s.trusted_issuer), "needs ABGATE_TRUSTED_ISSUER as well"),
    ("openid_issuer", lambda s: _is_issuer(s.openid_issuer), _ISSUER_RULE),
    ("openid_issuer", lambda s: _is_safe_issuer(s.openid_issuer, s), _SAFE_RULE),
    ("openid_issuer", lambda s: bool(s.openid_client_id), "needs ABGATE_OPENID_CLIENT_ID as well"),
    (
        "openid_issuer",
        lambda s: bool(s.openid_role_rules),
        "needs ABGATE_OPENID_ROLES as well, or nobody could sign in",
    ),
    ("openid_roles", lambda s: _are_roles(s.openid_roles), "must be rules such as email=ada@example.com:admin"),
    *((name, lambda s: bool(s.openid_issuer), "needs ABGATE_OPENID_ISSUER as well") for name in _OF_OPENID),
    (
        "log_stream_networks",
        lambda s: _are_networks(s.log_stream_networks),
        "must be networks such as 10.0.0.0/8 or fd00::/8, comma-separated",
    ),
    ("tls_cert", lambda s: bool(s.tls_key), "needs ABGATE_TLS_KEY (--tls-key) as well"),
    ("tls_key", lambda s: bool(s.tls_cert), "needs ABGATE_TLS_CERT (--tls-cert) as well"),
)
"""What the types cannot say: setting, predicate (only asked when the setting is given), rule."""


def _refuse_misspelt(given: Mapping[str, str]) -> None:
    known = [variable(name).removeprefix(PREFIX) for name in Settings.__struct_fields__]
    for name in given:
        if name in known or name.startswith(_NOT_OURS):
            continue
        close = difflib.get_close_matches(name.upper(), known, 1, cutoff=0.7)
        close += [each for each in known if each.startswith(name.upper() + "_")]
        if close:
            raise SettingsError(
                f"{PREFIX}{name} is no setting. Did you mean {PREFIX}{close[0]}? docs/settings.md lists every setting."
            )


def _label(name: str, options: Mapping[str, str]) -> str:
    return "--" + name.replace("_", "-") if name in options else variable(name)


def _wrong(name: str, text: str, rule: str, label: str) -> SettingsError:
    shown = "" if name in _UNSPOKEN else f" is {text[:100]!r}:"
    return SettingsError(f"{label}{shown} {rule}.")
