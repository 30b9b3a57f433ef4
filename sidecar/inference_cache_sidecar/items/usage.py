"""Token counts of single items, from a sum over several.

The model server counts a list as a whole. An item that was asked alone keeps its exact count. In a list the sum is shared
out by the items' lengths, by largest remainder: the shares of one answer always add up to what upstream counted, and are
exact for token ids. A sum over items of different answers is therefore an estimate, unless each was asked alone. (Where a
model embeds query and documents apart, upstream counts the query once a request: single answers then add up to more.)
"""

from collections.abc import Sequence
from typing import Any

import orjson

COUNTED = ("prompt_tokens", "total_tokens")


def is_countable(usage: object) -> bool:
    """A usage object whose counts, where it has them, are numbers of tokens."""
    return isinstance(usage, dict) and all(type(usage.get(name, 0)) is int and usage.get(name, 0) >= 0 for name in COUNTED)


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in proportion to `weights` (each at least 1), adding up to it exactly."""
    whole = sum(weights)
    result = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: total * weights[place] % whole, reverse=True)
    for place in by_remainder[: total - sum(result)]:
        result[place] += 1
    return result


def weight(asked: object) -> int:
    """How long an item is: its characters, its token ids, or the bytes of its content parts; at least 1."""
    return max(1, len(asked if isinstance(asked, str | list) else orjson.dumps(asked)))


def apportioned(usage: dict[str, Any], weights: Sequence[int]) -> list[dict[str, Any]]:
    """One usage object an item; fields that we do not know are repeated as they are."""
    counted = {name: shares(usage[name], weights) for name in COUNTED if name in usage}
    return [{**usage, **{name: parts[item] for name, parts in counted.items()}} for item in range(len(weights))]


def added(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum of the counts of every item in the answer, in the form of the first."""
    sums = {name: sum(usage.get(name, 0) for usage in usages) for name in COUNTED if name in usages[0]}
    return {**usages[0], **sums}
