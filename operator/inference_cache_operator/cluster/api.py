"""The API server as the operator sees it: dicts in, dicts out, every failure one of `errors`.

`controller`, `election` and the events go through one `Cluster`; its guard is asked right before every write, so that a leader that
was frozen and woke up too late writes nothing.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient

from inference_cache_operator import errors

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PAGE: Final = 500
DEADLINE_SECONDS: Final = 10.0
_ERRORS: Final[Mapping[int, type[errors.ClusterError]]] = {
    401: errors.NotAllowed,
    403: errors.NotAllowed,
    404: errors.NotThere,
    409: errors.Conflicting,
    410: errors.NotThere,
    429: errors.TooMany,
}

Body = Mapping[str, Any]
Query = Mapping[str, str]
Guard = Callable[[], None]


def unguarded() -> None:
    """Every write is allowed."""


class Cluster:
    """`guard` raises NotLeading where nothing may be written. The client belongs to the caller."""

    def __init__(self, client: ApiClient, manager: str, guard: Guard = unguarded) -> None:
        self._client = client
        self._manager = manager
        self._guard = guard

    async def get(self, path: str) -> dict[str, Any]:
        return await self._call("GET", path, {})

    async def list(self, path: str, labels: str = "", *, cached: bool = False, metadata_only: bool = False) -> list[dict[str, Any]]:
        """All pages. `cached`: the API server may answer from its memory, at most about a second old."""
        query: dict[str, str] = {"labelSelector": labels} if labels else {}
        query |= {"resourceVersion": "0"} if cached else {"limit": str(PAGE)}
        items: list[dict[str, Any]] = []
        while True:
            page = await self._call("GET", path, query, accept=METADATA_ONLY if metadata_only else "application/json")
            items += page.get("items") or ()
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return items
            query = query | {"continue": following}

    async def merge(self, path: str, body: Body) -> dict[str, Any]:
        return await self._write("PATCH", path, {"fieldManager": self._manager}, body, MERGE)

    async def apply(self, path: str, body: Body, manager: str | None = None, *, force: bool = False) -> dict[str, Any]:
        """Server-side. Conflicting where another manager owns a field; `force` takes it, and is for fields that can only be ours."""
        query = {"fieldManager": manager or self._manager, "force": str(force).lower()}
        return await self._write("PATCH", path, query, body, APPLY)

    async def create(self, path: str, body: Body, *, dry_run: bool = False) -> dict[str, Any]:
        query = {"fieldManager": self._manager} | ({"dryRun": "All"} if dry_run else {})
        return await self._write("POST", path, query, body, "application/json")

    async def replace(self, path: str, body: Body) -> dict[str, Any]:
        """Conflicting where it was written since `body` was read."""
        return await self._write("PUT", path, {"fieldManager": self._manager}, body, "application/json")

    async def delete(self, path: str, options: Body) -> dict[str, Any]:
        """`options`: a DeleteOptions. Conflicting where its preconditions do not hold."""
        return await self._write("DELETE", path, {}, options, "application/json")

    async def _write(self, method: str, path: str, query: Query, body: Body, content: str) -> dict[str, Any]:
        self._guard()
        return await self._call(method, path, query, body, content)

    async def _call(
        self,
        method: str,
        path: str,
        query: Query,
        body: Body | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> dict[str, Any]:
        what = f"{method} {path}"
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                status, raw = await self._exchange(method, path, query, body, content, accept)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise errors.ClusterUnreachable(what, f"{type(error).__name__}: {error}") from error
        if 200 <= status < 300:
            return _document(raw)
        kind = errors.ClusterUnreachable if status >= 500 else _ERRORS.get(status, errors.BadObject)
        raise kind(what, str(_document(raw).get("message") or f"HTTP {status}"))

    async def _exchange(self, method: str, path: str, query: Query, body: Body | None, content: str, accept: str) -> tuple[int, bytes]:
        headers = {"Accept": accept, "Content-Type": content}
        _, url, headers, _, _ = await self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, auth_settings=["BearerToken"]
        )
        send = self._client.rest_client.request
        response = await send(method, url, headers=headers, body=body, _request_timeout=DEADLINE_SECONDS)  # type: ignore[no-untyped-call]
        return response.status, await response.read()


def _document(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
