"""kopf watches the resources, in a thread of its own: when it ends it cancels whatever tasks it finds in its event loop.

It only passes on what it hears: no finalizers, no annotations, no events of its own.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import kopf

from inference_cache_contract.pod import API_VERSION, PLURAL
from inference_cache_operator.errors import WatchEnded
from inference_cache_operator.kopf_settings import IDENTITY, kopf_settings

Heard = Callable[[Mapping[str, Any], bool], None]
"""A resource's body, and whether it was deleted."""

_END_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 0.25


@asynccontextmanager
async def watching(
    heard: Heard, credentials: Callable[[], kopf.ConnectionInfo], namespaces: tuple[str, ...]
) -> AsyncIterator["asyncio.Future[None]"]:
    """While the body runs, `heard` is called in its event loop; the future fails with WatchEnded if kopf gives up."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def hear(event: str | None, body: Mapping[str, Any]) -> None:
        loop.call_soon_threadsafe(heard, body, event == "DELETED")

    kopfs = _Thread(_registry(hear, credentials), namespaces, lambda error: loop.call_soon_threadsafe(_fail, ended, error))
    kopfs.start()
    try:
        yield ended
    finally:
        kopfs.stop()
        await asyncio.to_thread(kopfs.join, _END_SECONDS)
        ended.cancel()


class _Thread(threading.Thread):
    """`failed` is called in it, if kopf ends before it is stopped."""

    def __init__(
        self, registry: kopf.OperatorRegistry, namespaces: tuple[str, ...], failed: Callable[[BaseException | None], object]
    ) -> None:
        super().__init__(name="kopf", daemon=True)
        self._registry = registry
        self._namespaces = namespaces
        self._failed = failed
        self._stopping = threading.Event()
        self._stop_kopf: Callable[[], object] = lambda: None

    def run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._operate())
        except Exception as raised:
            error = raised
        if not self._stopping.is_set():
            self._failed(error)

    def stop(self) -> None:
        self._stopping.set()
        with contextlib.suppress(RuntimeError):  # its event loop is closed already
            self._stop_kopf()

    async def _operate(self) -> None:
        # kopf waits for a flag of threads in a thread of its own, which would outlive a failure and hold it up.
        loop, flag = asyncio.get_running_loop(), asyncio.Event()
        self._stop_kopf = lambda: loop.call_soon_threadsafe(flag.set)
        if self._stopping.is_set():
            return
        settings = kopf_settings()
        settings.process.ultimate_exiting_timeout = None
        await kopf.operator(
            registry=self._registry,
            settings=settings,
            identity=IDENTITY,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=flag,
        )
        # Its closed TLS connections need the event loop for a moment more.
        await asyncio.sleep(_CLOSE_SECONDS)


def _registry(
    hear: Callable[[str | None, Mapping[str, Any]], None], credentials: Callable[[], kopf.ConnectionInfo]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    group, version = API_VERSION.split("/")

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return credentials()

    @kopf.on.event(group, version, PLURAL, registry=registry)
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        hear(event["type"], dict(event["object"]))

    return registry


def _fail(ended: "asyncio.Future[None]", error: BaseException | None) -> None:
    if not ended.done():
        ended.set_exception(WatchEnded(f"kopf ended: {error!r}"))
