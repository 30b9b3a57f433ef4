"""The words of the demo's table."""

import pytest

from inference_cache_toolkit.cache_status import CacheStatus
from inference_cache_toolkit.demo.asking import Outcome
from inference_cache_toolkit.demo.script import STEPS
from inference_cache_toolkit.demo.table import answered_from, duration, row, summary

HIT = CacheStatus(hit=True, ttl_seconds=5, details={"exact": ""})
MISS = CacheStatus(forward="miss", stored=True)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param(HIT, "cache, same question", id="exact hit"),
        pytest.param(
            CacheStatus(hit=True, details={"semantic": "", "similarity": "0.981"}), "cache, similar question (0.981)", id="semantic hit"
        ),
        pytest.param(MISS, "model", id="miss"),
        pytest.param(CacheStatus(forward="miss", collapsed=True), "model, shared with another caller", id="joined"),
        pytest.param(
            CacheStatus(forward="miss", details={"guard": "negation", "similarity": "0.953"}),
            "model, refused: negation at 0.953",
            id="refused",
        ),
        pytest.param(CacheStatus(forward="bypass", details={"sampling": ""}), "model, not cached: sampling", id="bypass"),
    ],
)
def test_the_source_of_an_answer_is_said_in_words(status: CacheStatus, words: str) -> None:
    assert answered_from(status) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.00123, "1.2 ms"), (0.0999, "99.9 ms"), (1.234, "1.23 s")], ids=str)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_summary_counts_what_the_model_was_spared() -> None:
    shared = CacheStatus(forward="miss", collapsed=True)
    outcomes = [Outcome(STEPS[0], status, seconds) for status, seconds in ((MISS, 1.0), (shared, 1.0), (HIT, 0.001))]
    assert summary(outcomes).startswith("3 answers, 1 calls of the model, 2 saved.")
    assert "from the cache: 1.0 ms" in summary(outcomes)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_every_question_fits_its_column(step: object) -> None:
    assert len(row(Outcome(step, HIT, 0.001))) == 119  # type: ignore[arg-type]  # ids need an untyped step
