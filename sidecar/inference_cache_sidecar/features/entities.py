"""The rows of a request by what they are about: which are equal, under which key each lies, which epochs can flush it. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from inference_cache_contract.epochs import CACHE, Stamp, entity_epoch
from inference_cache_contract.keyspace import Keyspace
from inference_cache_sidecar.features.request import FeatureRequest

FEATURES: Final = "features"
"""The epoch of everything that the feature cache holds."""
FORM: Final = b"f1"
"""How values are laid out (`cells`): another form has another name, and is not read."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The distinct rows of a request."""

    places: Sequence[int]
    """For each row of the request, the distinct row that stands there."""
    firsts: Sequence[int]
    """For each distinct row, where it stands first."""
    digests: Sequence[bytes]
    """Of each distinct row, 64 hexadecimal digits: equal for the same typed values of the same join keys and one tenant."""
    epochs: Sequence[Sequence[str]]
    """By join key, then by distinct row: the epoch of that value."""

    @property
    def epoch_names(self) -> list[str]:
        """Of all that can flush any of them."""
        return list(dict.fromkeys((CACHE, FEATURES, *(name for column in self.epochs for name in column))))


def rows_of(request: FeatureRequest, tenant: bytes) -> Rows:
    names = sorted(request.entities)
    rows = list(zip(*(request.entities[name] for name in names), strict=True))
    distinct = list(dict.fromkeys(rows))
    # JSON frames the values and tells texts from numbers; its form here is always the same.
    begin, sha256, framed = b"%d:%b%b" % (len(tenant), tenant, orjson.dumps(names)), hashlib.sha256, orjson.dumps
    digests = [sha256(begin + framed(row)).hexdigest().encode() for row in distinct]
    epochs = [[entity_epoch(name, row[column]) for row in distinct] for column, name in enumerate(names)]
    if len(distinct) == len(rows):
        return Rows(range(len(rows)), range(len(rows)), digests, epochs)
    order = {row: number for number, row in enumerate(distinct)}
    places = [order[row] for row in rows]
    firsts = dict(zip(reversed(places), range(len(rows) - 1, -1, -1), strict=True))
    return Rows(places, [firsts[number] for number in range(len(distinct))], digests, epochs)


def stamps_of(rows: Rows, stamps: Sequence[Stamp]) -> list[bytes]:
    """What is written before the cells of each distinct row, and must still stand there when they are read."""
    known, common = dict(stamps), stamp_of_names(stamps)
    if len(rows.epochs) == 1:
        return [b"%b %d" % (common, known[name]) for name in rows.epochs[0]]
    columns = [[b" %d" % known[name] for name in column] for column in rows.epochs]
    return [common + b"".join(row) for row in zip(*columns, strict=True)]


def stamp_of_names(stamps: Sequence[Stamp]) -> bytes:
    """What is written before names of columns."""
    known = dict(stamps)
    return b"%b %d %d" % (FORM, known[CACHE], known[FEATURES])


@dataclass(frozen=True, slots=True)
class FeatureKeys:
    """Where things lie in the store."""

    keyspace: Keyspace

    def rows(self, view: str, digests: Sequence[bytes]) -> list[bytes]:
        """One for the cells of each row in this view."""
        prefix = self.keyspace.feature(view, "", b"")
        return [prefix + digest for digest in digests]

    def names(self, request: FeatureRequest, tenant: bytes) -> bytes:
        """For how upstream names and orders the columns of a request like this one, whatever its rows."""
        references = [feature.reference for feature in request.features]
        told = orjson.dumps([tenant.hex(), references, list(request.entities), request.full_names])
        return self.keyspace.feature("", "names", hashlib.sha256(told).digest())
