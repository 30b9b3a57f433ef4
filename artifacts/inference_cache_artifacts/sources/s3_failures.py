"""What S3's and its SDK's errors mean. Pure, but for the clock that is passed in."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from botocore import exceptions

from inference_cache_artifacts.errors import ArtifactError, BadRequest, Forbidden, Transient, Unreachable
from inference_cache_artifacts.sources.answers import MOST_SKEW_SECONDS, failure, retry_after_seconds, skew_seconds

EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
"""Credentials that were good, and are asked for anew."""
_AGAIN: Final = frozenset(
    {"InternalError", "OperationAborted", "RequestLimitExceeded", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"}
)
_REFUSED: Final = frozenset(
    {"400", "AccessDenied", "AuthorizationHeaderMalformed", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
_CLOCK: Final = frozenset({"RequestTimeTooSkewed"})
_MISSING: Final = frozenset({"NoSuchBucket", "NoSuchKey", "NotFound"})
_HINTS: Final[Mapping[str, str]] = {
    # All that HEAD says of either.
    "400": "; have the credentials expired, or is AWS_REGION not the bucket's?",
    "AuthorizationHeaderMalformed": "; is AWS_REGION the bucket's region?",
    "InvalidObjectState": "; it is archived, and has to be restored first",
    "NoSuchBucket": "; there is no such bucket",
    "PermanentRedirect": "; is AWS_REGION the bucket's region?",
}


def answered(error: exceptions.ClientError, where: str, now: datetime) -> ArtifactError | Transient:
    """Of an answer that is no success."""
    if error.operation_name.startswith("Assume"):
        where = f"{where}: taking on the role that may read it"
    code = str(error.response.get("Error", {}).get("Code", ""))
    told: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
    headers: Mapping[str, str] = told.get("HTTPHeaders", {})
    return of_code(code, int(told.get("HTTPStatusCode", 0)), where, headers, now)


def of_code(code: str, status: int, where: str, headers: Mapping[str, str], now: datetime) -> ArtifactError | Transient:
    """S3's own word first: it says more than the status, and HEAD answers have none."""
    skew = skew_seconds(headers.get("date"), now)
    if code in _CLOCK or (status == 403 and abs(skew) > MOST_SKEW_SECONDS):
        return Forbidden(f"{where}: refused, since the clock of this machine is wrong{_by(skew)}")
    if code in EXPIRED:
        return Transient(f"{where}: the credentials have expired")
    if code in _AGAIN:
        return Transient(f"{where}: the source answers {code}", retry_after_seconds(headers.get("retry-after"), now))
    said = f"{where} ({code}{_HINTS.get(code, '')})" if code in _HINTS or (code and not code.isdecimal()) else where
    if code in _REFUSED:
        return failure(403, said)
    if code in _MISSING:
        return failure(404, said)
    return failure(status, said, headers.get("retry-after"))


def raised(error: exceptions.BotoCoreError, where: str) -> ArtifactError | Transient:
    """Of what the SDK says before, or instead of, an answer."""
    kind = type(error).__name__
    if isinstance(error, exceptions.NoCredentialsError):
        return Forbidden(f"{where}: no credentials: give a Secret, a service account that may read it, or AWS_S3_ANONYMOUS=true")
    if isinstance(error, exceptions.PartialCredentialsError | exceptions.UnauthorizedSSOTokenError | exceptions.ProfileNotFound):
        return Forbidden(f"{where}: the credentials are not whole: {error}")
    if isinstance(error, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Unreachable(f"{where}: the certificate of the source cannot be verified")
    if isinstance(error, _PASSING):
        return Transient(f"{where}: {_PASSING_WORDS.get(kind, 'the connection failed')} ({kind})")
    return BadRequest(f"{where}: {error}")


_PASSING: Final = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
    exceptions.IncompleteReadError,
)
_PASSING_WORDS: Final[Mapping[str, str]] = {
    "CredentialRetrievalError": "credentials could not be had",
    "MetadataRetrievalError": "credentials could not be had",
    "ReadTimeoutError": "the source sends nothing",
    "ConnectTimeoutError": "the source does not accept connections",
    "EndpointConnectionError": "the source cannot be reached",
}


def _by(skew_by: float) -> str:
    if abs(skew_by) <= MOST_SKEW_SECONDS:
        return ""
    return f": {abs(skew_by):.0f} s {'ahead of' if skew_by > 0 else 'behind'} the source's"


def now() -> datetime:
    return datetime.now(UTC)
