"""`inference-cache webhook`: reads flags and environment once, and starts the webhook."""

from collections.abc import Sequence
from typing import Final

from inference_cache_operator.settings import COMMON, WEBHOOK, Settings
from inference_cache_operator.starting import start

PROGRAM: Final = "inference-cache webhook"
_SUMMARY: Final = "Puts the cache's sidecar into the pods that an InferenceCache selects, as they are created."


def main(argv: Sequence[str]) -> int:
    """Returns what `starting.start` does."""
    return start(PROGRAM, _SUMMARY, (*COMMON, *WEBHOOK), argv, _run)


def _run(settings: Settings) -> None:
    from inference_cache_operator.webhook import app  # noqa: PLC0415

    app.run(settings)
