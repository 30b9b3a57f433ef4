"""Bytes of a file to a client, from the page cache to the socket by the kernel. Called by `files` alone."""

import asyncio
import errno
import os
from pathlib import Path
from typing import BinaryIO, Final

from aiohttp import web

from inference_cache_artifacts.agent.parts import Part
from inference_cache_artifacts.errors import Missing
from inference_cache_artifacts.store import disk

_WINDOW_BYTES: Final = 4 << 20
_BLOCK_BYTES: Final = 1 << 20


async def send(request: web.Request, answer: web.StreamResponse, path: Path, part: Part) -> None:
    """The answer from its head to its end. What is not in memory is read by a thread first: a slow disk holds up nobody else.

    Raises Missing, DiskFailed.
    """
    loop = asyncio.get_running_loop()
    with await _open(path) as opened:
        file = opened.fileno()
        await answer.prepare(request)
        ahead = asyncio.create_task(asyncio.to_thread(_warm, file, part.start, part.end))
        try:
            for start in range(part.start, part.end, _WINDOW_BYTES):
                await ahead
                ahead = asyncio.create_task(asyncio.to_thread(_warm, file, start + _WINDOW_BYTES, part.end))
                if request.transport is None:
                    raise ConnectionResetError("the pod went away")
                await loop.sendfile(request.transport, opened, start, min(_WINDOW_BYTES, part.end - start))
        finally:
            # The thread has the file open: it is not closed before.
            await asyncio.wait([ahead])
        await answer.write_eof()


async def _open(path: Path) -> BinaryIO:
    """Closed where nobody waits for it any more. Raises Missing, DiskFailed."""
    opening = asyncio.ensure_future(asyncio.to_thread(_opened, path))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: "asyncio.Future[BinaryIO]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _opened(path: Path) -> BinaryIO:
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")
    except FileNotFoundError:
        raise Missing("the tree was removed") from None
    except OSError:
        with disk.disk_errors(path):
            raise


def _warm(file: int, start: int, end: int) -> None:
    """The window that begins at `start` is in memory afterwards, as far as the memory goes."""
    end = min(end, start + _WINDOW_BYTES)
    if start >= end or (_is_in_memory(file, start) and _is_in_memory(file, end - 1)):
        return
    block = bytearray(_BLOCK_BYTES)
    for position in range(start, end, _BLOCK_BYTES):
        os.preadv(file, [memoryview(block)[: end - position]], position)


def _is_in_memory(file: int, position: int) -> bool:
    try:
        os.preadv(file, [bytearray(1)], position, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        # A file system that cannot tell, as one that is all in memory.
        return error.errno in {errno.EOPNOTSUPP, errno.ENOSYS}
    return True
