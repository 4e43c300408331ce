"""What most commands begin with: their common options, and the database that these name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from msgspec import Struct
from sqlalchemy import Engine

from abgate.bootstrap import lake_of, open_database
from abgate.core.errors import InvalidInput, NotFound
from abgate.core.ids import ExperimentId
from abgate.management.auth import KNOWN_SCOPES
from abgate.settings import Settings, meaning, read_settings
from abgate.storage import experiments, tenants
from abgate.storage.engine import reading
from abgate.storage.lake import Lake
from abgate.storage.tenants import Tenant

DEFAULT_PORT = 8000
NAMED = 10

Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help=meaning("data"))]
Database = Annotated[str | None, typer.Option("--database", metavar="URL", help=meaning("database"))]
TenantId = Annotated[str, typer.Option("--tenant", metavar="ID", help="The tenant that this is for.")]
Scope = Annotated[
    str, typer.Option("--scope", metavar='"SCOPE SCOPE…"', help=f"Scopes, space-separated: {', '.join(KNOWN_SCOPES)}.")
]


class Opened(Struct, frozen=True):
    """The database of a command, and the settings that named it."""

    settings: Settings
    engine: Engine

    @property
    def lake(self) -> Lake:
        """The lake beside the database."""
        return lake_of(self.settings)

    def tenant(self, id: str) -> Tenant:
        """Return the tenant with this id. Raises `NotFound`."""
        with reading(self.engine) as connection:
            found = tenants.find(connection, id)
        if found is None:
            raise NotFound("tenant", id)
        return found

    def find_experiment(self, tenant: str, experiment: str) -> ExperimentId:
        """Return the id of the experiment that has this name, or that is its id. Raises `InvalidInput`."""
        with reading(self.engine) as connection:
            id = experiments.find_id(connection, tenant, experiment)
            if id is not None or experiment.startswith("exp_"):
                return id or experiment
            page = experiments.list_page(
                connection, tenant, status=None, authentication_flow=None, feature_flag_id=None, after=None, take=NAMED
            )
        known = ", ".join(each.name for each in page.values)
        more = " and more" if page.next else ""
        raise InvalidInput(
            "EXPERIMENT",
            f"no experiment is called {experiment!r}. There are: {known or 'none'}{more}; "
            "--data or ABGATE_DATA, and --tenant, say whose experiments are meant.",
        )


@contextmanager
def opened(data: str | None, database: str | None) -> Iterator[Opened]:
    """Give the database that the options, else the environment, name; migrated, and beside any running server.

    Raises `SettingsError` and `StartError`.
    """
    settings = read_settings(data=data, database=database)
    engine = open_database(settings, settings.port or DEFAULT_PORT)
    try:
        yield Opened(settings, engine)
    finally:
        engine.dispose()


def check_scope(scope: str) -> str:
    """Return `scope` with single spaces. Raises `InvalidInput` for a scope that no operation asks for."""
    scopes = scope.split()
    unknown = [each for each in scopes if each not in KNOWN_SCOPES]
    if unknown or not scopes:
        wrong = f"{unknown[0]!r} is no scope" if unknown else "at least one is needed"
        raise InvalidInput("--scope", f"{wrong}. The scopes are: {' '.join(KNOWN_SCOPES)}.")
    return " ".join(dict.fromkeys(scopes))


ALL_SCOPES = " ".join(KNOWN_SCOPES)
