"""What aiokafka logs, as much of it as anybody wants to read. `kafka` sets it up.

By itself it writes some fifty lines a second while a broker is away, and at DEBUG all that it sends and receives, passwords too.
"""

import logging
from typing import Final

SECONDS: Final = 60.0
"""Between two lines from the same place."""
LIBRARY: Final = "aiokafka"
_log = logging.getLogger(__name__)


class Seldom(logging.Handler):
    """Passes a warning or error on if its place in the code has been silent for `SECONDS`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: dict[tuple[str, int], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        place = (record.name, record.lineno)
        if record.created - self._last.get(place, 0.0) >= SECONDS:
            self._last[place] = record.created
            _log.log(record.levelno, "%s: %s", LIBRARY, record.getMessage())


def calm_down() -> None:
    """From now on, in this process; once more does nothing."""
    library = logging.getLogger(LIBRARY)
    if not any(isinstance(handler, Seldom) for handler in library.handlers):
        library.setLevel(logging.WARNING)
        library.propagate = False
        library.addHandler(Seldom())
