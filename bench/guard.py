"""Microseconds for one canonical prompt and one comparison by the guard, on generated questions.

python bench/guard.py [PAIRS]
"""

import random
import sys
import time
from collections.abc import Callable

from inference_cache_contract.canonical import Normalize, canonical
from inference_cache_sidecar.guard.lexical import LexicalGuard

OPENINGS = ("How do I", "What is the best way to", "Can I", "Why can't I", "When should I", "Please tell me how to")
VERBS = ("reset", "change", "delete", "update", "cancel", "export", "renew", "activate", "check", "share")
OBJECTS = ("my password", "the invoice", "a subscription", "my 2 tickets", "the API key", "an order from Berlin", "the printer settings")
ENDINGS = ("on my phone", "for the admin console", "in 2024", "before Friday", "with version v1.2.3", "without calling support", "")

SWAPS = (
    ("How do I", "How can I"),
    ("What is the best way to", "How do I"),
    ("Can I", "How do I"),
    ("delete", "remove"),
    ("my", "the"),
    ("v1.2.3", "v1.3.2"),
    ("before", "after"),
    ("Berlin", "Vienna"),
)


def question(dice: random.Random) -> str:
    parts = (dice.choice(words) for words in (OPENINGS, VERBS, OBJECTS, ENDINGS))
    return " ".join(part for part in parts if part) + "?"


def reworded(text: str, dice: random.Random) -> str:
    """The same in other words, or with one part of the question exchanged."""
    swaps = [swap for swap in SWAPS if swap[0] in text]
    return text.replace(*dice.choice(swaps)) if swaps else text.replace("?", " today?")


def microseconds(action: Callable[[], object], items: int, rounds: int = 5) -> float:
    """The best of some rounds, since other work on the machine only ever adds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times) / items * 1e6


def main(pairs: int = 5000) -> None:
    dice = random.Random(7)
    asked = [question(dice) for _ in range(pairs)]
    stored = [reworded(text, dice) for text in asked]
    both = list(zip(asked, stored, strict=True))
    rules, fresh, warm = Normalize(), LexicalGuard(remembered=0), LexicalGuard(remembered=4 * pairs)
    measured = {
        "canonical prompt": lambda: [canonical(text, rules) for text in asked],
        "guard, both texts new": lambda: [fresh.refusal(*pair, 0.95) for pair in both],
        "guard, both texts seen before": lambda: [warm.refusal(*pair, 0.95) for pair in both],
    }
    for name, action in measured.items():
        print(f"{name:30} {microseconds(action, pairs):7.1f} µs")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
