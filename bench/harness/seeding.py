"""Fills a database with as many experiments as asked, as their owners would have left them, in a few seconds.

The rows are those that the Management API would have written, history included: every value comes from the domain's own
functions, and only their storing is done in bulk.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Engine, Table, insert, select, update

from abgate.core.allocation import AllocationInput, References
from abgate.core.experiment import Experiment, ExperimentChanges, ExperimentStatus, NewExperiment
from abgate.core.feature_flag import FeatureFlag, Override, StringParameter, Variation
from abgate.core.ids import make_id
from abgate.core.lifecycle import draft_experiment, revise
from abgate.core.segment import Conditions, Rule, Segment
from abgate.storage import tables
from abgate.storage.engine import appending
from abgate.storage.rows import to_body
from abgate.storage.tenants import DEFAULT_TENANT

FLOWS = ("authentication", "mfa_enrollment", "mfa_challenge", "password_reset", "passkey_enrollment")
LEVELS = (5, 25, 100)
EXPERIMENTS_A_FLAG = 20
NOW = "2026-01-02T03:04:05.678Z"
ROWS_AT_ONCE = 5_000

# Of twenty experiments: the way that each has gone, from draft on.
_LIVES: tuple[tuple[ExperimentStatus, ...], ...] = (
    *[()] * 9,
    *[("active", "paused")] * 2,
    *[("active", "completed")] * 6,
    *[("active", "completed", "archived")] * 3,
)
_RUNNING: tuple[ExperimentStatus, ...] = ("active",)


class Tenant(Struct, frozen=True):
    """What a benchmark needs to know of the tenant that was filled."""

    experiments: list[Experiment]

    def ids(self, status: ExperimentStatus) -> list[str]:
        """Return the experiments of one status, in the order in which they were created."""
        return [experiment.id for experiment in self.experiments if experiment.status == status]


def fill(
    engine: Engine, size: int, *, seed: int, flows: Sequence[str] = FLOWS, levels: Sequence[int] = LEVELS
) -> Tenant:
    """Add `size` experiments to the default tenant, with what they refer to, and return them.

    The first on each of the `flows` is active, at the first of the `levels`.
    """
    made = _Seeding(random.Random(seed), flows, levels)
    made.experiments(size)
    with appending(engine) as connection:
        for table, rows in made.rows.items():
            for start in range(0, len(rows), ROWS_AT_ONCE):
                connection.execute(insert(table), rows[start : start + ROWS_AT_ONCE])
        connection.execute(update(tables.tenants).values(number=made.number))
        assert connection.execute(select(tables.tenants.c.id)).scalars().all() == [DEFAULT_TENANT]
    return Tenant(made.finished)


class _Seeding:
    def __init__(self, random: random.Random, flows: Sequence[str], levels: Sequence[int]) -> None:
        self.random = random
        self.flows = flows
        self.levels = levels
        self.number = 0
        self.finished: list[Experiment] = []
        self.rows: dict[Table, list[dict[str, Any]]] = {
            table: []
            for table in (
                tables.feature_flags, tables.variations, tables.segments,
                tables.experiments, tables.experiment_segments, tables.changes,
            )
        }  # fmt: skip

    def experiments(self, size: int) -> None:
        for index in range(size):
            if index % EXPERIMENTS_A_FLAG == 0:
                references = self._references(index // EXPERIMENTS_A_FLAG)
            self._experiment(index, references)

    def _experiment(self, index: int, references: References) -> None:
        is_split = index % 10 != 7
        segment_id = next(iter(references.segments))
        by_share = ({"weight": 90}, {"weight": 10})
        by_segment: tuple[dict[str, Any], ...] = ({"is_fallback": True}, {"segment_id": segment_id, "priority": 1})
        experiment = draft_experiment(
            NewExperiment(
                name=f"experiment {index:06}",
                description="Whether more people log in with a passkey when they are asked at the right moment.",
                feature_flag_id=references.feature_flag.id,
                authentication_flow=self.flows[index % len(self.flows)],
                allocation_strategy="percentage" if is_split else "segment",
                allocations=[
                    AllocationInput(variation_id=id, is_control=not place, **share)
                    for place, (id, share) in enumerate(
                        zip(references.variations, by_share if is_split else by_segment, strict=True)
                    )
                ],
                levels=list(self.levels),
            ),
            references,
            id=self._new_id("exp"),
            now=NOW,
        )
        created_in = self._change("experiment", None, experiment)
        life = _LIVES[index % len(_LIVES)] if index >= len(self.flows) else _RUNNING
        for status in life:
            revised = revise(experiment, ExperimentChanges(status=status), references, rivals=(), now=NOW)
            self._change("experiment", experiment, revised)
            experiment = revised
        self._row(
            tables.experiments,
            experiment,
            created_in,
            revision=1 + len(life),
            status=experiment.status,
            authentication_flow=experiment.authentication_flow,
            feature_flag_id=experiment.feature_flag_id,
        )
        if not is_split:
            self.rows[tables.experiment_segments].append(
                {"tenant": DEFAULT_TENANT, "segment_id": segment_id, "experiment_id": experiment.id}
            )
        self.finished.append(experiment)

    def _references(self, index: int) -> References:
        flag = FeatureFlag(
            id=self._new_id("flg"),
            name=f"passkey prompt {index:05}",
            status="active",
            parameters={name: StringParameter(value="default") for name in ("title", "body", "button")},
            created_at=NOW,
            updated_at=NOW,
        )
        draft = replace(flag, status="draft")
        created_in = self._change("feature_flag", None, draft)
        self._row(tables.feature_flags, flag, created_in, revision=2, type="self", status="active")
        variations = list(self._variations(flag.id))
        self._change("feature_flag", draft, flag)
        segment = Segment(
            id=self._new_id("seg"),
            name=f"phones {index:05}",
            rules=[Rule(match=Conditions(device_type=["phone"], country=["DE", "FR", "US"]))],
            created_at=NOW,
            updated_at=NOW,
        )
        self._row(tables.segments, segment, self._change("segment", None, segment), type="self")
        return References(flag, {variation.id: variation for variation in variations}, {segment.id: segment})

    def _variations(self, feature_flag_id: str) -> Iterator[Variation]:
        for name, overrides in (("control", {}), ("modal", {"title": Override("Log in without a password")})):
            variation = Variation(
                id=self._new_id("var"),
                feature_flag_id=feature_flag_id,
                name=name,
                overrides=overrides,
                created_at=NOW,
                updated_at=NOW,
            )
            number = self._change("variation", None, variation)
            self._row(tables.variations, variation, number, feature_flag_id=feature_flag_id)
            yield variation

    def _row(self, table: Table, value: Any, created_in: int, *, revision: int = 1, **columns: str) -> None:
        self.rows[table].append(
            {
                "tenant": DEFAULT_TENANT,
                "id": value.id,
                "created_in": created_in,
                "revision": revision,
                "name": value.name,
                "body": to_body(value),
                **columns,
            }
        )

    def _change(self, kind: str, before: Any, after: Any) -> int:
        self.number += 1
        self.rows[tables.changes].append(
            {
                "tenant": DEFAULT_TENANT,
                "number": self.number,
                "at": NOW,
                "actor": "bench",
                "action": "create" if before is None else "update",
                "kind": kind,
                "resource_id": after.id,
                "before": None if before is None else to_body(before),
                "after": to_body(after),
            }
        )
        return self.number

    def _new_id(self, prefix: str) -> str:
        return make_id(prefix, self.random.randbytes(32))
