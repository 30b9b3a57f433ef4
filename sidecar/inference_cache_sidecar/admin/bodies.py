"""Reads the admin API's JSON bodies, strictly: what is unknown, missing or of the wrong type is named. Pure. Raises ClientFault."""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from inference_cache_contract.errors import shown
from inference_cache_sidecar.admin.services import FeedbackRequest
from inference_cache_sidecar.errors import ClientFault
from inference_cache_sidecar.flush import FlushRequest, Target
from inference_cache_sidecar.metrics import Verdict

MAX_NAME: Final = 256
_TARGETS: Final = ("version", "tag", "category", "adapter", "key", "all")


def flush_request(body: bytes) -> FlushRequest:
    fields = _object(body, (*_TARGETS, "dryRun", "background"))
    dry_run, background = _yes_or_no(fields, "dryRun"), _yes_or_no(fields, "background")
    if dry_run and background:
        raise ClientFault(400, "dryRun and background: a dry run deletes nothing, also not in the background")
    target = cast("Target", _only_one(fields, _TARGETS))
    if target == "all":
        if fields["all"] is not True:
            raise ClientFault(400, f"all: {shown(fields['all'])} is not true")
        return FlushRequest("all", "", dry_run, background)
    value = _key(fields["key"]).hex() if target == "key" else _name(fields, target)
    return FlushRequest(target, value, dry_run, background)


def feedback_request(body: bytes) -> FeedbackRequest:
    fields = _object(body, ("id", "key", "verdict"))
    verdict = fields.get("verdict")
    if verdict not in tuple(Verdict):
        raise ClientFault(400, f"verdict: {shown(verdict)} is not one of {', '.join(Verdict)}")
    if _only_one(fields, ("id", "key")) == "id":
        return FeedbackRequest(_name(fields, "id"), None, Verdict(verdict))
    return FeedbackRequest(None, _key(fields["key"]), Verdict(verdict))


def _object(body: bytes, known: Collection[str]) -> Mapping[str, Any]:
    try:
        fields = json.loads(body, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError):
        raise ClientFault(400, "the body is not valid JSON") from None
    if not isinstance(fields, dict):
        raise ClientFault(400, "the body is not a JSON object")
    for name in fields:
        if name not in known:
            raise ClientFault(400, f"{shown(name)} is not a field of this request; known are {', '.join(known)}")
    return fields


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ClientFault(400, "the body has a field twice")
    return fields


def _only_one(fields: Mapping[str, Any], names: Collection[str]) -> str:
    given = [name for name in names if name in fields]
    if len(given) != 1:
        raise ClientFault(400, f"exactly one of {', '.join(names)} must be given")
    return given[0]


def _yes_or_no(fields: Mapping[str, Any], field: str) -> bool:
    value = fields.get(field, False)
    if not isinstance(value, bool):
        raise ClientFault(400, f"{field}: {shown(value)} is neither true nor false")
    return value


def _name(fields: Mapping[str, Any], field: str) -> str:
    value = fields[field]
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise ClientFault(400, f"{field}: {shown(value)} is not a text of 1 to {MAX_NAME} characters")
    return value


def _key(value: object) -> bytes:
    try:
        key = bytes.fromhex(value) if isinstance(value, str) and len(value) == 64 else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ClientFault(400, f"key: {shown(value)} is not the 64 hexadecimal digits of a key, as in Cache-Status")
    return key
