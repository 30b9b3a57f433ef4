"""Clients that ask a server all the time, each question over a connection of its own, and keep what came of each."""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

CLIENTS: Final = 3
PAUSE_SECONDS: Final = 0.02
DEADLINE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    begun: float
    """By the monotonic clock."""
    seconds: float
    failed: str | None
    hit: bool

    @property
    def ended(self) -> float:
        return self.begun + self.seconds


@dataclass(slots=True)
class Asking:
    """What came of all questions so far."""

    asked: list[Asked] = field(default_factory=list)

    def since(self, moment: float) -> list[Asked]:
        """Those whose connection was begun after `moment`."""
        return [each for each in list(self.asked) if each.begun > moment]


@contextmanager
def asking(url: str, questions: Sequence[str], more: Mapping[str, object] = MappingProxyType({})) -> Iterator[Asking]:
    """Meanwhile they are asked in turn, over and over. `more`: further members of each request."""
    made, stopped = Asking(), threading.Event()
    threads = [
        threading.Thread(target=_ask_on, args=(Questions(url, questions[number % len(questions) :], more), made, stopped))
        for number in range(CLIENTS)
    ]
    for each in threads:
        each.start()
    try:
        yield made
    finally:
        stopped.set()
        for each in threads:
            each.join()


@dataclass(frozen=True, slots=True)
class Questions:
    url: str
    texts: Sequence[str]
    more: Mapping[str, object]


def _ask_on(questions: Questions, made: Asking, stopped: threading.Event) -> None:
    turn = 0
    while not stopped.wait(PAUSE_SECONDS):
        made.asked.append(ask_once(questions.url, questions.texts[turn % len(questions.texts)], questions.more))
        turn += 1


def ask_once(url: str, question: str, more: Mapping[str, object] = MappingProxyType({})) -> Asked:
    begun = time.monotonic()
    try:
        failed, hit = None, _asked(url, {"model": "acme", "messages": [{"role": "user", "content": question}], **more})
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        failed, hit = f"{type(error).__name__}: {error}", False
    return Asked(begun, time.monotonic() - begun, failed, hit)


def _asked(url: str, body: Mapping[str, object]) -> bool:
    """Whether it was a hit. Raises ValueError for anything but a whole answer."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=DEADLINE_SECONDS)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json", "Connection": "close"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise ValueError(f"status {answer.status}: {content[:100]!r}")
        if not json.loads(content)["choices"][0]["message"]["content"]:
            raise ValueError("an empty answer")
        return "; hit" in answer.getheader("Cache-Status", "")
    finally:
        connection.close()
