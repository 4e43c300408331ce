"""Feature flags, their variations, and what uses them."""

from typing import Any

import msgspec
from litestar import Response

from abgate.asgi import STATUSES
from abgate.core.errors import InvalidInput, Refusal
from abgate.core.feature_flag import merged_config
from abgate.dashboard import experiment_form as f
from abgate.dashboard.errors import field_and_rule
from abgate.dashboard.experiment_form import Errors, ExperimentForm, ParameterRow
from abgate.dashboard.rendering import redirect, render
from abgate.dashboard.together import together
from abgate.dashboard.visits import Visit, check_seen
from abgate.management import experiments, feature_flags
from abgate.management.bodies import CreateFeatureFlag, CreateVariation, UpdateFeatureFlag, UpdateVariation
from abgate.management.decoding import decode

MAX_SHOWN = 1000
DONE = {
    "created": "The feature flag was created, a draft. Give it two variations to activate it.",
    "saved": "Your changes were saved. Experiments that run keep the flag as it was when they were activated.",
    "deleted": "It was deleted.",
}


def show_feature_flags(visit: Visit) -> Response[str]:
    """Show every feature flag that is not archived, and a form for a new one."""
    return _show_list(visit, [ParameterRow("enabled", "boolean", "false")], {})


def create_feature_flag(visit: Visit) -> Response[str]:
    """Create a feature flag."""
    form = f.read_form(visit.fields)
    form.flag_name = visit.form.get("flag_name", "").strip()
    errors: Errors = {}
    body = f.flag_body(form, errors)
    if description := visit.form.get("description", "").strip():
        body["description"] = description
    if not errors:
        try:
            flag = feature_flags.create_feature_flag(visit.caller, decode(msgspec.json.encode(body), CreateFeatureFlag))
            return redirect(visit, f"/feature-flags/{flag.id}?done=created")
        except Refusal as refusal:
            field, rule = field_and_rule(refusal)
            errors[f.field_on_form(form, field, of="flag")] = rule
    return _show_list(visit, form.parameters, errors, status=400)


def show_feature_flag(visit: Visit, id: str) -> Response[str]:
    """Show one feature flag."""
    return _show(visit, id, {})


def change_feature_flag(visit: Visit, id: str) -> Response[str]:
    """Do what the pressed button says with the flag or one of its variations."""
    action = visit.form.get("action", "")
    errors: Errors = {}
    status = 400
    try:
        done = _change(visit, id, action, errors)
        if not errors:
            return redirect(
                visit, "/feature-flags?done=deleted" if done == "gone" else f"/feature-flags/{id}?done={done}"
            )
    except Refusal as refusal:
        field, rule = field_and_rule(refusal)
        errors[_field(visit, action, field)] = rule
        status = STATUSES[type(refusal)]
    return _show(visit, id, errors, status=status)


def _change(visit: Visit, id: str, action: str, errors: Errors) -> str:
    caller = visit.caller
    verb, _, variation_id = action.partition(" ")
    if verb == "save":
        _save(visit, id, errors)
    elif verb in ("activate", "archive"):
        status: Any = "active" if verb == "activate" else "archived"
        feature_flags.update_feature_flag(caller, id, UpdateFeatureFlag(status=status))
    elif verb == "serve":
        served = visit.form.get("served") or None
        feature_flags.update_feature_flag(caller, id, UpdateFeatureFlag(served_variation_id=served))
    elif verb == "add-variation":
        body = _variation_body(visit, id, "new", errors)
        if not errors:
            feature_flags.create_variation(caller, id, decode(msgspec.json.encode(body), CreateVariation))
    elif verb == "save-variation":
        body = _variation_body(visit, id, variation_id, errors)
        if not errors:
            changes = decode(msgspec.json.encode(body), UpdateVariation)
            with together(caller) as joined:
                check_seen(visit, feature_flags.get_variation(joined, id, variation_id).updated_at)
                feature_flags.update_variation(joined, id, variation_id, changes)
    elif verb == "delete-variation":
        visit.principal.require("delete:experimentation")
        feature_flags.delete_variation(caller, id, variation_id)
        return "deleted"
    elif verb == "delete":
        visit.principal.require("delete:experimentation")
        feature_flags.delete_feature_flag(caller, id)
        return "gone"
    else:
        raise InvalidInput("action", "is none that a feature flag knows")
    return "saved"


def _read_form(visit: Visit) -> ExperimentForm:
    """Return what was typed, without the parameters that have no name."""
    form = f.read_form(visit.fields)
    form.parameters = [row for row in form.parameters if row.name]
    return form


def _save(visit: Visit, id: str, errors: Errors) -> None:
    body: dict[str, Any] = f.flag_body(_read_form(visit), errors)
    body |= {
        "name": visit.form.get("name", "").strip(),
        "description": visit.form.get("description", "").strip() or None,
    }
    with together(visit.caller) as caller:
        flag = feature_flags.get_feature_flag(caller, id)
        check_seen(visit, flag.updated_at)
        for name, parameter in body["parameters"].items():
            # The form does not show it, and a parameter is replaced whole.
            if name in flag.parameters and flag.parameters[name].description is not None:
                parameter["description"] = flag.parameters[name].description
        if not errors:
            feature_flags.update_feature_flag(caller, id, decode(msgspec.json.encode(body), UpdateFeatureFlag))


def _variation_body(visit: Visit, id: str, which: str, errors: Errors) -> dict[str, Any]:
    flag = feature_flags.get_feature_flag(visit.caller, id)
    overrides = {}
    for row in f.parameters_of(flag):
        field = f"{which}.{row.name}"
        if text := visit.form.get(field, ""):
            try:
                overrides[row.name] = {"value": f.typed_value(row.type, text)}
            except ValueError:
                errors[field] = f"must be a {row.type}"
    return {"name": visit.form.get(f"{which}.name", "").strip(), "overrides": overrides}


def _field(visit: Visit, action: str, field: str) -> str:
    verb, _, variation_id = action.partition(" ")
    which = {"add-variation": "new", "save-variation": variation_id}.get(verb)
    if which is not None and field:
        return f"{which}.{field.removeprefix('overrides.').removesuffix('.value')}"
    if verb == "save" and field:
        return f.field_on_form(_read_form(visit), field, of="flag").replace("flag_name", "name")
    return ""


def _show_list(visit: Visit, parameters: list[ParameterRow], errors: Errors, *, status: int = 200) -> Response[str]:
    return render(
        visit,
        "feature_flags.html",
        status=status,
        flags=feature_flags.list_feature_flags(visit.caller, take=MAX_SHOWN).feature_flags,
        parameters=parameters,
        errors=errors,
        types=f.TYPES,
        done=DONE,
    )


def _show(visit: Visit, id: str, errors: Errors, *, status: int = 200) -> Response[str]:
    flag = feature_flags.get_feature_flag(visit.caller, id)
    variations = feature_flags.list_variations(visit.caller, id).variations
    typed = _read_form(visit).parameters if visit.form.get("action") == "save" else f.parameters_of(flag)
    return render(
        visit,
        "feature_flag.html",
        status=status,
        flag=flag,
        parameters=typed,
        variations=[
            {
                "id": each.id,
                "name": each.name,
                "updated_at": each.updated_at,
                "values": {name: f.value_text(override.value) for name, override in each.overrides.items()},
                "config": merged_config(flag.parameters, each.overrides),
            }
            for each in variations
        ],
        used_by=experiments.list_experiments(visit.caller, take=MAX_SHOWN, feature_flag_id=id).experiments,
        errors=errors,
        types=f.TYPES,
        done=DONE,
        value_text=f.value_text,
    )
