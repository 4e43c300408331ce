"""abgate: experiments made and activated by the domain's own functions, in a snapshot."""

from collections.abc import Sequence

import msgspec

from abgate.core.allocation import AllocationInput, References
from abgate.core.assignment import Subjects, assign
from abgate.core.experiment import Experiment, ExperimentChanges, NewExperiment
from abgate.core.feature_flag import BooleanParameter, FeatureFlag, Override, StringParameter, Variation
from abgate.core.ids import make_id
from abgate.core.lifecycle import draft_experiment, revise
from abgate.core.segment import Conditions, Operation, Rule, Segment
from abgate.core.snapshot import EMPTY, Changes, Snapshot
from harness.workloads import (
    BROWSER,
    BY_RULE,
    CONTROL,
    COUNTRIES,
    NAMES,
    REGIONS,
    TREATMENT,
    Attributes,
    Config,
    Contestant,
    Login,
)

_NOW = "2026-11-24T09:00:00.000Z"
_CONFIGS = [CONTROL, TREATMENT, *BY_RULE]
_ASSIGNED = {"split", "segment"}


def contestants() -> list[Contestant]:
    """Return abgate, with `Subjects` made beforehand as the others' contexts and users are, and made in the call."""
    here = _snapshot()
    flows = {name: (name,) for name in NAMES}

    def subjects(logins: Sequence[Login]) -> list[tuple[Subjects, Attributes]]:
        return [(Subjects(device=each.device), each.attributes) for each in logins]

    def run(workload: str, inputs: Sequence[tuple[Subjects, Attributes]]) -> None:
        flow = flows[workload]
        for who, attributes in inputs:
            assign(here, flow, who, attributes)

    def answer(workload: str, given: tuple[Subjects, Attributes]) -> Config | None:
        assignment = assign(here, flows[workload], *given)
        if assignment.context is None or assignment.reason not in _ASSIGNED:
            return None
        return {name: parameter["value"] for name, parameter in assignment.context.config.items()}

    def texts(logins: Sequence[Login]) -> list[tuple[str, Attributes]]:
        return [(each.device, each.attributes) for each in logins]

    def run_from_text(workload: str, inputs: Sequence[tuple[str, Attributes]]) -> None:
        flow = flows[workload]
        for device, attributes in inputs:
            assign(here, flow, Subjects(device=device), attributes)

    def answer_from_text(workload: str, given: tuple[str, Attributes]) -> Config | None:
        return answer(workload, (Subjects(device=given[0]), given[1]))

    return [
        Contestant("abgate", subjects, run, answer),
        Contestant("abgate_from_text", texts, run_from_text, answer_from_text),
    ]


def _snapshot() -> Snapshot:
    written = {each.id: msgspec.json.encode(each) for each in (_experiment(name) for name in NAMES)}
    return EMPTY.with_changes(Changes(number=1, experiments=written))


def _experiment(name: str) -> Experiment:
    references = References(_FLAG, _VARIATIONS, _SEGMENTS)
    new = NewExperiment(
        name=name.ljust(3),
        feature_flag_id=_FLAG.id,
        authentication_flow=name,
        allocation_strategy="percentage" if name == "split" else "segment",
        allocations=_ALLOCATIONS[name],
        levels=[99] if name == "targeted" else None,
    )
    id = make_id("exp", (1 << 127 | NAMES.index(name)).to_bytes(32))
    draft = draft_experiment(new, references, id=id, now=_NOW)
    return revise(draft, ExperimentChanges(status="active"), references, rivals=(), now=_NOW)


def _id(prefix: str, number: int) -> str:
    return make_id(prefix, (1 << 127 | number).to_bytes(32))


def _segment(number: int, rule: Rule) -> Segment:
    return Segment(id=_id("seg", number), name=f"segment {number}", rules=[rule], created_at=_NOW, updated_at=_NOW)


def _for(variation: int, segment: int) -> AllocationInput:
    return AllocationInput(variation_id=_id("var", variation), is_control=False, segment_id=_id("seg", segment))


def _rest(*, weight: int | None = None) -> AllocationInput:
    is_fallback = True if weight is None else None
    return AllocationInput(variation_id=_id("var", 0), is_control=True, weight=weight, is_fallback=is_fallback)


_FLAG = FeatureFlag(
    id=_id("flg", 0),
    name="passkey-prompt",
    status="active",
    parameters={"title": StringParameter(value="Sign in"), "prompt": BooleanParameter(value=False)},
    created_at=_NOW,
    updated_at=_NOW,
)
_VARIATIONS = {
    _id("var", number): Variation(
        id=_id("var", number),
        feature_flag_id=_FLAG.id,
        name=f"variation {number}",
        overrides={name: Override(value) for name, value in config.items() if config != CONTROL},
        created_at=_NOW,
        updated_at=_NOW,
    )
    for number, config in enumerate(_CONFIGS)
}
_FIREFOX = Rule(match=Conditions(country=COUNTRIES, user_agent=Operation(contains=[BROWSER])))
_SEGMENTS = {
    each.id: each
    for each in (
        _segment(0, _FIREFOX),
        *(_segment(10 + n, Rule(match=Conditions(country=COUNTRIES, region=[r]))) for n, r in enumerate(REGIONS)),
    )
}
_ALLOCATIONS = {
    "split": [_rest(weight=50), AllocationInput(variation_id=_id("var", 1), is_control=False, weight=50)],
    "segment": [_for(1, 0), _rest()],
    "targeted": [_for(1, 0), _rest()],
    "ten_rules": [*(_for(2 + number, 10 + number) for number in range(10)), _rest()],
}
