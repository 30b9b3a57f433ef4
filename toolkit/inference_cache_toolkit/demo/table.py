"""The demo's lines of text, made from outcomes. Pure; `conductor` prints them."""

import json
from collections.abc import Sequence
from statistics import median

from inference_cache_toolkit.cache_status import CacheStatus
from inference_cache_toolkit.demo.asking import Outcome

TITLE, QUESTION, FROM = 25, 44, 38


def answered_from(status: CacheStatus) -> str:
    """Where an answer came from, in words."""
    if status.hit:
        return "cache, same question" if status.similarity is None else f"cache, similar question ({status.similarity:.3f})"
    if status.collapsed:
        return "model, shared with another caller"
    if (rule := status.details.get("guard")) is not None:
        similarity = "" if status.similarity is None else f" at {status.similarity:.3f}"
        return f"model, refused: {rule}{similarity}"
    reason = next(iter(status.details), "")
    return "model" if status.forward == "miss" else f"model, not cached: {reason or status.forward}"


def duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def heading() -> str:
    return _line("", "question", "answered from", "time")


def row(outcome: Outcome) -> str:
    step = outcome.step
    return _line(step.title, " ".join(step.question.split()), answered_from(outcome.status), duration(outcome.seconds))


def _line(title: str, question: str, source: str, seconds: str) -> str:
    return f"{title:<{TITLE}} {question:<{QUESTION}} {source:<{FROM}} {seconds:>9}"


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many calls the model was spared, and the usual times."""
    asked = sum(outcome.asked_upstream for outcome in outcomes)
    lines = [f"{len(outcomes)} answers, {asked} calls of the model, {len(outcomes) - asked} saved."]
    for name, seconds in (
        ("from the cache", [outcome.seconds for outcome in outcomes if outcome.status.hit]),
        ("from the model", [outcome.seconds for outcome in outcomes if not outcome.status.hit]),
    ):
        if seconds:
            lines.append(f"Usual time {name}: {duration(median(seconds))}.")
    return " ".join(lines)


def hints(url: str, admin_url: str, model: str) -> str:
    """What to try next."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "How could I reset my password?"}]})
    return (
        "Try it (the header Cache-Status says where the answer came from):\n\n"
        f"  curl -i {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '{body}'\n\n"
        f"  curl {admin_url}/metrics\n"
    )
