"""What a feature flag is for someone, in the words of OpenFeature: value, variant, reason.

A key is a flag's name, whose value is an object of all its parameters, or ``flag-name/parameter``, whose value is that
parameter's. The server's OFREP and the in-process client evaluate by the same functions.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from abgate.core.assignment import Assignment, Reason
from abgate.core.compiled import CompiledExperiment, Config
from abgate.core.experiment import ALL_FLOWS
from abgate.core.ids import Flow
from abgate.core.snapshot import ServedFlag, Snapshot

DEFAULT_FLOW: Flow = "authentication"
DEFAULT_VARIANT = "default"

_REASONS: Mapping[Reason, str] = {
    "split": "SPLIT",
    "kept": "SPLIT",
    "segment": "TARGETING_MATCH",
    "fallback": "TARGETING_MATCH",
    "forced": "TARGETING_MATCH",
}


class Evaluation(Struct, frozen=True):
    """One key's value. OFREP clients return the code's default when any of these is missing."""

    key: str
    value: Any
    reason: str
    variant: str
    metadata: dict[str, str | bool]


def find_flag(snapshot: Snapshot, key: str) -> tuple[ServedFlag, str | None] | None:
    """Return the flag that `key` names, with the parameter if it names one; None when there is no such flag."""
    flag = snapshot.find_flag(key)
    if flag is not None:
        return flag, None
    name, _, parameter = key.rpartition("/")
    flag = snapshot.find_flag(name)
    return None if flag is None or parameter not in flag.config else (flag, parameter)


def find_experiment(snapshot: Snapshot, flag: ServedFlag, flow: Flow) -> CompiledExperiment | None:
    """Return the active experiment that decides the flag: of several the one on `flow`, else on all flows, else any."""
    return of_flow(running_by_flow(snapshot, flag), flow)


def running_by_flow(snapshot: Snapshot, flag: ServedFlag) -> Mapping[Flow, CompiledExperiment]:
    """Return the active experiments that may decide the flag."""
    if flag.status != "active":
        return {}
    return {experiment.flow: experiment for experiment in snapshot.running(flag.id)}


def of_flow(running: Mapping[Flow, CompiledExperiment], flow: Flow) -> CompiledExperiment | None:
    """Return the one of `running` that decides on `flow`."""
    return running.get(flow) or running.get(ALL_FLOWS) or next(iter(running.values()), None)


def evaluation(key: str, parameter: str | None, flag: ServedFlag, assignment: Assignment | None) -> Evaluation:
    """Return the key's value: that of the assigned variation, else what the flag serves, else its defaults."""
    allocation = None if assignment is None else assignment.allocation
    if assignment is None or allocation is None:
        is_active = flag.status == "active"
        return Evaluation(
            key,
            _value(flag.config if is_active else flag.defaults, parameter),
            "STATIC" if is_active else "DISABLED",
            (flag.variation_name if is_active else None) or DEFAULT_VARIANT,
            {},
        )
    context = allocation.context
    # A parameter that came to the flag after the activation is not in the experiment's snapshot of it.
    config = {**flag.config, **context.config}
    return Evaluation(
        key,
        _value(config, parameter),
        _REASONS[assignment.reason],
        allocation.variation_name,
        {
            "experiment_id": context.experiment_id,
            "variation_id": context.variation_id,
            "is_control": context.is_control,
        },
    )


def _value(config: Config, parameter: str | None) -> Any:
    if parameter is None:
        return {name: each["value"] for name, each in config.items()}
    value = config[parameter]["value"]
    if isinstance(value, list):
        # OFREP knows booleans, strings, numbers and objects.
        return {"value": value}
    # The published Python provider takes 5.0 but not 5 where it was asked for a float.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
