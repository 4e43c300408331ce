"""Ory's events: those that Ory Network streams, and Kratos' web hooks whose body is the whole ``ctx``."""

from abgate.ingest.formats.envelope import MAX_TYPE_LENGTH, Envelope, NotAnEvent, Object, log_id_of, present, text, word

DEVICE_COOKIE = "__Host-abgate_device"

_TYPES = {
    "LoginSucceeded": "s",
    "LoginFailed": "f",
    "RegistrationSucceeded": "ss",
    "RegistrationFailed": "fs",
    "VerificationSucceeded": "sv",
    "VerificationFailed": "fv",
    "IdentityDeleted": "sdu",
}
_SECOND_FACTOR = {"s": "gd_auth_succeed", "f": "gd_auth_failed"}
_WRONG_CREDENTIALS = "credentials are invalid"
"""In the reason that Kratos gives for a wrong password and for an unknown user alike."""


def opened_streamed(given: Object) -> Envelope | None:
    """Return the tenant-log event of one that Ory Network streamed, else None. Raises `NotAnEvent`."""
    attributes = given.get("eventAttributes")
    if not isinstance(attributes, dict):
        return None
    name = text(given, "name", MAX_TYPE_LENGTH)
    if not name:
        raise NotAnEvent("name: an event of Ory Network needs one, such as LoginSucceeded.")
    reason = word(attributes, "Reason")
    type_ = _TYPES.get(name, name)
    if word(attributes, "LoginRequestedAAL") == "aal2":
        type_ = _SECOND_FACTOR.get(type_, type_)
    elif type_ == "f" and reason is not None and _WRONG_CREDENTIALS in reason:
        type_ = "fp"
    data = present(
        type=type_,
        date=word(given, "timestamp"),
        connection=word(attributes, "SelfServiceSSOProviderUsed"),
        strategy=word(attributes, "SelfServiceMethodUsed"),
        user_id=word(attributes, "IdentityID"),
        session_id=word(attributes, "SessionID"),
        transaction_id=word(attributes, "FlowID"),
        ip=word(attributes, "ClientIP"),
        description=reason,
        details={"ory": given},
    )
    return Envelope(data, log_id=log_id_of("ory", None, given))


def opened_hook(given: Object) -> Envelope | None:
    """Return the tenant-log event of a Kratos web hook after login or registration, else None. Raises `NotAnEvent`.

    Of the request's headers and cookies only the device and the user agent are kept: a session is among them.
    """
    flow, headers = given.get("flow"), given.get("request_headers")
    if not isinstance(flow, dict) or not isinstance(headers, dict):
        return None
    identity, session, cookies = given.get("identity"), given.get("session"), given.get("request_cookies")
    id = word(flow, "id")
    if id is None:
        raise NotAnEvent("flow.id: a web hook of Kratos must name its flow.")
    # Only a login's flow asks for an assurance level; a registration's does not.
    type_ = "s" if "requested_aal" in flow else "ss"
    if flow.get("requested_aal") == "aal2":
        type_ = _SECOND_FACTOR["s"]
    data = present(
        type=type_,
        date=word(session, "authenticated_at") or word(identity, "created_at"),
        user_id=word(identity, "id"),
        device_id=word(cookies, DEVICE_COOKIE),
        transaction_id=id,
        organization_id=word(flow, "organization_id"),
        strategy=word(flow, "active"),
        ip=_first(headers, "True-Client-Ip"),
        user_agent=_first(headers, "User-Agent"),
        details={"ory": present(flow_id=id, flow_type=word(flow, "type"), session_id=word(session, "id"))},
    )
    return Envelope(data, log_id=f"kratos_{id}")


def _first(headers: Object, name: str) -> str | None:
    values = headers.get(name)
    return word({name: values[0]}, name) if isinstance(values, list) and values else None
