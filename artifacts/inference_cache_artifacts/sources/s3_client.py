"""The SDK's client: how it is made, renewed, and what its errors become. Loads boto3; `s3.py` imports this at the first request."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from inference_cache_artifacts.errors import BadRequest, Forbidden
from inference_cache_artifacts.sources.authorities import check_authorities
from inference_cache_artifacts.sources.options import S3Access, SourceOptions
from inference_cache_artifacts.sources.s3_failures import EXPIRED, answered, now, raised

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NEEDED: Final = "when_required"


class Asking:
    """One client for all threads, and a new one where its credentials have expired."""

    def __init__(self, make: "Callable[[str], S3Client]", lasting: bool) -> None:
        """`make` is told the place for its errors; what it makes of `lasting` credentials is the same each time."""
        self._make = make
        self._lasting = lasting
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._renewed = False

    def ask(self, what: "Callable[[S3Client], object]", where: str) -> Mapping[str, Any]:
        """Raises Transient or an ArtifactError, nothing of the SDK's."""
        client = self._current(where)
        try:
            answer = what(client)
        except ClientError as error:
            self._renew_if_expired(client, error, where)
            raise answered(error, where, now()) from None
        except BotoCoreError as error:
            raise raised(error, where) from None
        self._renewed = False
        return cast(Mapping[str, Any], answer)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _current(self, where: str) -> "S3Client":
        with self._lock:
            if self._client is None:
                self._client = self._make(where)
            return self._client

    def _renew_if_expired(self, client: "S3Client", error: ClientError, where: str) -> None:
        """The next request makes a client, which reads the credentials again; other threads still use this one."""
        if error.response.get("Error", {}).get("Code") not in EXPIRED:
            return
        with self._lock:
            if self._client is not client:
                return
            if self._lasting or self._renewed:
                raise Forbidden(f"{where}: the credentials have expired") from None
            self._renewed, self._client = True, None


def made(access: S3Access, options: SourceOptions, where: str) -> "S3Client":
    """Raises BadRequest, Transient, Forbidden."""
    check_authorities(options.ca_file)
    try:
        # A session of its own: the SDK's default one may not be shared by threads.
        session = boto3.session.Session(access.key, access.secret, access.token, access.region)
        return session.client("s3", endpoint_url=access.endpoint, config=_config(access, options), verify=options.ca_file)
    except BotoCoreError as error:
        raise raised(error, where) from None
    except ValueError as error:
        raise BadRequest(f"{where}: {error}") from None


def _config(access: S3Access, options: SourceOptions) -> Config:
    chosen: dict[str, Any] = {"signature_version": UNSIGNED} if access.anonymous else {}
    if access.addressing is not None:
        chosen["s3"] = {"addressing_style": access.addressing}
    return Config(
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        max_pool_connections=options.connections,
        # The transfer tries again, at another mirror where there is one.
        retries={"total_max_attempts": 1, "mode": "standard"},
        # The transfer verifies what it writes; twice would cost twice.
        request_checksum_calculation=NEEDED,
        response_checksum_validation=NEEDED,
        **chosen,
    )
