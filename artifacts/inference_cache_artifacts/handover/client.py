"""Requests to the agent of the node, and what its answers mean. Used by `asking`, `relaying` and `handing`.

Never by a proxy: the agent is on this node, and the token is for it alone.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import quote

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from inference_cache_artifacts.errors import ArtifactError, BadRequest, Forbidden
from inference_cache_artifacts.handover.contact import Contact
from inference_cache_artifacts.handover.failures import error_of
from inference_cache_artifacts.handover.protocol import (
    FAILURE_HEADER,
    FETCH,
    FETCHES,
    JOB,
    JOB_SECONDS,
    MANIFEST,
    RESULT,
    Ask,
    Failure,
    Job,
    Standing,
    Summary,
    ask_text,
    failure_text,
    read_failure,
    read_job,
    read_standing,
    read_summary,
)
from inference_cache_artifacts.manifest import Manifest, parse_manifest

_T = TypeVar("_T")
_SECONDS: Final = urllib3.Timeout(connect=3.0, read=20.0)
_LONG_POLL: Final = urllib3.Timeout(connect=3.0, read=JOB_SECONDS + 15.0)
_STREAM: Final = urllib3.Timeout(connect=30.0, read=30.0)
"""The first also holds while a body is sent: the agent's disk may stall."""
_LEAVING: Final = urllib3.Timeout(total=2.0)


class Away(Exception):
    """The agent cannot be reached, or has trouble of its own: it may be well the next time. Never leaves `handover`."""


class Gone(Exception):
    """The agent does not know it, or does not wait for it any more. Never leaves `handover`."""


class Refused(Forbidden):
    """The agent does not know whose token this is; it says nothing of the source."""


class Client:
    """All threads share its connections."""

    def __init__(self, contact: Contact, connections: int) -> None:
        self.url: Final = contact.url
        self._contact = contact
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=connections, retries=False)

    def ask(self, ask: Ask) -> Summary | str:
        """The tree, if it is there; else the id of the fetch that has begun. Raises Away, Gone, ArtifactError."""
        answer = self._request("POST", FETCHES, body=ask_text(ask).encode())
        return _read(read_summary, answer) if answer.status == 200 else _fetch_id(answer.data)

    def standing(self, fetch: str) -> Standing:
        """Raises Away, Gone, ArtifactError."""
        return _read(read_standing, self._request("GET", FETCH.format(fetch=quote(fetch, safe=""))))

    def leave(self, fetch: str) -> None:
        """The agent need not wait until it notices; takes 2 seconds at most."""
        with suppress(Away, Gone, ArtifactError):
            self._request("DELETE", FETCH.format(fetch=quote(fetch, safe="")), timeout=_LEAVING)

    def job(self, fetch: str) -> Job | None:
        """The next one; None where there was none for a while. Raises Away, Gone, ArtifactError."""
        answer = self._request("GET", JOB.format(fetch=quote(fetch, safe="")), timeout=_LONG_POLL)
        return _read(read_job, answer) if answer.status == 200 else None

    def tell(self, fetch: str, number: int, result: bytes) -> None:
        """Raises Away, Gone, ArtifactError."""
        self._request("PUT", _result(fetch, number), body=result)

    def tell_failure(self, fetch: str, number: int, failure: Failure) -> None:
        """Raises Away, Gone, ArtifactError."""
        self._request("PUT", _result(fetch, number), {FAILURE_HEADER: failure.reason}, failure_text(failure).encode())

    def stream(self, fetch: str, number: int, pieces: Iterable[memoryview]) -> None:
        """In chunks: what ends early ends without a break, so that the agent loses nothing of it.

        What `pieces` raises breaks it off, and is raised. Raises Away, Gone, ArtifactError.
        """
        self._request("PUT", _result(fetch, number), body=pieces, timeout=_STREAM)

    def manifest(self, tree: str) -> Manifest:
        """Raises Away, Gone, ArtifactError."""
        return parse_manifest(self._request("GET", MANIFEST.format(tree=tree)).data)

    def close(self) -> None:
        self._pool.clear()

    def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[memoryview] | None = None,
        timeout: urllib3.Timeout = _SECONDS,
    ) -> BaseHTTPResponse:
        answer = self._sent(method, path, headers or {}, body, timeout)
        if answer.status >= 300:
            raise self._meaning(answer)
        return answer

    def _sent(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Any,
        timeout: urllib3.Timeout,
    ) -> BaseHTTPResponse:
        own = {"Authorization": f"Bearer {self._contact.token()}", "Accept-Encoding": "identity", "User-Agent": "inference-cache"}
        try:
            return self._pool.request(
                method,
                self.url + path,
                headers={**own, **headers},
                body=body,
                timeout=timeout,
                redirect=False,
                decode_content=False,
            )
        except (HTTPError, OSError) as error:
            raise Away(f"the agent at {self.url} cannot be reached ({type(error).__name__})") from None

    def _meaning(self, answer: BaseHTTPResponse) -> Exception:
        """Of an answer that is no success."""
        failure = _failure_in(answer.data)
        told = f"the agent at {self.url} answers {answer.status}{f': {failure.message}' if failure else ''}"
        if answer.status in {404, 410}:
            return Gone(told)
        if answer.status in {401, 403}:
            return Refused(f"{told} (the token is that of --agent-token)")
        if answer.status == 400 and failure is not None:
            return error_of(failure)
        return Away(told)


def _result(fetch: str, number: int) -> str:
    return RESULT.format(fetch=quote(fetch, safe=""), number=number)


def _read(reader: Callable[[bytes], _T], answer: BaseHTTPResponse) -> _T:
    """Raises Away for what an agent does not say."""
    try:
        return reader(answer.data)
    except BadRequest as error:
        raise Away(f"the agent's answer makes no sense: {error}") from None


def _fetch_id(text: bytes) -> str:
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    fetch = told.get("fetch") if isinstance(told, Mapping) else None
    if not isinstance(fetch, str) or not fetch:
        raise Away("the agent does not say which fetch it has begun")
    return fetch


def _failure_in(text: bytes) -> Failure | None:
    try:
        return read_failure(json.loads(text))
    except (ValueError, BadRequest):
        return None
