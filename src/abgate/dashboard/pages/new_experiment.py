"""One guided form from hypothesis to draft, and the same form to edit one."""

from typing import Any

import msgspec
from litestar import Response
from msgspec import Struct

from abgate.asgi import STATUSES
from abgate.core.analysis import UNPLANNED
from abgate.core.errors import InvalidInput, Refusal
from abgate.core.feature_flag import merged_config
from abgate.core.metric import Metric
from abgate.core.readiness import Blocker
from abgate.dashboard import experiment_form as f
from abgate.dashboard.errors import field_and_rule
from abgate.dashboard.experiment_form import Errors, ExperimentForm
from abgate.dashboard.flows import KNOWN_FLOWS
from abgate.dashboard.metric_form import ROLES, changed_body, field_of, rows_of
from abgate.dashboard.rendering import redirect, render
from abgate.dashboard.together import together
from abgate.dashboard.visits import Visit
from abgate.management import experiments, feature_flags, metrics, segments
from abgate.management.bodies import (
    CreateExperiment,
    CreateFeatureFlag,
    CreateVariation,
    SetAnalysis,
    UpdateExperimentStatus,
    UpdateFeatureFlagStatus,
)
from abgate.management.caller import Caller
from abgate.management.decoding import decode

MAX_LISTED = 500
# Each has four fields, and a form at most 2,000.
MAX_METRICS = 400


class Trial(Struct, frozen=True):
    """What came of an attempt to create: what is wrong, by field; or the experiment, and what blocks it."""

    errors: Errors
    status: int = 400
    experiment_id: str = ""
    blockers: list[Blocker] = []


def show_new_experiment(visit: Visit) -> Response[str]:
    """Show the form, empty."""
    form = f.blank_form()
    if flag := visit.query.get("flag"):
        form.flag = flag
    return _show(visit, form, {})


def create_experiment(visit: Visit) -> Response[str]:
    """Create what the form describes, all of it or nothing; or show the form with a row more or less."""
    form = f.read_form(visit.fields)
    change = visit.form.get("change", "")
    if change:
        change_rows(form, change)
        return _show(visit, form, {})
    activate = visit.form.get("action") == "activate"
    trial = _attempt(visit.caller, form, activate=activate)
    if trial.errors:
        return _show(visit, form, trial.errors, status=trial.status)
    return redirect(visit, f"/experiments/{trial.experiment_id}?done={'activated' if activate else 'created'}")


def check_experiment(visit: Visit) -> Response[str]:
    """Show what the form would make, and what still blocks it; changes nothing."""
    form = f.read_form(visit.fields)
    trial = _attempt(visit.caller, form, is_trial=True)
    return render(visit, "experiment_check.html", trial=trial, previews=_previews(visit.caller, form))


def _attempt(caller: Caller, form: ExperimentForm, *, activate: bool = False, is_trial: bool = False) -> Trial:
    errors: Errors = {}
    bodies = _Bodies(form, errors)
    if errors:
        return Trial(errors)
    part = "flag"
    try:
        with together(caller, is_trial=is_trial) as joined:
            flag_id, ids = form.flag, [row.id for row in form.variations]
            if form.is_new_flag:
                flag_id = feature_flags.create_feature_flag(joined, bodies.flag).id
                ids = []
                for index, body in enumerate(bodies.variations):
                    part = f"variations.{index}"
                    ids.append(feature_flags.create_variation(joined, flag_id, body).id)
                part = "flag status"
                feature_flags.update_feature_flag_status(joined, flag_id, UpdateFeatureFlagStatus("active"))
            part = "experiment"
            body = _decoded(f.experiment_body(form, flag_id, ids, errors), CreateExperiment)
            id = experiments.create_experiment(joined, body).id
            blockers = experiments.validate_experiment(joined, id).errors
            part = "analysis"
            if bodies.analysis is not None:
                metrics.set_analysis(joined, id, bodies.analysis)
            if activate:
                part = "experiment"
                experiments.update_experiment_status(joined, id, UpdateExperimentStatus("active"))
    except Refusal as refusal:
        return Trial(_located(form, refusal, part), STATUSES[type(refusal)])
    return Trial({}, 200, id, blockers)


class _Bodies:
    """The bodies of the flag and its variations; everything that cannot be read is in `errors`, each by its field."""

    def __init__(self, form: ExperimentForm, errors: Errors) -> None:
        self._form = form
        self._errors = errors
        self.flag: Any = None
        self.variations: list[Any] = []
        if form.is_new_flag:
            self.flag = self._read("flag", f.flag_body(form, errors), CreateFeatureFlag)
            for index in range(len(form.variations)):
                body = f.variation_body(form, index, errors)
                self.variations.append(self._read(f"variations.{index}", body, CreateVariation))
        # Ids that only have to look like some: the real ones are known once the flag is there.
        ids = [row.id or "var_1" for row in form.variations]
        self._read("experiment", f.experiment_body(form, "flg_1", ids, errors), CreateExperiment)
        analysis = changed_body(form.metrics, UNPLANNED, errors)
        self.analysis: Any = None if analysis is None else self._read("analysis", analysis, SetAnalysis)

    def _read(self, part: str, body: dict[str, Any], type_: Any) -> Any:
        try:
            return _decoded(body, type_)
        except InvalidInput as refusal:
            for field, rule in _located(self._form, refusal, part).items():
                self._errors.setdefault(field, rule)
            return None


def _decoded(body: dict[str, Any], type_: type[Any]) -> Any:
    return decode(msgspec.json.encode(body), type_)


def _located(form: ExperimentForm, refusal: Refusal, part: str) -> Errors:
    field, rule = field_and_rule(refusal)
    return {field_on_form(form, field, of=part) if field else "": rule}


def field_on_form(form: ExperimentForm, name: str, *, of: str) -> str:
    """Return the form's name of what an operation calls `name`, of an analysis as well."""
    return field_of(form.metrics, name) if of == "analysis" else f.field_on_form(form, name, of=of)


def change_rows(form: ExperimentForm, change: str) -> None:
    """Add or take away a row, as the pressed button's value says: ``add variations``, ``remove segments 1``."""
    verb, _, rest = change.partition(" ")
    kind, _, place = rest.partition(" ")
    lists: dict[str, list[Any]] = {
        "variations": form.variations,
        "parameters": form.parameters,
        "segments": form.segments,
    }
    rows = lists.get(kind, [])
    if verb == "add" and len(rows) < f.MAX_ITEMS:
        new: dict[str, Any] = {
            "variations": f.VariationRow(values=[""] * len(form.parameters)),
            "parameters": f.ParameterRow(type="string"),
            "segments": f.SegmentRow(),
        }
        if kind in new:
            rows.insert(len(rows) - 1 if kind == "segments" else len(rows), new[kind])
    elif verb == "remove" and place.isdecimal() and int(place) < len(rows) > 1:
        rows.pop(int(place))
        if kind == "parameters":
            for row in form.variations:
                row.values.pop(int(place))
    for row in form.variations:
        row.values += [""] * (len(form.parameters) - len(row.values))


def every_metric(caller: Caller) -> list[Metric]:
    """Return every metric that an experiment may be judged by."""
    return metrics.list_metrics(caller, take=MAX_METRICS).metrics


def active_segments(caller: Caller) -> list[tuple[str, str]]:
    """Return id and name of every segment that an allocation may be for."""
    found = segments.list_segments(caller, take=MAX_LISTED).segments
    return [(each.id, each.name) for each in found if each.status == "active"]


def _previews(caller: Caller, form: ExperimentForm) -> list[tuple[str, Any]]:
    if form.is_new_flag:
        return list(f.preview(form))
    try:
        flag = feature_flags.get_feature_flag(caller, form.flag)
        variations = feature_flags.list_variations(caller, form.flag).variations
    except Refusal:
        return []
    return [(each.name, merged_config(flag.parameters, each.overrides)) for each in variations]


def _show(visit: Visit, form: ExperimentForm, errors: Errors, *, status: int = 200) -> Response[str]:
    flags = feature_flags.list_feature_flags(visit.caller, take=MAX_LISTED).feature_flags
    known = {each.id: each for each in flags}
    if not form.is_new_flag and form.flag in known:
        f.take_flag(form, known[form.flag], feature_flags.list_variations(visit.caller, form.flag).variations)
    elif not form.is_new_flag or not form.parameters:
        form.flag = f.NEW
        blank = f.blank_form()
        form.parameters, form.variations = blank.parameters, blank.variations
    form.metrics = form.metrics or rows_of(UNPLANNED, every_metric(visit.caller))
    return render(
        visit,
        "new_experiment.html",
        status=status,
        form=form,
        errors=errors,
        flags=[(f.NEW, "a new flag, made here")] + [(each.id, f"{each.name} ({each.status})") for each in flags],
        segments=active_segments(visit.caller),
        flows=KNOWN_FLOWS,
        types=f.TYPES,
        everyone_else=f.EVERYONE_ELSE,
        form_path="/experiments/new",
        roles=ROLES,
        trial=_attempt(visit.caller, form, is_trial=True) if not errors else Trial(errors),
        previews=_previews(visit.caller, form),
    )
