"""Whose request it is: the namespace of the service account whose token it carries, as the API server says."""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

from inference_cache_artifacts.agent.kubernetes import Kubernetes
from inference_cache_artifacts.handover.protocol import AUDIENCE

KEPT_SECONDS: Final = 60.0
NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""It becomes the name of a folder."""
_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_USER: Final = re.compile(rf"system:serviceaccount:(?P<namespace>{NAMESPACE.pattern}):[a-z0-9.-]+")
_MOST_KEPT: Final = 4096
REFUSED_SECONDS: Final = 5.0
_MOST_REFUSED: Final = 1024
_MOST_REVIEWS: Final = 16
"""At the same time."""
_T = TypeVar("_T")


class Tokens:
    """Keeps answers by the token's SHA-256, never the token. What nobody knows pushes out nothing that somebody does."""

    def __init__(self, kubernetes: Kubernetes, kept_seconds: float = KEPT_SECONDS) -> None:
        self._kubernetes = kubernetes
        self._known = _Kept[str](_MOST_KEPT, kept_seconds)
        self._refused = _Kept[None](_MOST_REFUSED, min(REFUSED_SECONDS, kept_seconds))
        self._asking: dict[bytes, asyncio.Task[str | None]] = {}
        self._reviews = asyncio.Semaphore(_MOST_REVIEWS)

    async def namespace(self, token: str) -> str | None:
        """None: it is nobody's, or made for somebody else than us. Raises ApiAway."""
        key = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        for kept in (self._known, self._refused):
            if key in kept:
                return kept[key]
        if key not in self._asking:
            self._asking[key] = asyncio.create_task(self._asked(key, token))
            self._asking[key].add_done_callback(lambda task: self._ended(key, task))
        return await asyncio.shield(self._asking[key])

    async def _asked(self, key: bytes, token: str) -> str | None:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": [AUDIENCE]}}
        async with self._reviews:
            namespace = namespace_of(await self._kubernetes.post(_REVIEWS, review))
        if namespace is None:
            self._refused.keep(key, None)
        else:
            self._known.keep(key, namespace)
        return namespace

    def _ended(self, key: bytes, task: "asyncio.Task[str | None]") -> None:
        del self._asking[key]
        # Whoever asked may have gone away meanwhile, and nobody hears of the error.
        if not task.cancelled():
            task.exception()


class _Kept(Generic[_T]):
    """The youngest `most`, for so many seconds."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._all: OrderedDict[bytes, tuple[float, _T]] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return time.monotonic() < self._all.get(key, (0.0, None))[0]

    def __getitem__(self, key: bytes) -> _T:
        return self._all[key][1]

    def keep(self, key: bytes, answer: _T) -> None:
        self._all[key] = (time.monotonic() + self._seconds, answer)
        self._all.move_to_end(key)
        while len(self._all) > self._most:
            self._all.popitem(last=False)


def namespace_of(review: Mapping[str, Any]) -> str | None:
    """Of an answered TokenReview. Pure."""
    status = review.get("status") or {}
    if status.get("authenticated") is not True or AUDIENCE not in (status.get("audiences") or ()):
        return None
    found = _USER.fullmatch((status.get("user") or {}).get("username") or "")
    return None if found is None else found["namespace"]
