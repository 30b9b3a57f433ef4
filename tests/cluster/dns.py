"""Cluster DNS for the test node: A records of Services with or without a ClusterIP, and of the pods behind them.

`python -m tests.cluster.dns LISTEN_IP API_SERVER AUTHORITY CERTIFICATE KEY`. Each name is looked up at the API server;
while that does not answer, what was found last is told again, and a question for any other name is left to be asked again.
"""

import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.cluster.api import Api, api
from tests.cluster.certificates import Pair

ADDRESS: Final = 1
NAME_ERROR: Final = 3
AUTHORITATIVE: Final = 0x8580
TTL_SECONDS: Final = 5
FRESH_SECONDS: Final = 0.5
"""A client asks for the same name several times in a row."""
API_SECONDS: Final = 0.5
HEADER_BYTES: Final = 12

Get = Callable[[str], Any]


@dataclass(slots=True)
class Remembered:
    """Asks `get`, but not while the last answer is fresh, nor for a moment after a failure.

    Raises OSError where there is no last answer.
    """

    get: Get
    clock: Callable[[], float] = time.monotonic
    _answers: dict[str, tuple[float, Any]] = field(default_factory=dict)
    _silent_until: float = float("-inf")

    def __call__(self, path: str) -> Any:
        now = self.clock()
        at, answer = self._answers.get(path, (float("-inf"), None))
        if now - at < FRESH_SECONDS or (now < self._silent_until and path in self._answers):
            return answer
        try:
            answer = self.get(path)
        except OSError:
            self._silent_until = self.clock() + 1
            if path not in self._answers:
                raise
            return answer
        self._answers[path] = (now, answer)
        return answer


def resolve(name: str, get: Get) -> list[str]:
    """The addresses of `[pod.]service.namespace.svc.cluster.local`; none for any other name."""
    parts = name.lower().rstrip(".").split(".")
    if parts[-3:] != ["svc", "cluster", "local"] or len(parts) not in {5, 6}:
        return []
    service, namespace = parts[-5], parts[-4]
    found = get(f"/api/v1/namespaces/{namespace}/services/{service}")
    if not found:
        return []
    address = found["spec"].get("clusterIP")
    if address and address != "None" and len(parts) == 5:
        return [address]
    query = f"labelSelector=kubernetes.io/service-name%3D{service}"
    slices = get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{query}") or {"items": []}
    ready = [endpoint for part in slices["items"] for endpoint in part["endpoints"] or [] if endpoint["conditions"].get("ready")]
    if len(parts) == 6:
        ready = [endpoint for endpoint in ready if parts[0] in {endpoint.get("hostname"), (endpoint.get("targetRef") or {}).get("name")}]
    return [address for endpoint in ready for address in endpoint["addresses"]]


def answer_to(query: bytes, get: Get) -> bytes:
    """The datagram that answers the first question of `query`."""
    labels, at = [], HEADER_BYTES
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += query[at] + 1
    (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
    addresses = resolve(".".join(labels), get)
    records = [_record(address) for address in addresses] if kind == ADDRESS else []
    flags = AUTHORITATIVE if addresses else AUTHORITATIVE | NAME_ERROR
    return query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + query[HEADER_BYTES : at + 5] + b"".join(records)


def _record(address: str) -> bytes:
    """An A record of the question's name."""
    return b"\xc0\x0c" + struct.pack(">HHIH", ADDRESS, 1, TTL_SECONDS, 4) + socket.inet_aton(address)


def serve(listen_ip: str, source: Api) -> None:
    get = Remembered(lambda path: source.get(path, API_SECONDS))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((listen_ip, 53))
        while True:
            query, client = udp.recvfrom(1500)
            try:
                udp.sendto(answer_to(query, get), client)
            except (IndexError, struct.error, UnicodeDecodeError):
                sys.stderr.write(f"not a question: {len(query)} bytes\n")
            except OSError as error:
                sys.stderr.write(f"not answered: {error}\n")


if __name__ == "__main__":
    listen, server, authority, certificate, key = sys.argv[1:]
    serve(listen, api(server, Path(authority), Pair(Path(certificate), Path(key))))
