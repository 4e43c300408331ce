"""``abgate dev-cert``: https on this machine, for clients that insist on it."""

import fcntl
import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from abgate.bootstrap import make_data_directory
from abgate.cli.opened import Data
from abgate.settings import read_settings

FOLDER = "tls"
CA_LIFE = timedelta(days=3650)
# What browsers and Apple's systems accept at most.
CERTIFICATE_LIFE = timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)

NAMES = [
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
]
# All that the CA can ever vouch for: who steals its key can pretend to be this machine's own servers, no one else.
PERMITTED = [
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_network("127.0.0.0/8")),
    x509.IPAddress(ipaddress.ip_network("::1/128")),
]


def dev_cert(data: Data = None) -> None:
    """Make a certificate for localhost, 127.0.0.1 and ::1, signed by a CA of this data directory's own.

    What was made before is kept until it is about to expire.
    """
    settings = read_settings(data=data)
    make_data_directory(settings)
    folder = Path(settings.data).absolute() / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        # One at a time, so that certificate and CA are always of the same run.
        fcntl.flock(lock, fcntl.LOCK_EX)
        now = datetime.now(UTC)
        ca = _load(folder, "ca", now)
        pair = _load(folder, "cert", now) if ca is not None else None
        if ca is None:
            ca = _make_ca(now)
            _save(folder, "ca", ca)
        if pair is None:
            _save(folder, "cert", _make_certificate(ca, now))
    cert, key, ca_file = folder / "cert.pem", folder / "cert-key.pem", folder / "ca.pem"
    print(f"cert={cert}\nkey={key}\nca={ca_file}\n")
    print(f"Server:  abgate serve --data {settings.data} --tls-cert {cert} --tls-key {key}")
    print(f"Clients: export SSL_CERT_FILE={ca_file} NODE_EXTRA_CA_CERTS={ca_file}")


class _Pair(Struct):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _load(folder: Path, name: str, now: datetime) -> _Pair | None:
    """Return a pair made before; None when there is none that is whole and good for a while."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = load_pem_private_key((folder / f"{name}-key.pem").read_bytes(), None)
    except (OSError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        return None
    return _Pair(certificate, key) if certificate.not_valid_after_utc - now > RENEW_BEFORE else None


def _save(folder: Path, name: str, pair: _Pair) -> None:
    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for file, content in ((f"{name}-key.pem", key), (f"{name}.pem", pair.certificate.public_bytes(Encoding.PEM))):
        draft = folder / f".{file}"
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(content)
        draft.replace(folder / file)


def _make_ca(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("abgate development CA")
    builder = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .add_extension(x509.NameConstraints(PERMITTED, None), critical=True)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _make_certificate(ca: _Pair, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    life = min(CERTIFICATE_LIFE, ca.certificate.not_valid_after_utc - now)
    issuer = x509.SubjectKeyIdentifier.from_public_key(ca.key.public_key())
    builder = (
        _builder(_name("localhost"), ca.certificate.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
    )
    return _Pair(builder.sign(ca.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A client's clock may be a little behind.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
