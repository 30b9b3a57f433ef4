"""What a tree is called: by where it comes from, its version and its pin, so that a warm start asks nobody. Pure."""

import hashlib
import json
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

from inference_cache_artifacts.errors import BadRequest

LENGTH: Final = 32
_SIGNING_PREFIXES: Final = ("x-amz-", "x-goog-", "x-oss-")
_SIGNING: Final = frozenset(
    {
        *("signature", "expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid", "token", "access_token"),
        # Shared access signatures of Azure.
        *("sig", "se", "st", "sp", "sv", "sr", "spr", "sip", "skoid", "sktid", "skt", "ske", "sks", "skv"),
    }
)
"""Parameters that change with every signature, and never with the content."""


def tree_name(sources: Sequence[str], version: str, pin: str, *, verified: bool = True) -> str:
    """32 hexadecimal digits; mirrors in another order, or with other signatures or passwords, give the same name.

    `pin` is what the manifest was pinned to, or "". What nobody verified never has the name of what was. Raises BadRequest.
    """
    document = {"sources": sorted({naming_url(url) for url in sources}), "version": version, "pin": pin.lower(), "verified": verified}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def naming_url(url: str) -> str:
    """What of a URL says which content it is: not user, password or signature, but a query such as `?ref=v2`. Raises BadRequest."""
    plain = plain_url(url)
    if url.startswith("s3://"):
        # As it stands: nothing in the name of an object is a query.
        return url
    kept = [each for each in urlsplit(url).query.split("&") if each and not _signs(each)]
    return f"{plain}?{'&'.join(sorted(kept))}" if kept else plain


def _signs(parameter: str) -> bool:
    name = parameter.partition("=")[0].lower()
    return name.startswith(_SIGNING_PREFIXES) or name in _SIGNING


def plain_url(url: str) -> str:
    """Without user, password, query and fragment: what may be told to anybody. Raises BadRequest."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadRequest("a source is no URL") from None
    if not parts.scheme or not parts.netloc:
        raise BadRequest("a source has no scheme or no host")
    return SplitResult(parts.scheme, _host(parts), parts.path, "", "").geturl()


def _host(parts: SplitResult) -> str:
    """Old buckets have capitals that count; hosts have none."""
    host = parts.netloc.rpartition("@")[2]
    return host if parts.scheme == "s3" else host.lower()
