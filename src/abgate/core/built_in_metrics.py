"""The metrics of authentication that every tenant has, by the event types of Auth0's tenant logs."""

from collections.abc import Mapping
from typing import Any

from abgate.core.metric import (
    DAY,
    HOUR,
    Denominator,
    EventField,
    EventFilter,
    Metric,
    MetricId,
    MetricKind,
    checked_metric,
)

_SINCE = "2026-01-01T00:00:00.000Z"
_LOGIN = EventFilter(types=["s"])
_ATTEMPTS = EventFilter(types=["s", "f", "fp", "fu"])


def _built_in(id: MetricId, kind: MetricKind, events: EventFilter, description: str, **fields: Any) -> Metric:
    given: dict[str, Any] = {"window": HOUR, "direction": "increase"} | fields
    return checked_metric(
        Metric(
            id=id,
            name=id,
            description=description,
            kind=kind,
            events=events,
            created_at=_SINCE,
            updated_at=_SINCE,
            **given,
        )
    )


_METRICS = (
    _built_in("login_success", "proportion", _LOGIN, "Subjects who log in within an hour of their first exposure."),
    _built_in(
        "time_to_login",
        "quantile",
        _LOGIN,
        "Median time from the first exposure to the login, of those who log in within the hour.",
        value="seconds_to_first",
        quantile="p50",
        direction="decrease",
    ),
    _built_in(
        "time_to_login_mean",
        "mean",
        _LOGIN,
        "Mean time from the first exposure to the login, of those who log in within the hour.",
        value="seconds_to_first",
        direction="decrease",
    ),
    _built_in(
        "signup_completion",
        "proportion",
        EventFilter(types=["ss"]),
        "Subjects who complete a sign-up within a day.",
        window=DAY,
    ),
    _built_in(
        "wrong_password_rate",
        "ratio",
        EventFilter(types=["fp"]),
        "Wrong passwords per attempt to log in, within a day.",
        value="count",
        denominator=Denominator(events=_ATTEMPTS),
        window=DAY,
        direction="decrease",
    ),
    _built_in(
        "lockout_rate",
        "proportion",
        EventFilter(types=["limit_wc"]),
        "Subjects whose account is blocked after too many failed logins, within a day.",
        window=DAY,
        direction="decrease",
    ),
    _built_in(
        "failed_login_rate",
        "ratio",
        EventFilter(types=["f", "fp", "fu"]),
        "Failed attempts per attempt to log in, within a day.",
        value="count",
        denominator=Denominator(events=_ATTEMPTS),
        window=DAY,
        direction="decrease",
    ),
    _built_in(
        "mfa_abandonment",
        "ratio",
        EventFilter(types=["gd_auth_succeed"]),
        "Share of the second factors begun within an hour that were not completed.",
        value="missing",
        denominator=Denominator(events=EventFilter(types=["gd_start_auth"])),
        direction="decrease",
    ),
    _built_in(
        "passkey_enrolled",
        "proportion",
        EventFilter(types=["gd_enrollment_complete"], fields=[EventField("details.authenticator.type", ["passkey"])]),
        "Subjects who enroll a passkey within a day.",
        window=DAY,
    ),
    _built_in(
        "next_login_return",
        "retention",
        _LOGIN,
        "Subjects who log in again between one and seven days after their first exposure.",
        window=7 * DAY,
        window_start=DAY,
    ),
)

BUILT_IN: Mapping[MetricId, Metric] = {metric.id: metric for metric in _METRICS}
"""By id, which is the name."""
