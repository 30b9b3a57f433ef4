"""Who upstream is: the fingerprint of what it says of itself, and whether that still holds.

The pipeline takes the revision from here; while it is unconfirmed nothing is looked up and nothing stored, so that a model
server restarted with another model behind the same sidecar never has the old one's answers repeated. Three things raise doubt:
a lost connection (one idle connection is kept as a tripwire), a changed process start time (polled), and whoever calls `doubt`.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from inference_cache_sidecar.errors import UpstreamFault
from inference_cache_sidecar.upstream import Upstream

POLL_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.25
ASK_SECONDS: Final = 2.0
_START_TIME: Final = b"\nprocess_start_time_seconds "
_PROCESS_BYTES: Final = 7
"""Of a process's number, so that it fits a signed 64-bit word."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelCards:
    """What `/v1/models` says, less what differs at every call."""

    base: tuple[tuple[str, str], ...] = ()
    """(id, root) of every model that is not an adapter."""
    roots: Mapping[str, str] = field(default_factory=dict)
    """Root by name, adapters included."""


def parse_cards(body: bytes) -> ModelCards:
    """Raises ValueError if this is no list of model cards."""
    parsed = orjson.loads(body)
    cards = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(cards, list):
        raise ValueError("not a list of model cards")
    known = [card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)]
    base = sorted((card["id"], str(card.get("root"))) for card in known if not card.get("parent"))
    return ModelCards(tuple(base), {card["id"]: str(card.get("root")) for card in known})


def parse_start_time(metrics: bytes) -> bytes | None:
    """The process start time as the server prints it; None where it prints none."""
    at = metrics.find(_START_TIME)
    return None if at < 0 else metrics[at + len(_START_TIME) :].split(b"\n", 1)[0].strip()


def process_number(start_time: bytes) -> int:
    return int.from_bytes(hashlib.sha256(start_time).digest()[:_PROCESS_BYTES])


def fingerprint(version: bytes, cards: ModelCards) -> bytes:
    """32 bytes over the server's version and its base models."""
    return hashlib.sha256(orjson.dumps([version.decode("utf-8", "replace"), cards.base])).digest()


class _Tripwire(asyncio.Protocol):
    """An idle connection that upstream's end, or death, closes."""

    def __init__(self, identity: "UpstreamIdentity") -> None:
        self._identity = identity
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._identity.doubt()


class UpstreamIdentity:
    """Kept true by `run`, a task that `app` owns."""

    def __init__(self, upstream: Upstream, version: str, revision: str = "") -> None:
        """`revision` is what whoever started this process knows of upstream that upstream does not say: a digest of how it is run."""
        self._upstream = upstream
        self._told = b"".join(len(part).to_bytes(8, "big") + part for part in (version.encode(), revision.encode()))
        self._cards = ModelCards()
        self._fingerprint = b""
        self._start_time: bytes | None = None
        self._credential: dict[str, str] = {}
        self._tripwire: _Tripwire | None = None
        self._doubted = asyncio.Event()
        self._away = False
        self.confirmed = False
        self.process = 0
        """Of upstream when it was last confirmed: the same number for as long as it is the same process."""
        self.wants_key = False
        """Upstream is there, but names its models only to a key, and no caller's has been accepted yet."""
        self.doubts = 0
        """Raised with every doubt: an answer whose request began under another number is not stored."""
        self.revision = b""
        """32 bytes: the resource's version, the revision this process was started with, and what upstream says of itself."""

    def root_of(self, model: str) -> str:
        return self._cards.roots.get(model, "")

    def doubt(self) -> None:
        """Nothing is served or stored until upstream has been asked again."""
        self.confirmed = False
        self.doubts += 1
        self._doubted.set()

    def accepted(self, credential: Mapping[str, str]) -> None:
        """The first credential that upstream accepted is kept for asking when it wants one."""
        if not self._credential and credential:
            self._credential = dict(credential)
            if not self.confirmed:
                self._doubted.set()

    async def run(self) -> None:
        try:
            while True:
                self._doubted.clear()
                await self._step()
                wait = POLL_SECONDS if self.confirmed else RETRY_SECONDS
                try:
                    # Not wait_for, which loses a cancellation that comes together with the event.
                    async with asyncio.timeout(wait):
                        await self._doubted.wait()
                except TimeoutError:
                    continue
        finally:
            self._disarm()

    async def _step(self) -> None:
        try:
            if self._tripwire is None or self._tripwire.transport is None:
                await self._arm()
            if self.confirmed:
                await self._poll()
            if not self.confirmed:
                await self.confirm()
        except (UpstreamFault, OSError, ValueError) as error:
            self._away |= isinstance(error, ConnectionRefusedError)
            if self.confirmed:
                _log.info("upstream no longer answers (%s): passing through until it does", type(error).__name__)
                self.doubt()

    async def _arm(self) -> None:
        address = self._upstream.address
        connecting = asyncio.get_running_loop().create_connection(
            lambda: _Tripwire(self), address.host or "", address.port or 80, ssl=address.scheme == "https" or None
        )
        async with asyncio.timeout(ASK_SECONDS):
            _, self._tripwire = await connecting

    def _disarm(self) -> None:
        if self._tripwire is not None and self._tripwire.transport is not None:
            self._tripwire.transport.close()

    async def _poll(self) -> None:
        start_time = await self._ask_start_time()
        if start_time != self._start_time:
            self.doubt()
        else:
            await self._read(raise_doubt=True)

    async def confirm(self) -> None:
        """Ask upstream who it is. Raises UpstreamFault if it does not say."""
        doubts = self.doubts
        self._start_time = await self._ask_start_time()
        await self._read(raise_doubt=False)
        if self.doubts == doubts:
            self.process = self._process()
            self._away = False
            self.confirmed = True

    def _process(self) -> int:
        """Several API servers of one vLLM print no start time: another process is then one that comes after nobody took connections."""
        return self.process + self._away if self._start_time is None else process_number(self._start_time)

    async def _read(self, *, raise_doubt: bool) -> None:
        """Take in what upstream says; `raise_doubt` if it says something else than before."""
        version = await self._ask_version()
        cards = parse_cards(await self._ask_models())
        identity = fingerprint(version, cards)
        changed = identity != self._fingerprint
        if raise_doubt and (changed or cards != self._cards):
            self.doubts += 1
        self._cards, self._fingerprint = cards, identity
        self.revision = hashlib.sha256(self._told + identity).digest()
        if changed:
            _log.info("upstream is %s, revision %s", ", ".join(name for name, _ in cards.base) or "nameless", self.revision.hex()[:12])

    async def _ask_start_time(self) -> bytes | None:
        status, body = await self._upstream.ask("/metrics", {}, ASK_SECONDS)
        return parse_start_time(body) if status == 200 else None

    async def _ask_version(self) -> bytes:
        status, body = await self._upstream.ask("/version", {}, ASK_SECONDS)
        if status >= 500:
            raise UpstreamFault(status, "the model server does not say its version")
        return body if status == 200 else b""

    async def _ask_models(self) -> bytes:
        status, body = await self._upstream.ask("/v1/models", {}, ASK_SECONDS)
        if status in (401, 403) and self._credential:
            status, body = await self._upstream.ask("/v1/models", self._credential, ASK_SECONDS)
            if status in (401, 403):
                self._credential = {}
        self.wants_key = status in (401, 403)
        if status == 404:
            return b'{"data":[]}'
        if status != 200:
            raise UpstreamFault(status, "the model server does not name its models")
        return body
