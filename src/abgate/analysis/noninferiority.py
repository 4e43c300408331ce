"""Guardrails: whether a treatment keeps all of a metric but a margin of it."""

import math
from typing import Literal

from msgspec import Struct

from abgate.analysis.estimates import Estimate

Direction = Literal["increase", "decrease"]
"""Where a metric is better."""


class Slack(Struct, frozen=True):
    """How much of the margin is left, in the metric's unit: below zero, the treatment is worse than allowed."""

    value: float
    se: float
    n: int


def slack(control: Estimate, treatment: Estimate, *, margin: float, direction: Direction) -> Slack:
    """Return b − (1 − margin)·a of a metric that should be high, (1 + margin)·a − b of one that should be low.

    Laster & Johnson 2003, Non-inferiority trials: the 'at least as good as' criterion, Statistics in Medicine 22: a
    relative margin as a linear contrast. It is on the absolute scale, as normal as the estimates themselves, and counts
    the uncertainty of the control that the margin is a share of. The control's value must not be below zero;
    of zero the margin is zero.
    """
    kept = 1 - margin if direction == "increase" else 1 + margin
    value = treatment.value - kept * control.value
    se = math.sqrt(treatment.variance + kept**2 * control.variance)
    return Slack(value if direction == "increase" else -value, se, control.n + treatment.n)
