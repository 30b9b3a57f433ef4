"""A whole answer made ready once and sent many times: `generation` and `pooling` make it, `server` fills in the id and sends it."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

ID: Final = "\ufdd0id\ufdd0"
"""Stands in prepared bytes where the id goes; made of a code point that no text may contain."""
_ID_BYTES: Final = ID.encode()


@dataclass(frozen=True, slots=True)
class Prepared:
    """The plain body and the events of the stream, both with `ID` in place of the answer's id."""

    id_prefix: str
    plain: bytes
    events: tuple[bytes, ...] = ()
    tokens: int = 0
    """What `per_token` is counted with."""
    takes_request_id: bool = True
    """X-Request-Id becomes part of the id."""

    def body(self, answer_id: str) -> bytes:
        return self.plain.replace(_ID_BYTES, answer_id.encode())

    def stream(self, answer_id: str) -> list[bytes]:
        return [event.replace(_ID_BYTES, answer_id.encode()) for event in self.events]


class RequestError(Exception):
    """The request is answered as vLLM answers it: an error object with this status."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.param = status, kind, param

    def body(self) -> bytes:
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.status}
        return orjson.dumps({"error": error})


def parsed(body: bytes) -> dict[str, Any]:
    """The request's JSON object. Raises RequestError as vLLM would answer."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, "Bad Request", f"1 validation error: JSON decode error: {error}", "body") from error
    if not isinstance(value, dict):
        raise RequestError(400, "Bad Request", "1 validation error: Input should be a valid dictionary", "body")
    return value


DONE: Final = b"data: [DONE]\n\n"


def data_event(payload: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def named_event(payload: dict[str, Any]) -> bytes:
    return b"event: " + str(payload["type"]).encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"
