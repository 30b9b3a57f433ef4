"""From upstream's answer to answers for single items, and from those to the client's answer.

A single answer is what the model server would give to a request for that item alone: it is stored, and found, as any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference_cache_contract.endpoints import Endpoint
from inference_cache_sidecar.items.envelope import Answer, Element, read, written
from inference_cache_sidecar.items.split import Split
from inference_cache_sidecar.items.usage import added, apportioned, weight


def explode(split: Split, missing: Sequence[int], answer: bytes) -> tuple[bytes, ...] | None:
    """One answer for each of the distinct items `missing`, which `upstream_body` asked for; None if `answer` does not fit them."""
    read_answer = read(split.endpoint, answer)
    if read_answer is None or len(read_answer.elements) != len(missing):
        return None
    usages = apportioned(read_answer.envelope["usage"], [_weight(split, item) for item in missing])
    return tuple(
        written(split.endpoint, {**read_answer.envelope, "usage": usage}, [(0, element)])
        for element, usage in zip(read_answer.elements, usages, strict=True)
    )


def merge(split: Split, answers: Sequence[bytes], new_id: str) -> bytes | None:
    """The client's answer under `new_id`, from one answer for each distinct item; None if one of them is not such an answer."""
    singles = [_single(split.endpoint, answer) for answer in answers]
    if not singles or any(single is None for single in singles):
        return None
    placed = [single for place in split.places if (single := singles[place]) is not None]
    elements = [(place, single.element) for place, single in enumerate(placed)]
    if split.endpoint is Endpoint.RERANK:
        elements = _ranked(elements, split.top_n)
    return written(split.endpoint, _envelope(placed, new_id), elements)


@dataclass(frozen=True, slots=True)
class _Single:
    envelope: dict[str, Any]
    element: Element


def _single(endpoint: Endpoint, answer: bytes) -> _Single | None:
    one: Answer | None = read(endpoint, answer)
    return _Single(one.envelope, one.elements[0]) if one is not None and len(one.elements) == 1 else None


def _envelope(placed: Sequence[_Single], new_id: str) -> dict[str, Any]:
    """The first one's, with the counts of all and the time of the latest."""
    envelope = {**placed[0].envelope, "usage": added([single.envelope["usage"] for single in placed])}
    if "id" in envelope:
        envelope["id"] = new_id
    times = [time for single in placed if type(time := single.envelope.get("created")) is int]
    if times:
        envelope["created"] = max(times)
    return envelope


def _ranked(elements: list[tuple[int, Element]], top_n: int) -> list[tuple[int, Element]]:
    """Best first, equals in the client's order, as vLLM has it."""
    best = sorted(elements, key=_relevance, reverse=True)
    return best[:top_n] if top_n else best


def _relevance(placed: tuple[int, Element]) -> float:
    element = placed[1]
    score = element.get("relevance_score") if isinstance(element, dict) else None
    return score if isinstance(score, int | float) else float("-inf")


def _weight(split: Split, item: int) -> int:
    return sum(weight(asked) for asked in split.rows[item].values())
