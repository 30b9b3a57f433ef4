"""What is to be done about the webhook's certificates. Pure, apart from making keys; `keeping` asks at every step.

A new CA goes into the bundle first; a certificate signed by it is made only when every API server must have read the bundle; the old
CA leaves the bundle only when every webhook must serve the new certificate. So a connection is never refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

from cryptography import x509

from inference_cache_operator.certificates import issuing
from inference_cache_operator.certificates.issuing import Pair

CA_BUNDLE: Final = "ca.crt"
"""Trusted CAs, the newest first; it alone signs."""
CA_KEY: Final = "ca.key"
LEAF: Final = "tls.crt"
LEAF_KEY: Final = "tls.key"
_RENEWED_AT: Final = 2 / 3


@dataclass(frozen=True, slots=True)
class Policy:
    names: tuple[str, ...]
    """DNS names and addresses that the API servers call."""
    ca_lifetime: timedelta
    leaf_lifetime: timedelta
    settle: timedelta
    overlap: timedelta


@dataclass(frozen=True, slots=True)
class Held:
    """What the Secret holds and is of use."""

    authorities: tuple[x509.Certificate, ...] = ()
    """That have not run out, the newest first."""
    authority: Pair | None = field(default=None, repr=False)
    """The newest, where its key is there."""
    leaf: x509.Certificate | None = None
    """Signed by one of the authorities, with a key that fits; not run out."""
    rotation_asked: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    waiting: bool = False
    """For API servers to read the bundle."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A first CA and certificate, at once: nothing there can be served or signs."""


@dataclass(frozen=True, slots=True)
class RotateCa:
    """A new CA beside the old ones; the certificate stays."""


@dataclass(frozen=True, slots=True)
class IssueLeaf:
    """By the newest CA."""


@dataclass(frozen=True, slots=True)
class DropOldCas:
    """Nothing is served any more that they signed."""


Decision = Keep | Begin | RotateCa | IssueLeaf | DropOldCas


def read_held(data: Mapping[str, bytes], rotation_asked: bool, now: datetime) -> Held:
    authorities = tuple(each for each in issuing.read_bundle(data.get(CA_BUNDLE, b"")) if now < each.not_valid_after_utc)
    authority = None
    if authorities and issuing.key_fits(authorities[0], data.get(CA_KEY, b"")):
        authority = Pair(issuing.bundle_text(authorities[:1]), data[CA_KEY])
    return Held(authorities, authority, _served_leaf(data, authorities, now), rotation_asked)


def decide(held: Held, policy: Policy, now: datetime, bundle_known_for: timedelta | None) -> Decision:
    """`bundle_known_for`: how long the webhook configuration has held the newest CA, as far as is known; None: it does not."""
    if held.authority is None:
        return Begin()
    if held.leaf is None:
        return IssueLeaf()
    if not issuing.signed_by(held.leaf, held.authorities[0]):
        settled = bundle_known_for is not None and bundle_known_for >= policy.settle
        return IssueLeaf() if settled else Keep(waiting=True)
    return _renewal(held, held.leaf, policy, now)


def _renewal(held: Held, leaf: x509.Certificate, policy: Policy, now: datetime) -> Decision:
    if held.rotation_asked or _is_due(held.authorities[0], now):
        return RotateCa()
    if _is_due(leaf, now) or not issuing.names_of(leaf).issuperset(policy.names):
        return IssueLeaf()
    if len(held.authorities) > 1 and now - issuing.issued(leaf) >= policy.overlap:
        return DropOldCas()
    return Keep()


def carry_out(decision: Decision, held: Held, data: Mapping[str, bytes], policy: Policy, now: datetime) -> dict[str, bytes]:
    """What the Secret is to hold."""
    match decision:
        case Keep():
            return dict(data)
        case Begin():
            ca = issuing.issue_ca(now, policy.ca_lifetime)
            return _with_ca(ca, held.authorities) | _with_leaf(issuing.issue_leaf(ca, policy.names, now, policy.leaf_lifetime))
        case RotateCa():
            return {**data, **_with_ca(issuing.issue_ca(now, policy.ca_lifetime), held.authorities)}
        case IssueLeaf():
            assert held.authority is not None
            return {**data, **_with_leaf(issuing.issue_leaf(held.authority, policy.names, now, policy.leaf_lifetime))}
        case DropOldCas():
            return {**data, CA_BUNDLE: issuing.bundle_text(held.authorities[:1])}
    assert_never(decision)


def service_names(services: Sequence[str], namespace: str, others: Sequence[str]) -> tuple[str, ...]:
    """What API servers call these Services, and the other names as they are."""
    return tuple(f"{service}.{namespace}.svc" for service in services) + tuple(others)


def _served_leaf(data: Mapping[str, bytes], authorities: Sequence[x509.Certificate], now: datetime) -> x509.Certificate | None:
    chain = issuing.read_bundle(data.get(LEAF, b""))
    if not chain or now >= chain[0].not_valid_after_utc or not issuing.key_fits(chain[0], data.get(LEAF_KEY, b"")):
        return None
    return chain[0] if any(issuing.signed_by(chain[0], each) for each in authorities) else None


def _is_due(certificate: x509.Certificate, now: datetime) -> bool:
    start = issuing.issued(certificate)
    return now >= start + (certificate.not_valid_after_utc - start) * _RENEWED_AT


def _with_ca(ca: Pair, others: Sequence[x509.Certificate]) -> dict[str, bytes]:
    return {CA_BUNDLE: ca.certificate + issuing.bundle_text(others), CA_KEY: ca.key}


def _with_leaf(leaf: Pair) -> dict[str, bytes]:
    return {LEAF: leaf.certificate, LEAF_KEY: leaf.key}
