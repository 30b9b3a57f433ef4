"""How kopf is run here, by the webhook and by the controller: it only watches and listens, and writes nothing of its own."""

from typing import Any, Final

import kopf

IDENTITY: Final[Any] = "inference-cache"
"""Without one kopf asks for the name of a user, whom the container does not have."""
_PATIENCE: Final = [0.2, 0.5, 1, 1, 2, 3] + [5] * 100_000
"""Seconds between kopf's tries; an API server that is away for long must not end the process."""
_WATCH_SECONDS: Final = 240
"""A whole number: the API server refuses any other, and kopf passes it on as it is."""


def kopf_settings() -> kopf.OperatorSettings:
    """Nothing is scanned, managed, posted or written by kopf itself."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = _WATCH_SECONDS
    settings.watching.client_timeout = _WATCH_SECONDS + 30
    settings.watching.connect_timeout = 5.0
    settings.networking.request_timeout = 10.0
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = _PATIENCE
    return settings
