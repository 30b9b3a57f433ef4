"""The stand-in's settings and counters. Whoever starts one makes a `Standin` and hands it to `server.serving`."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from inference_cache_contract.endpoints import PATHS
from inference_cache_toolkit.standin.answers import Writer
from inference_cache_toolkit.standin.faults import Fault
from inference_cache_toolkit.standin.prepared import Prepared

SEEN_BODY_BYTES: Final = 1 << 20
_RECENT: Final = 32


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds to the first token and between two tokens; a plain answer takes both together."""

    first_token: float = 0.0
    per_token: float = 0.0


@dataclass(frozen=True, slots=True)
class Card:
    """One line of /v1/models."""

    name: str
    root: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived; a body over 1 MiB is kept as its first MiB."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    body_bytes: int


@dataclass
class Standin:
    """One pretended model server. Tests change its fields while it runs; its counters are for their assertions."""

    models: tuple[str, ...] = ("tiny",)
    root: str = "/models/tiny"
    writer: Writer = field(default_factory=Writer)
    pace: Pace = Pace()
    api_key: str | None = None
    version: str = "0.32.0"
    development: bool = False
    """Weights may be replaced in place, as in vLLM's development mode."""
    fault: Fault | None = None
    """What goes wrong with every inference request that names no fault of its own."""
    started: float = field(default_factory=time.time)
    adapters: dict[str, str] = field(default_factory=dict)
    """LoRA adapters: name to path."""
    calls: Counter[str] = field(default_factory=Counter)
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=_RECENT))
    aborted: int = 0
    """Requests whose caller hung up before the answer was complete."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `aborted` grows."""
    ready: dict[tuple[str, bytes], tuple[Prepared, bool]] = field(default_factory=dict)
    """By path and request body: the answer and whether it is streamed."""

    def restart(self, *, root: str | None = None, salt: str | None = None) -> None:
        """What a client sees after the process was replaced: a new start time, perhaps another model."""
        self.started = time.time() + 1e-3
        self.root = root or self.root
        self.writer = Writer(self.writer.tokens, self.writer.salt if salt is None else salt, self.writer.known)
        self.adapters.clear()
        self.ready.clear()

    @property
    def inferences(self) -> int:
        """How many inference requests came in."""
        return sum(count for path, count in self.calls.items() if path in PATHS)

    def cards(self) -> list[Card]:
        served = [Card(name, self.root) for name in self.models]
        return served + [Card(name, path, parent=self.models[0]) for name, path in self.adapters.items()]

    def serves(self, model: str) -> bool:
        return model in self.models or model in self.adapters

    def writer_of(self, model: object) -> Writer:
        """A model at another root says other things."""
        root = self.adapters.get(str(model), self.root)
        return Writer(self.writer.tokens, f"{self.writer.salt}\0{root}", self.writer.known)

    def load_adapter(self, name: str, path: str) -> None:
        self.adapters[name] = path
        self.ready.clear()

    def unload_adapter(self, name: str) -> None:
        self.adapters.pop(name, None)
        self.ready.clear()
