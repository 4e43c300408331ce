"""Keycloak's user events and admin events.

They come as its event hooks post them (``sourceType``, ``eventId``, ``eventType``, ``auth``), as a listener serializes
Keycloak's own classes (``id``, ``type``, ``authDetails``), or as Phase Two's webhooks do (``uid``, ``access.LOGIN``,
``admin.USER-CREATE``); all of them name their ``realmId``.
"""

from abgate.ingest.formats.envelope import (
    MAX_TYPE_LENGTH,
    Envelope,
    NotAnEvent,
    Object,
    log_id_of,
    milliseconds,
    present,
    word,
)

_SUCCEEDED_AND_FAILED = {
    "LOGIN": ("s", "f"),
    "REGISTER": ("ss", "fs"),
    "LOGOUT": ("slo", "flo"),
    "CODE_TO_TOKEN": ("seacft", "feacft"),
    "REFRESH_TOKEN": ("sertft", "fertft"),
    "CLIENT_LOGIN": ("seccft", "feccft"),
    "UPDATE_PASSWORD": ("scp", "fcp"),
    "UPDATE_EMAIL": ("sce", "fce"),
    "SEND_RESET_PASSWORD": ("scpr", "fcpr"),
    "SEND_VERIFY_EMAIL": ("svr", "fvr"),
    "VERIFY_EMAIL": ("sv", "fv"),
    "DELETE_ACCOUNT": ("sdu", "fdu"),
}
_FAILED_LOGINS = {"invalid_user_credentials": "fp", "user_not_found": "fu"}


def opened(given: Object) -> Envelope | None:
    """Return the tenant-log event; None when this is no event of Keycloak. Raises `NotAnEvent`."""
    if "realmId" not in given or not {"eventType", "type", "operationType"} & given.keys():
        return None
    details = given.get("details")
    who = given.get("auth") or given.get("authDetails") or given
    error = word(given, "error")
    data = present(
        type=_type(given, error),
        date=milliseconds(given, "time"),
        client_id=word(who, "clientId"),
        connection=word(details, "identity_provider"),
        user_id=word(who, "userId"),
        user_name=word(details, "username"),
        ip=word(who, "ipAddress"),
        session_id=word(who, "sessionId"),
        hostname=word(given, "realmName") or word(given, "realmId"),
        device_id=word(details, "device_id"),
        transaction_id=word(details, "code_id"),
        description=error,
    )
    # The representation is a copy of what an administrator changed, credentials included.
    kept = {name: value for name, value in given.items() if name != "representation"}
    id = word(given, "eventId") or word(given, "uid") or word(given, "id")
    return Envelope(data | {"details": {"keycloak": kept}}, log_id=log_id_of("keycloak", id, given))


def _type(given: Object, error: str | None) -> str:
    if "operationType" in given:
        return "sapi" if error is None else "fapi"
    named = word(given, "eventType") or word(given, "type")
    if named is None or len(named) > MAX_TYPE_LENGTH:
        raise NotAnEvent(f"type: must be the name of a Keycloak event of at most {MAX_TYPE_LENGTH} characters.")
    name = named.removeprefix("access.")
    if name == "LOGIN_ERROR" and error in _FAILED_LOGINS:
        return _FAILED_LOGINS[error]
    types = _SUCCEEDED_AND_FAILED.get(name.removesuffix("_ERROR"))
    return name.lower() if types is None else types[name.endswith("_ERROR")]
