"""The API server, as far as an agent asks it: a few requests, each with the service account's token as it stands on the disk just then."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)


class ApiAway(Exception):
    """The API server did not answer, or not what it was asked: nothing is known."""


@dataclass(frozen=True, slots=True)
class Access:
    url: str
    token_file: Path = _ACCOUNT / "token"
    ca_file: Path = _ACCOUNT / "ca.crt"


def url_of_cluster(environment: Mapping[str, str] = os.environ) -> str | None:
    """None outside of a cluster."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class Kubernetes:
    """Open within its context."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._trusted: tuple[int, ssl.SSLContext] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **query: str) -> Mapping[str, Any]:
        """Raises ApiAway."""
        return await self._asked("GET", path, params=query)

    async def post(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raises ApiAway."""
        return await self._asked("POST", path, json=document)

    async def _asked(self, method: str, path: str, **more: Any) -> Mapping[str, Any]:
        assert self._session is not None
        try:
            headers, trust = self._authorization(), self._trust()
            async with self._session.request(method, self._access.url + path, headers=headers, ssl=trust, **more) as answer:
                if answer.status >= 300:
                    raise ApiAway(f"the API server answers {answer.status} to {method} {path}")
                document = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ApiAway(f"the API server does not answer {method} {path}: {type(error).__name__}") from None
        if not isinstance(document, dict):
            raise ApiAway(f"the API server answers no object to {method} {path}")
        return document

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._access.token_file.read_text('ascii').strip()}"}

    def _trust(self) -> ssl.SSLContext | bool:
        """Made anew where the file has changed: that takes longer than the request."""
        if not self._access.url.startswith("https:"):
            return True
        changed = self._access.ca_file.stat().st_mtime_ns
        if self._trusted is None or self._trusted[0] != changed:
            self._trusted = changed, ssl.create_default_context(cafile=self._access.ca_file)
        return self._trusted[1]
