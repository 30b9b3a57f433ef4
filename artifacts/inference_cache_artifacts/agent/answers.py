"""Refusals, as every answer from 400 on tells them: the class in a header, why in the body."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from inference_cache_artifacts.agent.fetches import Busy
from inference_cache_artifacts.agent.kubernetes import ApiAway
from inference_cache_artifacts.errors import ArtifactError, BadManifest, BadRequest, Missing
from inference_cache_artifacts.handover.protocol import FAILURE_HEADER, Failure, failure_text

log = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 2.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gone(ArtifactError):
    """Nobody waits for it any more."""

    reason = "Gone"


class Unknown(ArtifactError):
    """No token, or one that is not for us."""

    reason = "Unknown"


_STATUSES: Final[dict[type[ArtifactError], int]] = {BadRequest: 400, BadManifest: 400, Unknown: 401, Missing: 404, Gone: 410}


@web.middleware
async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ArtifactError as error:
        return refusal(_STATUSES.get(type(error), 500), Failure(error.reason, str(error), error.file))
    except (ApiAway, Busy) as error:
        return refusal(503, Failure("Unreachable", str(error), retry_after_seconds=_RETRY_SECONDS))
    except web.HTTPException as error:
        return refusal(error.status, Failure("BadRequest", error.reason))


def refusal(status: int, failure: Failure) -> web.Response:
    headers = {FAILURE_HEADER: failure.reason}
    if failure.retry_after_seconds is not None:
        headers["Retry-After"] = f"{failure.retry_after_seconds:.0f}"
    return web.Response(status=status, text=failure_text(failure), content_type="application/json", headers=headers)
