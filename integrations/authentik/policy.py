# ruff: noqa: F706, F821  authentik indents an expression into a function, and gives it request, requests and the rest
"""authentik expression policy: asks abgate which variation this login gets and stores it in the flow context.

Bind it to the first stage binding that should know of the experiment, with "Evaluate when stage is run". It always
passes: it never removes a stage and never fails a login. Set up in README.md, beside this file.
"""

ABGATE_URL = "https://abgate.example.com"
ABGATE_TOKEN = "put a token or server key here that may evaluate:experimentation"  # noqa: S105
# To connect, and between any two packets of the answer: together a login waits 200 ms.
TIMEOUT_S = (0.1, 0.1)

try:
    http_request, plan = request.http_request, request.context["flow_plan"].context
    # The user who is logging in; request.user is still the anonymous one until the login is done.
    pending = plan.get("pending_user")
    user = None if pending is None or pending.pk is None else str(pending.pk)
    application = plan.get("application")
    given = {
        # The cookie that abgate's gateway sets: authentik sees it when both are served under the same host name.
        "device": http_request.COOKIES.get("__Host-abgate_device"),
        "user": user,
    }
    answer = requests.post(
        f"{ABGATE_URL}/runtime/v1/resolve",
        headers={"Authorization": f"Bearer {ABGATE_TOKEN}"},
        json={
            "flow": "authentication",
            "subjects": {name: value for name, value in given.items() if value},
            "request": {
                "client_id": None if application is None else application.slug,
                "domain": http_request.get_host(),
                "user_agent": http_request.META.get("HTTP_USER_AGENT"),
                "ip": str(ak_client_ip),
            },
            # A stage that is shown again keeps its variation, whatever was changed in between.
            "assignment_token": plan.get("abgate_assignment_token"),
        },
        timeout=TIMEOUT_S,
        # A redirect would start the clock anew.
        allow_redirects=False,
    )
    if answer.status_code != 200:
        raise ValueError(f"abgate answered {answer.status_code}")
    resolved = answer.json()
    # {experiment_id, variation_id, config, is_control}, or None: later policies read `config`.
    plan["experiment"] = resolved["experiment"]
    plan["abgate_assignment_token"] = resolved["assignment_token"]
except Exception as error:
    # Fail open: authentik takes an exception for "policy failed", which would remove the stage.
    ak_logger.warning("abgate: no experiment for this login", error=type(error).__name__, reason=str(error)[:200])

return True
