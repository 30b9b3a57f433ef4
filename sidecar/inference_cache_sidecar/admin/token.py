"""Who may write: holders of the bearer token. Without a configured token nobody."""

import hmac

from aiohttp import web

from inference_cache_contract.endpoints import ADMIN_TOKEN_VARIABLE
from inference_cache_sidecar.errors import ClientFault


def require(request: web.Request, token: str | None) -> None:
    """Raises ClientFault. Compares in constant time, and before anything of the body is read."""
    if token is None:
        raise ClientFault(403, f"the admin API's writes are off: set {ADMIN_TOKEN_VARIABLE} and start the sidecar again to turn them on")
    scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
    given = presented.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given, token.encode()):
        raise ClientFault(401, "this needs the admin token: Authorization: Bearer <token>")


def require_in_path(given: str, token: str | None) -> None:
    """Raises ClientFault, also where there is no token. Compares in constant time."""
    if token is None or not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
        raise ClientFault(403, "this needs the token that the pod was injected with")
