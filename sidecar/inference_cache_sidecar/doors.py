"""The addresses a sidecar listens at: opened by itself, or inherited from its supervisor. `app` opens them and closes them together."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from inference_cache_sidecar.errors import CannotListen
from inference_cache_sidecar.settings import ADMIN, FEATURES, LISTEN, Address, ProcessSetting
from inference_cache_sidecar.supervisor.inheritance import Inherited

BACKLOG: Final = 1024


class Doors:
    def __init__(self, inherited: Inherited | None) -> None:
        """None: nothing is inherited."""
        self._inherited = {} if inherited is None else {LISTEN: inherited.listen, ADMIN: inherited.admin, FEATURES: inherited.features}
        self._servers: list[asyncio.Server] = []

    async def open(self, make: Callable[[], asyncio.Protocol], setting: ProcessSetting, address: Address) -> Address:
        """The address as bound; clients are `make`'s. Raises CannotListen."""
        loop = asyncio.get_running_loop()
        inherited = self._inherited.get(setting, ())
        with _binding(setting, address):
            if inherited:
                opened = [await loop.create_server(make, sock=socket.socket(fileno=number), backlog=BACKLOG) for number in inherited]
            else:
                opened = [await loop.create_server(make, address.host, address.port, backlog=BACKLOG)]
        self._servers.extend(opened)
        return Address(address.host, opened[0].sockets[0].getsockname()[1])

    def close(self) -> None:
        """Nobody is let in any more; who is in stays."""
        for server in self._servers:
            server.close()
        self._servers.clear()


@contextmanager
def _binding(setting: ProcessSetting, address: Address) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
        raise CannotListen(f"{setting.flag}: {address}: {reason}") from error
