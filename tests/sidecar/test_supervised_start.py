"""`inference-cache sidecar --supervise` as a pod starts it: where it listens, and what it does with settings that are refused."""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import orjson
import pytest

from inference_cache_contract.endpoints import (
    ADMIN_TOKEN_VARIABLE,
    DRAIN_TOKEN_VARIABLE,
    ENCRYPTION_KEYS_VARIABLE,
    KAFKA_USERNAME_VARIABLE,
    REDIS_URL_VARIABLE,
    TENANCY_KEY_VARIABLE,
)
from inference_cache_sidecar.entrance import Entrance, entrance_in_need
from inference_cache_sidecar.settings import ADMIN, FEATURES, Address
from inference_cache_sidecar.supervisor.inheritance import INHERITED_VARIABLE
from inference_cache_sidecar.supervisor.launching import bound
from inference_cache_toolkit.processes import Child, free_port, start, stop, wait_for

PROGRAM = Path(sys.executable).with_name("inference-cache")
SECONDS = 120.0
NEEDED = ("--supervise", "--upstream", "http://127.0.0.1:18000")
SECRET = "a-bad-one"
BAD_SECRETS = {
    TENANCY_KEY_VARIABLE: SECRET,
    REDIS_URL_VARIABLE: f"127.0.0.1/{SECRET}",
    ENCRYPTION_KEYS_VARIABLE: SECRET,
    ADMIN_TOKEN_VARIABLE: f"{SECRET} with blanks",
    DRAIN_TOKEN_VARIABLE: f"{SECRET}\twith tabs",
    KAFKA_USERNAME_VARIABLE: SECRET,
}


@dataclass(frozen=True)
class Started:
    child: Child
    port: int
    admin: int

    def asked(self, host: str = "127.0.0.1") -> tuple[int, str]:
        """Status and Cache-Status of one chat; 0 where nobody answers."""
        body = orjson.dumps({"model": "tiny", "messages": [{"role": "user", "content": "What is number 1?"}], "max_tokens": 4})
        connection = HTTPConnection(host, self.port, timeout=20)
        try:
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("Cache-Status", "")
        except (OSError, HTTPException):
            return 0, ""
        finally:
            connection.close()


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """`supervise(*flags, host=…, **variables)`: started in front of a stand-in; nothing is waited for."""
    with ExitStack() as stack:
        upstream = free_port()
        standin = start("standin", [PROGRAM, "standin", "--listen", f"127.0.0.1:{upstream}", "--tokens", "4"], tmp_path / "standin.log")
        stack.callback(stop, standin)

        def begin(*flags: str, host: str = "127.0.0.1", variables: Mapping[str, str] | None = None) -> Started:
            port, admin = free_port(), free_port()
            where = ["--listen", f"{host}:{port}", "--admin", f"127.0.0.1:{admin}", "--upstream", f"http://127.0.0.1:{upstream}"]
            command = [PROGRAM, "sidecar", "--supervise", *where, "--semantic-mode", "Off", *flags]
            child = start("sidecar", command, tmp_path / "sidecar.log", {**os.environ, **(variables or {})})
            stack.callback(stop, child, SECONDS)
            return Started(child, port, admin)

        yield begin


@pytest.mark.slow
@pytest.mark.services
def test_at_all_addresses_of_ipv6_clients_of_ipv4_are_let_in_too(supervise: Callable[..., Started]) -> None:
    assert socket.has_ipv6, "this test needs a machine with IPv6"
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.fail(f"this test needs a machine with IPv6: ::1: {error.strerror}")
    sidecar = supervise(host="[::]")
    wait_for(sidecar.child, lambda: "; hit" in sidecar.asked("127.0.0.1")[1], SECONDS)
    wait_for(sidecar.child, lambda: "; hit" in sidecar.asked("::1")[1], SECONDS)


@pytest.mark.slow
@pytest.mark.services
def test_with_secrets_that_are_malformed_the_cache_goes_on_without_them(supervise: Callable[..., Started]) -> None:
    sidecar = supervise(variables=BAD_SECRETS)
    wait_for(sidecar.child, lambda: "; hit" in sidecar.asked()[1], SECONDS)
    told = sidecar.child.log.read_text()
    for variable in BAD_SECRETS:
        assert variable.replace("USERNAME", "PASSWORD") in told
    assert SECRET not in told


@pytest.mark.slow
@pytest.mark.services
def test_with_settings_that_are_refused_requests_are_passed_on_and_the_log_says_why(supervise: Callable[..., Started]) -> None:
    sidecar = supervise("--spec", "/nowhere/spec.yaml", "--exact-ttl", "soon")
    wait_for(sidecar.child, lambda: sidecar.asked() == (200, ""), SECONDS)
    wait_for(sidecar.child, lambda: "ended with status 2" in sidecar.child.log.read_text(), SECONDS)
    assert sidecar.asked() == (200, "")
    assert "/nowhere/spec.yaml" in sidecar.child.log.read_text()


def test_what_answers_requests_is_read_apart_from_all_that_may_be_refused() -> None:
    refused = {**BAD_SECRETS, "INFERENCE_CACHE_EXACT_TTL": "soon", "INFERENCE_CACHE_FEATURES": "?", "INFERENCE_CACHE_LOG_LEVEL": "?"}
    listen, admin = Address("127.0.0.1", 8000), Address("127.0.0.1", 9180)
    assert entrance_in_need(NEEDED, refused) == Entrance(listen, "http://127.0.0.1:18000", admin)
    given = entrance_in_need((*NEEDED, "--listen", "[::]:1", "--features", "0.0.0.0:2", "--log-level", "error"), {})
    assert given == Entrance(Address("::", 1), "http://127.0.0.1:18000", admin, Address("0.0.0.0", 2), True, "error")


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        pytest.param(NEEDED[1:], {}, id="not-supervised"),
        pytest.param(NEEDED, {INHERITED_VARIABLE: "{}"}, id="a-worker"),
        pytest.param((*NEEDED, "--print-config"), {}, id="print-only"),
        pytest.param((*NEEDED, "--listen", "?"), {}, id="listen"),
        pytest.param((*NEEDED, "--admin", "?"), {}, id="admin"),
        pytest.param(("--supervise",), {}, id="upstream"),
        pytest.param((*NEEDED, "--listen", "127.0.0.1:18000"), {}, id="upstream-is-itself"),
        pytest.param((*NEEDED, "--listn", "?"), {}, id="unknown-flag"),
    ],
)
def test_without_what_answers_requests_it_ends(flags: tuple[str, ...], variables: dict[str, str]) -> None:
    assert entrance_in_need(flags, variables) is None


def test_an_address_that_may_be_wanted_later_is_held_and_nobody_waits_there() -> None:
    (held,) = bound(FEATURES, Address("127.0.0.1", 0), listens=False)
    with socket.socket(fileno=held) as features:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(features.getsockname(), timeout=5)
        features.listen()
        socket.create_connection(features.getsockname(), timeout=5).close()


def test_an_address_that_listens_lets_clients_wait() -> None:
    (held,) = bound(ADMIN, Address("127.0.0.1", 0))
    with socket.socket(fileno=held) as admin:
        socket.create_connection(admin.getsockname(), timeout=5).close()
