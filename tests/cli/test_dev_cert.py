"""``abgate dev-cert``: certificates that strict clients take, made once."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from abgate.cli import dev_cert

from .run import Run, files, values

STRICT = ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on


def handshake(cert: str, key: str, ca: str, name: str) -> None:
    """Shake hands, over real sockets, as a client that knows only the CA and looks for `name`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context(cafile=ca)
    client.verify_flags |= STRICT
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as served:
                served.recv(1)
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name) as connected:
            connected.send(b"x")
    finally:
        here.close()
        thread.join()


@pytest.fixture
def made(run: Run, tmp_path: Path) -> dict[str, str]:
    result = run("dev-cert", "--data", tmp_path)
    assert result.code == 0
    return values(result.out)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_strict_clients_take_it(made: dict[str, str], name: str) -> None:
    handshake(made["cert"], made["key"], made["ca"], name)


@pytest.mark.parametrize("name", ["example.com", "127.0.0.2", "localhost.example.com"])
def test_it_is_for_no_other_name(made: dict[str, str], name: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made["cert"], made["key"], made["ca"], name)


def test_the_ca_cannot_vouch_for_other_names(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_cert, "NAMES", [x509.DNSName("example.com")])
    made = values(run("dev-cert", "--data", tmp_path).out)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(made["cert"], made["key"], made["ca"], "example.com")


def test_keys_are_for_their_owner_only(made: dict[str, str]) -> None:
    folder = Path(made["key"]).parent
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*-key.pem")} == {0o600}
    assert len(list(folder.glob("*-key.pem"))) == 2


def test_it_is_made_once(run: Run, tmp_path: Path, made: dict[str, str]) -> None:
    before = files(tmp_path)
    assert values(run("dev-cert", "--data", tmp_path).out) == made
    assert files(tmp_path) == before


def test_a_certificate_about_to_expire_is_renewed_under_the_same_ca(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dev_cert, "CERTIFICATE_LIFE", timedelta(days=29))
    made = values(run("dev-cert", "--data", tmp_path).out)
    before = files(tmp_path)
    monkeypatch.undo()
    run("dev-cert", "--data", tmp_path)
    after = files(tmp_path)
    assert after["tls/ca.pem"] == before["tls/ca.pem"]
    assert after["tls/cert.pem"] != before["tls/cert.pem"]
    certificate = x509.load_pem_x509_certificate(after["tls/cert.pem"])
    assert certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=390)
    handshake(made["cert"], made["key"], made["ca"], "localhost")


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem", "cert.pem", "cert-key.pem"])
@pytest.mark.parametrize("damage", [b"", b"damaged", None])
def test_a_damaged_or_lost_file_is_made_anew(
    run: Run, tmp_path: Path, made: dict[str, str], name: str, damage: bytes | None
) -> None:
    file = tmp_path / "tls" / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    run("dev-cert", "--data", tmp_path)
    handshake(made["cert"], made["key"], made["ca"], "localhost")


def test_it_says_how_to_use_it(run: Run, tmp_path: Path) -> None:
    out = run("dev-cert", "--data", tmp_path).out
    tls = tmp_path / "tls"
    assert f"abgate serve --data {tmp_path} --tls-cert {tls}/cert.pem --tls-key {tls}/cert-key.pem" in out
    assert f"SSL_CERT_FILE={tls}/ca.pem NODE_EXTRA_CA_CERTS={tls}/ca.pem" in out
