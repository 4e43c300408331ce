"""What an experiment's measurement says: figures for every metric, their validity, and the decision."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec import UNSET, Struct
from msgspec.structs import replace

from abgate.analysis import decision, figures, srm
from abgate.analysis.aggregates import Aggregates, NotEnoughData
from abgate.analysis.answers import (
    USED,
    ArmSummary,
    Crossover,
    DayEstimate,
    ExperimentResults,
    MetricResult,
    PastMetric,
    PhaseResult,
    Rate,
    Role,
    SampleRatio,
    Slice,
    SuspectedCause,
    VariationResult,
)
from abgate.analysis.comparison import Comparison, Plan
from abgate.analysis.figures import Compared
from abgate.analysis.measurement import Measurement, Sums
from abgate.analysis.phases import Phase
from abgate.analysis.planning import Progress, plan_of, progress_of
from abgate.core.analysis import Analysis
from abgate.core.experiment import Experiment
from abgate.core.ids import Timestamp, VariationId
from abgate.core.metric import Metric

MAX_CAUSES = 20
MAX_SLICES = 50
"""Values of a dimension that are shown: those with the most subjects."""
MIN_OF_A_CAUSE = 30
"""Subjects that a value of an attribute needs to be looked at as the cause of a mismatch."""

BY_SEGMENT = NotEnoughData(
    "The variations went to different segments, not to random shares of one: the difference between them would be that "
    "between their people. Compare by the percentage strategy."
)
NO_CONTROL = NotEnoughData("The experiment has no control to compare with.")


class Question(Struct, frozen=True, kw_only=True):
    """Whose results they are, of which moment, from which versions of everything.

    `variations` are numbered as the measurement's. `metrics` are in the analysis's order: the primary one first.
    """

    experiment: Experiment
    analysis: Analysis
    metrics: Sequence[Metric]
    variations: Sequence[VariationId]
    names: Mapping[VariationId, str]
    phases: Sequence[Phase]
    as_of: Timestamp
    snapshot_number: int
    lake_version: Mapping[str, int]
    dimension: str | None = None


def results_of(question: Question, measurement: Measurement) -> ExperimentResults:
    """Return the answer to the question."""
    return _Answer(question, measurement).make()


class _Answer:
    """One answer in the making; everything is of the present phase unless it says otherwise."""

    def __init__(self, question: Question, measurement: Measurement) -> None:
        self._question = question
        self._measured = measurement
        self._phase = len(question.phases) - 1
        allocations = question.experiment.allocations
        # With the segment strategy a variation may stand in several allocations.
        own = dict.fromkeys(each.variation_id for each in allocations)
        self._arms = [question.variations.index(id) for id in own]
        self._control = next(
            (question.variations.index(each.variation_id) for each in allocations if each.is_control), None
        )
        self._progress: Progress = progress_of(measurement, question.analysis, self._phase)
        self._plan: Plan = plan_of(question.analysis, self._progress, arms=len(self._arms))

    def make(self) -> ExperimentResults:
        question = self._question
        comparisons = [self._compared(place) for place in range(len(question.metrics))]
        sample_ratio = self._sample_ratio()
        made = decision.decide(self._evidence(comparisons, sample_ratio))
        adjusted = figures.adjusted_p_values(question.analysis, comparisons)
        is_compared = any(isinstance(each, Comparison) for found in comparisons for each in found.values())
        return ExperimentResults(
            experiment_id=question.experiment.id,
            experiment_name=question.experiment.name,
            experiment_status=question.experiment.status,
            status="ok" if is_compared else "not_enough_data",
            why=UNSET if is_compared else self._why(comparisons[0]),
            as_of=question.as_of,
            snapshot_number=question.snapshot_number,
            lake_version=question.lake_version,
            methods=USED,
            analysis=question.analysis,
            phase=self._phase_result(self._phase) if question.phases else UNSET,
            earlier_phases=[self._earlier(number) for number in range(self._phase)],
            population=self._population(),
            variations=[self._summary(arm) for arm in self._arms],
            sample_ratio=sample_ratio or UNSET,
            crossover=_crossover(self._measured),
            dimension=question.dimension or UNSET,
            metrics=[
                self._metric(place, *found) for place, found in enumerate(zip(comparisons, adjusted, strict=True))
            ],
            decision=made,
        )

    def _sums(self, place: int, phase: int, arm: int) -> Sums:
        """Return a variation's sums in a metric; of the primary one only over the days that the plan has."""
        is_planned = place == 0 and phase == self._phase and self._question.metrics[0].kind != "quantile"
        days = self._progress.days_in_plan if is_planned else None
        return sum(
            (
                found
                for (at, where, day), found in self._measured.days.items()
                if at == place and where == (phase, arm) and (days is None or day in days)
            ),
            Sums(),
        )

    def _aggregates(self, place: int, phase: int, arm: int) -> Aggregates | NotEnoughData:
        quantile = self._measured.quantiles.get((place, (phase, arm)))
        return figures.aggregates_of(self._question.metrics[place], self._sums(place, phase, arm), quantile)

    def _compared(self, place: int) -> Compared:
        """Return each treatment's comparison."""
        metric = self._question.metrics[place]
        control = None if self._control is None else self._aggregates(place, self._phase, self._control)
        found: dict[VariationId, Comparison | NotEnoughData] = {}
        for arm in self._treatments():
            if control is None:
                comparison: Comparison | NotEnoughData = NO_CONTROL
            elif self._question.experiment.allocation_strategy == "segment":
                comparison = BY_SEGMENT
            else:
                treatment = self._aggregates(place, self._phase, arm)
                comparison = figures.compared(metric, control, treatment, self._plan)
            found[self._question.variations[arm]] = comparison
        return found

    def _treatments(self) -> list[int]:
        return [arm for arm in self._arms if arm != self._control]

    def _metric(self, place: int, comparisons: Compared, adjusted: Mapping[VariationId, float]) -> MetricResult:
        metric, role = self._question.metrics[place], self._role(place)
        variations = []
        for arm in self._arms:
            result = self._variation(place, self._phase, arm)
            if arm != self._control:
                result = figures.with_comparison(result, comparisons[result.variation_id])
                result = replace(result, adjusted_p_value=adjusted.get(result.variation_id, UNSET))
            variations.append(result)
        margins = {each.metric: each.margin for each in self._question.analysis.guardrails}
        return MetricResult(
            metric_id=metric.id,
            name=metric.name,
            kind=metric.kind,
            role=role,
            direction=metric.direction,
            unit=figures.unit_of(metric),
            window=metric.window,
            margin=margins.get(metric.id, UNSET),
            variations=variations,
            series=self._series(place),
            slices=self._slices(place) if self._question.dimension else UNSET,
        )

    def _role(self, place: int) -> Role:
        if place == 0:
            return "primary"
        return "secondary" if place <= len(self._question.analysis.secondary) else "guardrail"

    def _variation(self, place: int, phase: int, arm: int) -> VariationResult:
        counted = replace(
            self._sums(place, phase, arm), open=self._measured.totals(place).get((phase, arm), Sums()).open
        )
        return self._result(arm, counted, self._aggregates(place, phase, arm))

    def _result(self, arm: int, counted: Sums, aggregates: Aggregates | NotEnoughData) -> VariationResult:
        id = self._question.variations[arm]
        return VariationResult(
            variation_id=id,
            variation_name=self._question.names.get(id),
            is_control=arm == self._control,
            n=counted.n,
            open_windows=counted.open,
            value=figures.value_of(aggregates),
        )

    def _series(self, place: int) -> list[DayEstimate]:
        metric = self._question.metrics[place]
        if metric.kind == "quantile":
            return []
        days = sorted({day for (at, (phase, _), day) in self._measured.days if at == place and phase == self._phase})
        running = dict.fromkeys(self._arms, Sums())
        made = []
        for day in days:
            for arm in self._arms:
                running[arm] += self._measured.days.get((place, (self._phase, arm), day), Sums())
            found = {arm: figures.aggregates_of(metric, sums, None) for arm, sums in running.items()}
            for arm, aggregates in found.items():
                estimate = DayEstimate(
                    day=_day(day),
                    variation_id=self._question.variations[arm],
                    n=running[arm].n,
                    value=figures.value_of(aggregates),
                )
                if arm != self._control and self._control is not None and self._is_by_chance():
                    control = found[self._control]
                    estimate = figures.with_running_effect(estimate, metric, control, aggregates, self._plan)
                made.append(estimate)
        return made

    def _slices(self, place: int) -> list[Slice]:
        subjects: dict[str, int] = {}
        for (value, _), n in self._measured.value_subjects.items():
            subjects[value] = subjects.get(value, 0) + n
        shown = sorted(subjects, key=lambda value: (-subjects[value], value))[:MAX_SLICES]
        return [Slice(value, self._slice(place, value)) for value in shown]

    def _slice(self, place: int, value: str) -> list[VariationResult]:
        metric = self._question.metrics[place]
        sums = {arm: self._measured.values.get((place, arm, value), Sums()) for arm in self._arms}
        found = {arm: figures.aggregates_of(metric, each, None) for arm, each in sums.items()}
        made = []
        for arm, aggregates in found.items():
            result = self._result(arm, sums[arm], aggregates)
            if arm != self._control and self._control is not None:
                control = found[self._control]
                comparison = (
                    figures.compared(metric, control, aggregates, self._plan) if self._is_by_chance() else BY_SEGMENT
                )
                result = figures.with_comparison(result, comparison)
            made.append(result)
        return made

    def _is_by_chance(self) -> bool:
        return self._question.experiment.allocation_strategy == "percentage"

    def _evidence(self, comparisons: Sequence[Compared], ratio: SampleRatio | None) -> decision.Evidence:
        analysis, metrics = self._question.analysis, self._question.metrics
        count = len(analysis.secondary)

        def told(place: int) -> dict[str, object]:
            metric = metrics[place]
            return {
                "id": metric.id,
                "name": metric.name,
                "direction": metric.direction,
                "treatments": comparisons[place],
            }

        return decision.Evidence(
            primary=decision.Metric(**told(0)),  # type: ignore[arg-type]
            secondary=[decision.Metric(**told(place)) for place in range(1, 1 + count)],  # type: ignore[arg-type]
            guardrails=[
                decision.Guardrail(**told(1 + count + place), margin=each.margin)  # type: ignore[arg-type]
                for place, each in enumerate(analysis.guardrails)
            ],
            plan=self._plan,
            names=self._question.names,
            srm_p_value=1.0 if ratio is None else ratio.always_valid_p_value,
            subjects=self._progress.subjects,
            per_day=self._progress.per_day,
            days_to_horizon=self._progress.days_to_horizon,
        )

    @staticmethod
    def _why(primary: Compared) -> str:
        reasons = (each.why for each in primary.values() if isinstance(each, NotEnoughData))
        return next(reasons, "The experiment has no treatment to compare with its control.")

    def _counts(self, phase: int) -> dict[int, int]:
        """Return the subjects that count, by variation."""
        analysis = self._question.analysis
        counts: dict[int, int] = {}
        for each in self._measured.subjects:
            is_left_out = (each.bot and analysis.bots == "exclude") or (
                each.crossed and analysis.crossover == "exclude"
            )
            if each.phase == phase and not is_left_out:
                counts[each.arm] = counts.get(each.arm, 0) + each.n
        return counts

    def _population(self) -> dict[str, int]:
        present = [each for each in self._measured.subjects if each.phase == self._phase]
        counts = self._counts(self._phase)
        totals = {arm: self._measured.totals(0).get((self._phase, arm), Sums()) for arm in self._arms}
        return {
            "exposed": sum(each.n for each in present),
            "counted": sum(counts.get(arm, 0) for arm in self._arms),
            "bots": sum(each.n for each in present if each.bot),
            "crossovers": sum(each.n for each in present if each.crossed),
            "forced": self._measured.forced,
            "of_former_variations": sum(n for arm, n in counts.items() if arm not in self._arms),
            "of_earlier_phases": sum(each.n for each in self._measured.subjects if each.phase < self._phase),
            "open_windows": sum(sums.open for sums in totals.values()),
            "after_horizon": sum(sums.n - self._sums(0, self._phase, arm).n for arm, sums in totals.items()),
        }

    def _summary(self, arm: int) -> ArmSummary:
        id = self._question.variations[arm]
        weights = self._question.phases[self._phase].weights if self._question.phases else {}
        return ArmSummary(
            variation_id=id,
            variation_name=self._question.names.get(id),
            is_control=arm == self._control,
            weight=weights.get(id),
            n=self._counts(self._phase).get(arm, 0),
        )

    def _phase_result(self, number: int) -> PhaseResult:
        phases = self._question.phases
        return PhaseResult(
            number=number + 1,
            starts_at=phases[number].starts_at,
            ends_at=phases[number + 1].starts_at if number + 1 < len(phases) else UNSET,
            weights=phases[number].weights,
            n=sum(self._counts(number).values()),
        )

    def _earlier(self, number: int) -> PhaseResult:
        arms = sorted(arm for arm in self._counts(number) if arm < len(self._question.variations))
        metrics = [
            PastMetric(metric.id, [self._variation(place, number, arm) for arm in arms])
            for place, metric in enumerate(self._question.metrics)
        ]
        return replace(self._phase_result(number), metrics=metrics)

    def _sample_ratio(self) -> SampleRatio | None:
        if not self._is_by_chance() or not self._question.phases:
            return None
        weights = self._question.phases[self._phase].weights
        arms = [arm for arm in self._arms if weights.get(self._question.variations[arm])]
        if len(arms) < 2:
            return None
        shares = [weights[self._question.variations[arm]] for arm in arms]
        counts = self._counts(self._phase)
        observed = [counts.get(arm, 0) for arm in arms]
        p = srm.always_valid_p_value(observed, shares)
        ids = [self._question.variations[arm] for arm in arms]
        return SampleRatio(
            is_mismatch=p < decision.SRM_ALPHA,
            expected={id: share / sum(shares) for id, share in zip(ids, shares, strict=True)},
            observed=dict(zip(ids, observed, strict=True)),
            p_value=srm.chi_square_p_value(observed, shares),
            always_valid_p_value=p,
            causes=self._causes(arms, shares),
        )

    def _causes(self, arms: Sequence[int], shares: Sequence[int]) -> list[SuspectedCause]:
        found = {
            key: [counts.get(arm, 0) for arm in arms]
            for key, counts in self._measured.causes.items()
            if sum(counts.get(arm, 0) for arm in arms) >= MIN_OF_A_CAUSE
        }
        ids = [self._question.variations[arm] for arm in arms]
        return [
            SuspectedCause(
                attribute=each.dimension,
                value=each.value,
                observed=dict(zip(ids, each.observed, strict=True)),
                p_value=each.p_value,
                adjusted_p_value=each.adjusted_p_value,
            )
            for each in (srm.find_causes(found, shares) if found else [])[:MAX_CAUSES]
            if each.adjusted_p_value <= self._question.analysis.alpha
        ]


def _crossover(measured: Measurement) -> Crossover:
    users = measured.users
    return Crossover(
        signup=_rate(users.signed_up, users.signed_up_crossed), login=_rate(users.logged_in, users.logged_in_crossed)
    )


def _rate(users: int, crossed: int) -> Rate:
    return Rate(users, crossed, crossed / users if users else None)


def _day(number: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number)).date().isoformat()
