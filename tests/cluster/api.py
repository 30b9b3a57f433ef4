"""Requests to an API server that need no kubectl process: some milliseconds each."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.cluster.certificates import Pair

SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Api:
    """Requests to an API server as a certificate's user; several threads may share it."""

    server: str
    tls: ssl.SSLContext

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json", seconds: float = SECONDS) -> Any:
        """The answer's JSON. Raises HTTPError, or OSError where no answer came."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": content_type}
        request = Request(self.server + path, data, headers, method=method)
        with urlopen(request, timeout=seconds, context=self.tls) as answer:
            return json.load(answer)

    def get(self, path: str, seconds: float = SECONDS) -> Any:
        """None where it does not exist. Raises as `request` does."""
        try:
            return self.request("GET", path, seconds=seconds)
        except HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.server}/readyz", timeout=5, context=self.tls):
                return True
        except HTTPError as error:
            error.close()
            return False
        except OSError:
            return False


def api(server: str, authority: Path, client: Pair) -> Api:
    tls = ssl.create_default_context(cafile=authority)
    tls.load_cert_chain(client.certificate, client.key)
    return Api(server, tls)
