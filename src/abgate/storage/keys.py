"""Signing keys, one a tenant and encrypted at rest, and the machine-to-machine clients that tokens are issued to."""

import hashlib
import hmac
import secrets
from typing import Any, Protocol

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import KeySet, RSAKey
from msgspec import Struct
from sqlalchemy import Connection, Engine, delete, insert, select

from abgate.core.ids import Timestamp
from abgate.storage.engine import reading, writing
from abgate.storage.tables import clients, signing_keys

KEY_BITS = 2048
ALGORITHM = "RS256"
SECRET_BYTES = 32
MAX_CLIENT_ID_LENGTH = 64


class Cipher(Protocol):
    """What encrypts private keys at rest: `abgate.vault.Vault`."""

    def encrypt(self, plain: bytes) -> bytes:
        """Return `plain` encrypted and authenticated."""

    def decrypt(self, encrypted: bytes) -> bytes:
        """Return what `encrypt` was given; raise when it was given to another one."""


class Client(Struct, frozen=True):
    """A machine-to-machine client: who gets tokens by its secret, with at most these scopes (space-separated)."""

    id: str
    name: str
    scope: str
    created_at: Timestamp


def ensure_signing_key(engine: Engine, cipher: Cipher, tenant: str, *, now: Timestamp) -> RSAKey:
    """Return the tenant's private signing key, made now when there is none; its ``kid`` is its thumbprint (RFC 7638).

    Raises what `cipher` raises when the key was stored under another master secret.
    """
    with reading(engine) as connection:
        key = _find_private_key(connection, cipher, tenant)
    if key is not None:
        return key
    # Made outside the transaction: it takes a while, and the tenant's writers would wait.
    made = RSAKey.generate_key(KEY_BITS)
    with writing(engine, tenant) as connection:
        key = _find_private_key(connection, cipher, tenant)
        if key is None:
            _add_signing_key(connection, cipher, tenant, made, now=now)
            key = _import_key(made.raw_value, made.thumbprint())
    return key


def public_keys(connection: Connection, tenant: str) -> KeySet:
    """Return the public keys that the tenant's tokens may be signed with; none when none was ever issued."""
    table = signing_keys
    rows = connection.execute(select(table.c.public_key, table.c.id).where(table.c.tenant == tenant))
    return KeySet([_import_key(row.public_key.encode(), row.id) for row in rows])


def check_signing_keys(connection: Connection, cipher: Cipher) -> None:
    """Raise what `cipher` raises unless it can decrypt every stored key."""
    for row in connection.execute(select(signing_keys.c.encrypted_private_key)):
        cipher.decrypt(row.encrypted_private_key)


def add_client(connection: Connection, tenant: str, client: Client, *, secret: str) -> None:
    """Store a new client; of its `secret` only the hash."""
    connection.execute(
        insert(clients).values(
            tenant=tenant,
            id=client.id,
            name=client.name,
            scope=client.scope,
            secret_hash=_hash(secret),
            created_at=client.created_at,
        )
    )


def authenticate_client(connection: Connection, tenant: str, id: str, secret: str) -> Client | None:
    """Return the tenant's client with this id and secret, or None; the time it takes does not tell which was wrong."""
    row = connection.execute(select(clients).where(clients.c.tenant == tenant, clients.c.id == id)).one_or_none()
    expected = _NO_HASH if row is None else row.secret_hash
    if not hmac.compare_digest(expected, _hash(secret)) or row is None:
        return None
    return Client(row.id, row.name, row.scope, row.created_at)


def list_clients(connection: Connection, tenant: str) -> list[Client]:
    """Return the tenant's clients, oldest first."""
    rows = connection.execute(
        select(clients).where(clients.c.tenant == tenant).order_by(clients.c.created_at, clients.c.id)
    )
    return [Client(row.id, row.name, row.scope, row.created_at) for row in rows]


def remove_client(connection: Connection, tenant: str, id: str) -> bool:
    """Delete the tenant's client and return whether it was there; tokens that it has are good until they expire."""
    return connection.execute(delete(clients).where(clients.c.tenant == tenant, clients.c.id == id)).rowcount == 1


def make_client_secret() -> str:
    """Return a new secret of 256 random bits, in 43 URL-safe characters."""
    return secrets.token_urlsafe(SECRET_BYTES)


def _find_private_key(connection: Connection, cipher: Cipher, tenant: str) -> RSAKey | None:
    row = connection.execute(
        select(signing_keys.c.encrypted_private_key, signing_keys.c.id)
        .where(signing_keys.c.tenant == tenant)
        .order_by(signing_keys.c.created_at.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    # What the cipher vouches for is a key that was once made here: checking its numbers again would take 50 ms.
    pem = cipher.decrypt(row.encrypted_private_key)
    return _import_key(load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True), row.id)


def _add_signing_key(connection: Connection, cipher: Cipher, tenant: str, key: RSAKey, *, now: Timestamp) -> None:
    connection.execute(
        insert(signing_keys).values(
            tenant=tenant,
            id=key.thumbprint(),
            encrypted_private_key=cipher.encrypt(key.as_pem(private=True)),
            public_key=key.as_pem(private=False).decode(),
            created_at=now,
        )
    )


def _import_key(key: Any, id: str) -> RSAKey:
    return RSAKey.import_key(key, {"kid": id, "alg": ALGORITHM, "use": "sig"})


def _hash(secret: str) -> bytes:
    # Without salt or stretching: 256 random bits can be neither guessed nor looked up in a table.
    return hashlib.sha256(secret.encode()).digest()


_NO_HASH = bytes(hashlib.sha256().digest_size)
