"""Shows on stderr how far a flush is: one line that moves on a terminal, else a line now and then."""

import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from inference_cache_toolkit.flush.ordering import Progress, Show

LINE_SECONDS: Final = 5.0


@contextmanager
def shown(quiet: bool) -> Iterator[Show]:
    """What to call with each progress; rich may be missing, as in the sidecar's image."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        with _moving() as show:
            yield show
    else:
        yield _lines()


@contextmanager
def _moving() -> Iterator[Show]:
    from rich.console import Console  # noqa: PLC0415  may be missing
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (BarColumn(20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        # How many keys there are nobody knows beforehand: the bar only shows that it goes on.
        task = bar.add_task(described(None), total=None)
        yield lambda progress: bar.update(task, description=described(progress))


def _lines() -> Show:
    due = time.monotonic() + LINE_SECONDS

    def show(progress: Progress | None) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + LINE_SECONDS
            print(described(progress), file=sys.stderr, flush=True)

    return show


def described(progress: Progress | None) -> str:
    if progress is None:
        return "waiting for the sidecar"
    return f"deleting by {progress.name}: {progress.scanned:,} keys seen, {progress.deleted:,} deleted"
