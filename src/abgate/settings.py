"""Every setting, read once from the environment (``ABGATE_…``) when a process starts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

PREFIX = "ABGATE_"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one server. The environment variable of a field is its name in capitals after ``ABGATE_``."""

    data: str = "data"
    database: str = ""
    domain: str = ""
    secret: str = ""
    api_generation: Literal[1, 2] = 2
    rate_limit: Annotated[int, Meta(ge=0)] = 1000
    mode: Literal["production", "development"] = "production"
    forced_assignment: Literal["", "open", "signed", "off"] = ""
    upstream_authorize_url: str = ""
    trusted_issuer: str = ""
    trusted_audience: str = ""
    geoip_database: str = ""

    @property
    def database_url(self) -> str:
        """The database's URL: SQLite in the data directory unless another is set."""
        return self.database or f"sqlite:///{Path(self.data).absolute() / 'abgate.db'}"

    @property
    def forced_assignment_policy(self) -> str:
        """``open``, ``signed`` or ``off``; unset, it is ``open`` in development and ``signed`` in production."""
        return self.forced_assignment or ("open" if self.mode == "development" else "signed")


class SettingsError(Exception):
    """A setting is unknown or has a wrong value; the message names the variable and the rule."""


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that `environment` gives. Raises `SettingsError`."""
    given = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    try:
        return msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"The environment's {PREFIX}… variables: {error}. The table in docs/settings.md lists them."
        ) from error
