"""The form of a new experiment: what was typed, and the bodies that the operations take made of it."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec
from msgspec import Struct, field

from abgate.core.allocation import Allocation
from abgate.core.errors import InvalidInput
from abgate.core.experiment import Experiment, Subject
from abgate.core.feature_flag import FeatureFlag, Variation, parameter_type
from abgate.dashboard.metric_form import MetricRow, read_rows

NEW = "new"
TYPES = tuple((each, each) for each in ("boolean", "string", "number", "array", "object"))
EVERYONE_ELSE = "everyone else"
MAX_ITEMS = 20

Errors = dict[str, str]


class ParameterRow(Struct):
    """A parameter as it was typed."""

    name: str = ""
    type: str = "boolean"
    value: str = ""


class VariationRow(Struct):
    """A variation as it was typed: its values by the place of their parameter, and its share."""

    name: str = ""
    values: list[str] = field(default_factory=list)
    id: str = ""
    weight: str = "0"
    is_used: bool = True


class SegmentRow(Struct):
    """Who gets which variation, by its place in the list."""

    segment_id: str = ""
    variation: str = "0"


class ExperimentForm(Struct):
    """Everything that was typed, wrong or not: it is shown again as it is."""

    name: str = ""
    description: str = ""
    flow: str = "authentication"
    subject: str = "device"
    flag: str = NEW
    flag_name: str = ""
    parameters: list[ParameterRow] = field(default_factory=list)
    variations: list[VariationRow] = field(default_factory=list)
    control: str = "0"
    strategy: str = "percentage"
    segments: list[SegmentRow] = field(default_factory=list)
    levels: str = ""
    metrics: list[MetricRow] = field(default_factory=list)

    @property
    def is_new_flag(self) -> bool:
        """Whether the experiment gets a flag of its own."""
        return self.flag == NEW


def blank_form() -> ExperimentForm:
    """Return the form as it is first shown: a switch, off in the control and on in the treatment, half and half."""
    return ExperimentForm(
        parameters=[ParameterRow("enabled", "boolean", "false")],
        variations=[VariationRow("control", [""], weight="50"), VariationRow("treatment", ["true"], weight="50")],
        segments=[SegmentRow("", "1"), SegmentRow(EVERYONE_ELSE, "0")],
        levels="5, 25, 100",
    )


def read_form(fields: Iterable[tuple[str, str]]) -> ExperimentForm:
    """Return what the browser sent."""
    given = dict(fields)
    form = ExperimentForm()
    for name in ("name", "description", "flow", "subject", "flag", "flag_name", "control", "strategy", "levels"):
        setattr(form, name, given.get(name, "").strip())
    for index in _places(given, "parameters"):
        at = f"parameters.{index}."
        form.parameters.append(
            ParameterRow(given.get(at + "name", "").strip(), given.get(at + "type", ""), given.get(at + "value", ""))
        )
    for index in _places(given, "variations"):
        at = f"variations.{index}."
        form.variations.append(
            VariationRow(
                given.get(at + "name", "").strip(),
                [given.get(f"{at}values.{place}", "") for place in range(len(form.parameters))],
                given.get(at + "id", ""),
                given.get(at + "weight", "0"),
                at + "id" not in given or given.get(at + "use") == "on",
            )
        )
    for index in _places(given, "segments"):
        at = f"segments.{index}."
        form.segments.append(SegmentRow(given.get(at + "segment", ""), given.get(at + "variation", "0")))
    form.metrics = read_rows(given.items())
    return form


def form_of(experiment: Experiment, variations: Iterable[Variation]) -> ExperimentForm:
    """Return the form in which an experiment is edited."""
    by_id = {each.variation_id: each for each in experiment.allocations}
    rows = [VariationRow(each.name, [], each.id, _weight(by_id.get(each.id)), each.id in by_id) for each in variations]
    places = {row.id: str(index) for index, row in enumerate(rows)}
    control = next((each.variation_id for each in experiment.allocations if each.is_control), "")
    in_turn = sorted(experiment.allocations, key=_priority)
    return ExperimentForm(
        name=experiment.name,
        description=experiment.description or "",
        flow=experiment.authentication_flow,
        subject=experiment.assignment_config.subject,
        flag=experiment.feature_flag_id,
        variations=rows,
        control=places.get(control, "0"),
        strategy=experiment.allocation_strategy,
        segments=[SegmentRow(_segment(each), places.get(each.variation_id, "0")) for each in in_turn],
        levels="" if not experiment.levels else ", ".join(map(str, experiment.levels)),
    )


def _priority(allocation: Allocation) -> float:
    # Whoever gets what is left over comes last.
    return math.inf if isinstance(allocation.priority, msgspec.UnsetType) else allocation.priority


def _segment(allocation: Allocation) -> str:
    return EVERYONE_ELSE if allocation.is_fallback is True else allocation.segment_id or ""


def _weight(allocation: Any) -> str:
    return str(allocation.weight) if allocation is not None and allocation.weight is not msgspec.UNSET else "0"


def take_flag(form: ExperimentForm, flag: FeatureFlag, variations: Iterable[Variation]) -> None:
    """Show an existing flag's variations in place of new ones; shares that were given to them stay."""
    before = {row.id: row for row in form.variations if row.id}
    rows = [VariationRow(each.name, [], each.id) for each in variations]
    for index, row in enumerate(rows):
        if row.id in before:
            row.weight, row.is_used = before[row.id].weight, before[row.id].is_used
        else:
            share = 100 // len(rows)
            row.weight = str(share + (1 if index < 100 - share * len(rows) else 0))
    form.flag, form.variations, form.parameters = flag.id, rows, []


def flag_body(form: ExperimentForm, errors: Errors) -> dict[str, Any]:
    """Return the body that creates the form's new flag; what cannot be read goes into `errors`."""
    parameters = {}
    for index, row in enumerate(form.parameters):
        if row.name in parameters:
            errors[f"parameters.{index}.name"] = "stands twice"
        value = _read_value(row.type, row.value, f"parameters.{index}.value", errors)
        parameters[row.name] = {"type": row.type, "value": value}
    return {"name": form.flag_name, "parameters": parameters}


def variation_body(form: ExperimentForm, index: int, errors: Errors) -> dict[str, Any]:
    """Return the body that creates the variation at this place. An empty value is the parameter's default."""
    row = form.variations[index]
    overrides = {}
    for place, parameter in enumerate(form.parameters):
        text = row.values[place] if place < len(row.values) else ""
        if text == "":
            continue
        value = _read_value(parameter.type, text, f"variations.{index}.values.{place}", errors)
        overrides[parameter.name] = {"value": value}
    return {"name": row.name, "overrides": overrides}


def experiment_body(form: ExperimentForm, flag_id: str, variation_ids: list[str], errors: Errors) -> dict[str, Any]:
    """Return the body that creates the experiment."""
    body: dict[str, Any] = {
        "name": form.name,
        "feature_flag_id": flag_id,
        "authentication_flow": form.flow,
        "allocation_strategy": form.strategy if form.strategy == "segment" else "percentage",
        "assignment_config": {"subject": form.subject if form.subject in get_args(Subject) else "device"},
        "allocations": _allocations(form, variation_ids, errors),
    }
    if form.description:
        body["description"] = form.description
    levels = _levels(form.levels, errors)
    return body | ({"levels": levels} if levels else {})


def update_body(form: ExperimentForm, editable: list[str], errors: Errors) -> dict[str, Any]:
    """Return the body that changes an experiment's editable fields to what the form has; what is empty is cleared."""
    ids = [row.id for row in form.variations]
    body = {"description": None, "levels": None} | experiment_body(form, form.flag, ids, errors)
    return {name: body[name] for name in editable if name in body}


def _allocations(form: ExperimentForm, ids: list[str], errors: Errors) -> list[dict[str, Any]]:
    used = [(index, row) for index, row in enumerate(form.variations) if row.is_used]
    if form.strategy != "segment":
        return [
            {
                "variation_id": ids[index],
                "is_control": form.control == str(index),
                "weight": _whole(row.weight, f"variations.{index}.weight", errors),
            }
            for index, row in used
        ]
    made = []
    for index, row in enumerate(form.segments):
        place = int(row.variation) if row.variation.isdecimal() and int(row.variation) < len(ids) else 0
        item: dict[str, Any] = {"variation_id": ids[place], "is_control": form.control == str(place)}
        if row.segment_id == EVERYONE_ELSE:
            item["is_fallback"] = True
        elif row.segment_id:
            item |= {"segment_id": row.segment_id, "priority": index + 1}
        made.append(item)
    return made


def field_on_form(form: ExperimentForm, name: str, *, of: str) -> str:
    """Return the form's name of what an operation calls `name`; `of` is the part of the form that it was made of."""
    if of == "flag":
        found = re.fullmatch(r"parameters\.(.+?)(\.value|\.type)?", name)
        place = next((i for i, row in enumerate(form.parameters) if found and row.name == found[1]), None)
        if found and place is not None:
            return f"parameters.{place}{found[2] or '.name'}"
        return "flag_name" if name == "name" else name
    if of.startswith("variations."):
        found = re.fullmatch(r"overrides\.(.+?)(\.value)?", name)
        place = next((i for i, row in enumerate(form.parameters) if found and row.name == found[1]), None)
        return f"{of}.values.{place}" if place is not None else f"{of}.name"
    found = re.fullmatch(r"allocations\[(\d+)\]\.(\w+)", name)
    if found and form.strategy == "segment":
        return f"segments.{found[1]}.{'segment' if found[2] == 'segment_id' else 'variation'}"
    if found:
        used = [index for index, row in enumerate(form.variations) if row.is_used]
        return f"variations.{used[int(found[1])]}.weight"
    return "levels" if name.startswith("levels") else {"authentication_flow": "flow"}.get(name, name)


def typed_value(kind: str, text: str) -> Any:
    """Return what was typed for a parameter of this type. Raises `ValueError`."""
    if kind == "string":
        return text
    if kind == "boolean" and text not in ("true", "false"):
        raise ValueError
    return json.loads(text)


def value_text(value: Any) -> str:
    """Return a value as one would type it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parameters_of(flag: FeatureFlag) -> list[ParameterRow]:
    """Return the flag's parameters as they would be typed."""
    return [ParameterRow(name, parameter_type(each), value_text(each.value)) for name, each in flag.parameters.items()]


def preview(form: ExperimentForm) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each new variation's name with its merged config, as far as it can be read."""
    errors: Errors = {}
    defaults = {name: each["value"] for name, each in flag_body(form, errors)["parameters"].items()}
    shown: list[tuple[str, Mapping[str, Any]]] = []
    for index, row in enumerate(form.variations):
        overrides = variation_body(form, index, errors)["overrides"]
        values = {name: each["value"] for name, each in overrides.items()}
        shown.append((row.name or "(no name yet)", defaults | values))
    return shown


def _read_value(kind: str, text: str, name: str, errors: Errors) -> Any:
    try:
        return typed_value(kind, text)
    except ValueError:
        errors[name] = f"must be {_EXAMPLES.get(kind, 'a value')}"
        return None


def _whole(text: str, name: str, errors: Errors) -> int:
    if not re.fullmatch(r"\d{1,3}", text):
        errors[name] = "must be a whole number from 0 to 100"
        return 0
    return int(text)


def _levels(text: str, errors: Errors) -> list[int]:
    levels = [part.strip().removesuffix("%").strip() for part in text.split(",") if part.strip()]
    if not all(re.fullmatch(r"\d{1,3}", each) for each in levels):
        errors["levels"] = "must be whole percents, separated by commas, such as 5, 25, 100"
        return []
    return [int(each) for each in levels]


def _places(given: Mapping[str, str], kind: str) -> range:
    found = [int(match[1]) for name in given if (match := re.match(rf"{kind}\.(\d{{1,2}})\.", name))]
    if found and max(found) >= MAX_ITEMS:
        raise InvalidInput(kind, f"at most {MAX_ITEMS} are possible")
    return range(max(found, default=-1) + 1)


_EXAMPLES = {
    "boolean": "true or false",
    "number": "a number, such as 3 or 0.5",
    "array": 'a JSON array, such as ["a", "b"]',
    "object": 'a JSON object, such as {"color": "blue"}',
}
