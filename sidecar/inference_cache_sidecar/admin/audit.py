"""The line in the log that every flush leaves: what, by whom, with which result. Pure; `administration` logs it."""

from inference_cache_sidecar.flush import FlushIncomplete, FlushRequest, FlushResult, described


def done(request: FlushRequest, by: str, result: FlushResult) -> str:
    parts = [_acknowledged(result.acknowledged_seconds)] if result.acknowledged_seconds is not None else []
    parts.append(_counted(result.count, request.dry_run))
    if result.epoch is not None:
        parts.append(f"epoch {result.epoch}")
    return f"{_order(request, by)}: {', '.join(parts)}"


def incomplete(request: FlushRequest, by: str, failure: FlushIncomplete) -> str:
    seconds = failure.acknowledged_seconds
    epoch = "" if failure.epoch is None else f", epoch {failure.epoch}"
    return f"{_order(request, by)}: {'not acknowledged' if seconds is None else _acknowledged(seconds)}, {failure}{epoch}"


def _order(request: FlushRequest, by: str) -> str:
    return f"flush of {described(request)} by {by}{' (dry run)' if request.dry_run else ''}"


def _acknowledged(seconds: float) -> str:
    return f"acknowledged in {seconds * 1000:.0f} ms"


def _counted(count: int | None, dry_run: bool) -> str:
    if count is None:
        return "deleting in the background"
    return f"{count} entries {'would be deleted' if dry_run else 'deleted'}"
