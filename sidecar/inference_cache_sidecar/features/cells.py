"""The cells of one row in one feature view, as one value of the store; and back. Pure.

A value is fields between separators that no JSON text can hold, and a checksum of them (where encryption is on they are sealed instead):
the stamps of its row, which begin with the form's name; when it ends, in ms since 1970; a header; the columns' values as upstream wrote
them; the event timestamps that occur. The header, a JSON list, has for each column its name, its status and which of the timestamps is
its own; rows of one view mostly have the same. So reading a row is a split and two comparisons, however many features or however long
an embedding. Anything else is a miss.
"""

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

import orjson

from inference_cache_sidecar.shared.sealing import Sealer, Unsealable

SEPARATOR: Final = b"\x1e"
HEAD: Final = 3
"""Fields before the first value."""
INTACT: Final = 0x2144DF1C
"""The CRC-32 of anything that ends in its own CRC-32, lowest byte first (the code's residue)."""
_CHECKSUM: Final = Struct("<I")
Fields = list[bytes]


class Cell(NamedTuple):
    """Each a JSON text."""

    value: bytes
    status: bytes
    moment: bytes
    """The event timestamp."""


class Spot(NamedTuple):
    """Where a cell lies among its row's fields."""

    value: int
    status: bytes
    """Itself: rows with the same header have the same."""
    moment: int


class CellFormat:
    def __init__(self, sealer: Sealer | None = None) -> None:
        """Values are sealed where `sealer` encrypts; compressing what is so short would cost more than it saves."""
        self._sealer = sealer if sealer is not None and sealer.encrypts else None

    def write(self, key: bytes, stamps: bytes, ends_ms: int, cells: Mapping[str, Cell]) -> bytes:
        """`cells` by column."""
        moments = {moment: number for number, moment in enumerate(dict.fromkeys(cell.moment for cell in cells.values()))}
        header = orjson.dumps([(column, cell.status.decode(), moments[cell.moment]) for column, cell in cells.items()])
        values = (cell.value for cell in cells.values())
        return self._closed(key, (stamps, _moment(ends_ms), header, *values, *moments))

    def read(self, keys: Iterable[bytes], values: Iterable[bytes | None], stamps: Iterable[bytes], now_ms: int) -> list[Fields | None]:
        """None for what is not there, has ended, was flushed since, or was not written for this key."""
        now, opened = _moment(now_ms), self._opened(keys, values)
        split = [None if content is None else content.split(SEPARATOR) for content in opened]
        return [
            fields if fields is not None and fields[0] == stamp and fields[1] > now else None
            for fields, stamp in zip(split, stamps, strict=True)
        ]

    def write_names(self, key: bytes, stamps: bytes, ends_ms: int, names: Iterable[str]) -> bytes:
        return self._closed(key, (stamps, _moment(ends_ms), orjson.dumps(list(names))))

    def _closed(self, key: bytes, fields: Iterable[bytes]) -> bytes:
        content = SEPARATOR.join(fields)
        if self._sealer is not None:
            return self._sealer.seal(key, content)
        return content + _CHECKSUM.pack(crc32(content))

    def _opened(self, keys: Iterable[bytes], values: Iterable[bytes | None]) -> list[bytes | None]:
        if self._sealer is None:
            return [None if value is None or crc32(value) != INTACT else value[: -_CHECKSUM.size] for value in values]
        return [None if value is None else self._unsealed(key, value) for key, value in zip(keys, values, strict=True)]

    def _unsealed(self, key: bytes, value: bytes) -> bytes | None:
        assert self._sealer is not None
        try:
            return self._sealer.unseal(key, value)
        except Unsealable:
            return None


def _moment(milliseconds: int) -> bytes:
    """Of one width, so that texts compare as times do."""
    return b"%013d" % milliseconds


def ends_ms(fields: Fields) -> int:
    return int(fields[1])


def header(fields: Fields) -> bytes:
    """Equal for rows that have the same columns with the same statuses in the same order."""
    return fields[2]


def names(fields: Fields) -> tuple[str, ...]:
    """What `write_names` was given."""
    return tuple(orjson.loads(fields[2]))


def spots(fields: Fields) -> dict[str, Spot]:
    """By column."""
    columns: Sequence[tuple[str, str, int]] = orjson.loads(header(fields))
    moments = HEAD + len(columns)
    return {column: Spot(HEAD + at, status.encode(), moments + moment) for at, (column, status, moment) in enumerate(columns)}


def cells(fields: Fields) -> dict[str, Cell]:
    """By column."""
    return {column: Cell(fields[at.value], at.status, fields[at.moment]) for column, at in spots(fields).items()}
