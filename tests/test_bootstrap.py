"""Start-up: the data directory, the database, the master secret and the default tenant's domain."""

import hmac
import multiprocessing
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from abgate.bootstrap import StartError, open_database, open_vault
from abgate.settings import Settings, read_settings
from abgate.storage import tenants
from abgate.storage.engine import appending, reading
from abgate.storage.keys import ensure_signing_key
from abgate.storage.tenants import DEFAULT_TENANT, Tenant
from abgate.vault import SECRET_FILE, Vault, WrongSecret
from abgate.vault import open_vault as open_vault_file

NOW = "2026-01-02T03:04:05.678Z"


@contextmanager
def opened(settings: Settings, default_port: int = 8000) -> Iterator[Engine]:
    engine = open_database(settings, default_port)
    try:
        yield engine
    finally:
        engine.dispose()


def domain(settings: Settings, default_port: int = 8000) -> str:
    with opened(settings, default_port) as engine, reading(engine) as connection:
        tenant = tenants.find(connection, DEFAULT_TENANT)
        assert tenant is not None
        return tenant.domain


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def settings_in(data: Path, **options: object) -> Settings:
    return read_settings({}, data=data, **options)


def test_the_data_directory_is_made_for_its_owner_only(data: Path) -> None:
    with opened(settings_in(data)):
        assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_data_directory_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"^The data directory .*file/data' cannot be made: .*--data\.$"):
        open_database(settings_in(tmp_path / "file" / "data"), 8000)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://abgate:hunter2@localhost:1/abgate",
        "postgresql://abgate@localhost:1/abgate?password=hunter2",
        "sqlite:////nowhere/abgate.db",
    ],
)
def test_a_database_that_is_away_is_said_in_one_line_without_its_password(data: Path, url: str) -> None:
    with pytest.raises(StartError, match=r"cannot be used: .* ABGATE_DATABASE") as raised:
        open_database(settings_in(data, database=url), 8000)
    assert "\n" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_the_default_tenants_domain_is_first_localhost_at_the_port_and_then_stays(data: Path) -> None:
    assert domain(settings_in(data), default_port=9000) == "localhost:9000"
    assert domain(settings_in(data), default_port=8000) == "localhost:9000"


def test_the_port_of_https_is_left_out_as_clients_do(data: Path) -> None:
    assert domain(settings_in(data), default_port=443) == "localhost"


def test_the_domain_setting_wins_whenever_it_is_given_and_is_kept(data: Path) -> None:
    assert domain(settings_in(data)) == "localhost:8000"
    assert domain(settings_in(data, domain="ab.test")) == "ab.test"
    assert domain(settings_in(data)) == "ab.test"


def test_the_default_tenant_cannot_take_another_tenants_domain(data: Path) -> None:
    with opened(settings_in(data)) as engine, appending(engine) as connection:
        tenants.add(connection, Tenant("acme", "acme.test"), now=NOW)
    with pytest.raises(StartError, match=r"acme\.test is another tenant's domain"):
        open_database(settings_in(data, domain="acme.test"), 8000)
    assert domain(settings_in(data)) == "localhost:8000"


def _start(data: Path, url: str, barrier: Any, results: Any) -> None:
    settings = read_settings({}, data=data, database=url)
    barrier.wait()
    engine = open_database(settings, 8000)
    vault = open_vault(settings, engine)
    key = ensure_signing_key(engine, vault, DEFAULT_TENANT, now=NOW)
    results.put((vault.derive("test"), key.kid))
    engine.dispose()


def test_many_processes_start_at_once_with_one_secret_and_one_key(data: Path, database_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(4), spawn.Queue()
    processes = [spawn.Process(target=_start, args=(data, database_url, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    results.close()
    assert len(found) == 1
    assert [path.name for path in data.iterdir() if "secret" in path.name] == [SECRET_FILE]


def test_the_secret_is_kept_in_a_file_for_its_owner_only(data: Path) -> None:
    settings = settings_in(data)
    with opened(settings) as engine:
        first = open_vault(settings, engine).derive("test")
        assert open_vault(settings, engine).derive("test") == first
    assert stat.S_IMODE((data / SECRET_FILE).stat().st_mode) == 0o600


def test_the_secret_setting_needs_no_file(data: Path) -> None:
    settings = settings_in(data, secret="s" * 32)
    with opened(settings) as engine:
        open_vault(settings, engine)
    assert not (data / SECRET_FILE).exists()


def test_another_secret_than_the_keys_were_stored_with_says_what_to_do(data: Path) -> None:
    with opened(settings_in(data)) as engine:
        ensure_signing_key(engine, open_vault(settings_in(data), engine), DEFAULT_TENANT, now=NOW)
        with pytest.raises(StartError, match=r"Give the former one back \(ABGATE_SECRET, .*secret\.key"):
            open_vault(settings_in(data, secret="s" * 32), engine)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40])
def test_a_secret_file_without_a_secret_says_what_to_do(data: Path, content: bytes) -> None:
    settings = settings_in(data)
    with opened(settings) as engine:
        (data / SECRET_FILE).write_bytes(content)
        with pytest.raises(StartError, match=r"secret\.key holds no secret .* Restore it"):
            open_vault(settings, engine)


def test_a_secret_that_cannot_be_read_says_which(data: Path) -> None:
    settings = settings_in(data)
    with opened(settings) as engine:
        (data / SECRET_FILE).mkdir()
        with pytest.raises(StartError, match=r"^The master secret .*secret\.key cannot be read or made: "):
            open_vault(settings, engine)


def test_a_vault_gives_back_what_it_was_given_and_no_other_does() -> None:
    vault = Vault("a" * 32)
    encrypted = vault.encrypt(b"plain")
    assert b"plain" not in encrypted
    assert vault.decrypt(encrypted) == b"plain"
    assert Vault("a" * 32).decrypt(encrypted) == b"plain"
    with pytest.raises(WrongSecret):
        Vault("b" * 32).decrypt(encrypted)
    with pytest.raises(WrongSecret):
        vault.decrypt(encrypted[:-4] + b"AAA=")


def test_every_purpose_has_a_key_of_its_own() -> None:
    vault = Vault("a" * 32)
    assert vault.derive("one") == Vault("a" * 32).derive("one")
    assert len({vault.derive("one"), vault.derive("two"), Vault("b" * 32).derive("one")}) == 3
    assert len(vault.derive("one")) == 32


def test_the_derivation_is_the_published_one() -> None:
    # HKDF-SHA256 (RFC 5869) written out for one block; were it ever another, all that is stored would be lost.
    extracted = hmac.digest(bytes(32), b"a" * 32, "sha256")
    expanded = hmac.digest(extracted, b"abgate/encryption at rest\x01", "sha256")
    assert Vault("a" * 32).derive("encryption at rest") == expanded


def test_a_file_of_the_data_directory_is_opened_without_a_database(data: Path) -> None:
    data.mkdir(parents=True)
    assert open_vault_file(settings_in(data)).derive("a") == open_vault_file(settings_in(data)).derive("a")
