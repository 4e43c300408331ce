"""A snapshot: one tenant's whole configuration under one number, immutable, ready for logins.

What logins can reach (active and paused experiments) is compiled when it enters. All the rest, of which there may be a
hundred thousand, is kept as the JSON it is stored as: forced assignments reach it, so it is compiled when one comes.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import TypeGuard, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct

from abgate.core.catalog import Catalog
from abgate.core.compiled import (
    LIVE,
    Assignment,
    CompiledExperiment,
    Config,
    Present,
    compile_experiment,
    served_config,
)
from abgate.core.decider import Decide
from abgate.core.experiment import Experiment, ExperimentStatus
from abgate.core.feature_flag import FeatureFlag, FeatureFlagStatus, Variation
from abgate.core.ids import ExperimentId, FeatureFlagId, Flow, SegmentId, VariationId
from abgate.core.segment import Segment

T = TypeVar("T")
Json = bytes
Live = Mapping[ExperimentId, CompiledExperiment | None]

DOCUMENT_VERSION = 1
ASSIGNABLE: frozenset[ExperimentStatus] = LIVE | {"draft"}


class Changes(Struct, frozen=True, kw_only=True):
    """What was written up to `number`: resources as the JSON they are stored as, None for what was deleted."""

    number: int
    experiments: Mapping[ExperimentId, Json | None] = {}
    feature_flags: Mapping[FeatureFlagId, Json | None] = {}
    variations: Mapping[VariationId, Json | None] = {}
    segments: Mapping[SegmentId, Json | None] = {}


class ServedFlag(Struct, frozen=True):
    """A flag with what it answers while no experiment runs: its served variation's config, or its defaults.

    `defaults` are what it answers while it is not active.
    """

    id: FeatureFlagId
    name: str
    status: FeatureFlagStatus
    variation_id: VariationId | None
    variation_name: str | None
    config: Config
    defaults: Config


class UnknownDocument(ValueError):
    """This is no document of a snapshot, or one of a version that is newer than this code."""


class _Document(Struct, frozen=True):
    version: int
    number: int
    experiments: list[Raw]
    feature_flags: list[Raw]
    variations: list[Raw]
    segments: list[Raw]


class _Id(Struct, frozen=True):
    id: str


class _Status(Struct, frozen=True):
    status: ExperimentStatus


class _Owner(Struct, frozen=True):
    feature_flag_id: FeatureFlagId


class _Name(Struct, frozen=True):
    name: str


class Snapshot:
    """One tenant's configuration as it was at the change `number`."""

    def __init__(self) -> None:
        """Make the snapshot of a tenant that has nothing yet; every other one comes from `with_changes`."""
        self.number = 0
        # There is one active experiment a flow at most.
        self.active: Mapping[Flow, CompiledExperiment] = {}
        # A plain dictionary, for every login looks up its flow here.
        self.deciders: Mapping[Flow, Decide[Assignment]] = {}
        self._live: Catalog[CompiledExperiment] = Catalog()
        self._experiments: Catalog[Json] = Catalog()
        self._feature_flags: Catalog[Json] = Catalog()
        self._variations: Catalog[Json] = Catalog()
        self._segments: Catalog[Json] = Catalog()
        self._flag_names: Catalog[FeatureFlagId] = Catalog()
        self._running: Catalog[tuple[ExperimentId, ...]] = Catalog()
        self._served: Catalog[Json] = Catalog()

    @cached_property
    def served(self) -> Raw:
        """Every active flag without a running experiment with what it serves, as JSON: ``{name: config}``."""
        return Raw(b"{" + b",".join(self._served.values()) + b"}")

    @cached_property
    def document(self) -> Json:
        """The whole of it as JSON, for clients in process: `read_document` makes the same snapshot again.

        Experiments that are over are left out: nobody can be assigned to them any more.
        """
        assignable = [json for json in self._experiments.values() if _status(json) in ASSIGNABLE]
        parts = {
            "experiments": assignable,
            "feature_flags": self._feature_flags.values(),
            "variations": self._variations.values(),
            "segments": self._segments.values(),
        }
        lists = b"".join(b',"%s":[%s]' % (name.encode(), b",".join(each)) for name, each in parts.items())
        return b'{"version":%d,"number":%d%s}' % (DOCUMENT_VERSION, self.number, lists)

    def find_experiment(self, id: ExperimentId) -> CompiledExperiment | None:
        """Return the experiment, whatever its status, ready for logins; None when it, or what it needs, is gone."""
        live = self._live.find(id)
        if live is not None:
            return live
        experiment = self.find_stored(id)
        if experiment is None:
            return None
        needs_present = experiment.feature_flag_snapshot is UNSET
        return compile_experiment(experiment, self._present(experiment) if needs_present else None)

    def find_live(self, id: ExperimentId) -> CompiledExperiment | None:
        """Return the experiment if it is active or paused, else None."""
        return self._live.find(id)

    def find_stored(self, id: ExperimentId) -> Experiment | None:
        """Return the experiment as it is stored, or None."""
        return _decoded(self._experiments.find(id), Experiment)

    def find_flag(self, name: str) -> ServedFlag | None:
        """Return the flag of this name with what it serves, or None."""
        id = self._flag_names.find(name)
        return None if id is None else self._served_flag(id)

    @cached_property
    def active_flags(self) -> tuple[ServedFlag, ...]:
        """Every active flag with what it serves, by name."""
        found = (self._served_flag(id) for id in self._feature_flags.ids())
        return tuple(sorted((each for each in found if each and each.status == "active"), key=lambda flag: flag.name))

    def running(self, id: FeatureFlagId) -> tuple[CompiledExperiment, ...]:
        """Return the active experiments that refer to the flag."""
        found = (self._live.find(experiment_id) for experiment_id in self._running.find(id) or ())
        return tuple(experiment for experiment in found if experiment is not None)

    def with_changes(self, changes: Changes) -> "Snapshot":
        """Return the snapshot after `changes`; costs as much as they are, not as much as there is."""
        live = {id: _compiled_if_live(json) for id, json in changes.experiments.items()}
        running = self._running_after(live)
        made = Snapshot()
        made.number = changes.number
        made.active = self._active_after(live)
        if made.active is self.active:
            made.deciders = self.deciders
        else:
            made.deciders = {flow: each.decide for flow, each in made.active.items()}
        made._live = self._live.with_changes(live)
        made._experiments = self._experiments.with_changes(changes.experiments)
        made._feature_flags = self._feature_flags.with_changes(changes.feature_flags)
        made._variations = self._variations.with_changes(changes.variations)
        made._segments = self._segments.with_changes(changes.segments)
        made._flag_names = self._flag_names.with_changes(self._renamed(changes.feature_flags))
        made._running = self._running.with_changes(running)
        affected = running.keys() | changes.feature_flags.keys() | self._owners(changes.variations)
        made._served = self._served.with_changes({id: made._served_json(id) for id in affected})
        return made

    def _active_after(self, live: Live) -> Mapping[Flow, CompiledExperiment]:
        stopped = {was.id for id in live if _is_active(was := self._live.find(id))}
        started = {now.flow: now for now in live.values() if _is_active(now)}
        if not stopped and not started:
            return self.active
        return {flow: each for flow, each in self.active.items() if each.id not in stopped} | started

    def _running_after(self, live: Live) -> dict[FeatureFlagId, tuple[ExperimentId, ...] | None]:
        running: dict[FeatureFlagId, tuple[ExperimentId, ...] | None] = {}
        for id, now in live.items():
            was = self._live.find(id)
            either = now or was
            if either is None or _is_active(was) == _is_active(now):
                continue
            flag_id = either.feature_flag_id
            ids = (running[flag_id] if flag_id in running else self._running.find(flag_id)) or ()
            ids = (*ids, id) if _is_active(now) else tuple(other for other in ids if other != id)
            running[flag_id] = ids or None
        return running

    def _owners(self, variations: Mapping[VariationId, Json | None]) -> set[FeatureFlagId]:
        # Of a deleted variation only this snapshot still knows whose it was.
        found = (json or self._variations.find(id) for id, json in variations.items())
        return {msgspec.json.decode(json, type=_Owner).feature_flag_id for json in found if json is not None}

    def _renamed(self, flags: Mapping[FeatureFlagId, Json | None]) -> dict[str, FeatureFlagId | None]:
        # Former names go first: another flag may have taken one of them since.
        before = {_name(json): None for id in flags if (json := self._feature_flags.find(id)) is not None}
        after = {_name(json): id for id, json in flags.items() if json is not None}
        return before | after

    def _served_json(self, id: FeatureFlagId) -> Json | None:
        flag = None if self._running.find(id) else self._served_flag(id)
        if flag is None or flag.status != "active":
            return None
        return msgspec.json.encode(flag.name) + b":" + msgspec.json.encode(flag.config)

    def _served_flag(self, id: FeatureFlagId) -> ServedFlag | None:
        flag = _decoded(self._feature_flags.find(id), FeatureFlag)
        if flag is None:
            return None
        served = None if flag.served_variation_id is None else self._find_variation(flag.served_variation_id)
        return ServedFlag(
            id=flag.id,
            name=flag.name,
            status=flag.status,
            variation_id=None if served is None else served.id,
            variation_name=None if served is None else served.name,
            config=served_config(flag.parameters, {} if served is None else served.overrides),
            defaults=served_config(flag.parameters, {}),
        )

    def _find_variation(self, id: VariationId) -> Variation | None:
        return _decoded(self._variations.find(id), Variation)

    def _present(self, experiment: Experiment) -> Present:
        segment_ids = {each.segment_id for each in experiment.allocations if each.segment_id is not UNSET}
        return Present(
            feature_flag=_decoded(self._feature_flags.find(experiment.feature_flag_id), FeatureFlag),
            variations={each.variation_id: self._find_variation(each.variation_id) for each in experiment.allocations},
            segments={id: _decoded(self._segments.find(id), Segment) for id in segment_ids},
        )


EMPTY = Snapshot()


def read_document(document: Json) -> Snapshot:
    """Return the snapshot that `document` was made of. Raises `UnknownDocument`."""
    try:
        read = msgspec.json.decode(document, type=_Document)
        if read.version != DOCUMENT_VERSION:
            raise UnknownDocument(
                f"This is version {read.version} of the document; version {DOCUMENT_VERSION} is known."
            )
        return EMPTY.with_changes(
            Changes(
                number=read.number,
                experiments=_by_id(read.experiments),
                feature_flags=_by_id(read.feature_flags),
                variations=_by_id(read.variations),
                segments=_by_id(read.segments),
            )
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownDocument(f"This is no document of a snapshot: {error}") from error


def _is_active(experiment: CompiledExperiment | None) -> TypeGuard[CompiledExperiment]:
    return experiment is not None and experiment.status == "active"


def _compiled_if_live(json: Json | None) -> CompiledExperiment | None:
    # The status alone decodes ten times quicker than the experiment, and hardly any of a hundred thousand is live.
    if json is None or _status(json) not in LIVE:
        return None
    return compile_experiment(msgspec.json.decode(json, type=Experiment))


def _status(json: Json) -> ExperimentStatus:
    return msgspec.json.decode(json, type=_Status).status


def _by_id(values: list[Raw]) -> dict[str, Json | None]:
    return {msgspec.json.decode(value, type=_Id).id: bytes(value) for value in values}


def _decoded(json: Json | None, type_: type[T]) -> T | None:
    return None if json is None else msgspec.json.decode(json, type=type_)


def _name(json: Json) -> str:
    return msgspec.json.decode(json, type=_Name).name
