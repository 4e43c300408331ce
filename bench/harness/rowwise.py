"""The same results by pandas: a row for each subject, and moments and cross-products out of those rows.

As in gbstats, GrowthBook's statistics, and in most notebooks: first exposures, events joined to them, one row a
subject, then per variation the count, sums, sums of squares and products. Whole columns at a time, only the columns and
the events that are needed. `answer` tells all that abgate tells of these rows, `effects` the six effects alone.
Tests and their p-values are abgate's own functions, on these sums.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import pandas

from abgate.analysis import srm
from abgate.analysis.aggregates import Covaried, Moments, Ratio
from abgate.analysis.comparison import Comparison, Plan, compare
from abgate.analysis.population import CAUSES
from abgate.storage.lake import Lake, files_of
from harness.lakes import CONTROL, EXPERIMENT, METRICS, TREATMENT, WEEK_S

LEEWAY = pandas.Timedelta(seconds=1)
WINDOW = pandas.Timedelta(seconds=WEEK_S)

_EXPOSURES = ("experiment_id", "forced", "subject", "variation_id", "at", "sequence")
_EVENTS = ("type", "event", "at", "device", "subject", "experiment_id", "forced", "value")

Figures = dict[str, list[float]]


def effects(lake: Lake) -> Figures:
    """Return the treatment's effect in each metric, and do nothing else."""
    exposures, events = _read(lake, "exposures", _EXPOSURES), _read(lake, "events", _EVENTS)
    rows = _rows(_firsts(_ours(exposures)), _wanted(events))
    sums = _products(rows).groupby("variation_id").sum()
    return {"effects": _effects(sums.loc[CONTROL], sums.loc[TREATMENT])}


def answer(lake: Lake) -> Figures:
    """Return the effects, and beside them who counts, crossovers, causes of a mismatch and every metric day by day."""
    exposures = _read(lake, "exposures", (*_EXPOSURES, *CAUSES))
    forced = int((exposures.forced & (exposures.experiment_id == EXPERIMENT)).sum())
    exposures = _ours(exposures)
    arms = (exposures.variation_id == TREATMENT).groupby(exposures.subject, sort=False).agg(["min", "max"])
    firsts = _firsts(exposures)
    is_bot = firsts.device_type == "bot"
    population = [len(firsts), int(is_bot.sum()), int((arms["min"] != arms["max"]).sum()), forced]
    del exposures, arms
    firsts = firsts[~is_bot]
    events = _read(lake, "events", (*_EVENTS, "user_id", "variation_id"))
    users = _users(events)
    sums = _products(_rows(firsts, _wanted(events))).groupby(["variation_id", "day"]).sum()
    totals = sums.groupby("variation_id").sum()
    return {
        "population": [*population, *(float(totals.n[id]) for id in (CONTROL, TREATMENT))],
        "crossover": users,
        "causes": _causes(firsts),
        "series": [value for place in range(len(METRICS)) for value in _series(sums, place)],
        "effects": _effects(totals.loc[CONTROL], totals.loc[TREATMENT]),
    }


def _read(lake: Lake, name: str, columns: Iterable[str]) -> Any:
    files = files_of(lake.read(name))  # type: ignore[arg-type]
    return pandas.concat([pandas.read_parquet(file, columns=list(columns), partitioning=None) for file in files])


def _ours(exposures: Any) -> Any:
    return exposures[(exposures.experiment_id == EXPERIMENT) & ~exposures.forced]


def _firsts(exposures: Any) -> Any:
    firsts = exposures.sort_values(["at", "sequence"]).drop_duplicates("subject")
    return firsts.rename(columns={"at": "first"})


def _wanted(events: Any) -> Any:
    """Return the events that metrics count, each with whose it is."""
    events = events[events.type.isin(["s", "fp"]) | (events.event == "purchase")]
    is_ours = events.experiment_id == EXPERIMENT
    events = events[~(is_ours & events.forced)]
    return events.assign(subject=events.subject.where(is_ours, events.device))


def _rows(firsts: Any, events: Any) -> Any:
    """Return a row for each subject: its variation, the day of its first exposure and, for each metric, two numbers."""
    firsts = firsts[["subject", "variation_id", "first"]]
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
    day = rows["first"].astype("int64") // (86_400 * 10**6)
    return pandas.DataFrame({"variation_id": rows.variation_id, "day": day} | numbers)


def _products(rows: Any) -> Any:
    """Return the rows with squares and products beside the numbers."""
    products: dict[str, Any] = {"n": 1}
    for place in range(len(METRICS)):
        y, x = rows[f"y{place}"], rows[f"x{place}"]
        products |= {f"yy{place}": y * y, f"xx{place}": x * x, f"xy{place}": x * y}
    return rows.assign(**products)


def _effects(control: Any, treatment: Any) -> list[float]:
    found = []
    for place, metric in enumerate(METRICS):
        comparison = compare(
            _aggregates(control, place), _aggregates(treatment, place), plan=Plan(), direction=metric.direction
        )
        assert isinstance(comparison, Comparison)
        found.append(comparison.effect)
    return found


def _aggregates(sums: Mapping[str, float], place: int) -> Ratio | Covaried:
    n = int(sums["n"])
    return (Ratio if METRICS[place].kind == "ratio" else Covaried)(
        y=Moments(n, sums[f"y{place}"], sums[f"yy{place}"]),
        x=Moments(n, sums[f"x{place}"], sums[f"xx{place}"]),
        products=sums[f"xy{place}"],
    )


def _users(events: Any) -> list[float]:
    """Return how many users signed up and logged in, and of each how many were seen in both variations."""
    ours = events[(events.experiment_id == EXPERIMENT) & ~events.forced & events.user_id.notna()]
    flags = pandas.DataFrame(
        {
            "user": ours.user_id,
            "treatment": ours.variation_id == TREATMENT,
            "control": ours.variation_id == CONTROL,
            "signed_up": ours.type == "ss",
            "logged_in": ours.type == "s",
        }
    )
    users = flags.groupby("user", sort=False).any()
    is_crossed = users.treatment & users.control
    groups = (users.signed_up, users.logged_in)
    return [float(count) for group in groups for count in (group.sum(), (group & is_crossed).sum())]


def _causes(firsts: Any) -> list[float]:
    """Return the p-values of the attributes' values whose subjects are not in halves."""
    counts: dict[tuple[str, str], Sequence[int]] = {}
    for name in CAUSES:
        table = firsts.groupby([name, "variation_id"]).size().unstack(fill_value=0)
        counts |= {(name, value): [int(row[CONTROL]), int(row[TREATMENT])] for value, row in table.iterrows()}
    found = srm.find_causes(counts, (50, 50))
    return [each.adjusted_p_value for each in found if each.adjusted_p_value <= 0.05]


def _series(sums: Any, place: int) -> list[float]:
    """Return a metric's number of subjects and value up to each day, of control and treatment in turn."""
    running = sums.groupby("variation_id").cumsum()
    found: list[float] = []
    for day, id in product(sorted(set(sums.index.get_level_values("day"))), (CONTROL, TREATMENT)):
        row = running.loc[id, day]
        over = row[f"x{place}"] if METRICS[place].kind == "ratio" else row.n
        found += [float(row.n), row[f"y{place}"] / over]
    return found
