"""What the soak asks: requests as bytes on the wire, by kind, and what their answers may be. The same for every run of a seed."""

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

HOT = 200
"""Questions that are asked again and again."""
SUBJECTS = ("password", "invoice", "address", "delivery", "contract", "refund", "account", "parcel", "voucher", "device")
ASKS = ("How do I change my {}?", "How can I change my {}?")
CHAT = "/v1/chat/completions"
FAULT = "x-standin-fault"


class Leaves(Enum):
    """When a client hangs up."""

    NEVER = "never"
    MID_REQUEST = "mid-request"
    BEFORE_ANSWER = "before-answer"
    MID_STREAM = "mid-stream"


@dataclass(frozen=True, slots=True)
class Asked:
    kind: str
    wire: bytes
    statuses: frozenset[int] = frozenset({200})
    leaves: Leaves = Leaves.NEVER
    question: int | None = None
    """Number of a hot question: nobody who asks another one is told the same."""
    may_break: bool = False
    """Upstream breaks off in its answer: so may this connection."""


SHARES = {
    "hot": 540,
    "hot-stream": 200,
    "rephrased": 30,
    "new": 90,
    "new-stream": 30,
    "list": 15,
    "pass": 20,
    "bad-json": 20,
    "leaves-mid-request": 15,
    "leaves-before-answer": 10,
    "leaves-mid-stream": 15,
    "fault": 14,
    "cut": 1,
}
"""Of 1000 requests. A cut connection makes the sidecar doubt who upstream is, and all pass until it has asked: few of them."""

FAULTS = ("status-500", "status-429", "error-object", "garbage-sse", "error-mid-stream", "no-done", "empty-choices")
CUTS = ("reset", "reset-mid-stream")


class Traffic:
    """An endless mix, drawn with a seed. One for all clients: some of them ask the same new thing at the same time."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._filling = self._random.randbytes(1 << 16).hex()
        self._asked = {
            "hot": [chat(question(number)) for number in range(HOT)],
            "hot-stream": [chat(question(number), stream=True) for number in range(HOT)],
            "rephrased": [chat(question(number, form=1)) for number in range(HOT)],
        }
        self._draws = {
            **dict.fromkeys(self._asked, self._hot),
            **{kind: getattr(self, "_" + kind.replace("-", "_")) for kind in SHARES if kind not in (*self._asked, "cut")},
            "cut": self._fault,
        }
        self._kinds = [kind for kind, share in SHARES.items() for _ in range(share)]

    def __iter__(self) -> Iterator[Asked]:
        while True:
            yield self.draw(self._random.choice(self._kinds))

    def draw(self, kind: str) -> Asked:
        return self._draws[kind](kind)

    def _hot(self, kind: str) -> Asked:
        number = self._random.randrange(HOT)
        return Asked(kind, self._asked[kind][number], question=number)

    def _new(self, kind: str) -> Asked:
        return Asked(kind, self._long())

    def _new_stream(self, kind: str) -> Asked:
        return Asked(kind, chat(f"What is thing {next(self._numbers) // 2} made of?", stream=True))

    def _list(self, kind: str) -> Asked:
        texts = [f"text {self._random.randrange(5000)}" for _ in range(4)]
        return Asked(kind, wire("/v1/embeddings", {"model": "tiny", "input": texts}))

    def _pass(self, kind: str) -> Asked:
        return Asked(kind, b"GET /v1/models HTTP/1.1\r\nHost: soak\r\n\r\n")

    def _bad_json(self, kind: str) -> Asked:
        return Asked(kind, wire(CHAT, b'{"model": "tiny", "messages": [' + b"x" * self._random.randrange(40)), frozenset({400}))

    def _leaves_mid_request(self, kind: str) -> Asked:
        whole = self._long()
        return Asked(kind, whole[: len(whole) // 2], leaves=Leaves.MID_REQUEST)

    def _leaves_before_answer(self, kind: str) -> Asked:
        return Asked(kind, self._long(), leaves=Leaves.BEFORE_ANSWER)

    def _leaves_mid_stream(self, kind: str) -> Asked:
        request = chat(f"What is story {next(self._numbers)}?", {FAULT: "hang-mid-stream"}, stream=True)
        return Asked(kind, request, leaves=Leaves.MID_STREAM)

    def _fault(self, kind: str) -> Asked:
        return self._faulty(self._random.choice(FAULTS if kind == "fault" else CUTS))

    def _long(self) -> bytes:
        """A prompt of up to 8 kB and an answer of some 10 kB, asked by two."""
        number = next(self._numbers) // 2
        filler = random.Random(number)
        start = filler.randrange(1000)
        prompt = f"{number} {self._filling[start : start + filler.randrange(100, 8000)]}"
        return wire("/v1/completions", {"model": "tiny", "prompt": prompt, "temperature": 0, "n": 64})

    def _faulty(self, fault: str) -> Asked:
        stream = self._random.random() < 0.5
        request = chat(f"What is fault {next(self._numbers)}?", {FAULT: fault}, stream=stream)
        statuses = frozenset({int(fault[-3:])}) if fault.startswith("status-") else frozenset({200, 502})
        return Asked(fault, request, statuses, may_break=fault in CUTS)


def question(number: int, form: int = 0) -> str:
    return ASKS[form].format(f"{SUBJECTS[number % len(SUBJECTS)]} at the {number}th branch")


def chat(prompt: str, headers: dict[str, str] | None = None, **fields: object) -> bytes:
    return wire(CHAT, {"model": "tiny", "messages": [{"role": "user", "content": prompt}], **fields}, headers)


def wire(path: str, body: object, headers: dict[str, str] | None = None) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{lines}\r\n"
    return head.encode() + data
