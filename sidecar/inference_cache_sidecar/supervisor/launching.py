"""The way into supervision: binds the addresses, and turns this process into the supervisor. `command` calls it.

The program is replaced, so that nothing of what read the settings stays in memory; the process id stays.
"""

import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final, NoReturn
from urllib.parse import urlsplit

from inference_cache_sidecar.entrance import Entrance
from inference_cache_sidecar.errors import CannotListen
from inference_cache_sidecar.settings import ADMIN, FEATURES, LISTEN, Address, ProcessSetting
from inference_cache_sidecar.supervisor.plan import Front, Plan, plan_text

BACKLOG: Final = 1024
ENDS: Final = (signal.SIGTERM, signal.SIGINT)
SUPERVISOR_MODULE: Final = "inference_cache_sidecar.supervisor"


def launch(entrance: Entrance, arguments: Sequence[str]) -> NoReturn:
    """Raises CannotListen."""
    fronts = (
        Front(_name(LISTEN), bound(LISTEN, entrance.listen), upstream_address(entrance.upstream)),
        Front(_name(ADMIN), bound(ADMIN, entrance.admin), None),
        Front(_name(FEATURES), _features(entrance), None),
    )
    plan = Plan(tuple(front for front in fronts if front.descriptors), tuple(arguments), entrance.log_level)
    for front in plan.fronts:
        for descriptor in front.descriptors:
            os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Until the supervisor handles it; as a container's first process it would miss it else.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    os.execv(sys.executable, [sys.executable, "-P", "-m", SUPERVISOR_MODULE, plan_text(plan)])  # noqa: S606  our own program


def _name(setting: ProcessSetting) -> str:
    return setting.flag.removeprefix("--")


def _features(entrance: Entrance) -> tuple[int, ...]:
    """Bound in any case, since no two workers could bind it for themselves; clients are let wait only where it is asked for now. The
    feature cache must not keep the model from being served: without its address a worker says what is wrong."""
    if entrance.features is None:
        return ()
    try:
        return bound(FEATURES, entrance.features, listens=entrance.features_now)
    except CannotListen as error:
        sys.stderr.write(f"{error}\n")
        return ()


def upstream_address(url: str) -> tuple[str, int] | None:
    """None for a URL to which bytes cannot be passed as they are."""
    parts = urlsplit(url)
    return (parts.hostname, parts.port or 80) if parts.scheme == "http" and parts.hostname else None


def bound(setting: ProcessSetting, address: Address, *, listens: bool = True) -> tuple[int, ...]:
    """Sockets that listen (or can be made to) at all that the host's name stands for; the caller owns them. Raises CannotListen."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        places = dict.fromkeys((family, place) for family, _, _, _, place in found)
        if address.port == 0:
            places = dict([next(iter(places.items()))])
        # `::` alone takes IPv4 too, as vLLM's socket does; beside a socket for IPv4 it must not.
        six_only = not (address.host == "::" and len(places) == 1)
        return tuple(_bound(family, place, six_only=six_only, listens=listens) for family, place in places)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
        raise CannotListen(f"{setting.flag}: {address}: {reason}") from error


def _bound(family: int, place: tuple[object, ...], *, six_only: bool, listens: bool) -> int:
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(six_only))
        listening.bind(place)
        if listens:
            listening.listen(BACKLOG)
        listening.setblocking(False)
        return listening.detach()
