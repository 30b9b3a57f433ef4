"""One request over HTTP, with its redirects: who may see the credentials, and what broken connections become."""

import base64
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, NewConnectionError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from inference_cache_artifacts.errors import BadRequest, Transient, Unreachable
from inference_cache_artifacts.sources.addresses import is_loopback, origin
from inference_cache_artifacts.sources.authorities import check_authorities
from inference_cache_artifacts.sources.bodies import give_up
from inference_cache_artifacts.sources.options import HttpAccess, SourceOptions

MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
MOST_DRAINED: Final = 16 << 10
"""Bytes of an error's page."""
_HOSTS: Final = 8
"""A mirror and those that it redirects to."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer whose head is here and whose body is not yet read; `url` is where it came from in the end, and may be a secret."""

    answer: BaseHTTPResponse
    url: str

    @property
    def status(self) -> int:
        return self.answer.status

    def header(self, name: str) -> str | None:
        return self.answer.headers.get(name)


class HttpClient:
    """All threads share its connections."""

    def __init__(self, home: str, access: HttpAccess, options: SourceOptions) -> None:
        self._home = origin(home)
        self._authorization = _authorization(access)
        self._options = options
        self._pools: dict[str, urllib3.PoolManager] = {}

    def request(self, method: str, url: str, headers: Mapping[str, str], where: str) -> Answered:
        """Follows redirects, also from another host. Raises Transient, Unreachable, BadRequest."""
        for _ in range(MOST_REDIRECTS + 1):
            with _failures(where):
                answer = self._once(method, url, headers)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return Answered(answer, url)
            finish(answer)
            url = _redirected(url, answer.headers["location"], where)
        raise Unreachable(f"{where}: more than {MOST_REDIRECTS} redirects")

    def close(self) -> None:
        for pool in list(self._pools.values()):
            pool.clear()

    def _once(self, method: str, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        own = {"Authorization": self._authorization} if self._authorization and origin(url) == self._home else {}
        every = {"Accept-Encoding": "identity", "User-Agent": "inference-cache"}
        pool = self._pool(url)
        return pool.request(
            method, url, headers={**every, **headers, **own}, preload_content=False, decode_content=False, redirect=False, retries=False
        )

    def _pool(self, url: str) -> urllib3.PoolManager:
        """By the proxy that the environment names for it; "" is none."""
        proxy = _proxy(url)
        if proxy not in self._pools:
            # Of two threads that come first the pool of one is forgotten, with no connection in it.
            self._pools.setdefault(proxy, self._made(proxy))
        return self._pools[proxy]

    def _made(self, proxy: str) -> urllib3.PoolManager:
        own = partial(_Proxied, proxy) if proxy else urllib3.PoolManager
        options = self._options
        check_authorities(options.ca_file)
        timeout = urllib3.Timeout(connect=options.connect_timeout_seconds, read=options.read_timeout_seconds)
        return own(num_pools=_HOSTS, maxsize=options.connections, timeout=timeout, ca_certs=options.ca_file)


class _Proxied(urllib3.ProxyManager):
    """With the user that the proxy's URL names."""

    def __init__(self, proxy: str, **settings: Any) -> None:
        user = unquote(urlsplit(proxy).netloc.rpartition("@")[0]) or None
        super().__init__(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=user), **settings)


def finish(answer: BaseHTTPResponse) -> None:
    """Done with an answer whose body nobody wants; one with little or nothing of it leaves its connection usable."""
    length = answer.length_remaining
    if length is not None and length <= MOST_DRAINED:
        answer.drain_conn()
        answer.release_conn()
    else:
        give_up(answer)


def _redirected(url: str, location: str, where: str) -> str:
    target = urljoin(url, location)
    scheme = urlsplit(target).scheme
    if scheme not in {"http", "https"}:
        raise Unreachable(f"{where}: it redirects to {scheme!r}, which is no HTTP")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise Unreachable(f"{where}: it redirects from https to http")
    return target


def _authorization(access: HttpAccess) -> str | None:
    if access.token is not None:
        return f"Bearer {access.token}"
    if access.username is None:
        return None
    pair = f"{access.username}:{access.password or ''}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _proxy(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme, "")
    return "" if not proxy or is_loopback(host) or proxy_bypass(host) else proxy


@contextmanager
def _failures(where: str) -> Iterator[None]:
    """Before the head of an answer is here."""
    try:
        yield
    except LocationValueError:
        raise BadRequest(f"{where}: a URL that cannot be asked") from None
    except ReadTimeoutError:
        raise Transient(f"{where}: the source sends nothing") from None
    except NewConnectionError:
        raise Transient(f"{where}: the source cannot be reached") from None
    except ConnectTimeoutError:
        raise Transient(f"{where}: the source does not accept connections") from None
    except (HTTPError, OSError) as error:
        if _unverified(error):
            raise Unreachable(f"{where}: the certificate of the source cannot be verified") from None
        raise Transient(f"{where}: the connection broke ({type(error).__name__})") from None


def _unverified(error: BaseException) -> bool:
    """Somewhere beneath what urllib3 made of it."""
    causes = [error, *(each for each in error.args if isinstance(each, BaseException)), error.__cause__, error.__context__]
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in causes)
