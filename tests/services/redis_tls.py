"""A Redis that speaks only TLS and knows only named users. Its certificate is made anew each time."""

import datetime
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inference_cache_toolkit.processes import free_port
from inference_cache_toolkit.redis_server import KEEPS_NOTHING, RedisServer, prepared

USER: Final = "cache"
PASSWORD: Final = "p@ss/word:50%"
RULES: Final = "~inference-cache:* &* +@all -@dangerous +info"
"""What the user may do: keys of the cache only, no FLUSHALL, KEYS or CONFIG."""
_ADMIN_PASSWORD: Final = "all-rights"
_DAY: Final = datetime.timedelta(days=1)


@contextmanager
def tls_redis_server(folder: Path, rules: str = RULES) -> Iterator[RedisServer]:
    """A running server whose `url` names USER and the authority's certificate, `folder`/ca.pem. Raises StartError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_certificates(folder)
    port = free_port()
    lines = (
        *KEEPS_NOTHING,
        *("port 0", f"tls-port {port}", "tls-auth-clients no"),
        *(
            f'tls-{setting}-file "{folder / name}"'
            for setting, name in (("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem"))
        ),
        *("user default off", f"user admin on >{_ADMIN_PASSWORD} ~* &* +@all", f"user {USER} on >{PASSWORD} {rules}"),
    )
    server = prepared(folder, port, lines, url=_url(USER, PASSWORD, folder), admin_url=_url("admin", _ADMIN_PASSWORD, folder))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _url(user: str, password: str, folder: Path) -> str:
    return f"rediss://{user}:{quote(password, safe='')}@127.0.0.1:{{port}}/0?ssl_ca_certs={quote(str(folder / 'ca.pem'))}"


def write_certificates(folder: Path) -> None:
    """ca.pem, and server.pem with server.key: signed by it, for 127.0.0.1 and localhost, for a day."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("test authority")
    (folder / "ca.pem").write_bytes(_authority(issuer, authority).public_bytes(serialization.Encoding.PEM))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
    issued = _certificate(_name("127.0.0.1"), key.public_key(), issuer).add_extension(names, critical=False)
    issued = issued.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    (folder / "server.pem").write_bytes(issued.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.key").write_bytes(key.private_bytes(*form))


def _authority(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    uses = {use: use in ("key_cert_sign", "crl_sign", "digital_signature") for use in _USES}
    built = _certificate(name, key.public_key(), name).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    built = built.add_extension(x509.KeyUsage(**uses), critical=True)
    return built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False).sign(key, hashes.SHA256())


_USES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _certificate(name: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key)
    return built.serial_number(x509.random_serial_number()).not_valid_before(now - _DAY).not_valid_after(now + _DAY)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
