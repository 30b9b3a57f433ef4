"""All that can go wrong with artifacts, by who is to blame. `reason` is one CamelCase word, for conditions, events and `--json`."""

from typing import ClassVar


class ArtifactError(Exception):
    """`file` is the path within the artifact, where one file is to blame; the message names it too, and never holds a credential."""

    reason: ClassVar[str] = "Failed"

    def __init__(self, message: str, file: str | None = None) -> None:
        super().__init__(message)
        self.file = file


class BadRequest(ArtifactError):
    """What was asked for makes no sense: a URL, a path, a limit."""

    reason = "BadRequest"


class BadManifest(ArtifactError):
    """A manifest that cannot be read, or is not the one that was pinned."""

    reason = "BadManifest"


class Unverifiable(ArtifactError):
    """Nothing says what a file must be, and nobody said that it need not be verified."""

    reason = "Unverifiable"


class Missing(ArtifactError):
    """The source does not have it."""

    reason = "Missing"


class Forbidden(ArtifactError):
    """The source knows us, or does not, and refuses."""

    reason = "Forbidden"


class Corrupt(ArtifactError):
    """Every mirror gave other bytes than those that were promised."""

    reason = "Corrupt"


class Changed(ArtifactError):
    """The source holds another object than when we began."""

    reason = "Changed"


class Unreachable(ArtifactError):
    """Every mirror failed again and again, or could not be reached."""

    reason = "Unreachable"


class NoSpace(ArtifactError):
    """The disk has no room for what is to come; said before the first byte wherever possible."""

    reason = "NoSpace"


class DiskFailed(ArtifactError):
    """The disk cannot be written or read: read-only, quota, I/O error."""

    reason = "DiskFailed"


class TimedOut(ArtifactError):
    """It took longer than it may; what was fetched stays, and the next fetch goes on there."""

    reason = "TimedOut"


class Transient(Exception):
    """A source's answer that may be another one next time; never leaves this package. `retry_after_seconds` is what the source asks for."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
