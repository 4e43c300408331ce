"""The master secret, and the keys derived from it that encrypt and sign."""

import base64
import os
import secrets
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from abgate.settings import MIN_SECRET_LENGTH, Settings

SECRET_FILE = "secret.key"  # noqa: S105  # a file's name
KEY_BYTES = 32


class WrongSecret(Exception):
    """What is stored was encrypted under another master secret; the message says what to do."""


class Vault:
    """Encrypts what is stored, and gives each purpose a key of its own, all from one master secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._fernet = Fernet(base64.urlsafe_b64encode(self.derive("encryption at rest")))

    def derive(self, purpose: str) -> bytes:
        """Return the 32-byte key for `purpose` (HKDF-SHA256, RFC 5869); always the same for the same secret."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"abgate/{purpose}".encode()).derive(self._secret)

    def encrypt(self, plain: bytes) -> bytes:
        """Return `plain` encrypted and authenticated (Fernet)."""
        return self._fernet.encrypt(plain)

    def decrypt(self, encrypted: bytes) -> bytes:
        """Return what `encrypt` was given. Raises `WrongSecret`."""
        try:
            return self._fernet.decrypt(encrypted)
        except InvalidToken:
            raise WrongSecret(
                "The master secret is not the one that the stored signing keys were encrypted with. Give the former "
                "one back (ABGATE_SECRET, or the file secret.key in the data directory). If it is lost, delete the "
                "rows of the table signing_keys: new keys are made, and every token issued so far stops working."
            ) from None


def open_vault(settings: Settings) -> Vault:
    """Return the vault of the setting `secret`, or of the file in the data directory, which is made when missing.

    Raises `WrongSecret` when that file holds no secret, `OSError` when it cannot be read or made.
    """
    return Vault(settings.secret or _secret_of_file(Path(settings.data) / SECRET_FILE))


def _secret_of_file(path: Path) -> str:
    if not path.exists():
        _make(path)
    try:
        secret = path.read_text().strip()
    except UnicodeDecodeError:
        secret = ""
    if len(secret) < MIN_SECRET_LENGTH:
        raise WrongSecret(
            f"{path} holds no secret of at least {MIN_SECRET_LENGTH} characters. Restore it from a backup; or, when "
            "nothing was stored under it yet, delete it and a new one is made."
        )
    return secret


def _make(path: Path) -> None:
    # Written in full under another name (0600, by mkstemp) and only then linked: of many processes that start at once
    # one wins, and no one ever reads half a secret, not even after a crash in between.
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    # Without it a power cut could take the file and leave what the database holds encrypted under it.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
