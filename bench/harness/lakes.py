"""Fills a data directory with an experiment and its lake: as many exposures and events as asked, in a minute or two.

Experiment and metrics are stored by the functions by which the Management API stores them. The lake's rows have every
column that its writer fills, bodies of the usual size among them, one commit a day as after compaction.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pyarrow
import pyarrow.compute
from sqlalchemy import Engine

from abgate.bootstrap import open_database
from abgate.core.allocation import AllocationInput
from abgate.core.analysis import Analysis
from abgate.core.experiment import ExperimentChanges, NewExperiment
from abgate.core.feature_flag import FeatureFlag, Override, StringParameter, Variation
from abgate.core.ids import make_id, timestamp
from abgate.core.lifecycle import draft_experiment, revise
from abgate.core.metric import NewMetric, new_metric
from abgate.ingest.lake_appending import LAKE
from abgate.settings import Settings
from abgate.storage import analyses, experiments, feature_flags, metrics, positions
from abgate.storage.changes import Author
from abgate.storage.engine import appending, writing
from abgate.storage.lake import Lake, append, last_sequence
from abgate.storage.lake_rows import TableName, schema_of
from abgate.storage.tenants import DEFAULT_TENANT

STARTED = datetime(2026, 1, 5, tzinfo=UTC)
DAYS = 28
WEEK_S = 7 * 24 * 3600
EXPERIMENT = make_id("exp", (1).to_bytes(32))
CONTROL, TREATMENT = (make_id("var", number.to_bytes(32)) for number in (1, 2))
FLAG = make_id("flg", (1).to_bytes(32))

SUBJECTS_A_ROW = 0.2
EXPOSURES_A_SUBJECT = 1.25
"""Of ten million rows two million are subjects' first exposures, half a million later ones; the others are events."""

PURCHASE = {"event": "purchase"}
_DEFINED: tuple[dict[str, Any], ...] = (
    {"name": "logged in", "kind": "proportion", "events": {"types": ["s"]}, "cuped": WEEK_S},
    {"name": "logins", "kind": "mean", "value": "count", "events": {"types": ["s"]}, "cuped": WEEK_S},
    {"name": "wrong passwords", "kind": "mean", "value": "count", "events": {"types": ["fp"]}, "cuped": WEEK_S},
    {"name": "spent", "kind": "mean", "value": "sum:value", "events": PURCHASE, "cuped": WEEK_S},
    {"name": "failures a try", "kind": "ratio", "value": "count", "events": {"types": ["fp"]},
     "denominator": {"events": {"types": ["s", "fp"]}}},
    {"name": "spent a purchase", "kind": "ratio", "value": "sum:value", "events": PURCHASE,
     "denominator": {"events": PURCHASE}},
)  # fmt: skip
METRICS = [
    new_metric(
        msgspec.convert(each | {"window": WEEK_S, "direction": "increase"}, NewMetric),
        id=make_id("met", number.to_bytes(32)),
        now=timestamp(STARTED),
    )
    for number, each in enumerate(_DEFINED)
]
"""Six, each with a second number of each subject and so with cross-products."""

_TYPES = ("s", "fp", "tracked", "seacft")
_SHARES = (0.45, 0.1, 0.15, 0.3)
_BODY = (
    '{"log_id":"', '","date":"2026-01-15T08:21:02.117Z","type":"', '","connection":"Username-Password-Authentication",'
    '"client_id":"web","client_name":"Shop","ip":"203.0.113.17","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:140.0)'
    ' Gecko/20100101 Firefox/140.0","user_id":"auth0|', '","hostname":"login.example.com","details":{"elapsed":812}}',
)  # fmt: skip


def fill(data: Path, rows: int) -> None:
    """Make a data directory whose lake has so many rows in both tables together."""
    data.mkdir(parents=True)
    engine = open_database(Settings(data=str(data)), 8000)
    _configure(engine)
    lake = Lake(str(data / "lake"))
    chance = numpy.random.default_rng(rows)
    subjects = round(rows * SUBJECTS_A_ROW)
    first, arm = chance.uniform(0, DAYS * 86_400, subjects), chance.integers(0, 2, subjects)
    again = chance.choice(subjects, round(subjects * (EXPOSURES_A_SUBJECT - 1)), replace=False)
    _write(lake, "exposures", _exposures(chance, first, arm, again))
    count = rows - subjects - len(again)
    # Some people come more often than others, before as after: that is what CUPED takes out.
    whose = chance.choice(subjects, count, p=_shares(chance.gamma(2.0, 1.0, subjects)))
    _write(lake, "events", _events(chance, first, arm, whose))
    with appending(engine) as connection:
        # The database that this lake is of has purged what is in it.
        for consumer, log, name in ((LAKE, "exposures", "exposures"), (positions.ENRICHER, "auth_events", "events")):
            positions.save(connection, consumer, log, last_sequence(lake.read(name)))  # type: ignore[arg-type]
    engine.dispose()


def _configure(engine: Engine) -> None:
    now = timestamp(STARTED)
    flag = FeatureFlag(
        id=FLAG, name="passkey prompt", status="active", parameters={"prompt": StringParameter(value="off")},
        created_at=now, updated_at=now,
    )  # fmt: skip
    author = Author(DEFAULT_TENANT, "bench", now)
    with writing(engine, DEFAULT_TENANT) as connection:
        feature_flags.add(connection, author, flag)
        for id, name, overrides in ((CONTROL, "control", {}), (TREATMENT, "modal", {"prompt": Override("modal")})):
            variation = Variation(
                id=id, feature_flag_id=FLAG, name=name, overrides=overrides, created_at=now, updated_at=now
            )
            feature_flags.add_variation(connection, author, variation)
        for metric in METRICS:
            metrics.add(connection, author, metric)
        references = experiments.references(connection, DEFAULT_TENANT, FLAG, ())
        new = NewExperiment(
            name="passkey-prompt",
            feature_flag_id=FLAG,
            authentication_flow="authentication",
            allocations=[
                AllocationInput(variation_id=id, weight=50, is_control=id == CONTROL) for id in (CONTROL, TREATMENT)
            ],
        )
        draft = draft_experiment(new, references, id=EXPERIMENT, now=now)
        experiments.add(connection, author, draft)
        active = revise(draft, ExperimentChanges(status="active"), references, rivals=(), now=now)
        experiments.save(connection, author, experiments.get(connection, DEFAULT_TENANT, EXPERIMENT), active)
        primary, *secondary = [each.id for each in METRICS]
        analyses.put(connection, author, EXPERIMENT, Analysis(primary=primary, secondary=secondary))


def _shares(weights: Any) -> Any:
    return weights / weights.sum()


Columns = dict[str, Any]


def _exposures(chance: Any, first: Any, arm: Any, again: Any) -> Iterator[Columns]:
    whose = numpy.concatenate([numpy.arange(len(first)), again])
    later = first[again] + chance.exponential(2 * 86_400, len(again))
    for seconds, part in _by_day(numpy.concatenate([first, later])):
        who = whose[part]
        device = _text("device-", who)
        yield {
            "at": _moments(seconds),
            "variation_id": _named(arm[who], (CONTROL, TREATMENT)),
            "is_control": arm[who] == 0,
            "allocation_strategy": "percentage",
            "reason": "split",
            "forced": False,
            "subject": device,
            "device": device,
            "user_id": _text("auth0|", who),
            "transaction_id": _text("transaction-", chance.integers(0, 2**62, len(who))),
            "snapshot_number": 9,
            "client_id": _named(who % 3, ("web", "ios", "android")),
            "connection": "Username-Password-Authentication",
            "device_type": _named(who % 2, ("desktop", "mobile")),
            "browser": _named(who % 5, ("Chrome", "Safari", "Firefox", "Edge", "Opera")),
            "platform": _named(who % 4, ("Windows", "iOS", "Android", "Linux")),
            "country": _named(who % 7, ("FR", "DE", "US", "GB", "JP", "BR", "IN")),
            "experiment_id": EXPERIMENT,
        }


def _events(chance: Any, first: Any, arm: Any, whose: Any) -> Iterator[Columns]:
    since = chance.uniform(-WEEK_S, WEEK_S, len(whose))
    for seconds, part in _by_day(first[whose] + since):
        who = whose[part]
        is_ours = since[part] >= 0
        # The treatment fails a little less often.
        type_ = chance.choice(len(_TYPES), len(who), p=_SHARES)
        type_ = numpy.where((type_ == 1) & is_ours & (arm[who] == 1) & (chance.random(len(who)) < 0.05), 0, type_)
        device, user_id = _text("device-", who), _text("auth0|", who)
        log_id = _text("90020260115082102", chance.integers(0, 2**62, len(who)))
        value = chance.lognormal(3.0, 1.0, len(who)).round(2)
        yield {
            "at": _moments(seconds),
            "log_id": log_id,
            "type": _named(type_, _TYPES),
            "event": _where(type_ == 2, "purchase"),
            "client_id": _named(who % 3, ("web", "ios", "android")),
            "connection": "Username-Password-Authentication",
            "device": device,
            "user_id": user_id,
            "value": pyarrow.array(value, mask=type_ != 2),
            "experiment_id": _where(is_ours, EXPERIMENT),
            "variation_id": _where(is_ours, _named(arm[who], (CONTROL, TREATMENT))),
            "is_control": pyarrow.array(arm[who] == 0, mask=~is_ours),
            "forced": False,
            "subject": _where(is_ours, device),
            "body": _joined(_BODY[0], log_id, _BODY[1], _named(type_, _TYPES), _BODY[2], _text("", who), _BODY[3]),
        }


def _by_day(seconds: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each day's moments in their order, and the places that they had among all."""
    order = numpy.argsort(seconds, kind="stable")
    days = (seconds[order] // 86_400).astype(int)
    for day in numpy.split(order, numpy.flatnonzero(numpy.diff(days)) + 1):
        yield seconds[day], day


def _write(lake: Lake, name: TableName, days: Iterator[Columns]) -> None:
    schema, table = schema_of(name), lake.open(name)
    after = 0
    for columns in days:
        count = len(columns["at"])
        day = (STARTED + timedelta(seconds=columns["at"][0].value / 1e6 - STARTED.timestamp())).date().isoformat()
        given = {"tenant": DEFAULT_TENANT, "day": day, "sequence": numpy.arange(after + 1, after + count + 1)} | columns
        arrays = [_array(given.get(field.name), field.type, count) for field in schema]
        append(table, pyarrow.Table.from_arrays(arrays, schema=schema), after=after, last=after + count)
        after += count


def _array(values: Any, type_: Any, count: int) -> Any:
    if values is None or isinstance(values, str | bool | int):
        return pyarrow.repeat(pyarrow.scalar(values, type_), count)
    return values if isinstance(values, pyarrow.Array) else pyarrow.array(values, type_)


def _moments(seconds: Any) -> Any:
    micros = (numpy.asarray(seconds) * 1e6).astype("int64") + int(STARTED.timestamp()) * 10**6
    return pyarrow.array(micros, pyarrow.int64()).cast(pyarrow.timestamp("us", tz="UTC"))


def _text(prefix: str, numbers: Any) -> Any:
    return _joined(prefix, pyarrow.array(numbers).cast(pyarrow.string()))


def _joined(*parts: Any) -> Any:
    return pyarrow.compute.binary_join_element_wise(*parts, "")


def _named(numbers: Any, names: tuple[str, ...]) -> Any:
    return pyarrow.array(names).take(pyarrow.array(numbers))


def _where(condition: Any, value: Any) -> Any:
    return pyarrow.compute.if_else(pyarrow.array(condition), value, pyarrow.scalar(None, pyarrow.string()))
