# ruff: noqa: F706, F821  authentik indents an expression into a function, and gives it `notification`
"""authentik webhook mapping for the body of a notification transport: an event as `/runtime/v1/events` reads it.

authentik posts it in a background task, so that no login waits for it.
"""

event = notification.event
# Other actions mean nothing to any metric, but are kept under their own names.
types = {"login": "s", "login_failed": "fp", "user_write": "ss" if event.context.get("created") else "user_write"}
asked = event.context.get("http_request", {})

return {
    # The same event comes once for each member of the rule's group: this makes them one.
    "log_id": f"authentik_{event.pk}",
    "data": {
        "date": event.created.isoformat(),
        "type": types.get(event.action, event.action),
        # The same identifier as policy.py gives to resolve: by it the event finds its experiment.
        "user_id": None if event.user.get("pk") is None else str(event.user["pk"]),
        "ip": event.client_ip,
        "user_agent": asked.get("user_agent"),
        "hostname": event.brand.get("domain"),
        "details": {"action": event.action, "app": event.app},
    },
}
