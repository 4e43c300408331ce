"""The same six metrics by pandas: a row for each subject, and its moments and cross-products out of those rows.

As in gbstats, GrowthBook's statistics, and in most notebooks: first exposures, events joined to them, one row a
subject, then per variation the count, sums, sums of squares and products. Whole columns at a time, only the columns and
the events that are needed, and nothing of what abgate answers besides: no bots, crossovers, causes of a mismatch, daily
series.
"""

from collections.abc import Sequence
from typing import Any

import pandas

from abgate.analysis.aggregates import Covaried, Moments, Ratio
from abgate.analysis.comparison import Comparison, Plan, compare
from abgate.storage.lake import Lake, files_of
from harness.lakes import CONTROL, EXPERIMENT, METRICS, TREATMENT, WEEK_S

LEEWAY = pandas.Timedelta(seconds=1)
WINDOW = pandas.Timedelta(seconds=WEEK_S)


def effects(lake: Lake) -> list[float]:
    """Return the treatment's effect in each metric."""
    subjects = _subjects(lake)
    found = []
    for place, metric in enumerate(METRICS):
        control, treatment = (_aggregates(subjects, variation, place) for variation in (CONTROL, TREATMENT))
        comparison = compare(control, treatment, plan=Plan(), direction=metric.direction)
        assert isinstance(comparison, Comparison)
        found.append(comparison.effect)
    return found


def _read(lake: Lake, name: str, columns: Sequence[str]) -> Any:
    files = files_of(lake.read(name))  # type: ignore[arg-type]
    return pandas.concat([pandas.read_parquet(file, columns=list(columns), partitioning=None) for file in files])


def _subjects(lake: Lake) -> Any:
    """Return a row for each subject: its variation and, for each metric, two numbers."""
    exposures = _read(lake, "exposures", ("experiment_id", "forced", "subject", "variation_id", "at", "sequence"))
    exposures = exposures[(exposures.experiment_id == EXPERIMENT) & ~exposures.forced]
    firsts = exposures.sort_values(["at", "sequence"]).drop_duplicates("subject")
    firsts = firsts[["subject", "variation_id", "at"]].rename(columns={"at": "first"})
    events = _read(lake, "events", ("type", "event", "at", "device", "subject", "experiment_id", "forced", "value"))
    events = events[events.type.isin(["s", "fp"]) | (events.event == "purchase")]
    is_ours = events.experiment_id == EXPERIMENT
    events = events[~(is_ours & events.forced)]
    events = events.assign(subject=events.subject.where(is_ours, events.device))
    joined = events[["subject", "type", "event", "at", "value"]].merge(firsts[["subject", "first"]], on="subject")
    since = joined["at"] - joined["first"]
    after = (since >= -LEEWAY) & (since <= WINDOW)
    before = (since < -LEEWAY) & (since >= -LEEWAY - WINDOW)
    is_login, is_wrong, is_purchase = joined.type == "s", joined.type == "fp", joined.event == "purchase"
    flags = pandas.DataFrame(
        {
            "subject": joined.subject,
            "s": is_login & after, "s_before": is_login & before,
            "fp": is_wrong & after, "fp_before": is_wrong & before,
            "spent": joined.value.where(is_purchase & after, 0.0),
            "spent_before": joined.value.where(is_purchase & before, 0.0),
            "purchases": is_purchase & after,
        }
    )  # fmt: skip
    sums = flags.groupby("subject", sort=False).sum()
    rows = firsts.merge(sums, left_on="subject", right_index=True, how="left").fillna(dict.fromkeys(sums, 0))
    pairs = (
        ((rows.s > 0).astype(float), (rows.s_before > 0).astype(float)),
        (rows.s, rows.s_before),
        (rows.fp, rows.fp_before),
        (rows.spent, rows.spent_before),
        (rows.fp, rows.s + rows.fp),
        (rows.spent, rows.purchases),
    )
    numbers = {
        f"{name}{place}": column.astype(float)
        for place, pair in enumerate(pairs)
        for name, column in zip("yx", pair, strict=True)
    }
    return pandas.DataFrame({"variation_id": rows.variation_id} | numbers)


def _aggregates(subjects: Any, variation: str, place: int) -> Ratio | Covaried:
    own = subjects[subjects.variation_id == variation]
    y, x = own[f"y{place}"], own[f"x{place}"]
    kind = Ratio if METRICS[place].kind == "ratio" else Covaried
    return kind(
        y=Moments(len(own), float(y.sum()), float((y * y).sum())),
        x=Moments(len(own), float(x.sum()), float((x * x).sum())),
        products=float((x * y).sum()),
    )
