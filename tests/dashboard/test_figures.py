"""Figures in the first minutes of an experiment, when there is next to nothing to show."""

from abgate.dashboard import numbers
from abgate.dashboard.figures import exposures
from abgate.dashboard.results_view import Arm

ARM = Arm(id="var_1", name="prompt", is_control=False, color="one", symbol=0, planned=50, n=0, observed=None)


def test_subjects_by_day_are_no_chart_before_the_first_window_has_closed() -> None:
    day = {"day": "2026-11-27", "variation_id": ARM.id}
    none, some = ({"name": "login_success", "series": [day | {"n": n}]} for n in (0, 3))
    assert exposures(none, [ARM]).data == {"rows": []}
    assert exposures(none, [ARM]).caption.endswith("has closed. Nobody's has yet.")
    assert exposures(some, [ARM]).data["rows"][0]["n"] == 3
    assert exposures(some, [ARM]).caption.endswith("has closed.")


def test_all_of_a_few_is_no_exact_share() -> None:
    assert numbers.percent(1.0, 3) == "100\u202f%"
    assert numbers.percent(0.0, 3) == "0\u202f%"
    assert numbers.percent(0.0, 100_000) == "0.00\u202f%"
