"""`inference-cache operator`: reads flags and environment once, and starts the controller."""

from collections.abc import Sequence
from typing import Final

from inference_cache_operator.settings import COMMON, OPERATOR, Settings
from inference_cache_operator.starting import start

PROGRAM: Final = "inference-cache operator"
_SUMMARY: Final = "Keeps InferenceCaches, their pods, their versions and the webhook's certificates in order."


def main(argv: Sequence[str]) -> int:
    """Returns what `starting.start` does."""
    return start(PROGRAM, _SUMMARY, (*COMMON, *OPERATOR), argv, _run)


def _run(settings: Settings) -> None:
    from inference_cache_operator.controller import app  # noqa: PLC0415

    app.run(settings)
