"""authentik's events, as its API and a webhook mapping that returns the event write them."""

from abgate.ingest.formats.envelope import MAX_TYPE_LENGTH, Envelope, NotAnEvent, Object, log_id_of, present, text, word

_TYPES = {"login": "s", "login_failed": "fp", "logout": "slo", "password_set": "scp"}
_ANONYMOUS = "AnonymousUser"


def opened(given: Object) -> Envelope | None:
    """Return the tenant-log event; None when this is no event of authentik. Raises `NotAnEvent`."""
    if {"body", "severity", "user_email", "user_username"} <= given.keys():
        raise NotAnEvent(
            "authentik's own webhook body says only in prose what happened. Give the transport a webhook mapping that "
            "returns the event; integrations/authentik has one."
        )
    if not {"action", "app", "context", "pk"} <= given.keys():
        return None
    action, context = text(given, "action", MAX_TYPE_LENGTH), given.get("context")
    if not action:
        raise NotAnEvent("action: must not be empty.")
    user = given.get("user")
    name = word(user, "username")
    pk = user.get("pk") if isinstance(user, dict) and name != _ANONYMOUS else None
    data = present(
        type=_type(action, context),
        date=word(given, "created"),
        user_id=None if pk is None else str(pk),
        user_name=word(context, "username") if name in (None, _ANONYMOUS) else name,
        client_id=word(context, "authorized_application", "name"),
        ip=word(given, "client_ip"),
        user_agent=word(context, "http_request", "user_agent"),
        hostname=word(given, "brand", "domain"),
        strategy=word(context, "auth_method"),
        details={"authentik": given},
    )
    return Envelope(data, log_id=log_id_of("authentik", word(given, "pk"), given))


def _type(action: str, context: object) -> str:
    if action == "login_failed" and word(context, "stage", "model_name") == "identificationstage":
        return "fu"
    if action == "user_write" and isinstance(context, dict) and context.get("created") is True:
        return "ss"
    return _TYPES.get(action, action)
