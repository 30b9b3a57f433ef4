"""The listening ends of a sidecar as one: how many requests are in flight through them, and their drain. `app` adds each it opens."""

from inference_cache_sidecar.server import ProxyServer, ServerLimits


class Listeners:
    def __init__(self) -> None:
        self._servers: list[ProxyServer] = []
        self._draining = False

    def add(self, server: ProxyServer) -> None:
        self._servers.append(server)
        if self._draining:
            server.drain()

    @property
    def busy(self) -> int:
        """Connections with a request that is not wholly answered."""
        return sum(server.busy for server in self._servers)

    @property
    def open(self) -> int:
        """Connections, idle ones too."""
        return sum(len(server.connections) for server in self._servers)

    def use(self, limits: ServerLimits) -> None:
        """For clients that connect from now on."""
        for server in self._servers:
            server.use(limits)

    def drain(self, draining: bool = True) -> None:
        """Every connection ends with its next answer."""
        self._draining = draining
        for server in self._servers:
            server.drain(draining)

    def close_idle(self) -> None:
        for server in self._servers:
            server.close_idle()
