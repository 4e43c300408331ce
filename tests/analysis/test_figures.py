"""From sums to what is shown: when a share of subjects is compared, and that its days are drawn by the same rule."""

import pytest

from abgate.analysis import figures
from abgate.analysis.aggregates import NotEnoughData
from abgate.analysis.answers import DayEstimate
from abgate.analysis.comparison import Comparison, Plan
from abgate.analysis.measurement import Sums
from tests.analysis.traffic import TREATMENT, metric

DAY = DayEstimate(day="2026-05-01", variation_id=TREATMENT, n=100, value=0.02)


@pytest.mark.parametrize("fields", [{}, {"cuped": 600}])
def test_a_share_is_compared_and_drawn_from_five_expected_successes_on(fields: dict[str, int]) -> None:
    asked = metric("proportion", **fields)
    none, few, enough = (figures.aggregates_of(asked, Sums(n=100, y=y, yy=y, x=50, xx=50), None) for y in (0, 2, 10))
    lacking = figures.compared(asked, none, few, Plan())
    assert isinstance(lacking, NotEnoughData)
    assert "1.0 successes" in lacking.why
    assert figures.with_running_effect(DAY, asked, none, few, Plan()) == DAY
    found = figures.compared(asked, none, enough, Plan())
    assert isinstance(found, Comparison)
    drawn = figures.with_running_effect(DAY, asked, none, enough, Plan())
    assert (drawn.effect, drawn.always_valid_interval) == (found.effect, found.always_valid_interval)
