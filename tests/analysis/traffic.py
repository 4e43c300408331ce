"""Exposures and auth events made up from a seed, as the lake has them, and written to it."""

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow

from abgate.core.ids import make_id
from abgate.core.metric import Metric, NewMetric, new_metric
from abgate.storage.lake import Lake, append, last_sequence
from abgate.storage.lake_rows import ATTRIBUTES, TableName, schema_of

Row = dict[str, Any]

TENANT = "default"
EXPERIMENT = make_id("exp", (1).to_bytes(32))
OTHER_EXPERIMENT = make_id("exp", (2).to_bytes(32))
CONTROL, TREATMENT, FORMER = (make_id("var", number.to_bytes(32)) for number in (1, 2, 3))
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND_PHASE = START + timedelta(days=2)
END = START + timedelta(days=5)

TYPES = ("s", "s", "s", "f", "fp", "fp", "fu", "ss", "limit_wc", "gd_start_auth", "gd_auth_succeed", "tracked")


def metric(kind: str, **fields: Any) -> Metric:
    """A metric with whatever the test does not care about."""
    given: Row = {"name": f"a {kind}", "events": {"types": ["s"]}, "window": 3600, "direction": "increase"}
    import msgspec

    return new_metric(msgspec.convert(given | {"kind": kind} | fields, NewMetric), id="met_1", now="now")


def make_traffic(seed: int, subjects: int) -> tuple[list[Row], list[Row]]:
    """Return exposures and events in the order of their sequences, which is not that of their moments."""
    source = random.Random(seed)
    exposures: list[Row] = []
    events: list[Row] = []
    for number in range(subjects):
        made, theirs = _of_subject(source, number)
        exposures += made
        events += theirs
    for rows in (exposures, events):
        source.shuffle(rows)
        for sequence, row in enumerate(rows, 1):
            row["sequence"] = sequence
    for row in events:
        row["log_id"] = f"log_{row['sequence']}"
    return exposures, events


def write(lake: Lake, name: TableName, rows: Sequence[Row]) -> None:
    """Append the rows to a table of the lake, in one commit, after those that are there."""
    table = lake.open(name)
    after = last_sequence(table)
    numbered = [row | {"sequence": after + place} for place, row in enumerate(rows, 1)]
    append(table, pyarrow.Table.from_pylist(numbered, schema=schema_of(name)), after=after, last=after + len(rows))


def exposure(at: datetime, device: str, variation: str, **fields: Any) -> Row:
    """One exposure."""
    plain = dict.fromkeys(schema_of("exposures").names) | {
        "tenant": TENANT,
        "day": at.date().isoformat(),
        "at": at,
        "experiment_id": EXPERIMENT,
        "variation_id": variation,
        "is_control": variation == CONTROL,
        "allocation_strategy": "percentage",
        "reason": "split",
        "forced": False,
        "subject": device,
        "device": device,
        "snapshot_number": 1,
    }
    return plain | fields


def event(at: datetime, type_: str, device: str | None, **fields: Any) -> Row:
    """One event that belongs to no exposure, unless the fields say so."""
    plain = dict.fromkeys(schema_of("events").names) | {
        "tenant": TENANT,
        "day": at.date().isoformat(),
        "at": at,
        "type": type_,
        "device": device,
        "forced": False,
        "body": "{}",
    }
    return plain | fields


def _of_subject(source: random.Random, number: int) -> tuple[list[Row], list[Row]]:
    device = f"device-{number}"
    attributes = {name: source.choice(["a", "b", None]) for name in ATTRIBUTES}
    attributes["device_type"] = source.choice(["mobile", "desktop", "bot", None, "tablet"])
    at = START + timedelta(microseconds=source.randrange(5 * 24 * 3600 * 10**6))
    variation = source.choice([CONTROL, TREATMENT, TREATMENT, CONTROL, FORMER])
    exposures = [exposure(at, device, variation, **attributes)]
    if source.random() < 0.3:
        later = at + timedelta(microseconds=source.choice([0, 0, 1, 10**9]))
        another = source.choice([CONTROL, TREATMENT])
        exposures.append(exposure(later, device, another, **attributes | {"country": "later"}))
    if source.random() < 0.1:
        forced = {"forced": True, "reason": "forced"}
        exposures.append(exposure(at - timedelta(hours=1), device, TREATMENT, **forced))
    if source.random() < 0.1:
        exposures.append(exposure(at - timedelta(hours=1), device, TREATMENT, experiment_id=OTHER_EXPERIMENT))
    return exposures, list(_events_of(source, device, at, variation))


def _events_of(source: random.Random, device: str, at: datetime, variation: str) -> Iterator[Row]:
    user = f"user-{int(device.rsplit('-', 1)[1]) // 2}" if source.random() < 0.7 else None
    for _ in range(source.randrange(6)):
        type_ = source.choice(TYPES)
        offset = source.choice([-5 * 10**6, -500_000, 0, 1, 10**6, 1_800 * 10**6, 3_600 * 10**6, 3_600 * 10**6 + 1])
        when = at + timedelta(microseconds=offset + source.choice([0, source.randrange(10**9)]))
        number = source.choice([None, 3, 2.5, 0.1, -4.25, 1e12, "text", "7.5", True])
        fields: Row = {
            "client_id": source.choice(["web", "ios", None]),
            "connection": source.choice(["db", "google"]),
            "user_id": user,
            "body": json.dumps(
                {"details": {"items": number, "authenticator": {"type": source.choice(["passkey", "otp"])}}}
            ),
        }
        if type_ == "tracked":
            fields |= {"event": source.choice(["purchase", "view"]), "value": source.choice([19.99, 1.0, 0.005, -3.5])}
        if source.random() < 0.6:
            fields |= {"experiment_id": EXPERIMENT, "variation_id": variation, "subject": device}
            fields["forced"] = source.random() < 0.1
            # The transaction says whose it is, where the event does not.
            yield event(when, type_, source.choice([device, None]), **fields)
        elif source.random() < 0.9:
            yield event(when, type_, device, **fields | {"forced": source.random() < 0.1})
        else:
            yield event(when, type_, f"stranger-{source.randrange(100)}", tenant=source.choice([TENANT, "other"]))
