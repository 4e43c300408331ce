"""Bucketing answers what docs/bucketing.md promises, and its buckets are uniform and independent."""

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from abgate.core.bucketing import BUCKETS, cumulative, is_enrolled, pick, position_and_entry

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests/golden/bucketing.json").read_text())
SPECIFICATION = (ROOT / "docs/bucketing.md").read_text()


def named(case: dict[str, Any]) -> str:
    return case["about"]


# --- Golden vectors ---------------------------------------------------------------------------------------------------


def test_the_golden_vectors_are_those_that_were_published() -> None:
    """Cases may be added, but a case that fails is never edited: that would reshuffle every running experiment."""
    published = json.dumps(GOLDEN["cases"][:281], sort_keys=True).encode()
    assert (GOLDEN["schema"], GOLDEN["version"]) == ("abgate.bucketing", 1)
    assert sha256(published).hexdigest() == "878a34c499d48ebf3167edae4de9992cadb52715f240131a3b28213082b63a7c"


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=named)
def test_golden(case: dict[str, Any]) -> None:
    position, entry = position_and_entry(case["salt"], case["subject"])
    assert (position, entry) == (case["position"], case["entry"])
    assert is_enrolled(entry, case["level"]) is case["enrolled"]
    assert pick(position, cumulative(case["weights"])) == case["variation"]


def test_the_worked_example_is_true() -> None:
    salt, subject = "exp_9Km3nZ7vQwRx2yDjFs5gCp", "auth0|66b2f0c1d4e5a6978000001f"
    digest = sha256(f"{salt}:{subject}".encode()).digest()
    position, entry = position_and_entry(salt, subject)
    example = SPECIFICATION.split("## Worked example")[1].split("## Compute")[0]
    shown = set(re.findall(r"[\w|:]+", example))
    assert {f"{salt}:{subject}", digest.hex(), str(position), str(entry)} <= shown
    for word in (digest[0:8], digest[8:16]):
        assert {word.hex(), str(int.from_bytes(word)), str(int.from_bytes(word) * BUCKETS)} <= shown
    assert [is_enrolled(entry, level) for level in (5, 25)] == [False, True]
    assert pick(position, cumulative([90, 10])) == 1


# --- Properties -------------------------------------------------------------------------------------------------------

text = st.text()
any_string = st.text(st.characters(exclude_categories=()))
positions = st.integers(0, BUCKETS - 1)
levels = st.integers(0, 100)


@st.composite
def full_weights(draw: st.DrawFn, size: int | None = None) -> list[int]:
    """Weights that sum to 100, zeros included."""
    size = size or draw(st.integers(1, 12))
    cuts = sorted(draw(st.lists(levels, min_size=size - 1, max_size=size - 1)))
    return [end - start for start, end in zip([0, *cuts], [*cuts, 100], strict=True)]


@st.composite
def two_weightings(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    size = draw(st.integers(1, 12))
    return draw(full_weights(size)), draw(full_weights(size))


def intervals(weights: Sequence[int]) -> list[range]:
    ends = cumulative(weights)
    return [range(start, end) for start, end in zip((0, *ends), ends, strict=False)]


@settings(deadline=None)
@given(salt=any_string, subject=any_string)
@example(salt="\ud800", subject="\udfff")
def test_any_string_has_the_same_answer_every_time(salt: str, subject: str) -> None:
    answer = position_and_entry(salt, subject)
    assert answer == position_and_entry(salt, subject)
    assert [type(bucket) for bucket in answer] == [int, int]
    assert all(0 <= bucket < BUCKETS for bucket in answer)


@settings(deadline=None)
@given(salt=text, subject=text)
def test_the_answer_is_the_published_formula(salt: str, subject: str) -> None:
    digest = sha256((salt + ":" + subject).encode()).digest()
    assert position_and_entry(salt, subject) == (
        (int.from_bytes(digest[0:8], "big") * 10000) >> 64,
        (int.from_bytes(digest[8:16], "big") * 10000) >> 64,
    )


@settings(deadline=None)
@given(salt=text, subject=text, weights=full_weights(), ramp=st.lists(levels, min_size=2, unique=True).map(sorted))
@example(salt="exp_1", subject="ada", weights=[50, 50], ramp=[5, 25, 100])
def test_raising_the_ramp_never_moves_or_drops_an_enrolled_subject(
    salt: str, subject: str, weights: list[int], ramp: list[int]
) -> None:
    def assigned(level: int | None) -> int | None:
        position, entry = position_and_entry(salt, subject)
        return pick(position, cumulative(weights)) if is_enrolled(entry, level) else None

    given_so_far = None
    for level in [*ramp, 100, None]:
        variation = assigned(level)
        assert given_so_far in (None, variation)
        given_so_far = variation
    assert given_so_far is not None


def test_a_ramp_over_many_subjects_only_adds() -> None:
    entries = {f"auth0|{n}": position_and_entry("exp_ramp", f"auth0|{n}")[1] for n in range(10_000)}
    enrolled = [{s for s, entry in entries.items() if is_enrolled(entry, level)} for level in (0, 5, 25, 100, None)]
    assert enrolled[0] == set()
    assert enrolled[0] < enrolled[1] < enrolled[2] < enrolled[3] == enrolled[4] == set(entries)


@given(entry=positions, level=levels)
@example(entry=499, level=5)
@example(entry=500, level=5)
def test_a_level_enrols_exactly_its_percentage_of_entries(entry: int, level: int) -> None:
    assert is_enrolled(entry, level) is (entry in range(level * 100))


@settings(deadline=None)
@given(weightings=two_weightings(), position=positions)
def test_changing_weights_moves_only_subjects_whose_interval_moved(
    weightings: tuple[list[int], list[int]], position: int
) -> None:
    before, after = weightings
    was, now = pick(position, cumulative(before)), pick(position, cumulative(after))
    assert was is not None
    assert now is not None
    assert position in intervals(before)[was]
    assert (now == was) is (position in intervals(after)[was])


def test_from_half_and_half_to_sixty_forty_one_tenth_moves() -> None:
    before, after = cumulative([50, 50]), cumulative([60, 40])
    moved = [position for position in range(BUCKETS) if pick(position, before) != pick(position, after)]
    assert moved == list(range(5000, 6000))


@settings(deadline=None, max_examples=25)
@given(weights=full_weights())
@example(weights=[0, 0, 100])
@example(weights=[100, 0, 0])
@example(weights=[50, 0, 50])
def test_each_variation_has_a_hundred_positions_a_percent(weights: list[int]) -> None:
    ends = cumulative(weights)
    shares = Counter(pick(position, ends) for position in range(BUCKETS))
    assert [shares[index] for index in range(len(weights))] == [weight * 100 for weight in weights]


@given(weights=st.lists(st.integers(0, 9), max_size=11), position=positions)
@example(weights=[], position=0)
@example(weights=[0], position=0)
def test_past_the_end_of_the_weights_there_is_no_variation(weights: list[int], position: int) -> None:
    assert (pick(position, cumulative(weights)) is None) is (position >= sum(weights) * 100)


@given(weights=full_weights())
def test_intervals_end_at_integers(weights: list[int]) -> None:
    ends = cumulative(weights)
    assert {type(end) for end in ends} == {int}
    assert ends[-1] == BUCKETS


# --- Statistics -------------------------------------------------------------------------------------------------------

FALSE_ALARM = 1e-6
"""The probability, test by test, with which a perfect hash would fail it: half of it for a statistic too large, half
for one too small, which is what buckets dealt out in turn would give.

The subjects are fixed, so a test either always passes or never does: the rate is that of having chosen subjects on
which a sound hash happens to look unsound. Under ten tests, about one choice in a hundred thousand.
"""

SUBJECTS = 1_000_000
PERCENTS = 100


class Population:
    """The buckets of a million sequential subjects, the least random ids there are, in one experiment."""

    def __init__(self, salt: str) -> None:
        self.positions, self.entries = array("H"), array("H")
        for number in range(SUBJECTS):
            position, entry = position_and_entry(salt, f"user_{number}")
            self.positions.append(position)
            self.entries.append(entry)


@pytest.fixture(scope="module")
def one() -> Population:
    return Population("exp_1")


@pytest.fixture(scope="module")
def other() -> Population:
    """One character away from the first: where a weak hash would let experiments follow each other."""
    return Population("exp_2")


def chi_square(observed: Iterable[int], expected: Iterable[float]) -> float:
    return sum((seen - due) ** 2 / due for seen, due in zip(observed, expected, strict=True))


def upper_tail(statistic: float, freedom: int) -> float:
    """The exact probability of a larger chi-square, by the recurrence of the incomplete gamma function.

    Abramowitz & Stegun, Handbook of Mathematical Functions, 26.4.4 (odd) and 26.4.5 (even degrees of freedom).
    """
    half = statistic / 2
    tail = math.erfc(math.sqrt(half)) if freedom % 2 else 0.0
    first = 0.5 if freedom % 2 else 0.0
    terms = (first + step for step in range(freedom // 2))
    return tail + sum(math.exp(term * math.log(half) - half - math.lgamma(term + 1)) for term in terms)


def assert_plausible(statistic: float, freedom: int) -> None:
    """Accept a statistic unless it lies in the tails that FALSE_ALARM leaves."""
    assert FALSE_ALARM / 2 < upper_tail(statistic, freedom) < 1 - FALSE_ALARM / 2


def cross_table(rows: Sequence[int], columns: Sequence[int]) -> list[int]:
    """Count subjects in 100 × 100 cells, each a percent of the rows and of the columns."""
    table = Counter(row // PERCENTS * PERCENTS + column // PERCENTS for row, column in zip(rows, columns, strict=True))
    return [table[cell] for cell in range(PERCENTS * PERCENTS)]


def assert_independent(rows: Sequence[int], columns: Sequence[int]) -> None:
    """Pearson's test of independence, against the cells that the table's own margins make due."""
    table = cross_table(rows, columns)
    row_sums = [sum(table[row * PERCENTS : (row + 1) * PERCENTS]) for row in range(PERCENTS)]
    column_sums = [sum(table[column::PERCENTS]) for column in range(PERCENTS)]
    due = [row * column / len(rows) for row in row_sums for column in column_sums]
    assert_plausible(chi_square(table, due), (PERCENTS - 1) ** 2)


@pytest.mark.parametrize(
    ("statistic", "freedom", "probability"),
    [(3.841458821, 1, 0.05), (5.991464547, 2, 0.05), (18.30703805, 10, 0.05), (148.2303592, 99, 0.001)],
)
def test_the_tail_is_that_of_the_published_tables(statistic: float, freedom: int, probability: float) -> None:
    assert upper_tail(statistic, freedom) == pytest.approx(probability, rel=1e-6)


def test_positions_are_uniform(one: Population) -> None:
    """All 10,000 positions, 100 subjects due in each. False alarms: FALSE_ALARM."""
    shares = Counter(one.positions)
    assert_plausible(
        chi_square((shares[bucket] for bucket in range(BUCKETS)), [SUBJECTS / BUCKETS] * BUCKETS), BUCKETS - 1
    )


def test_entries_are_uniform(one: Population) -> None:
    """All 10,000 entries, 100 subjects due in each. False alarms: FALSE_ALARM."""
    shares = Counter(one.entries)
    assert_plausible(
        chi_square((shares[bucket] for bucket in range(BUCKETS)), [SUBJECTS / BUCKETS] * BUCKETS), BUCKETS - 1
    )


@pytest.mark.parametrize("level", [5, 25, 100])
def test_shares_match_the_weights_at_every_level_of_the_ramp(one: Population, level: int) -> None:
    """Enrolled subjects split by 1/4/10/25/60. False alarms: FALSE_ALARM a level."""
    weights = [1, 4, 10, 25, 60]
    ends = cumulative(weights)
    enrolled = [
        position for position, entry in zip(one.positions, one.entries, strict=True) if is_enrolled(entry, level)
    ]
    shares = Counter(pick(position, ends) for position in enrolled)
    due = [len(enrolled) * weight / 100 for weight in weights]
    assert_plausible(chi_square((shares[index] for index in range(len(weights))), due), len(weights) - 1)


def test_two_experiments_are_independent(one: Population, other: Population) -> None:
    """Position in one against position in the other. False alarms: FALSE_ALARM."""
    assert_independent(one.positions, other.positions)


def test_position_and_entry_are_independent(one: Population) -> None:
    """False alarms: FALSE_ALARM."""
    assert_independent(one.positions, one.entries)


def test_the_entry_of_one_experiment_says_nothing_of_the_position_in_another(
    one: Population, other: Population
) -> None:
    """Else a ramp in one experiment would skew another. False alarms: FALSE_ALARM."""
    assert_independent(one.entries, other.positions)


def test_neighbouring_subjects_are_independent(one: Population) -> None:
    """Ids issued one after the other share a log-in rush. False alarms: FALSE_ALARM."""
    assert_independent(one.positions[:-1], one.positions[1:])


def test_the_tests_above_can_fail(one: Population) -> None:
    """One bucket used twice, and buckets dealt out in turn, are both rejected."""
    with pytest.raises(AssertionError):
        assert_independent(one.positions, one.positions)
    with pytest.raises(AssertionError):
        assert_plausible(chi_square([99, 101] * (BUCKETS // 2), [100] * BUCKETS), BUCKETS - 1)
