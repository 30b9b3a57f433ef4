"""The promise of a guard."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a stored answer must not stand for the question; the rule's name is shown to clients, so it carries no prompt text."""

    rule: str


class Guard(Protocol):
    def refusal(self, asked: str, stored: str, similarity: float) -> Refusal | None:
        """None if the answer to `stored` may be served for `asked`. Symmetric. Never raises."""
        ...
