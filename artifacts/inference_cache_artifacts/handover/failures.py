"""Errors as they go over the wire, and back into what they were. Pure."""

from inference_cache_artifacts.errors import ArtifactError, Transient
from inference_cache_artifacts.handover.protocol import Failure

TRANSIENT = Transient.__name__
"""The reason of what may go better the next time."""


def failure_of(error: ArtifactError | Transient) -> Failure:
    if isinstance(error, Transient):
        return Failure(TRANSIENT, str(error), None, error.retry_after_seconds)
    return Failure(error.reason, str(error), error.file)


def error_of(failure: Failure) -> ArtifactError:
    """An ArtifactError of no kind where the reason is not known here, as of a newer agent."""
    kinds = {kind.reason: kind for kind in ArtifactError.__subclasses__()}
    kind = kinds.get(failure.reason)
    if kind is None:
        return ArtifactError(f"{failure.reason}: {failure.message}", failure.file)
    return kind(failure.message, failure.file)
