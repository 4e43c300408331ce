"""Runtime keys, on both databases."""

from sqlalchemy import Engine, select

from abgate.storage import runtime_keys, tables, tenants
from abgate.storage.engine import appending, reading
from abgate.storage.runtime_keys import RuntimeKey
from abgate.storage.tenants import DEFAULT_TENANT, Tenant

from .given import NOW

SERVER = RuntimeKey(tenant=DEFAULT_TENANT, id="key_1", kind="server", name="é", origins=(), created_at=NOW)
CLIENT = RuntimeKey(
    tenant="other", id="key_1", kind="client", name="", origins=("https://a.test", "https://b.test"), created_at=NOW
)


def stored(engine: Engine) -> dict[bytes, RuntimeKey]:
    with reading(engine) as connection:
        return runtime_keys.all_keys(connection)


def add(engine: Engine, key: RuntimeKey, secret: str) -> None:
    with appending(engine) as connection:
        runtime_keys.add(connection, key, secret=secret)


def remove(engine: Engine, tenant: str, id: str) -> bool:
    with appending(engine) as connection:
        return runtime_keys.remove(connection, tenant, id)


def test_keys_are_kept_by_the_hash_of_their_secrets_alone(engine: Engine) -> None:
    with appending(engine) as connection:
        tenants.add(connection, Tenant("other", "other.test"), now=NOW)
    add(engine, SERVER, "abk_one")
    add(engine, CLIENT, "abk_two")
    assert stored(engine) == {runtime_keys.hash_of("abk_one"): SERVER, runtime_keys.hash_of("abk_two"): CLIENT}
    with reading(engine) as connection:
        assert not any("abk_" in str(value) for row in connection.execute(select(tables.runtime_keys)) for value in row)


def test_a_key_is_removed_from_its_own_tenant_only(engine: Engine) -> None:
    add(engine, SERVER, "abk_one")
    assert not remove(engine, "other", "key_1")
    assert remove(engine, DEFAULT_TENANT, "key_1")
    assert not remove(engine, DEFAULT_TENANT, "key_1")
    assert stored(engine) == {}


def test_secrets_are_long_random_and_recognizable() -> None:
    made = {runtime_keys.make_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(secret.startswith("abk_") and len(secret) == 47 for secret in made)
