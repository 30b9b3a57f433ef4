"""What lies in `leases/`: `<name>.<n>`, of which the highest n is the holder's, and what can be said of one by looking."""

import errno
import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Final

from inference_cache_artifacts.store import disk, locking
from inference_cache_artifacts.store.layout import TEMPORARY

SILENT_SECONDS: Final = 600.0
"""Only for who clears up: a lease of another kernel, untouched for so long by the file system's clock, is nobody's."""
DAY_SECONDS: Final = 86400.0
_WIDTH: Final = 512
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class Content:
    """Of a lease file; always as long, so that a beat overwrites it in place and needs no room."""

    holder: str
    boot_id: str
    pid: int
    beat: int
    locked: bool
    """Its holder has the flock; else this file system knows none, and only silence tells."""
    suspect: bool
    """It was taken from one that was silent, or that had been: that one may still write."""

    def text(self) -> bytes:
        return json.dumps(asdict(self)).encode().ljust(_WIDTH)


def parse(text: bytes) -> Content | None:
    """None: not written yet, or torn; only silence tells then."""
    try:
        return Content(**json.loads(text))
    except (ValueError, TypeError):
        return None


@cache
def boot_id() -> str:
    """Equal for all processes under one kernel, in whatever container. Raises OSError."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def numbers(folder: Path, name: str) -> list[int]:
    """Ascending. Raises OSError."""
    endings = (each.removeprefix(f"{name}.") for each in disk.listed(folder) if each.startswith(f"{name}."))
    return sorted(int(ending) for ending in endings if ending.isdecimal())


def names(folder: Path) -> set[str]:
    """All that have a lease, held or not. Raises OSError."""
    return {each.rpartition(".")[0] for each in disk.listed(folder) if not each.startswith(".")}


def read(path: Path) -> bytes | None:
    """None: gone. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def is_at(path: Path, fd: int) -> bool:
    """Whether the open file still has this name: not removed, nor another made in its place. Raises OSError."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(fd)
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def create(folder: Path, name: str, number: int, content: Content) -> int | None:
    """The open, locked file; None: somebody was quicker. Raises OSError.

    It is locked and complete before it has its name, so that nobody finds it free. Where links are refused it is made in place, and
    is empty until it is locked: who finds it so goes by silence.
    """
    temporary = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _lock_and_write(fd, content)
        if _linked(temporary, folder / f"{name}.{number}", fd):
            return fd
    except OSError as error:
        os.close(fd)
        if error.errno not in _NO_LINKS:
            raise
        return _create_in_place(folder / f"{name}.{number}", content)
    finally:
        with suppress(OSError):
            temporary.unlink()
    os.close(fd)
    return None


def lock_dead(path: Path) -> int | None:
    """Its open, locked file, if its holder was of this kernel and is dead; who has it is the only one who knows. Raises OSError."""
    if not _is_ours(path):
        return None
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    if locking.try_lock(fd, fcntl.LOCK_EX) and is_at(path, fd):
        return fd
    os.close(fd)
    return None


def is_held(folder: Path, name: str, now: float) -> bool:
    """For who clears up: any doubt counts as held. `now` is the file system's. Raises OSError."""
    return any(not _is_dead(folder / f"{name}.{number}", now) for number in numbers(folder, name))


def remove_dead(path: Path, now: float) -> None:
    """One whose holder is proven dead; where it may be alive, the next holder must know, and it goes after a day. Raises OSError."""
    fd = lock_dead(path)
    try:
        if _is_untouched(path, now, DAY_SECONDS) and (fd is not None or not _is_ours(path)):
            path.unlink(missing_ok=True)
        if fd is not None and not _is_suspect(path):
            path.unlink(missing_ok=True)
    finally:
        if fd is not None:
            os.close(fd)


def _is_dead(path: Path, now: float) -> bool:
    fd = lock_dead(path)
    if fd is not None:
        os.close(fd)
        return True
    return not path.exists() or (not _is_ours(path) and _is_untouched(path, now, SILENT_SECONDS))


def _is_ours(path: Path) -> bool:
    """Of this kernel: its lock tells, however long its holder stands still."""
    content = _content(path)
    return content is not None and content.locked and content.boot_id == boot_id()


def _is_suspect(path: Path) -> bool:
    content = _content(path)
    return content is not None and content.suspect


def _content(path: Path) -> Content | None:
    text = read(path)
    return None if text is None else parse(text)


def _is_untouched(path: Path, now: float, seconds: float) -> bool:
    try:
        return now - path.stat().st_mtime > seconds
    except FileNotFoundError:
        return False


def _lock_and_write(fd: int, content: Content) -> None:
    locked = bool(locking.try_lock(fd, fcntl.LOCK_EX))
    disk.write_all(fd, Content(**{**asdict(content), "locked": locked}).text())
    os.fsync(fd)


def _linked(temporary: Path, path: Path, fd: int) -> bool:
    """A server whose first answer was lost says that it is there, and means ours."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return is_at(path, fd)
    return True


def _create_in_place(path: Path, content: Content) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    try:
        _lock_and_write(fd, content)
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd
