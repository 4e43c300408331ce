"""Feature flags and their variations, stored."""

from typing import Any

from sqlalchemy import Connection, delete

from abgate.core.errors import NotFound
from abgate.core.feature_flag import FeatureFlag, FeatureFlagStatus, FeatureFlagType, Variation
from abgate.core.ids import FeatureFlagId, VariationId
from abgate.storage import changes, rows
from abgate.storage.changes import Author
from abgate.storage.rows import Page, Stored
from abgate.storage.tables import feature_flags, variations

_SELECT_VARIATIONS = rows.select_stored(variations, rows.equals(variations, "feature_flag_id"))
_DELETE_VARIATIONS = delete(variations).where(
    rows.equals(variations, "tenant"), rows.equals(variations, "feature_flag_id")
)


def get(connection: Connection, tenant: str, id: FeatureFlagId) -> Stored[FeatureFlag]:
    """Return the flag. Raises `NotFound`."""
    stored = find(connection, tenant, id)
    if stored is None:
        raise NotFound("feature_flag", id)
    return stored


def find(connection: Connection, tenant: str, id: FeatureFlagId) -> Stored[FeatureFlag] | None:
    """Return the flag, or None."""
    return rows.find(connection, feature_flags, FeatureFlag, tenant, id)


def list_page(
    connection: Connection,
    tenant: str,
    *,
    type: FeatureFlagType | None,
    status: FeatureFlagStatus | None,
    after: int | None,
    take: int,
) -> Page[FeatureFlag]:
    """Return a page of flags, newest first; archived ones only when `status` asks for them."""
    equal = {"type": type, "status": status}
    return rows.page(
        connection, feature_flags, FeatureFlag, tenant, equal, only_live=status is None, after=after, take=take
    )


def add(connection: Connection, author: Author, flag: FeatureFlag) -> None:
    """Store a new flag. Raises `Conflict` ``name_conflict``."""
    rows.check_name_is_free(connection, feature_flags, author.tenant, flag.name, id=flag.id)
    number = changes.append(connection, author, "create", "feature_flag", flag.id, before=None, after=flag)
    rows.add(connection, feature_flags, author.tenant, flag, _flag_columns(flag), number=number)


def save(connection: Connection, author: Author, stored: Stored[FeatureFlag], flag: FeatureFlag) -> None:
    """Store the flag's new value. Raises `Conflict` ``name_conflict`` or ``conflict``."""
    if flag.name != stored.value.name:
        rows.check_name_is_free(connection, feature_flags, author.tenant, flag.name, id=flag.id)
    changes.append(connection, author, "update", "feature_flag", flag.id, before=stored.value, after=flag)
    rows.save(connection, feature_flags, author.tenant, stored, value=flag, columns=_flag_columns)


def remove(connection: Connection, author: Author, flag: FeatureFlag) -> None:
    """Delete the flag and its variations. Raises `Conflict` ``conflict`` when it is gone."""
    for stored in list_variations(connection, author.tenant, flag.id):
        changes.append(connection, author, "delete", "variation", stored.id, before=stored, after=None)
    connection.execute(_DELETE_VARIATIONS, {"tenant": author.tenant, "feature_flag_id": flag.id})
    changes.append(connection, author, "delete", "feature_flag", flag.id, before=flag, after=None)
    rows.remove(connection, feature_flags, author.tenant, flag.id)


def get_variation(
    connection: Connection, tenant: str, feature_flag_id: FeatureFlagId, id: VariationId
) -> Stored[Variation]:
    """Return the flag's variation. Raises `NotFound`, also when it is another flag's."""
    stored = rows.find(connection, variations, Variation, tenant, id)
    if stored is None or stored.value.feature_flag_id != feature_flag_id:
        raise NotFound("variation", id)
    return stored


def list_variations(connection: Connection, tenant: str, feature_flag_id: FeatureFlagId) -> list[Variation]:
    """Return the flag's variations, oldest first."""
    parameters = {"tenant": tenant, "feature_flag_id": feature_flag_id}
    return [stored.value for stored in rows.find_many(connection, _SELECT_VARIATIONS, Variation, parameters)]


def add_variation(connection: Connection, author: Author, variation: Variation) -> None:
    """Store a new variation. Raises `Conflict` ``name_conflict``."""
    _check_variation_name(connection, author.tenant, variation)
    number = changes.append(connection, author, "create", "variation", variation.id, before=None, after=variation)
    rows.add(connection, variations, author.tenant, variation, _variation_columns(variation), number=number)


def save_variation(connection: Connection, author: Author, stored: Stored[Variation], variation: Variation) -> None:
    """Store the variation's new value. Raises `Conflict` ``name_conflict`` or ``conflict``."""
    if variation.name != stored.value.name:
        _check_variation_name(connection, author.tenant, variation)
    changes.append(connection, author, "update", "variation", variation.id, before=stored.value, after=variation)
    rows.save(connection, variations, author.tenant, stored, value=variation, columns=_variation_columns)


def remove_variation(connection: Connection, author: Author, variation: Variation) -> None:
    """Delete the variation. Raises `Conflict` ``conflict`` when it is gone."""
    changes.append(connection, author, "delete", "variation", variation.id, before=variation, after=None)
    rows.remove(connection, variations, author.tenant, variation.id)


def _check_variation_name(connection: Connection, tenant: str, variation: Variation) -> None:
    within = {"feature_flag_id": variation.feature_flag_id}
    rows.check_name_is_free(connection, variations, tenant, variation.name, id=variation.id, within=within)


def _flag_columns(flag: FeatureFlag) -> dict[str, Any]:
    return {"id": flag.id, "name": flag.name, "type": flag.type, "status": flag.status}


def _variation_columns(variation: Variation) -> dict[str, Any]:
    return {"id": variation.id, "feature_flag_id": variation.feature_flag_id, "name": variation.name}
