"""The commands beside a server: tokens, clients, tenants; and what a user reads when one cannot be carried out."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from abgate.core.principal import Principal
from abgate.management.auth import KNOWN_SCOPES, Tenants, TokenVerifier
from abgate.settings import Settings
from abgate.storage import keys
from abgate.storage.engine import appending, reading
from abgate.storage.tenants import DEFAULT_TENANT
from tests.conftest import opened

from .run import Run, values

ABGATE = Path(sys.executable).parent / "abgate"


@contextmanager
def database(data: Path) -> Iterator[Engine]:
    with opened(f"sqlite:///{data / 'abgate.db'}") as engine:
        yield engine


def bearer(data: Path, token: str, host: str = "") -> Principal:
    with database(data) as engine:
        return TokenVerifier(engine, Settings()).verify(Tenants(engine).resolve(host), f"Bearer {token}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_token_on_a_fresh_machine_has_every_scope(run: Run, data: Path) -> None:
    code, out, err = run("token", "--data", data)
    assert (code, err, len(out.splitlines())) == (0, "", 1)
    assert bearer(data, out.strip()) == Principal(DEFAULT_TENANT, "client:cli", frozenset(KNOWN_SCOPES))


def test_a_token_with_some_scopes_for_some_time(run: Run, data: Path) -> None:
    began = time.time()
    token = run("token", "--data", data, "--scope", "read:logs  create:logs", "--expires", 60).out.splitlines()[-1]
    assert bearer(data, token).scopes == {"read:logs", "create:logs"}
    with database(data) as engine:
        verifier = TokenVerifier(engine, Settings(), clock=lambda: began + 62)
        with pytest.raises(Exception, match="expired"):
            verifier.verify(Tenants(engine).resolve(None), f"Bearer {token}")


def test_a_token_for_a_tenant(run: Run, data: Path) -> None:
    run("tenants", "create", "acme", "--domain", "acme.test", "--data", data)
    token = run("token", "--tenant", "acme", "--data", data).out.strip()
    assert bearer(data, token, host="acme.test").tenant == "acme"


def test_the_environment_is_read_and_options_win(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABGATE_DATA", str(tmp_path / "from the environment"))
    monkeypatch.setenv("ABGATE_DOMAIN", "ab.test")
    run("token", "--data", data)
    assert run("tenants", "list", "--data", data).out == "default\tab.test\n"
    assert not (tmp_path / "from the environment").exists()
    run("token")
    assert (tmp_path / "from the environment" / "abgate.db").exists()


def test_the_default_tenant_is_at_port_8000_unless_the_setting_says_another(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("tenants", "list", "--data", data).out == "default\tlocalhost:8000\n"
    monkeypatch.setenv("ABGATE_PORT", "9000")
    assert run("tenants", "list", "--data", data).out == "default\tlocalhost:8000\n"
    assert run("tenants", "list", "--data", tmp_path / "other").out == "default\tlocalhost:9000\n"


def test_a_client_is_made_listed_and_deleted(run: Run, data: Path) -> None:
    code, out, err = run("clients", "create", "--scope", "read:logs", "--name", "pipeline", "--data", data)
    made = values(out)
    assert (code, made["domain"]) == (0, "localhost:8000")
    assert "only its hash is stored" in err
    with database(data) as engine, reading(engine) as connection:
        found = keys.authenticate_client(connection, DEFAULT_TENANT, made["client_id"], made["client_secret"])
    assert found is not None
    assert (found.name, found.scope) == ("pipeline", "read:logs")

    listed = run("clients", "list", "--data", data).out.split("\t")
    assert [listed[0], *listed[2:]] == [made["client_id"], "read:logs", "pipeline\n"]
    assert made["client_secret"] not in "".join(listed)

    assert run("clients", "delete", made["client_id"], "--data", data).code == 0
    assert run("clients", "list", "--data", data).out == ""
    gone = run("clients", "delete", made["client_id"], "--data", data)
    assert (gone.code, gone.err.startswith("abgate: There is no client ")) == (1, True)


def test_clients_are_a_tenants_own(run: Run, data: Path) -> None:
    run("tenants", "create", "acme", "--domain", "acme.test", "--data", data)
    made = values(run("clients", "create", "--scope", "read:logs", "--tenant", "acme", "--data", data).out)
    assert made["domain"] == "acme.test"
    assert run("clients", "list", "--data", data).out == ""
    assert run("clients", "delete", made["client_id"], "--data", data).code == 1
    assert made["client_id"] in run("clients", "list", "--tenant", "acme", "--data", data).out


def test_tenants_are_made_and_listed(run: Run, data: Path) -> None:
    assert run("tenants", "create", "acme", "--domain", "acme.test:8443", "--data", data).code == 0
    assert run("tenants", "list", "--data", data).out == "default\tlocalhost:8000\nacme\tacme.test:8443\n"
    for id, domain in (("acme", "other.test"), ("other", "acme.test:8443")):
        taken = run("tenants", "create", id, "--domain", domain, "--data", data)
        assert taken.code == 1
        assert "is there already" in taken.err or "is taken" in taken.err
    assert run("tenants", "list", "--data", data).out.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["token", "--scope", "read:all"], 2, "'read:all' is no scope. The scopes are: read:experimentation"),
        (["token", "--scope", " "], 2, "--scope: at least one is needed."),
        (["token", "--tenant", "none"], 1, "There is no tenant 'none'."),
        (["token", "--database", "mysql://a"], 2, "--database must be a URL"),
        (["token", "--database", "postgresql://u:hunter2@localhost:1/a"], 1, "cannot be used"),
        (["clients", "create", "--scope", "x"], 2, "'x' is no scope"),
        (["clients", "create", "--scope", "read:logs", "--name", "a\nb"], 2, "--name: must be"),
        (["clients", "create", "--scope", "read:logs", "--tenant", "none"], 1, "There is no tenant 'none'."),
        (["tenants", "create", "Acme", "--domain", "a.test"], 2, "ID: must be"),
        (["tenants", "create", "acme", "--domain", "https://a.test"], 2, "--domain: must be host or host:port"),
        (["serve", "--port", "70000"], 2, "--port is '70000': must be a whole number from 0 to 65535."),
        (["serve", "--workers", "0"], 2, "--workers is '0': must be"),
        (["serve", "--tls-cert", "a.pem"], 2, "--tls-cert is 'a.pem': needs ABGATE_TLS_KEY (--tls-key)"),
        (["serve", "--tls-cert", "a.pem", "--tls-key", "b.pem"], 1, "`abgate dev-cert` makes a pair"),
        (["serve", "--host", "203.0.113.9"], 1, "Cannot listen on http://203.0.113.9:8000: "),
        (["serve", "--host", "no such host"], 1, "Cannot listen on http://no such host:8000: "),
    ],
)
def test_what_cannot_be_done_is_one_line_that_says_what_to_do(
    run: Run, data: Path, arguments: list[str], code: int, said: str
) -> None:
    result = run(*arguments, "--data", data)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert result.err.startswith("abgate: ")
    assert result.err.count("\n") == 1
    assert "hunter2" not in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["token", "--expires", "0"],
        ["login-link", "--expires", "9" * 17],
        ["token", "--expires", "soon"],
        ["nonsense"],
        ["serve", "--prot", "1"],
    ],
)
def test_a_wrong_option_is_explained(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage" in result.err
    assert "Traceback" not in result.err


def test_a_wrong_variable_is_named(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABGATE_DOMIAN", "a.test")
    result = run("token", "--data", data)
    assert (result.code, result.err) == (
        2,
        "abgate: ABGATE_DOMIAN is no setting. Did you mean ABGATE_DOMAIN? docs/settings.md lists every setting.\n",
    )


def test_a_database_of_places_that_is_none_is_told_before_anything_is_served(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABGATE_GEOIP_DATABASE", __file__)
    result = run("serve", "--port", "0", "--data", data)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert "Give the path of an .mmdb file" in result.err


def test_another_secret_is_refused_before_anything_is_made_under_it(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("token", "--data", data)
    monkeypatch.setenv("ABGATE_SECRET", "s" * 32)
    for arguments in (["token"], ["serve", "--port", "0"]):
        result = run(*arguments, "--data", data)
        assert (result.code, result.out) == (1, "")
        assert "Give the former one back" in result.err


def test_help_tells_every_command(run: Run) -> None:
    help = run("--help").out
    assert [name for name in ("serve", "token", "clients", "tenants", "dev-cert") if name not in help] == []


def test_a_database_of_a_newer_abgate_is_one_line(run: Run, data: Path) -> None:
    run("token", "--data", data)
    with database(data) as engine, appending(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for arguments in (["token"], ["serve", "--port", "0"]):
        result = run(*arguments, "--data", data)
        assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
        assert "Run the newer abgate" in result.err


def test_a_file_that_cannot_be_made_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tls").touch()
    result = run("dev-cert", "--data", tmp_path)
    assert (result.code, result.out, result.err) == (1, "", f"abgate: {tmp_path / 'tls'}: File exists.\n")


def test_an_output_that_is_no_unicode_gets_what_it_can_show(data: Path) -> None:
    command = [ABGATE, "plan", "--rate", "0.5", "--effect", "0.1", "--data", data]
    ended = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"horizon, a look a day" in ended.stdout


@pytest.mark.parametrize("command", [["tenants", "list"], ["plan", "--rate", "0.5", "--effect", "0.1", "--json"]])
def test_an_output_that_nobody_takes_is_no_traceback(data: Path, command: list[str]) -> None:
    def run(out: int) -> tuple[int, str]:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        arguments = [ABGATE, *command, "--data", data]
        ended = subprocess.run(arguments, stdout=out, stderr=subprocess.PIPE, text=True, env=variables, check=False)
        return ended.returncode, ended.stderr

    read, write = os.pipe()
    os.close(read)
    full = os.open("/dev/full", os.O_WRONLY)
    assert run(write) == (1, "")
    assert run(full) == (1, "abgate: No space left on device.\n")
    os.close(write)
    os.close(full)
