"""What the admin API answers, as a status and a JSON document. Pure; the handlers send it."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import orjson

from inference_cache_contract.spec_fields import camel
from inference_cache_sidecar.admin.services import Status
from inference_cache_sidecar.errors import StoreError, error_body
from inference_cache_sidecar.exposition import VERSION
from inference_cache_sidecar.flush import FlushIncomplete, FlushRequest, FlushResult

Answer = tuple[int, dict[str, Any]]


def flush_answer(request: FlushRequest, result: FlushResult) -> Answer:
    """202 while the bytes are still being deleted."""
    document: dict[str, Any] = {}
    if result.count is not None:
        document["wouldFlush" if request.dry_run else "flushed"] = result.count
    if result.epoch is not None:
        document["epoch"] = result.epoch
    if result.acknowledged_seconds is not None:
        document["acknowledged"] = True
    return (202, document | {"purge": "background"}) if result.count is None else (200, document)


def store_failed(failure: StoreError) -> Answer:
    """A flush's answer says too whether all replicas heed it."""
    document: dict[str, Any] = orjson.loads(error_body(503, str(failure), "store_error"))
    if isinstance(failure, FlushIncomplete):
        document["acknowledged"] = failure.acknowledged_seconds is not None
        if failure.epoch is not None:
            document["epoch"] = failure.epoch
    return 503, document


def status_document(status: Status) -> dict[str, Any]:
    return {"version": VERSION, **_members(status)}


def _members(told: Any) -> dict[str, Any]:
    return {camel(field.name): _shown(getattr(told, field.name)) for field in fields(told)}


def _shown(value: object) -> object:
    if is_dataclass(value):
        return _members(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_shown(member) for member in value]
    return value
