"""Events are handled again and again until each is applied or put aside."""

from collections.abc import Sequence

import pytest

from inference_cache_sidecar.errors import StoreUnavailable
from inference_cache_sidecar.events.handling import Handled, Outcome
from inference_cache_sidecar.events.retrying import Backoff
from inference_cache_sidecar.events.settling import settle


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_seconds", lambda self: 0.0)


@pytest.mark.usefixtures("without_waiting")
async def test_records_are_handled_until_each_is_applied_or_bad() -> None:
    ends: dict[str, list[Outcome]] = {
        "good": [Outcome.APPLIED],
        "bad": [Outcome.BAD],
        "waits": [Outcome.FAILED] * 20 + [Outcome.APPLIED],
        "breaks": [Outcome.BROKEN] * 20,
    }
    told: list[tuple[str, Outcome]] = []
    again: list[list[str]] = []

    async def handle(record: str) -> Handled:
        return Handled(ends[record].pop(0), "reason")

    async def settled(done: Sequence[tuple[str, Handled]]) -> None:
        told.extend((record, handled.outcome) for record, handled in done)

    async def waited(records: Sequence[str]) -> None:
        again.append(list(records))

    records = list(ends)
    await settle(records, handle, settled, waited)
    assert told == [("good", Outcome.APPLIED), ("bad", Outcome.BAD), ("breaks", Outcome.BAD), ("waits", Outcome.APPLIED)]
    assert again == [["waits", "breaks"]] * 4 + [["waits"]] * 16
    assert records == []


async def test_what_could_not_be_told_has_not_ended() -> None:
    async def handle(_: str) -> Handled:
        return Handled(Outcome.APPLIED)

    async def settled(_: object) -> None:
        raise StoreUnavailable("the shared store is not there")

    records = ["a"]
    with pytest.raises(StoreUnavailable):
        await settle(records, handle, settled)
    assert records == ["a"]
