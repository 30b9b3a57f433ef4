"""SIGTERM and SIGINT end a command quickly, and leave what was fetched for the next time."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

GRACE_SECONDS: Final = 5.0
"""For leases to be given back and connections to be closed; what hangs longer is left to the kernel."""
_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """No Exception: nothing that goes on after failures must go on after this."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, the first signal raises Interrupted in the main thread, and the second ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _ending_late():
        before = {number: signal.signal(number, _interrupt) for number in _NUMBERS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    del frame
    for each in _NUMBERS:
        signal.signal(each, lambda again, _: os._exit(128 + again))
    raise Interrupted(number)


@contextmanager
def _ending_late() -> Iterator[None]:
    """A thread hears of signals by a pipe: a handler of Python's is not run while the main thread is in a call that does not end."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    threading.Thread(target=_end_late, args=(heard,), name="grace", daemon=True).start()
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)


def _end_late(heard: int) -> None:
    while number := os.read(heard, 1):
        if number[0] in _NUMBERS:
            time.sleep(GRACE_SECONDS)
            os._exit(128 + number[0])
    os.close(heard)
