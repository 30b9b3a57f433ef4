"""What a fetch is given by who starts it: how sources are opened, where room comes from, when it is to stop. The agent has its own."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from inference_cache_artifacts.source import Source
from inference_cache_artifacts.sources.options import SourceOptions
from inference_cache_artifacts.store.layout import Store

Open = Callable[[str, SourceOptions], Source]
MakeRoom = Callable[[Store, Collection[str], int], int]
"""So many bytes are to be free in the store's file system, and these trees stay; the bytes that were freed. Raises DiskFailed."""


def open_source(url: str, options: SourceOptions) -> Source:
    # Late, as in the next function: a warm start opens nothing and removes nothing.
    from inference_cache_artifacts.sources import opening  # noqa: PLC0415

    return opening.open_source(url, options)


def make_room(store: Store, keep: Collection[str], needed_bytes: int) -> int:
    """By what nobody uses in this store."""
    from inference_cache_artifacts.store import collecting  # noqa: PLC0415

    return collecting.collect(store, keep=keep, limits=collecting.Limits(needed_bytes=needed_bytes, high_water=None)).freed


def go_on() -> None:
    """Nobody has it stopped."""


@dataclass(frozen=True, slots=True)
class Means:
    open: Open = open_source
    make_room: MakeRoom = make_room
    check: Callable[[], None] = go_on
    """Called all the time; ends the fetch by what it raises."""


OWN: Final = Means()
