"""Whom to trust: looked at before the first request, since a client that meets a bad file calls it a broken connection.

Called by both clients, of HTTP and of S3.
"""

import ssl

from inference_cache_artifacts.errors import BadRequest


def check_authorities(ca_file: str | None) -> None:
    """Raises BadRequest where it cannot be read, or has no certificate."""
    if ca_file is None:
        return
    try:
        ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise BadRequest(f"--ca-file {ca_file}: it has no certificate in PEM") from None
    except OSError as error:
        raise BadRequest(f"--ca-file {ca_file}: {error.strerror}") from None
