import random
from zlib import crc32

import pytest

from inference_cache_sidecar.features.cells import INTACT, Cell, CellFormat, cells, ends_ms, names
from inference_cache_sidecar.shared.sealing import Sealer

KEY, STAMPS, NOW = b"place", b"f1 1 2 3", 1_800_000_000_000
CELLS = {
    "k:user_id": Cell(b"7", b'"PRESENT"', b'"1970-01-01T00:00:00Z"'),
    "f:a": Cell(b"[1.0, 2]", b'"PRESENT"', b'"2026-01-02T03:04:05Z"'),
    "f:b": Cell(b"null", b'"NOT_FOUND"', b'"1970-01-01T00:00:00Z"'),
    'f:"\x1e': Cell(b'"\xc3\xb6"', b'"PRESENT"', b'"2026-01-02T03:04:05Z"'),
}
FORMATS = [pytest.param(CellFormat(), id="plain"), pytest.param(CellFormat(Sealer([b"k" * 32])), id="sealed")]


def read(cell_format: CellFormat, value: bytes | None, key: bytes = KEY, stamps: bytes = STAMPS, now: int = NOW) -> list[bytes] | None:
    return cell_format.read([key], [value], [stamps], now)[0]


@pytest.mark.parametrize("cell_format", FORMATS)
def test_cells_are_read_as_they_were_written(cell_format: CellFormat) -> None:
    fields = read(cell_format, cell_format.write(KEY, STAMPS, NOW + 1, CELLS))
    assert fields is not None
    assert cells(fields) == CELLS
    assert ends_ms(fields) == NOW + 1


@pytest.mark.parametrize("cell_format", FORMATS)
def test_cells_of_other_stamps_or_past_their_end_are_not_read(cell_format: CellFormat) -> None:
    value = cell_format.write(KEY, STAMPS, NOW + 1, CELLS)
    assert read(cell_format, value, stamps=b"f1 1 2 4") is None
    assert read(cell_format, value, stamps=b"f1 1 2 3 4") is None
    assert read(cell_format, value, now=NOW + 1) is None
    assert read(cell_format, None) is None


def test_sealed_cells_do_not_show_what_they_hold_and_belong_to_their_place() -> None:
    sealed = CellFormat(Sealer([b"k" * 32]))
    value = sealed.write(KEY, STAMPS, NOW + 1, CELLS)
    assert b"PRESENT" not in value
    assert read(sealed, value, key=b"elsewhere") is None
    assert read(sealed, CellFormat().write(KEY, STAMPS, NOW + 1, CELLS)) is None


def test_a_sealer_without_keys_leaves_cells_plain() -> None:
    value = CellFormat(Sealer()).write(KEY, STAMPS, NOW + 1, CELLS)
    assert read(CellFormat(), value) is not None


@pytest.mark.parametrize("cell_format", FORMATS)
def test_a_damaged_value_is_a_miss(cell_format: CellFormat) -> None:
    chance = random.Random(7)
    value = cell_format.write(KEY, STAMPS, NOW + 1, CELLS)
    for _ in range(2000):
        damaged = bytearray(value)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        assert read(cell_format, bytes(damaged)) is None
    for length in range(len(value)):
        assert read(cell_format, value[:length]) is None
    assert read(cell_format, chance.randbytes(300)) is None


@pytest.mark.parametrize("cell_format", FORMATS)
def test_names_of_columns_are_read_as_they_were_written(cell_format: CellFormat) -> None:
    value = cell_format.write_names(KEY, STAMPS, NOW + 1, ["user_id", "a\x1e"])
    fields = read(cell_format, value)
    assert fields is not None
    assert names(fields) == ("user_id", "a\x1e")
    assert read(cell_format, value, stamps=b"f1 1 3") is None
    assert read(cell_format, value, now=NOW + 1) is None


@pytest.mark.parametrize("content", [b"", b"x", b"any content"])
def test_what_ends_in_its_own_checksum_has_the_known_residue(content: bytes) -> None:
    assert crc32(content + crc32(content).to_bytes(4, "little")) == INTACT
