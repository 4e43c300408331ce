"""Tenants are found and moved, and never see or touch each other's rows, whatever function is tried."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import astuple, replace
from sqlalchemy import Connection, Engine, select

from abgate.core.built_in_metrics import BUILT_IN
from abgate.core.errors import Conflict, NotFound
from abgate.storage import changes, experiments, feature_flags, metrics, segments, tables, tenants
from abgate.storage.changes import Author
from abgate.storage.engine import appending, reading, writing
from abgate.storage.rows import Stored
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from tests.conftest import DATABASES, NewDatabase, opened
from tests.storage.given import (
    NOW,
    RESOURCES,
    Resource,
    by_segment,
    experiment,
    experiment_id,
    flag,
    flag_id,
    list_experiments,
    metric,
    segment,
    segment_id,
    store,
    variation,
    variation_id,
)

OURS, THEIRS = DEFAULT_TENANT, "their-tenant"
THEM = Author(THEIRS, "somebody@theirs", NOW)
TABLES = ("feature_flags", "variations", "segments", "experiments", "experiment_segments", "metrics", "changes")


@pytest.fixture
def engine(engine: Engine) -> Engine:
    """Two tenants; ours has one thing of each kind, they have nothing."""
    return with_two_tenants(engine)


def with_two_tenants(engine: Engine) -> Engine:
    with appending(engine) as connection:
        tenants.add(connection, Tenant(THEIRS, "theirs.example"), now=NOW)
    store(engine, flag(), variation(), segment(), metric())
    store(engine, experiment(status="active", authentication_flow="all", **by_segment(1)))
    return engine


def rows_of(engine: Engine, tenant: str) -> dict[str, list[Any]]:
    with reading(engine) as connection:
        return {
            name: connection.execute(
                select(table).where(table.c.tenant == tenant).order_by(*table.primary_key.columns)
            ).all()
            for name in TABLES
            for table in [tables.metadata.tables[name]]
        }


@pytest.fixture(scope="module", params=DATABASES)
def engine_to_read(request: pytest.FixtureRequest, new_database: NewDatabase) -> Iterator[Engine]:
    """The same two tenants, for tests that only read."""
    with new_database(request.param, migrated=True) as url, opened(url) as engine:
        yield with_two_tenants(engine)


READS: dict[str, Callable[[Connection], object]] = {
    "feature_flags.list_page": lambda c: (
        feature_flags.list_page(c, THEIRS, type=None, status=None, after=None, take=50).values
    ),
    "feature_flags.list_variations": lambda c: feature_flags.list_variations(c, THEIRS, flag_id()),
    "segments.find_many": lambda c: segments.find_many(c, THEIRS, [segment_id()]),
    "segments.list_page": lambda c: segments.list_page(c, THEIRS, type=None, after=None, take=50).values,
    "metrics.find_many": lambda c: metrics.find_many(c, THEIRS, [metric().id]),
    "metrics.list_page": lambda c: [
        each
        for each in metrics.list_page(c, THEIRS, kind=None, status=None, after=None, take=50).values
        if each.id not in BUILT_IN
    ],
    "experiments.list_page": lambda c: list_experiments(c, THEIRS).values,
    "experiments.list_page of a flag": lambda c: list_experiments(c, THEIRS, feature_flag_id=flag_id()).values,
    "experiments.list_page by status": lambda c: list_experiments(c, THEIRS, status="active").values,
    "experiments.references": lambda c: any(astuple(experiments.references(c, THEIRS, flag_id(), [segment_id()]))),
    "experiments.rivals": lambda c: experiments.rivals(c, THEIRS, experiment_id(2), "all"),
    "experiments.referring_to_feature_flag": lambda c: experiments.referring_to_feature_flag(c, THEIRS, flag_id()),
    "experiments.referring_to_segment": lambda c: experiments.referring_to_segment(c, THEIRS, segment_id()),
    "changes.list_changes": lambda c: changes.list_changes(c, THEIRS, resource_id=None, after=None, take=50).values,
    "changes.list_changes of a resource": lambda c: (
        changes.list_changes(c, THEIRS, resource_id=flag_id(), after=None, take=50).values
    ),
    "changes.changed_since": lambda c: changes.changed_since(c, THEIRS, 0),
    "changes.latest_number": lambda c: changes.latest_number(c, THEIRS),
}

READS_THAT_REFUSE: dict[str, Callable[[Connection], object]] = {
    "feature_flags.get": lambda c: feature_flags.get(c, THEIRS, flag_id()),
    "feature_flags.get_variation": lambda c: feature_flags.get_variation(c, THEIRS, flag_id(), variation_id()),
    "segments.get": lambda c: segments.get(c, THEIRS, segment_id()),
    "metrics.get": lambda c: metrics.get(c, THEIRS, metric().id),
    "experiments.get": lambda c: experiments.get(c, THEIRS, experiment_id()),
}


@pytest.mark.parametrize("name", READS)
def test_a_tenant_sees_nothing_of_anothers(engine_to_read: Engine, name: str) -> None:
    with reading(engine_to_read) as connection:
        assert not READS[name](connection)


@pytest.mark.parametrize("name", READS_THAT_REFUSE)
def test_what_is_anothers_is_not_found(engine_to_read: Engine, name: str) -> None:
    with reading(engine_to_read) as connection, pytest.raises(NotFound):
        READS_THAT_REFUSE[name](connection)


def take_over(connection: Connection, resource: Resource, stored: Stored[Any]) -> None:
    resource.save(connection, THEM, stored, replace(stored.value, name="taken over"))


def remove(connection: Connection, resource: Resource, stored: Stored[Any]) -> None:
    resource.remove(connection, THEM, stored.value)


@pytest.mark.parametrize("write", [take_over, remove])
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_what_is_anothers_cannot_be_written(engine: Engine, resource: Resource, write: Callable[..., None]) -> None:
    """Not even by a caller that has its value and revision; and the attempt leaves no trace in either history."""
    before = rows_of(engine, OURS)
    with reading(engine) as connection:
        stored = resource.get(connection, OURS, resource.new().id)
    with pytest.raises(Conflict), writing(engine, THEIRS) as connection:
        write(connection, resource, stored)
    assert rows_of(engine, OURS) == before
    assert rows_of(engine, THEIRS) == {name: [] for name in TABLES}


def test_revalidation_cannot_reach_another_tenants_experiment(engine: Engine) -> None:
    before = rows_of(engine, OURS)
    with reading(engine) as connection:
        stored = experiments.get(connection, OURS, experiment_id())
    valid = Stored(replace(stored.value, is_valid=True), stored.revision)
    with pytest.raises(Conflict), writing(engine, THEIRS) as connection:
        experiments.revalidate(connection, THEIRS, [valid])
    store(engine, flag(status="draft"), author=THEM)
    with pytest.raises(Conflict), writing(engine, THEIRS) as connection:
        experiments.revalidate(connection, THEIRS, [valid])
    assert rows_of(engine, OURS) == before


def test_a_variation_cannot_be_added_to_another_tenants_flag(engine: Engine) -> None:
    with pytest.raises(Conflict):
        store(engine, variation(2), author=THEM)
    assert rows_of(engine, THEIRS) == {name: [] for name in TABLES}


def test_tenants_may_have_the_same_ids_names_and_flows(engine: Engine) -> None:
    """Also an active experiment each, on every flow."""
    before = rows_of(engine, OURS)
    things = (
        flag(),
        variation(),
        segment(),
        metric(),
        experiment(status="active", authentication_flow="all", name="theirs", **by_segment(1)),
    )
    store(engine, *things, author=THEM)
    with writing(engine, THEIRS) as connection:
        stored = experiments.get(connection, THEIRS, experiment_id())
        assert stored.value.name == "theirs"
        experiments.save(connection, THEM, stored, replace(stored.value, name="still theirs", status="completed"))
        experiments.remove(connection, THEM, stored.value)
        feature_flags.remove(connection, THEM, flag())
        segments.remove(connection, THEM, segment())
        metrics.remove(connection, THEM, metric())
    assert rows_of(engine, OURS) == before
    theirs = rows_of(engine, THEIRS)
    assert [row.number for row in theirs.pop("changes")] == list(range(1, 12))
    assert not any(theirs.values())


# --- Tenants themselves -----------------------------------------------------------------------------------------------


def test_tenants_are_listed_with_the_default_one_first(engine: Engine) -> None:
    with appending(engine) as connection:
        tenants.add(connection, Tenant("earlier", "earlier.example"), now="2020-01-01T00:00:00.000Z")
    with reading(engine) as connection:
        assert [tenant.id for tenant in tenants.list_tenants(connection)] == [OURS, "earlier", THEIRS]
        assert tenants.find(connection, THEIRS) == Tenant(THEIRS, "theirs.example")
        assert tenants.find(connection, "nobody") is None


@pytest.mark.parametrize("taken", [Tenant(THEIRS, "new.example"), Tenant("new", "theirs.example")])
def test_a_tenants_id_and_domain_are_its_own(engine: Engine, taken: Tenant) -> None:
    with pytest.raises(Conflict) as refusal, appending(engine) as connection:
        tenants.add(connection, taken, now=NOW)
    assert refusal.value.code == "name_conflict"


def test_a_tenant_moves_to_a_free_domain(engine: Engine) -> None:
    with appending(engine) as connection:
        tenants.move(connection, THEIRS, "new.example")
        tenants.move(connection, THEIRS, "new.example")
    with appending(engine) as connection:
        assert tenants.find(connection, THEIRS) == Tenant(THEIRS, "new.example")
        with pytest.raises(Conflict) as refusal:
            tenants.move(connection, OURS, "new.example")
        assert refusal.value.code == "name_conflict"
        with pytest.raises(NotFound) as not_found:
            tenants.move(connection, "nobody", "nobody.example")
        assert not_found.value.code == "tenant_not_found"


def test_nobody_writes_for_a_tenant_that_is_not_there(engine: Engine) -> None:
    """Its writers could not be kept apart."""
    with pytest.raises(NotFound), writing(engine, "nobody"):
        pytest.fail("was let in")
