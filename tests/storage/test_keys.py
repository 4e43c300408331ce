"""Signing keys and clients, on both databases."""

import threading
from typing import Any

import pytest
from cryptography.fernet import Fernet, InvalidToken
from joserfc import jwt
from sqlalchemy import Engine, select

from abgate.storage import keys, tables, tenants
from abgate.storage.engine import appending, reading, writing
from abgate.storage.keys import Client
from abgate.storage.tenants import DEFAULT_TENANT, Tenant

from .given import NOW

CIPHER = Fernet(Fernet.generate_key())
CLIENT = Client("cli_1", "pipeline", "read:experimentation create:logs", NOW)


def add_tenant(engine: Engine, id: str) -> None:
    with appending(engine) as connection:
        tenants.add(connection, Tenant(id, f"{id}.test"), now=NOW)


def add_client(engine: Engine, tenant: str, client: Client, secret: str) -> None:
    with writing(engine, tenant) as connection:
        keys.add_client(connection, tenant, client, secret=secret)


def authenticate(engine: Engine, tenant: str, id: str, secret: str) -> Client | None:
    with reading(engine) as connection:
        return keys.authenticate_client(connection, tenant, id, secret)


def public_keys(engine: Engine, tenant: str) -> list[Any]:
    with reading(engine) as connection:
        return list(keys.public_keys(connection, tenant))


def test_a_tenant_has_no_key_until_the_first_use_and_the_same_one_from_then_on(engine: Engine) -> None:
    assert public_keys(engine, DEFAULT_TENANT) == []
    made = keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW)
    again = keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW)
    assert made.kid == again.kid == made.thumbprint()
    assert made.raw_value.key_size == 2048
    assert [key.kid for key in public_keys(engine, DEFAULT_TENANT)] == [made.kid]


def test_what_the_stored_key_signs_the_public_one_verifies(engine: Engine) -> None:
    keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW)
    stored = keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW)
    token = jwt.encode({"alg": "RS256", "kid": stored.kid}, {"a": 1}, stored)
    with reading(engine) as connection:
        assert jwt.decode(token, keys.public_keys(connection, DEFAULT_TENANT), algorithms=["RS256"]).claims == {"a": 1}


def test_the_public_key_tells_nothing_private(engine: Engine) -> None:
    keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW)
    assert set(public_keys(engine, DEFAULT_TENANT)[0].as_dict()) == {"kty", "use", "alg", "kid", "n", "e"}


def test_the_private_key_is_encrypted_at_rest(engine: Engine) -> None:
    keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW)
    with reading(engine) as connection:
        [row] = connection.execute(select(tables.signing_keys))
    assert b"PRIVATE KEY" in CIPHER.decrypt(row.encrypted_private_key)
    assert not any("PRIVATE" in str(value) for value in row)


def test_another_cipher_cannot_read_it(engine: Engine) -> None:
    keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW)
    other = Fernet(Fernet.generate_key())
    with pytest.raises(InvalidToken):
        keys.ensure_signing_key(engine, other, DEFAULT_TENANT, now=NOW)
    with reading(engine) as connection, pytest.raises(InvalidToken):
        keys.check_signing_keys(connection, other)
    with reading(engine) as connection:
        keys.check_signing_keys(connection, CIPHER)


def test_first_uses_at_once_make_one_key(engine: Engine) -> None:
    found: list[str | None] = []
    barrier = threading.Barrier(4)

    def use() -> None:
        barrier.wait()
        found.append(keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW).kid)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_tenants_have_keys_of_their_own(engine: Engine) -> None:
    add_tenant(engine, "acme")
    ours = keys.ensure_signing_key(engine, CIPHER, DEFAULT_TENANT, now=NOW)
    theirs = keys.ensure_signing_key(engine, CIPHER, "acme", now=NOW)
    assert ours.kid != theirs.kid
    assert [key.kid for key in public_keys(engine, "acme")] == [theirs.kid]


def test_a_client_is_known_by_its_secret(engine: Engine) -> None:
    secret = keys.make_client_secret()
    add_client(engine, DEFAULT_TENANT, CLIENT, secret)
    assert authenticate(engine, DEFAULT_TENANT, "cli_1", secret) == CLIENT


@pytest.mark.parametrize(
    ("id", "secret"), [("cli_1", "wrong"), ("cli_1", ""), ("cli_2", "right"), ("", ""), ("\0", "")]
)
def test_a_wrong_id_or_secret_is_nobody(engine: Engine, id: str, secret: str) -> None:
    add_client(engine, DEFAULT_TENANT, CLIENT, "right")
    assert authenticate(engine, DEFAULT_TENANT, id, secret) is None


def test_another_tenants_client_is_nobody_here(engine: Engine) -> None:
    add_tenant(engine, "acme")
    add_client(engine, "acme", CLIENT, "right")
    assert authenticate(engine, DEFAULT_TENANT, "cli_1", "right") is None
    with reading(engine) as connection:
        assert keys.list_clients(connection, DEFAULT_TENANT) == []
    with writing(engine, DEFAULT_TENANT) as connection:
        assert not keys.remove_client(connection, DEFAULT_TENANT, "cli_1")
    assert authenticate(engine, "acme", "cli_1", "right") == CLIENT


def test_of_a_secret_only_the_hash_is_stored(engine: Engine) -> None:
    add_client(engine, DEFAULT_TENANT, CLIENT, "a secret that is shown once")
    with reading(engine) as connection:
        [row] = connection.execute(select(tables.clients))
    assert len(row.secret_hash) == 32
    assert b"shown once" not in row.secret_hash


def test_secrets_have_256_bits_and_never_repeat() -> None:
    made = {keys.make_client_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(secret) for secret in made} == {43}


def test_clients_are_listed_oldest_first_and_deleted(engine: Engine) -> None:
    older = Client("cli_2", "", "read:experimentation", "2025-01-01T00:00:00.000Z")
    for client in (CLIENT, older):
        add_client(engine, DEFAULT_TENANT, client, "secret")
    with reading(engine) as connection:
        assert keys.list_clients(connection, DEFAULT_TENANT) == [older, CLIENT]
    with writing(engine, DEFAULT_TENANT) as connection:
        assert keys.remove_client(connection, DEFAULT_TENANT, "cli_2")
        assert not keys.remove_client(connection, DEFAULT_TENANT, "cli_2")
    assert authenticate(engine, DEFAULT_TENANT, "cli_2", "secret") is None
