"""How an experiment is analyzed: which metrics decide, how sure one wants to be, and who is left out."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from abgate.core.errors import InvalidInput, RuleBroken
from abgate.core.experiment import Experiment
from abgate.core.metric import Metric, MetricId

MAX_METRICS = 20

Crossover = Literal["first", "exclude"]
Bots = Literal["exclude", "include"]
Correction = Literal["holm", "benjamini_hochberg"]


class Guardrail(Struct, frozen=True, forbid_unknown_fields=True):
    """A metric that must not get worse by more than `margin`, relative to the control: 0.05 is five percent of it."""

    metric: MetricId
    margin: Annotated[float, Meta(gt=0, le=1)]


class Horizon(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """When the experiment is planned to be judged: after so many subjects, or so many days; one of the two."""

    subjects: Annotated[int, Meta(ge=2, le=10**9)] | None = None
    days: Annotated[int, Meta(ge=1, le=365)] | None = None


class Analysis(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `PUT /experiments/{id}/analysis` sets, whole; what is not given is as it is here."""

    primary: MetricId = "login_success"
    secondary: Annotated[list[MetricId], Meta(max_length=MAX_METRICS)] = []
    guardrails: Annotated[list[Guardrail], Meta(max_length=MAX_METRICS)] = []
    alpha: Annotated[float, Meta(ge=0.001, le=0.2)] = 0.05
    horizon: Horizon | UnsetType | None = UNSET
    correction: Correction = "holm"
    auto_pause: bool = False
    crossover: Crossover = "first"
    bots: Bots = "exclude"

    def metric_ids(self) -> Iterator[MetricId]:
        """Yield the id of every metric that is measured: primary, secondary, guardrails."""
        yield self.primary
        yield from self.secondary
        yield from (each.metric for each in self.guardrails)


UNPLANNED = Analysis(
    secondary=[
        "time_to_login",
        "time_to_login_mean",
        "signup_completion",
        "wrong_password_rate",
        "mfa_abandonment",
        "passkey_enrolled",
        "next_login_return",
    ],
    guardrails=[Guardrail("failed_login_rate", 0.1), Guardrail("lockout_rate", 0.1)],
)
"""How an experiment is analyzed for which nothing was set: by the built-in metrics."""


def checked_analysis(analysis: Analysis, experiment: Experiment, metrics: Mapping[MetricId, Metric]) -> Analysis:
    """Return `analysis`, whose metrics must be among `metrics`.

    Raises `InvalidInput` naming the field and the rule, and `RuleBroken` when the experiment is archived.
    """
    if experiment.status == "archived":
        raise RuleBroken("The analysis cannot be set while the experiment is archived.", code="field_not_editable")
    if isinstance(analysis.horizon, Horizon) and (analysis.horizon.subjects is None) == (analysis.horizon.days is None):
        raise InvalidInput("horizon", "needs `subjects` or `days`, and not both")
    fields = ["primary", *(f"secondary[{index}]" for index in range(len(analysis.secondary)))]
    fields += [f"guardrails[{index}].metric" for index in range(len(analysis.guardrails))]
    seen: set[MetricId] = set()
    for field, id in zip(fields, analysis.metric_ids(), strict=True):
        _check_metric(field, id, metrics)
        if id in seen:
            raise InvalidInput(field, f"{id} is given twice; a metric has one role")
        seen.add(id)
    for index, guardrail in enumerate(analysis.guardrails):
        if metrics[guardrail.metric].kind == "quantile":
            raise InvalidInput(f"guardrails[{index}].metric", "a quantile cannot be a guardrail; take the mean")
    return analysis


def _check_metric(field: str, id: MetricId, metrics: Mapping[MetricId, Metric]) -> None:
    if id not in metrics:
        raise InvalidInput(field, f"there is no metric {id}; GET /metrics lists them")
    if metrics[id].status == "archived":
        raise InvalidInput(field, f"the metric {id} is archived; take an active one, GET /metrics lists them")
