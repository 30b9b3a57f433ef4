"""All errors of the sidecar, by who is to blame, and their form on the wire (OpenAI's)."""

import traceback
from pathlib import Path

import orjson
from aiohttp import web


class SidecarError(Exception):
    """Base of everything below."""


class ClientFault(SidecarError):
    """The client's request cannot be passed on; `status` says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UpstreamFault(SidecarError):
    """The model server did not answer as HTTP asks for; `status` is what the client is told (502 or 504)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UpstreamAborted(SidecarError):
    """The model server broke off in the middle of its answer: the client's connection is broken off as well."""


class CannotStart(SidecarError):
    """This machine or this installation lacks what the settings ask for; the message names the setting."""


class CannotListen(CannotStart):
    """An address that is not free, or not ours; the message names the flag that gave it."""


class StoreError(SidecarError):
    """The shared store did not do what it was asked: go on without it. The message names no key and no value."""


class StoreUnavailable(StoreError):
    """It is not there, does not answer in time, or has more to do than it gets done."""


class StoreRefused(StoreError):
    """It is there and says no: out of memory, not permitted."""


def whereabouts(error: BaseException) -> str:
    """Type and place of an unexpected error; never its message, which may quote a prompt or an answer."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place


_TYPES = {400: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 431: "invalid_request_error"}


def error_body(status: int, message: str, kind: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind or _TYPES.get(status, "api_error"), "param": None, "code": status}})


def error_response(status: int, message: str, kind: str | None = None) -> web.Response:
    return web.Response(status=status, body=error_body(status, message, kind), content_type="application/json")
