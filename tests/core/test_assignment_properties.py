"""What holds for every experiment: the compiled decision is the interpreted one, fair, independent and steady."""

import io
import re
import tokenize
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from abgate.core import decider
from abgate.core.allocation import Allocation, References, SegmentSnapshot, VariationSnapshot
from abgate.core.assignment import Assignment, Forced, Subjects, assign
from abgate.core.bucketing import BUCKETS, cumulative, is_enrolled, least_digest, level_end, pick, position_and_entry
from abgate.core.compiled import compile_experiment
from abgate.core.decider import Admission
from abgate.core.experiment import (
    AssignmentConfig,
    Experiment,
    ExperimentChanges,
    ExperimentStatus,
    FeatureFlagSnapshot,
)
from abgate.core.feature_flag import Override, StringParameter
from abgate.core.lifecycle import advance_ramp, revise
from abgate.core.segment import Conditions, Expression, Operation, Rule, matches
from abgate.core.snapshot import Snapshot
from abgate.core.source import Source
from tests.core.builders import (
    NOW,
    by_percentage,
    by_segment,
    experiment,
    experiment_id,
    moved,
    references,
    segment,
    variation,
    variation_id,
)
from tests.core.snapshots import changes, snapshot
from tests.core.test_bucketing import GOLDEN, assert_plausible, chi_square, full_weights, intervals, two_weightings
from tests.core.test_segment import requests, rules_as_json, stored

FLOW = ("authentication",)
Attributes = Mapping[str, str]

any_string = st.text(st.characters(exclude_categories=()))


def many_variations(count: int) -> References:
    return references(variations=[variation(number) for number in range(1, count + 1)])


def split(*weights: int, number: int = 1, **fields: Any) -> Experiment:
    """An active experiment that allocates these weights."""
    made = experiment("active", many_variations(len(weights)), allocations=by_percentage(*weights), **fields)
    return replace(made, id=experiment_id(number))


def assigned(here: Snapshot, device: str, attributes: Attributes | None = None) -> Assignment:
    return assign(here, FLOW, Subjects(device=device), attributes or {})


def number_of(assignment: Assignment) -> int | None:
    """The number of the variation that is given, as the builders count them; None without one."""
    return None if assignment.context is None else NUMBERS[assignment.context.variation_id]


NUMBERS = {variation_id(number): number for number in range(1, 21)}


# --- The bounds and the hash are those of the published formula -------------------------------------------------------


def test_every_bucket_begins_at_its_bound_and_not_one_before() -> None:
    for bucket in range(BUCKETS):
        least = int.from_bytes(least_digest(bucket))
        assert least * BUCKETS >> 64 == bucket
        assert bucket == 0 or (least - 1) * BUCKETS >> 64 == bucket - 1


def admission(salt: str = "exp_1", level: int | None = None) -> Admission[Any]:
    return Admission(
        subject="device",
        salt=salt,
        level_end=None if level is None else level_end(level),
        no_subject="no subject",
        not_enrolled="not enrolled",
    )


def decided(salt: str, subject: str, weights: Sequence[int], level: int | None) -> int | str:
    indices: list[int | str] = list(range(len(weights)))
    decide = decider.by_percentage(admission(salt, level), cumulative(weights), indices)
    answer: int | str = decide(Subjects(device=subject), {})
    return answer


def test_deciders_give_what_the_golden_vectors_say() -> None:
    for case in GOLDEN["cases"]:
        # An experiment without a subject assigns nobody, though the empty string has a bucket.
        expected = case["variation"] if case["enrolled"] and case["variation"] is not None else "not enrolled"
        expected = expected if case["subject"] else "no subject"
        assert decided(case["salt"], case["subject"], case["weights"], case["level"]) == expected, case["about"]


@settings(max_examples=300)
@given(any_string, any_string.filter(bool), st.lists(st.integers(0, 9), max_size=11), st.none() | st.integers(0, 100))
@example("\ud800", "\udfff", [1, 99], 50)
@example("exp_1", "ada", [0, 0, 100], None)
def test_deciders_agree_with_the_formula_on_any_string(
    salt: str, subject: str, weights: list[int], level: int | None
) -> None:
    position, entry = position_and_entry(salt, subject)
    index = pick(position, cumulative(weights)) if is_enrolled(entry, level) else None
    assert decided(salt, subject, weights, level) == ("not enrolled" if index is None else index)


def test_threads_may_share_an_experiment() -> None:
    here = snapshot(split(10, 20, 30, 40))
    devices = [f"d{number}" for number in range(20_000)]

    def numbers(_: int) -> list[int | None]:
        return [number_of(assigned(here, device)) for device in devices]

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(numbers, range(4))
    assert others == [first] * 3
    assert Counter(first).keys() == {1, 2, 3, 4}


# --- Compiled is interpreted ------------------------------------------------------------------------------------------

some_rules = rules_as_json.map(lambda rules: stored(*rules))


def interpreted_match(segments: Sequence[tuple[list[Rule], Any]], attributes: Attributes, otherwise: Any) -> Any:
    return next((outcome for rules, outcome in segments if matches(rules, attributes)), otherwise)


def compiled_match(segments: Sequence[tuple[list[Rule], Any]], attributes: Attributes, otherwise: Any) -> Any:
    return decider.by_segment(admission(), segments, otherwise)(Subjects(device="d"), attributes)


def numbered(segments: Sequence[list[Rule]]) -> list[tuple[list[Rule], int]]:
    return [(rules, place) for place, rules in enumerate(segments)]


@settings(max_examples=150)
@given(st.lists(some_rules, max_size=4), requests)
def test_compiled_segments_match_what_interpreted_ones_do(segments: list[list[Rule]], attributes: Attributes) -> None:
    expected = interpreted_match(numbered(segments), attributes, "none")
    assert compiled_match(numbered(segments), attributes, "none") == expected


STRANGE_EXPRESSIONS: list[Expression] = [
    [],
    Operation(),
    Operation(contains=[]),
    Operation(starts_with=[]),
    Operation(ends_with=[]),
    Operation(contains=["F"], exists=False),
    Operation(contains=["X"], starts_with=["F"]),
]
STRANGE_RULES = [
    Rule(),
    Rule(match=Conditions()),
    Rule(not_match=Conditions()),
    *(Rule(match=Conditions(country=each)) for each in STRANGE_EXPRESSIONS),
    *(Rule(not_match=Conditions(country=each)) for each in STRANGE_EXPRESSIONS),
]


@pytest.mark.parametrize("rule", STRANGE_RULES, ids=lambda rule: msgspec.json.encode(rule).decode())
def test_rules_that_no_client_may_send_mean_the_same_too(rule: Rule) -> None:
    segments: list[tuple[list[Rule], str]] = [([], "no rules"), ([rule], "matched")]
    for attributes in ({}, {"country": ""}, {"country": "FR"}, {"browser": "FR"}):
        expected = interpreted_match(segments, attributes, "none")
        assert compiled_match(segments, attributes, "none") == expected


LARGE_RULES = [
    [Rule(match=Conditions(**{name: ["a"] for name in Conditions.__struct_fields__[:10]}))] * 50,
    [Rule(not_match=Conditions(region=Operation(contains=["b"] * 830)))] * 3,
]


@pytest.mark.parametrize("rules", LARGE_RULES, ids=["many conditions", "many texts"])
def test_the_largest_experiment_that_may_be_stored_compiles(rules: list[Rule]) -> None:
    assert 9_000 < len(msgspec.json.encode(rules)) <= 10 * 1024
    segments = [(rules, place) for place in range(20)]
    everything = dict.fromkeys(Conditions.__struct_fields__, "a")
    decide = decider.by_segment(admission(), segments, "none")
    for attributes in ({}, everything, everything | {"region": "b"}, everything | {"browser": "b"}):
        assert decide(Subjects(device="d"), attributes) == interpreted_match(segments, attributes, "none")


@st.composite
def experiments(draw: st.DrawFn) -> tuple[Experiment, References]:
    """A draft or an active experiment of any strategy, subject, ramp, weights and segments."""
    status: ExperimentStatus = draw(st.sampled_from(("draft", "active")))
    fields: dict[str, Any] = {
        "assignment_config": AssignmentConfig(draw(st.sampled_from(["device", "user", "organization"]))),
        "levels": draw(st.none() | st.lists(st.integers(0, 100), min_size=1, max_size=3, unique=True).map(sorted)),
        "allocation_strategy": draw(st.sampled_from(["percentage", "segment"])),
    }
    if fields["allocation_strategy"] == "percentage":
        weights = draw(full_weights() if status == "active" else st.lists(st.integers(0, 12), max_size=8))
        refers_to = many_variations(len(weights) or 1)
        return experiment(status, refers_to, allocations=by_percentage(*weights), **fields), refers_to
    count = draw(st.integers(0, 4))
    segments = [segment(number, rules=draw(some_rules)) for number in range(1, count + 1)]
    refers_to = references(variations=[variation(number) for number in range(1, count + 2)], segments=segments)
    allocations = by_segment(*range(1, count + 1))
    priorities = draw(st.permutations(range(1, count + 1)))
    allocations = [
        *(replace(each, priority=p) for each, p in zip(allocations, priorities, strict=False)),
        *(allocations[count:] if status == "active" or draw(st.booleans()) else []),
    ]
    return experiment(status, refers_to, allocations=allocations, **fields), refers_to


def interpreted(made: Experiment, refers_to: References, subjects: Subjects, attributes: Attributes) -> Any:
    """The specification's steps 3 to 5, taken one after the other over what is stored."""
    subject = subjects.find(made.assignment_config.subject)
    if subject is None:
        return "no_subject", None
    position, entry = position_and_entry(made.id, subject)
    chosen: tuple[str, Allocation | None]
    if made.current_level is not None and entry >= made.current_level * 100:
        chosen = "not_enrolled", None
    elif made.allocation_strategy == "percentage":
        index = pick(
            position, cumulative([each.weight for each in made.allocations if each.weight is not msgspec.UNSET])
        )
        chosen = ("not_enrolled", None) if index is None else ("split", made.allocations[index])
    else:
        chosen = _interpreted_segments(made, refers_to, attributes)
    reason, allocation = chosen
    if allocation is None:
        return "not_enrolled", None
    overrides = refers_to.variations[allocation.variation_id].overrides
    config = {
        name: {"value": overrides[name].value if name in overrides else parameter.value}
        for name, parameter in refers_to.feature_flag.parameters.items()
    }
    given_segment = None if allocation.segment_id is msgspec.UNSET else allocation.segment_id
    return reason, (made.id, allocation.variation_id, allocation.is_control, given_segment, config)


def _interpreted_segments(
    made: Experiment, refers_to: References, attributes: Attributes
) -> tuple[str, Allocation | None]:
    targeted = [each for each in made.allocations if each.segment_id is not msgspec.UNSET]
    for allocation in sorted(targeted, key=lambda each: int(str(each.priority))):
        if matches(refers_to.segments[str(allocation.segment_id)].rules, attributes):
            return "segment", allocation
    fallback = next((each for each in made.allocations if each.is_fallback is True), None)
    return "fallback", fallback


def told(assignment: Assignment) -> Any:
    if assignment.allocation is None or assignment.context is None:
        return assignment.reason, None
    context, segment_id = assignment.context, assignment.allocation.segment_id
    answer = (context.experiment_id, context.variation_id, context.is_control, segment_id, context.config)
    return assignment.reason, answer


some_subject = st.none() | st.text("ab1", max_size=4)


@settings(max_examples=200)
@given(experiments(), st.lists(st.builds(Subjects, *[some_subject] * 3), min_size=1, max_size=8), requests)
def test_a_compiled_experiment_assigns_what_the_interpreted_one_does(
    both: tuple[Experiment, References], logins: list[Subjects], attributes: Attributes
) -> None:
    made, refers_to = both
    here = snapshot(made, refers_to=refers_to)
    for subjects in logins:
        reason, answer = interpreted(made, refers_to, subjects, attributes)
        forced = assign(here, ("mfa_challenge",), subjects, attributes, forced=Forced(made.id))
        assert told(forced) == (reason if answer is None else "forced", answer)
        normal = assign(here, FLOW, subjects, attributes)
        assert told(normal) == ((reason, answer) if made.status == "active" else ("no_experiment", None))


# --- Values stay values -----------------------------------------------------------------------------------------------

HOSTILE = [
    "'", '"', "'''", '"""', "\\", "\n", "\r\n", "\u2028", "\x00", "\ud800", "#", "c0", "a0", "attributes", "first",
    "{}", "{0}", "%s", "') or True #", "FR'])) or __import__('os').abort() or ((''", "\n    return c0\n",
    "\nraise SystemExit", "__builtins__", "\N{ZERO WIDTH SPACE}", "𝒹ℯ𝒻",
]  # fmt: skip
hostile_text = st.sampled_from(HOSTILE) | any_string
hostile_texts = st.lists(hostile_text, min_size=1, max_size=3)
hostile_expressions = st.one_of(
    hostile_texts,
    *(
        st.builds(lambda texts, name=name: Operation(**{name: texts}), hostile_texts)
        for name in ("contains", "starts_with", "ends_with")
    ),
    st.builds(lambda exists: Operation(exists=exists), st.booleans()),
)
halves = st.none() | st.dictionaries(
    st.sampled_from(Conditions.__struct_fields__), hostile_expressions, min_size=1, max_size=4
).map(lambda given: Conditions(**given))
hostile_rules = st.lists(st.builds(Rule, match=halves, not_match=halves), min_size=1, max_size=3)
hostile_requests = st.dictionaries(st.sampled_from(Conditions.__struct_fields__), hostile_text)

WORDS = {"def", "return", "if", "else", "try", "except", "and", "or", "not", "in", "is", "None", "True", "False"}
WORDS |= {"decide", "subjects", "attributes", "device", "user", "organization", "subject", "hashed", "digest"}
WORDS |= {"get", "startswith", "endswith", "encode", "update"}
LAYOUT = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def foreign_tokens(source: str) -> list[str]:
    """What of the text is neither a word of the fragments, nor their punctuation, nor a numbered name."""
    tokens = [each for each in tokenize.generate_tokens(io.StringIO(source).readline) if each.type not in LAYOUT]
    is_ours = re.compile(r"[ac][0-9]+|[][().:,=<]|[=>]=")
    return [each.string for each in tokens if each.string not in WORDS and not is_ours.fullmatch(each.string)]


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of every function that is generated in the test."""
    generated: list[str] = []
    compiled = Source.compiled

    def recorded(source: Source) -> Any:
        generated.append(source.text)
        return compiled(source)

    monkeypatch.setattr(Source, "compiled", recorded)
    return generated


# The fixture records; what earlier examples left in it does no harm.
several_examples = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@several_examples
@given(st.lists(st.tuples(hostile_rules, hostile_text), max_size=3), hostile_requests, hostile_text)
def test_no_value_of_a_segment_enters_the_generated_text(
    texts: list[str], segments: list[tuple[list[Rule], str]], attributes: Attributes, salt: str
) -> None:
    decide = decider.by_segment(admission(salt, 100), segments, "none")
    assert decide(Subjects(device="d"), attributes) == interpreted_match(segments, attributes, "none")
    assert texts[-1].isascii()
    assert foreign_tokens(texts[-1]) == []
    assert decide.__globals__["__builtins__"] == {}


@several_examples
@given(hostile_text, hostile_text.filter(bool), full_weights(), st.none() | st.integers(0, 100))
def test_no_value_of_a_split_enters_the_generated_text(
    texts: list[str], salt: str, subject: str, weights: list[int], level: int | None
) -> None:
    position, entry = position_and_entry(salt, subject)
    index = pick(position, cumulative(weights)) if is_enrolled(entry, level) else "not enrolled"
    assert decided(salt, subject, weights, level) == index
    assert texts[-1].isascii()
    assert foreign_tokens(texts[-1]) == []


def test_the_text_is_the_same_whatever_the_values_are(texts: list[str]) -> None:
    for value in ("FR", *HOSTILE):
        rules = [Rule(match=Conditions(country=[value], browser=Operation(contains=[value])))]
        decider.by_segment(admission(value, 50), [(rules, value)], value)
    assert len(texts) == len(HOSTILE) + 1
    assert len(set(texts)) == 1


def test_what_is_foreign_in_a_text_is_found() -> None:
    assert foreign_tokens("def decide(attributes):\n    return c0") == []
    assert foreign_tokens("def decide(attributes):\n    return c0 + 'FR' or os") == ["+", "'FR'", "os"]


@settings(max_examples=100)
@given(
    names=st.lists(hostile_text, min_size=8, max_size=8),
    rules=hostile_rules,
    device=hostile_text.filter(bool),
    attributes=hostile_requests,
)
def test_hostile_names_and_values_come_back_as_they_are(
    names: list[str], rules: list[Rule], device: str, attributes: Attributes
) -> None:
    id, flag, title, default, value, variation_name, segment_name, segment_id = names
    given_variation = VariationSnapshot("var_2", variation_name, {title: Override(value)})
    made = Experiment(
        id=id,
        name=variation_name,
        feature_flag_id=flag,
        authentication_flow="authentication",
        allocation_strategy="segment",
        assignment_config=AssignmentConfig("device"),
        status="active",
        feature_flag_snapshot=FeatureFlagSnapshot(flag, flag, {title: StringParameter(value=default)}),
        allocations=[
            Allocation(
                variation_id=variation_name,
                is_control=False,
                segment_id=segment_id,
                priority=1,
                variation_snapshot=given_variation,
                segment_snapshot=SegmentSnapshot(segment_id, segment_name, rules),
            ),
            Allocation(
                variation_id="var_1",
                is_control=True,
                is_fallback=True,
                variation_snapshot=VariationSnapshot("var_1", "baseline", {}),
            ),
        ],
        created_at=NOW,
        updated_at=NOW,
    )
    compiled = compile_experiment(made)
    assert compiled is not None
    answer = told(compiled.decide(Subjects(device=device), attributes))
    if matches(rules, attributes):
        assert answer == ("segment", (id, variation_name, False, segment_id, {title: {"value": value}}))
    else:
        assert answer == ("fallback", (id, "var_1", True, None, {title: {"value": default}}))


# --- Statistics -------------------------------------------------------------------------------------------------------

SUBJECTS = 1_000_000
UNEVEN, EVEN = (1, 4, 10, 25, 60), (10,) * 10


def numbers(made: Experiment, count: int) -> Sequence[int]:
    """The variation of each of the first `count` sequential devices, the least random ids there are; 0 without one."""
    here = snapshot(made)
    return array("B", (number_of(assigned(here, f"user_{each}")) or 0 for each in range(count)))


@pytest.fixture(scope="module")
def uneven() -> Sequence[int]:
    return numbers(split(*UNEVEN), SUBJECTS)


@pytest.fixture(scope="module")
def even() -> Sequence[int]:
    """In another experiment, whose id differs in one character."""
    return numbers(split(*EVEN, number=2), SUBJECTS)


def test_a_million_subjects_split_by_the_weights(uneven: Sequence[int], even: Sequence[int]) -> None:
    """Pearson's chi-square against 1/4/10/25/60 and ten times 10 percent. False alarms: FALSE_ALARM (10⁻⁶) each."""
    for given_numbers, weights in ((uneven, UNEVEN), (even, EVEN)):
        shares = Counter(given_numbers)
        assert shares.keys() == set(range(1, len(weights) + 1))
        due = [SUBJECTS * weight / 100 for weight in weights]
        assert_plausible(chi_square((shares[number] for number in range(1, len(weights) + 1)), due), len(weights) - 1)


def test_two_experiments_assign_independently(uneven: Sequence[int], even: Sequence[int]) -> None:
    """Pearson's test of independence over the 5 × 10 table of a million subjects. False alarms: FALSE_ALARM (10⁻⁶)."""
    table, rows, columns = Counter(zip(uneven, even, strict=True)), Counter(uneven), Counter(even)
    cells = [(row, column) for row in rows for column in columns]
    statistic = chi_square(
        (table[cell] for cell in cells), (rows[row] * columns[column] / SUBJECTS for row, column in cells)
    )
    assert_plausible(statistic, (len(UNEVEN) - 1) * (len(EVEN) - 1))


def test_the_tests_above_can_fail(uneven: Sequence[int]) -> None:
    """Weights off by a fifth of a percent, and an experiment that follows another, are both rejected."""
    shares = Counter(uneven)
    due = [SUBJECTS * weight / 100 for weight in (1, 4, 10, 25.2, 59.8)]
    with pytest.raises(AssertionError):
        assert_plausible(chi_square((shares[number] for number in range(1, 6)), due), 4)
    with pytest.raises(AssertionError):
        test_two_experiments_assign_independently(uneven, array("B", (1 + number % 10 for number in uneven)))


# --- What changes while an experiment runs ----------------------------------------------------------------------------


def ramped(levels: list[int], *weights: int) -> list[Experiment]:
    """The experiment at each level of its ramp: activated, then advanced step by step."""
    made = [split(*weights, levels=levels)]
    for level in levels[1:]:
        made.append(advance_ramp(made[-1], level, now=NOW))
    return made


def test_from_5_over_25_to_100_percent_nobody_is_moved_or_dropped() -> None:
    """100,000 subjects, at each level as many of them as it says. False alarms: FALSE_ALARM (10⁻⁶) a level."""
    count = 100_000
    at_5, at_25, at_100 = (numbers(made, count) for made in ramped([5, 25, 100], 60, 30, 10))
    for before, after in pairwise((at_5, at_25, at_100)):
        assert all(was in (0, now) for was, now in zip(before, after, strict=True))
    assert 0 not in at_100
    for given_numbers, level in ((at_5, 5), (at_25, 25)):
        enrolled = sum(number > 0 for number in given_numbers)
        due = count * level / 100
        assert_plausible(chi_square((enrolled, count - enrolled), (due, count - due)), 1)


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 100), min_size=2, max_size=5, unique=True).map(sorted),
    full_weights(),
    st.lists(any_string.filter(bool), min_size=1, max_size=20),
)
def test_raising_any_ramp_only_adds(levels: list[int], weights: list[int], devices: list[str]) -> None:
    here, refers_to = snapshot(), many_variations(len(weights))
    so_far: list[int | None] = [None] * len(devices)
    for number, made in enumerate(ramped(levels, *weights), 1):
        here = here.with_changes(changes(made, refers_to=refers_to, number=number))
        given_numbers = [number_of(assigned(here, device)) for device in devices]
        assert all(was in (None, now) for was, now in zip(so_far, given_numbers, strict=True))
        so_far = given_numbers


@settings(max_examples=40)
@given(two_weightings(), st.none() | st.integers(1, 100))
@example(([50, 50], [60, 40]), None)
@example(([100, 0], [0, 100]), 25)
def test_editing_weights_moves_only_subjects_whose_interval_moved(
    weightings: tuple[list[int], list[int]], level: int | None
) -> None:
    before, after = weightings
    refers_to = many_variations(len(before))
    running = split(*before, levels=None if level is None else [level])
    paused = moved(running, "paused", refers_to)
    allocations = ExperimentChanges(allocations=by_percentage(*after))
    edited = moved(revise(paused, allocations, refers_to, rivals=[], now=NOW), "active", refers_to)
    first = snapshot(running, refers_to=refers_to)
    second = first.with_changes(changes(edited, refers_to=refers_to, number=2))
    for device in DEVICES:
        position, _ = position_and_entry(running.id, device)
        was, now = number_of(assigned(first, device)), number_of(assigned(second, device))
        assert (was is None) == (now is None)
        if was is not None:
            assert position in intervals(before)[was - 1]
            assert (now == was) is (position in intervals(after)[was - 1])


DEVICES = [f"d{number}" for number in range(300)]
