"""Questions to the feature server whose answers are read whole. The server makes one `Asking` for each request."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from inference_cache_sidecar import headers as header_rules
from inference_cache_sidecar.errors import UpstreamAborted, UpstreamFault
from inference_cache_sidecar.relay import raw_path_of
from inference_cache_sidecar.upstream import Upstream, chunks_of

_OUR_OWN: Final = ("expect", "content-length", "accept-encoding", "cache-control")
"""Headers that are not passed on with a question of ours: its body is another, and its answer must be readable."""


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    status: int
    headers: CIMultiDict[str]
    """Those that go on to the client."""
    body: bytes


@dataclass(slots=True)
class Asking:
    """Asks in the name of one request: with its method, path, credential and other headers."""

    upstream: Upstream
    request: web.BaseRequest
    most_bytes: int
    """Of an answer that is read whole."""
    answers: dict[bytes, UpstreamAnswer] = field(default_factory=dict)
    """By what was asked."""

    async def ask(self, body: bytes) -> bytes | None:
        """The body of an answer that may be kept. Raises UpstreamFault. A question without effect: it may be asked twice."""
        answer = await self.answer(body, repeatable=True)
        if answer is None:
            return None
        self.answers[body] = answer
        return answer.body if answer.status == 200 and "Content-Encoding" not in answer.headers else None

    async def answer(self, body: bytes | AsyncIterator[bytes] | None, *, repeatable: bool = False) -> UpstreamAnswer | None:
        """None if it is too long. Raises UpstreamFault."""
        headers = header_rules.end_to_end(self.request.headers, _OUR_OWN)
        async with self.upstream.send(self.request.method, raw_path_of(self.request), headers, body, repeatable=repeatable) as answer:
            parts, size = [], 0
            try:
                async for chunk in chunks_of(answer):
                    parts.append(chunk)
                    size += len(chunk)
                    if size > self.most_bytes:
                        return None
            except UpstreamAborted as aborted:
                raise UpstreamFault(502, str(aborted)) from aborted
            kept = header_rules.end_to_end(answer.headers, ("content-length",))
            return UpstreamAnswer(answer.status, kept, b"".join(parts))
