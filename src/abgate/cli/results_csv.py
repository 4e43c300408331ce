"""An experiment's results as CSV: a line for each metric and variation, or with a dimension for each of its values."""

import csv
from typing import Any, TextIO

import msgspec
from msgspec import UNSET

from abgate.analysis.answers import ExperimentResults, VariationResult
from abgate.dashboard.spreadsheets import as_text

OF_METRIC = ("metric_id", "role", "unit", "value_of_dimension")
PLAIN = (
    "variation_id", "variation_name", "is_control", "n", "open_windows", "value", "effect", "lift", "p_value",
    "always_valid_p_value", "adjusted_p_value", "chance_to_win", "expected_loss", "variance_removed", "status", "why",
)  # fmt: skip
INTERVALS = ("interval", "always_valid_interval", "planned_interval", "lift_interval")
ENDS = ("low", "high")


def write_csv(out: TextIO, results: ExperimentResults) -> None:
    """Write the results, numbers in full. What there is none of is empty."""
    ends = [f"{name}_{end}" for name in INTERVALS for end in ENDS]
    writer = csv.DictWriter(out, [*OF_METRIC, *PLAIN, *ends], lineterminator="\n")
    writer.writeheader()
    for metric in results.metrics:
        common = {"metric_id": metric.metric_id, "role": metric.role, "unit": metric.unit}
        if metric.slices is UNSET:
            writer.writerows(common | _row(each) for each in metric.variations)
            continue
        for part in metric.slices:
            value = {"value_of_dimension": as_text(part.value)}
            writer.writerows(common | value | _row(each) for each in part.variations)


def _row(variation: VariationResult) -> dict[str, Any]:
    found = msgspec.to_builtins(variation)
    row = {name: as_text(found.get(name)) for name in PLAIN}
    for name in INTERVALS:
        row |= {f"{name}_{end}": value for end, value in zip(ENDS, found.get(name) or ("", ""), strict=True)}
    return row
