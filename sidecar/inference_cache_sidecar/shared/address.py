"""Where the shared store is: one server, a set watched by Sentinel, or a Cluster. Pure.

    redis://[user:password@]host:port[/db]          rediss:// for TLS
    redis+sentinel://[user:password@]host:port,host:port/name[/db]
    redis+cluster://[user:password@]host:port,host:port

Query parameters: ssl_ca_certs, ssl_certfile, ssl_keyfile (paths), ssl_check_hostname (true, false), and for Sentinel
sentinel_username and sentinel_password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote

Kind = Literal["standalone", "sentinel", "cluster"]
_URL: Final = re.compile(r"(rediss?)(?:\+(sentinel|cluster))?://(?:([^@/?#]*)@)?([^@/?#]+)(/[^?#]*)?(?:\?([^#]*))?")
_HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\],]+))(?::([0-9]{1,5}))?")
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_SENTINEL: Final = ("sentinel_username", "sentinel_password")
_DEFAULT_PORTS: Final[dict[Kind, int]] = {"standalone": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    kind: Kind
    nodes: tuple[tuple[str, int], ...]
    """Servers; with Sentinel the sentinels."""
    tls: bool
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    master: str = ""
    """The name Sentinel knows the servers by."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """Without credentials."""
        nodes = ",".join(f"{host}:{port}" for host, port in self.nodes)
        return f"{self.kind} {nodes}" + (f" ({self.master})" if self.master else "")


def parse_redis_url(text: str) -> RedisAddress:
    """Raises ValueError; the message never quotes the URL, which may hold a password."""
    match = _URL.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a URL such as redis://host:6379/0, redis+sentinel://host:26379/name or redis+cluster://host:6379")
    scheme, suffix, userinfo, hosts, path, query = match.groups()
    kind: Kind = "sentinel" if suffix == "sentinel" else "cluster" if suffix == "cluster" else "standalone"
    username, password = _credentials(userinfo)
    master, database = _path(kind, (path or "").strip("/"))
    nodes = tuple(_node(kind, host) for host in hosts.split(","))
    if kind == "standalone" and len(nodes) != 1:
        raise ValueError("names several hosts: say redis+sentinel:// or redis+cluster://")
    return RedisAddress(kind, nodes, scheme == "rediss", username, password, database, master, _options(kind, scheme, query or ""))


def _credentials(userinfo: str | None) -> tuple[str | None, str | None]:
    if not userinfo:
        return None, None
    user, separator, password = userinfo.partition(":")
    return unquote(user) or None, unquote(password) if separator else None


def _node(kind: Kind, text: str) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = _DEFAULT_PORTS[kind] if match is None or match[3] is None else int(match[3])
    if match is None or not 0 < port < 65536:
        raise ValueError("has a host that is not HOST:PORT")
    return match[1] or match[2], port


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """The master's name, for Sentinel, and the database."""
    parts = path.split("/") if path else []
    master = parts.pop(0) if kind == "sentinel" and parts else ""
    if kind == "sentinel" and not master:
        raise ValueError("must name the master that Sentinel watches: redis+sentinel://host:26379/NAME")
    if len(parts) > 1 or any(not part.isdecimal() for part in parts):
        raise ValueError("must end in the database's number, or in nothing")
    database = int(parts[0]) if parts else 0
    if kind == "cluster" and database:
        raise ValueError("names a database, and a Cluster has only number 0")
    return unquote(master), database


def _options(kind: Kind, scheme: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = (*(_TLS if scheme == "rediss" else ()), *(_SENTINEL if kind == "sentinel" else ()))
    for name in options:
        if name not in known:
            raise ValueError(f"has the parameter {name[:40]!r}, which " + (f"is none of {', '.join(known)}" if known else "it cannot have"))
    if options.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise ValueError("ssl_check_hostname is neither true nor false")
    return options
