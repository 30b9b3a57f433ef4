"""Times as Kubernetes writes them, to the second."""

from datetime import UTC, datetime
from typing import Final

_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"


def text_of(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime(_FORM)


def seconds_of(text: object) -> float | None:
    """Since 1970; None for what is missing or no time."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
