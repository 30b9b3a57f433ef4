"""The worker around an embedder that is quick, slow, hung, broken: what a call costs, and what the thread is spared."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from inference_cache_sidecar.breaker import BreakerSettings
from inference_cache_sidecar.embedder.protocol import EmbedderError
from inference_cache_sidecar.embedder.worker import WARM_UP_TEXT, EmbeddingWorker, WorkerLimits
from inference_cache_sidecar.index.protocol import Vector

PATIENT = WorkerLimits(deadline_seconds=60)
HASTY = WorkerLimits(deadline_seconds=0.3)


class FakeEmbedder:
    """Waits at its gate with every batch; "long" is too long, "bad" makes it raise."""

    name, dimensions, max_tokens, digest = "fake", 1, 256, "00" * 32

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.seconds = 0.0

    def embed(self, texts: Sequence[str]) -> list[Vector | None]:
        self.batches.append(list(texts))
        self.threads.add(threading.get_ident())
        if list(texts) == [WARM_UP_TEXT]:
            return [np.zeros(1, np.float32)]
        self.entered.release()
        self.gate.wait(60)
        time.sleep(self.seconds)
        if "bad" in texts:
            raise RuntimeError("bad text")
        return [None if text == "long" else np.array([len(text)], np.float32) for text in texts]

    @property
    def asked(self) -> list[list[str]]:
        return [batch for batch in self.batches if batch != [WARM_UP_TEXT]]


@pytest.fixture
def fake() -> Iterator[FakeEmbedder]:
    fake = FakeEmbedder()
    yield fake
    fake.gate.set()


@asynccontextmanager
async def running(
    fake: FakeEmbedder,
    limits: WorkerLimits = PATIENT,
    breaker: BreakerSettings | None = None,
    observe: Callable[[float], None] = lambda _: None,
) -> AsyncIterator[EmbeddingWorker]:
    worker = EmbeddingWorker(fake, limits, breaker, observe)
    worker.start()
    try:
        yield worker
    finally:
        await worker.close()


async def entered(fake: FakeEmbedder) -> None:
    assert await asyncio.to_thread(fake.entered.acquire, timeout=60)


async def test_vector_comes_from_a_thread_of_its_own(fake: FakeEmbedder) -> None:
    async with running(fake) as worker:
        assert [await worker.embed("four"), await worker.embed("seventh")] == [np.array([4.0]), np.array([7.0])]
    assert len(fake.threads) == 1
    assert threading.get_ident() not in fake.threads


async def test_embedder_is_warmed_up_before_the_first_call(fake: FakeEmbedder) -> None:
    async with running(fake) as worker:
        await worker.embed("first")
    assert fake.batches == [[WARM_UP_TEXT], ["first"]]


async def test_too_long_text_is_no_failure(fake: FakeEmbedder) -> None:
    async with running(fake, breaker=BreakerSettings(failures=1)) as worker:
        assert await worker.embed("long") is None
        assert await worker.embed("short") is not None
        assert (worker.counts.too_long, worker.counts.embedded, worker.counts.failures) == (1, 1, 0)


async def test_calls_that_come_during_a_batch_share_the_next_newest_first(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    async with running(fake) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.embed("alone"))
        await entered(fake)
        tasks = [group.create_task(worker.embed("x" * length)) for length in (1, 2, 3)]
        await asyncio.sleep(0)
        fake.gate.set()
    assert fake.asked == [["alone"], ["xxx", "xx", "x"]]
    assert [task.result() for task in tasks] == [np.array([1.0]), np.array([2.0]), np.array([3.0])]


async def test_batches_are_bounded_by_texts_and_by_characters(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    limits = WorkerLimits(deadline_seconds=60, batch_texts=3, batch_characters=10)
    async with running(fake, limits) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.embed("alone"))
        await entered(fake)
        for length in (1, 1, 1, 1, 40, 6, 6):
            group.create_task(worker.embed("x" * length))
        await asyncio.sleep(0)
        fake.gate.set()
    assert [[len(text) for text in batch] for batch in fake.asked[1:]] == [[6], [6], [40], [1, 1, 1], [1]]


async def test_hung_embedder_costs_one_deadline_a_call_until_it_is_known_to_be_stuck(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    async with running(fake, HASTY) as worker:
        began = time.perf_counter()
        with pytest.raises(EmbedderError, match="deadline"):
            await worker.embed("hangs")
        assert 0.25 < time.perf_counter() - began < 10
        began = time.perf_counter()
        for _ in range(100):
            with pytest.raises(EmbedderError):
                await worker.embed("next")
        # Each would have waited for 0.3 s.
        assert time.perf_counter() - began < 5
        # A thread that begins late is known to be stuck as much later.
        assert worker.counts.deadline_misses + worker.counts.refused == 101
        assert worker.counts.deadline_misses <= 5


async def test_more_calls_than_it_can_embed_in_time_do_not_open_the_breaker(fake: FakeEmbedder) -> None:
    fake.seconds = 0.06
    async with running(fake, WorkerLimits(deadline_seconds=0.2, batch_texts=1)) as worker:
        outcomes = await asyncio.gather(*(worker.embed(f"text {number}") for number in range(9)), return_exceptions=True)
        missed = sum(isinstance(outcome, EmbedderError) for outcome in outcomes)
        assert 3 <= missed == worker.counts.deadline_misses
        assert not worker.breaker_open


async def test_many_calls_that_wait_for_one_late_batch_are_one_failure(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    async with running(fake, HASTY) as worker:
        await asyncio.gather(*(worker.embed(f"text {number}") for number in range(9)), return_exceptions=True)
        assert worker.counts.deadline_misses == 9
        assert not worker.breaker_open


async def test_batches_of_a_slow_embedder_are_small_enough_for_the_deadline(fake: FakeEmbedder) -> None:
    async with running(fake, WorkerLimits(deadline_seconds=2.0)) as worker:
        fake.seconds = 1.5
        await worker.embed("slow")
        fake.gate.clear()
        fake.seconds = 0.0
        tasks = [asyncio.create_task(worker.embed("first"))]
        await entered(fake)
        await entered(fake)
        tasks += [asyncio.create_task(worker.embed("later")) for _ in range(8)]
        await asyncio.sleep(0)
        fake.gate.set()
        await asyncio.gather(*tasks)
    assert 1 < max(map(len, fake.asked)) < 8


async def test_late_vector_is_discarded_and_the_worker_goes_on(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    delivered = asyncio.Event()
    async with running(fake, HASTY, observe=lambda _: delivered.set()) as worker:
        with pytest.raises(EmbedderError, match="deadline"):
            await worker.embed("late")
        fake.gate.set()
        await asyncio.wait_for(delivered.wait(), 60)
        assert await worker.embed("four") == np.array([4.0])


async def test_call_whose_caller_is_gone_is_never_begun(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    async with running(fake) as worker:
        first = asyncio.create_task(worker.embed("first"))
        await entered(fake)
        gone = asyncio.create_task(worker.embed("gone"))
        stays = asyncio.create_task(worker.embed("stays"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        fake.gate.set()
        await asyncio.gather(first, stays)
    assert fake.asked == [["first"], ["stays"]]


async def test_full_queue_refuses_at_once(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    async with running(fake, WorkerLimits(deadline_seconds=60, waiting=2)) as worker:
        tasks = [asyncio.create_task(worker.embed("first"))]
        await entered(fake)
        tasks += [asyncio.create_task(worker.embed(text)) for text in ("second", "third")]
        await asyncio.sleep(0)
        with pytest.raises(EmbedderError, match="too many"):
            await worker.embed("one too many")
        fake.gate.set()
        assert [vector is not None for vector in await asyncio.gather(*tasks)] == [True, True, True]


async def test_error_of_the_embedder_fails_its_batch_alone_and_tells_no_text(fake: FakeEmbedder, caplog: pytest.LogCaptureFixture) -> None:
    async with running(fake) as worker:
        with pytest.raises(EmbedderError, match="RuntimeError") as caught:
            await worker.embed("bad")
        assert await worker.embed("good") is not None
        assert (worker.counts.failures, worker.counts.embedded) == (1, 1)
    assert "bad" not in str(caught.value) + caplog.text


async def test_wrong_number_of_vectors_is_an_error(fake: FakeEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "embed", lambda texts: [])
    async with running(fake) as worker:
        with pytest.raises(EmbedderError, match="0 vectors for 1 texts"):
            await worker.embed("text")


async def test_breaker_opens_after_failures_in_a_row_and_closes_after_a_good_trial(fake: FakeEmbedder) -> None:
    async with running(fake, breaker=BreakerSettings(failures=2, retry_seconds=1.0)) as worker:
        for _ in range(2):
            with pytest.raises(EmbedderError, match="RuntimeError"):
                await worker.embed("bad")
        with pytest.raises(EmbedderError, match="rest"):
            await worker.embed("good")
        assert len(fake.asked) == 2
        await asyncio.sleep(1.1)
        assert await worker.embed("good") is not None
        assert not worker.breaker_open


async def test_seconds_of_every_batch_are_observed(fake: FakeEmbedder) -> None:
    seconds: list[float] = []
    async with running(fake, observe=seconds.append) as worker:
        await worker.embed("one")
        await worker.embed("two")
        assert worker.counts.batches == len(seconds) == 2
    assert all(0 <= value < 60 for value in seconds)


async def test_close_waits_for_the_running_batch_and_fails_those_that_wait(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    async with running(fake) as worker:
        begun = asyncio.create_task(worker.embed("begun"))
        await entered(fake)
        waits = asyncio.create_task(worker.embed("waits"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(worker.close())
        with pytest.raises(EmbedderError, match="closed"):
            await waits
        fake.gate.set()
        await closing
        assert await begun is not None
        with pytest.raises(EmbedderError, match="not running"):
            await worker.embed("after")


async def test_close_does_not_wait_for_a_hung_embedder(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    worker = EmbeddingWorker(fake, HASTY)
    worker.start()
    with pytest.raises(EmbedderError, match="deadline"):
        await worker.embed("hangs")
    began = time.perf_counter()
    await worker.close()
    assert time.perf_counter() - began < 5


async def test_worker_that_was_never_started_refuses(fake: FakeEmbedder) -> None:
    worker = EmbeddingWorker(fake)
    with pytest.raises(EmbedderError, match="not running"):
        await worker.embed("text")
    await worker.close()


async def test_loop_is_free_while_the_embedder_works(fake: FakeEmbedder) -> None:
    fake.gate.clear()
    async with running(fake) as worker:
        task = asyncio.create_task(worker.embed("text"))
        await entered(fake)
        turns = 0
        while turns < 1000:
            await asyncio.sleep(0)
            turns += 1
        assert not task.done()
        fake.gate.set()
        assert await task is not None
