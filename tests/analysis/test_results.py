from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from abgate.analysis.aggregates import Proportion
from abgate.analysis.proportions import compare_proportions
from abgate.analysis.results import ExperimentResults, experiment_results
from abgate.core.experiment import Experiment
from tests.core.builders import by_percentage, by_segment, experiment, experiment_id, references, variation_id

CONTROL, TREATMENT = Proportion(10_000, 9210), Proportion(10_000, 9284)
COUNTS = {variation_id(1): CONTROL, variation_id(2): TREATMENT}


def results(made: Experiment | None = None, counts: Any = COUNTS, **options: Any) -> ExperimentResults:
    return experiment_results(made or experiment("active"), counts, window=86_400, **options)


def test_a_treatment_is_compared_with_the_control() -> None:
    found = msgspec.to_builtins(results())
    assert found == {
        "experiment_id": experiment_id(),
        "experiment_name": "passkey-prompt-q2",
        "experiment_status": "active",
        "status": "ok",
        "metric": "login_success",
        "window": 86_400,
        "alpha": 0.05,
        "methods": {"test": "pooled z", "interval": "Newcombe 1998, method 10"},
        "population": {"exposed": 20_000, "open_windows": 0, "of_former_variations": 0},
        "variations": [
            {
                "variation_id": variation_id(1),
                "variation_name": "variation 1",
                "is_control": True,
                "n": 10_000,
                "successes": 9210,
                "value": 0.921,
            },
            {
                "variation_id": variation_id(2),
                "variation_name": "variation 2",
                "is_control": False,
                "n": 10_000,
                "successes": 9284,
                "value": 0.9284,
                "effect": pytest.approx(0.0074),
                "lift": pytest.approx(0.0074 / 0.921),
                "interval": (pytest.approx(8.394019063e-05), pytest.approx(0.0147224392545)),
                "p_value": pytest.approx(0.04736942337),
            },
        ],
    }


def test_each_of_several_treatments_is() -> None:
    made = experiment("active", allocations=by_percentage(34, 33, 33))
    third = Proportion(10_000, 9000)
    found = results(made, COUNTS | {variation_id(3): third})
    assert [each.p_value is msgspec.UNSET for each in found.variations] == [True, False, False]
    expected = compare_proportions(CONTROL, third, alpha=0.05)
    assert found.variations[2].interval == expected.interval  # type: ignore[union-attr]


def test_one_treatment_with_enough_data_is_an_answer() -> None:
    made = experiment("active", allocations=by_percentage(34, 33, 33))
    found = results(made)
    assert found.status == "ok"
    assert found.variations[2].value is None
    assert found.variations[2].why == "No subject was exposed to the treatment yet."


@pytest.mark.parametrize("counts", [{}, {variation_id(1): CONTROL}, {variation_id(2): TREATMENT}])
def test_without_subjects_there_is_not_enough_data_and_no_p_value(counts: Any) -> None:
    found = msgspec.to_builtins(results(counts=counts))
    assert found["status"] == "not_enough_data"
    assert "exposed" in found["why"]
    assert not any("p_value" in each or "interval" in each for each in found["variations"])


def test_subjects_of_variations_that_were_taken_out_are_counted_apart() -> None:
    found = results(counts=COUNTS | {variation_id(3): Proportion(7, 1)}, open_windows=5)
    assert found.population == {"exposed": 20_007, "open_windows": 5, "of_former_variations": 7}


def test_a_lift_over_nothing_is_none() -> None:
    found = results(counts={variation_id(1): Proportion(1000, 0), variation_id(2): Proportion(1000, 50)})
    assert (found.variations[1].effect, found.variations[1].lift) == (0.05, None)


def test_variations_given_by_segment_are_not_compared() -> None:
    made = experiment("active", allocation_strategy="segment", allocations=by_segment(1))
    found = results(made)
    assert found.status == "not_enough_data"
    assert "different segments" in str(found.why)
    assert [(each.is_control, each.n) for each in found.variations] == [(False, 10_000), (True, 10_000)]


def test_a_variation_in_several_segments_is_one() -> None:
    allocations = by_segment(1, 2)
    allocations[1] = replace(allocations[1], variation_id=variation_id(2))
    found = results(experiment("active", allocation_strategy="segment", allocations=allocations))
    assert [each.variation_id for each in found.variations] == [variation_id(2), variation_id(1)]
    assert found.population["of_former_variations"] == 0


def test_a_draft_has_the_present_names_if_they_are_given() -> None:
    draft = experiment("draft")
    assert [each.variation_name for each in results(draft, {}).variations] == [None, None]
    named = results(draft, {}, variations=references().variations)
    assert [each.variation_name for each in named.variations] == ["variation 1", "variation 2"]


@pytest.mark.parametrize(
    ("allocations", "words"), [([], "no treatment"), (by_percentage(100), "no treatment"), (None, "no control")]
)
def test_a_draft_that_cannot_be_compared_says_why(allocations: Any, words: str) -> None:
    if allocations is None:
        allocations = [replace(each, is_control=False) for each in by_percentage(50, 50)]
    found = results(experiment("draft", allocations=allocations))
    assert found.status == "not_enough_data"
    assert words in str(found.why)
