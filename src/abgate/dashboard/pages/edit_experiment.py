"""An experiment's fields that its status lets one edit."""

import msgspec
from litestar import Response

from abgate.asgi import STATUSES
from abgate.core.errors import Refusal
from abgate.dashboard import experiment_form as f
from abgate.dashboard.errors import field_and_rule
from abgate.dashboard.experiment_form import Errors, ExperimentForm
from abgate.dashboard.metric_form import ROLES, changed_body, rows_of
from abgate.dashboard.pages.new_experiment import active_segments, change_rows, every_metric, field_on_form
from abgate.dashboard.rendering import redirect, render
from abgate.dashboard.together import together
from abgate.dashboard.visits import Visit, check_seen
from abgate.management import experiments, feature_flags, metrics
from abgate.management.bodies import ExperimentAnswer, SetAnalysis, UpdateExperiment
from abgate.management.caller import Caller
from abgate.management.decoding import decode


def show_edit(visit: Visit, id: str) -> Response[str]:
    """Show the form with what the experiment has."""
    experiment = experiments.get_experiment(visit.caller, id)
    variations = feature_flags.list_variations(visit.caller, experiment.feature_flag_id).variations
    form = f.form_of(experiment, variations)
    form.metrics = rows_of(metrics.get_analysis(visit.caller, id), every_metric(visit.caller))
    return _show(visit, experiment, form, {})


def save_edit(visit: Visit, id: str) -> Response[str]:
    """Save what the form has, all of it or nothing."""
    experiment = experiments.get_experiment(visit.caller, id)
    form = f.read_form(visit.fields)
    if change := visit.form.get("change", ""):
        change_rows(form, change)
        return _show(visit, experiment, form, {})
    errors: Errors = {}
    part = "experiment"
    try:
        with together(visit.caller) as caller:
            experiment = experiments.get_experiment(caller, id)
            check_seen(visit, _last_change(caller, id))
            body = f.update_body(form, list(experiment.editable_fields or []), errors)
            analysis = changed_body(form.metrics, metrics.get_analysis(caller, id), errors)
            if not errors:
                experiments.update_experiment(caller, id, decode(msgspec.json.encode(body), UpdateExperiment))
                part = "analysis"
                if analysis is not None:
                    metrics.set_analysis(caller, id, decode(msgspec.json.encode(analysis), SetAnalysis))
    except Refusal as refusal:
        field, rule = field_and_rule(refusal)
        errors[field_on_form(form, field, of=part) if field else ""] = rule
        return _show(visit, experiment, form, errors, status=STATUSES[type(refusal)])
    if errors:
        return _show(visit, experiment, form, errors, status=400)
    return redirect(visit, f"/experiments/{id}?done=saved")


def _last_change(caller: Caller, id: str) -> str:
    # Unlike `updated_at` it tells of the analysis as well.
    return str(experiments.list_experiment_history(caller, id, take=1).changes[0].snapshot_number)


def _show(
    visit: Visit, experiment: ExperimentAnswer, form: ExperimentForm, errors: Errors, *, status: int = 200
) -> Response[str]:
    return render(
        visit,
        "edit_experiment.html",
        id=experiment.id,
        name=experiment.name,
        last_change=_last_change(visit.caller, experiment.id),
        roles=ROLES,
        status=status,
        experiment_status=experiment.status,
        editable=experiment.editable_fields,
        form=form,
        errors=errors,
        segments=active_segments(visit.caller),
        everyone_else=f.EVERYONE_ELSE,
        form_path=f"/experiments/{experiment.id}/edit",
    )
