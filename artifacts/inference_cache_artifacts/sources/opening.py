"""From a URL to its source. Opening asks nobody anything, and loads no library that a warm start would not need."""

from inference_cache_artifacts.errors import BadRequest
from inference_cache_artifacts.source import Source
from inference_cache_artifacts.sources.addresses import http_address, s3_address
from inference_cache_artifacts.sources.options import SourceOptions, http_access, s3_access

__all__ = ["SourceOptions", "open_source"]


def open_source(url: str, options: SourceOptions) -> Source:
    """Of `s3://BUCKET/PREFIX/` or `https://HOST/PATH`. Raises BadRequest."""
    scheme = url.partition("://")[0].lower()
    if scheme == "s3":
        return _s3(f"s3{url[2:]}", options)
    if scheme in {"http", "https"}:
        return _http(url, options)
    raise BadRequest(f"a source is s3://BUCKET/PREFIX/ or https://HOST/PATH, not {scheme[:20]!r}")


def _s3(url: str, options: SourceOptions) -> Source:
    # Late, as in the next function: a warm start opens nothing, and pays for no SDK.
    from inference_cache_artifacts.sources.s3 import S3Source  # noqa: PLC0415

    return S3Source(s3_address(url), s3_access(options.credentials), options)


def _http(url: str, options: SourceOptions) -> Source:
    from inference_cache_artifacts.sources.http import HttpSource  # noqa: PLC0415

    return HttpSource(http_address(url, options.plain_http), http_access(options.credentials), options)
