import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_cache_contract.quantity import MAX_BYTES, MAX_SECONDS, format_bytes, format_duration, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        pytest.param("24h", 86400.0, id="hours"),
        pytest.param("5m", 300.0, id="minutes"),
        pytest.param("1h30m", 5400.0, id="two-units"),
        pytest.param("1.5h", 5400.0, id="fraction"),
        pytest.param("250ms", 0.25, id="milliseconds"),
        pytest.param("50us", 0.00005, id="microseconds"),
        pytest.param("0s", 0.0, id="zero"),
        pytest.param("0", 0.0, id="zero-without-a-unit"),
        pytest.param("90", 90.0, id="text-of-seconds"),
        pytest.param(90, 90.0, id="whole-number"),
        pytest.param(0, 0.0, id="the-number-zero"),
        pytest.param(0.05, 0.05, id="decimal-number"),
        pytest.param(" 1h ", 3600.0, id="blanks-around"),
    ],
)
def test_a_duration_is_read_as_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "h",
        "-1s",
        "1 h",
        "1d",
        "1h30",
        "1e3s",
        "nan",
        "inf",
        True,
        None,
        -5,
        [],
        float("nan"),
        float("inf"),
        "1m1",
        "١s",
        "9" * 5000 + "h",
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|100 years"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        pytest.param("512Mi", 512 * 2**20, id="binary"),
        pytest.param("1G", 10**9, id="decimal"),
        pytest.param("1.5Gi", 3 * 2**29, id="fraction"),
        pytest.param("64Ki", 65536, id="kibi"),
        pytest.param("4k", 4000, id="kilo"),
        pytest.param("1048576", 2**20, id="text-of-bytes"),
        pytest.param(1048576, 2**20, id="number"),
        pytest.param(0, 0, id="zero"),
    ],
)
def test_a_quantity_is_read_as_bytes(written: object, count: int) -> None:
    assert parse_bytes(written) == count


@pytest.mark.parametrize(
    "written", ["", "Mi", "-1", "1.5", "0.3Ki", "1MB", "1 Mi", "1e9", True, None, -1, 2.5, "9" * 19 + "Ti", "9" * 5000], ids=repr
)
def test_what_is_no_quantity_of_bytes_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_bytes(written)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.0, "0s"), (0.25, "250ms"), (75.0, "1m15s"), (5400.0, "1h30m"), (604800.0, "168h"), (0.0000001, "0.0001ms"), (61.5, "1m1.5s")],
    ids=str,
)
def test_a_duration_is_written_as_people_write_it(seconds: float, written: str) -> None:
    assert format_duration(seconds) == written


@given(st.floats(min_value=0, max_value=MAX_SECONDS).filter(lambda seconds: seconds == 0 or seconds > 1e-12))
def test_a_written_duration_reads_as_exactly_the_same(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=MAX_BYTES))
def test_written_bytes_read_as_exactly_the_same(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == count
