"""The results' sums once more, row by row in plain Python, as an analyst who distrusts the engines would have them."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from abgate.analysis.measurement import Sums
from abgate.analysis.population import Population
from abgate.core.metric import Metric, field_of, measure
from tests.analysis.traffic import Row

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNSET_KINDS = ("proportion", "retention")
Key = tuple[int, int]


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def subjects_of(exposures: Iterable[Row], population: Population) -> dict[str, Row]:
    """Each subject's first exposure, with `arm`, `phase`, `bot` and `crossed` beside it."""
    seen: dict[str, list[Row]] = defaultdict(list)
    for row in exposures:
        ours = (row["tenant"], row["experiment_id"]) == (population.tenant, population.experiment_id)
        if ours and not row["forced"] and row["subject"] is not None and micros(row["at"]) <= population.now:
            seen[row["subject"]].append(row)
    found = {}
    for subject, rows in seen.items():
        first = min(rows, key=lambda row: (row["at"], row["sequence"]))
        at = micros(first["at"])
        found[subject] = first | {
            "us": at,
            "arm": arm_of(first["variation_id"], population),
            "phase": sum(at >= begins for begins in population.phases[1:]),
            "bot": int(first["device_type"] == "bot"),
            "crossed": int(len({row["variation_id"] for row in rows}) > 1),
        }
    return found


def arm_of(variation_id: str, population: Population) -> int:
    known = list(population.variations)
    return known.index(variation_id) if variation_id in known else len(known)


def counted(subjects: dict[str, Row], population: Population, crossed_users: set[str]) -> dict[str, Row]:
    return {
        name: row
        for name, row in subjects.items()
        if row["arm"] < len(population.variations)
        and not (population.bots == "exclude" and row["bot"])
        and not (population.crossover == "exclude" and (row["crossed"] or name in crossed_users))
    }


def outcomes_of(metric: Metric, subject: Row, events: Sequence[Row]) -> tuple[int | None, int]:
    """A subject's outcome in whole numbers, None without one, and the other number where the kind has two."""
    y = _outcome(metric.events, metric.value, subject, [row for row in events if _in_window(metric, subject, row)])
    x: int | None = 0
    if metric.kind == "ratio":
        inside = [row for row in events if _in_window(metric, subject, row)]
        x = _outcome(metric.denominator.events, metric.denominator.value, subject, inside)  # type: ignore[union-attr]
        if metric.value == "missing":
            y = max(0, (x or 0) - (y or 0))
    if isinstance(metric.cuped, int):
        before = [row for row in events if -metric.cuped * 10**6 <= row["us"] - subject["us"] + 10**6 < 0]
        x = _outcome(metric.events, metric.value, subject, before)
    return y, x or 0


def sums_of(
    metric: Metric,
    subjects: dict[str, Row],
    events: dict[str, list[Row]],
    population: Population,
    cap: float = math.inf,
) -> dict[Key, Sums]:
    totals: dict[Key, Sums] = defaultdict(Sums)
    for name, subject in subjects.items():
        key = (subject["phase"], subject["arm"])
        if subject["us"] > population.now - metric.window * 10**6:
            totals[key] += Sums(open=1)
            continue
        y, x = outcomes_of(metric, subject, events.get(name, []))
        if y is not None:
            y = int(min(y, cap))
            totals[key] += Sums(n=1, y=y, yy=y * y, x=x, xx=x * x, xy=x * y)
    return dict(totals)


def events_by_subject(events: Iterable[Row], population: Population) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in events:
        ours = row["experiment_id"] == population.experiment_id
        whose = (row["subject"] if ours else None) or row["device"]
        if row["tenant"] == population.tenant and whose is not None and not (ours and row["forced"]):
            found[whose].append(row | {"us": micros(row["at"])})
    return found


def crossed_users(events: Iterable[Row], population: Population) -> tuple[dict[str, int], set[str]]:
    """The crossover counts of users, and the subjects of those who crossed."""
    arms: dict[str, set[int]] = defaultdict(set)
    types: dict[str, set[str]] = defaultdict(set)
    subjects: dict[str, set[str]] = defaultdict(set)
    for row in events:
        if row["experiment_id"] == population.experiment_id and row["user_id"] and not row["forced"]:
            arms[row["user_id"]].add(arm_of(row["variation_id"], population))
            types[row["user_id"]].add(row["type"])
        if row["experiment_id"] == population.experiment_id and row["user_id"] and row["subject"]:
            subjects[row["user_id"]].add(row["subject"])
    crossed = {user for user, seen in arms.items() if len(seen) > 1}
    counts = {}
    for name, type_ in (("signed_up", "ss"), ("logged_in", "s")):
        users = {user for user, seen in types.items() if type_ in seen}
        counts |= {name: len(users), f"{name}_crossed": len(users & crossed)}
    return counts, {subject for user in crossed for subject in subjects[user]}


def number_at(row: Row, field: str) -> float | None:
    value: Any = row["value"]
    if field != "value":
        value = json.loads(row["body"])
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def millionths(value: float) -> int:
    return math.floor(min(max(float(value), -1e8), 1e8) * 1_000_000 + 0.5)


def matches(filter_: Any, row: Row, subject: Row) -> bool:
    if filter_.types is not None and row["type"] not in filter_.types:
        return False
    if filter_.event is not None and row["event"] != filter_.event:
        return False
    for name, expression in filter_.where.items() if filter_.where else ():
        own = row if name in ("client_id", "connection", "organization_id") else subject
        if not _expression_holds(expression, own[name]):
            return False
    for field in filter_.fields or ():
        value = json.loads(row["body"])
        for name in field.path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value not in field.equals:
            return False
    return True


def _expression_holds(expression: Any, value: str | None) -> bool:
    if isinstance(expression, list):
        return value in expression
    if expression.exists is not None:
        return expression.exists == (value is not None)
    if value is None:
        return False
    if expression.contains is not None:
        return any(text in value for text in expression.contains)
    if expression.starts_with is not None:
        return any(value.startswith(text) for text in expression.starts_with)
    return any(value.endswith(text) for text in expression.ends_with)


def _in_window(metric: Metric, subject: Row, row: Row) -> bool:
    since = row["us"] - subject["us"]
    begins = metric.window_start * 10**6 if isinstance(metric.window_start, int) else -(10**6)
    return bool(begins <= since <= metric.window * 10**6)


def _outcome(filter_: Any, value: Any, subject: Row, events: Sequence[Row]) -> int | None:
    hits = [row for row in events if matches(filter_, row, subject)]
    if not isinstance(value, str):
        return int(bool(hits))
    match measure(value):
        case "seconds_to_first":
            return min((max(0, row["us"] - subject["us"]) for row in hits), default=None)
        case "sum":
            numbers = [number_at(row, field_of(value)) for row in hits]
            return sum(millionths(number) for number in numbers if number is not None)
        case "first":
            known = [row for row in hits if number_at(row, field_of(value)) is not None]
            first = min(known, key=lambda row: (row["us"], row["sequence"]), default=None)
            return None if first is None else millionths(number_at(first, field_of(value)) or 0)
        case "each":
            return sum(number_at(row, field_of(value)) is not None for row in hits) or None
    return len(hits)
