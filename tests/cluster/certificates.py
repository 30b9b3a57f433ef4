"""The certificates of one cluster: an authority, and what it signs for the components and for people."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of a certificate and its private key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs into `folder`; its own files are `files`."""

    folder: Path
    files: Pair
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    def sign(self, name: str, *, organization: str | None = None, addresses: Iterable[str] = (), hosts: Iterable[str] = ()) -> Pair:
        """A certificate for a server (at `addresses` and `hosts`) and a client: user `name`, group `organization`.

        Its files are called by what stands after the last colon of the name.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if organization is not None:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        builder = (
            _dated(x509.Name(attributes), key)
            .issuer_name(self.name)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        if names := _alternatives(addresses, hosts):
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _written(self.folder, name.rpartition(":")[2], builder.sign(self.key, hashes.SHA256()), key)


def authority(folder: Path, name: str = "test-cluster") -> Authority:
    """A new one; `folder` is made and readable by its owner alone."""
    folder.mkdir(parents=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _dated(subject, key)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    return Authority(folder, _written(folder, "ca", builder.sign(key, hashes.SHA256()), key), key, subject)


def signing_key(folder: Path, name: str) -> Pair:
    """A key without certificate, for tokens of service accounts; `certificate` is the public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    pair = Pair(folder / f"{name}.pub", folder / f"{name}.key")
    pair.certificate.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    _write_key(pair.key, key)
    return pair


def _dated(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_encipherment=not signs, key_cert_sign=signs, crl_sign=signs,
        content_commitment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _alternatives(addresses: Iterable[str], hosts: Iterable[str]) -> list[x509.GeneralName]:
    return [*(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses), *(x509.DNSName(host) for host in hosts)]


def _written(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_key(pair.key, key)
    return pair


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey) -> None:
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
