"""Questions put to several sidecars all the time, and what came of each: of which generation the answer was, and whether it was a hit.

`chaos` starts what is asked. An answer says which generation of upstream made it, so that an answer from before a flush is known by sight.
"""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from inference_cache_toolkit.standin.state import Standin

CHAT: Final = "/v1/chat/completions"
TAGS: Final = ("docs", "prices", "people")
CATEGORY: Final = "pricing"
TOLERATED_SECONDS: Final = 1.0
"""From the acknowledgement of a flush on, no request that starts later than this may be given what was flushed."""
ANSWER_SECONDS: Final = 100.0
WARM_SECONDS: Final = 150.0
WINDOW_SECONDS: Final = 1.0
RATE: Final = 40.0
_GENERATION: Final = re.compile(rb"generation-(\d+)")
_HIT: Final = re.compile(r'; hit; .*detail="(\w+)')
_FORWARDED: Final = re.compile(r"fwd=([\w-]+)")

TEXTS: Final = (
    *("How do I reset my password?", "How can I reset my password?"),
    *("What is the capital of France?", "Name the tallest mountain in Africa."),
    *("How do I cancel my subscription?", "How can I cancel my subscription?"),
    *("Why is the sky blue at noon?", "Who painted the Mona Lisa?"),
    *("How do I change my billing address?", "How can I change my billing address?"),
    *("When does the museum open on Sundays?", "Which gases make up the atmosphere of Venus?"),
    *("How do I delete my account?", "How can I delete my account?"),
    *("Explain photosynthesis in one sentence.", "List three uses of baking soda."),
    *("Where can I park near the stadium?", "Write a haiku about winter rain."),
    *("What does the word ephemeral mean?", "Recommend a novel about the sea."),
    *("How long should pasta boil?", "Describe how a bicycle stays upright."),
    *("Which planet has the most moons?", "Summarise the plot of Hamlet."),
)


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    tag: str
    category: str | None
    stream: bool = False

    @property
    def headers(self) -> dict[str, str]:
        marks = {"x-inference-cache-tags": self.tag}
        return marks if self.category is None else marks | {"x-inference-cache-category": self.category}

    @property
    def body(self) -> dict[str, object]:
        return {"model": "tiny", "messages": [{"role": "user", "content": self.text}], "stream": self.stream}

    def is_flushed_by(self, target: Mapping[str, object]) -> bool:
        """`target` is a body of the admin API's flush."""
        if "tag" in target:
            return target["tag"] == self.tag
        return target["category"] == self.category if "category" in target else True


def questions() -> tuple[Question, ...]:
    """Two wordings of one question have the same marks; every fifth is asked as a stream."""
    return tuple(
        Question(text, TAGS[number // 2 % len(TAGS)], CATEGORY if number // 2 % 2 else None, stream=number % 5 == 0)
        for number, text in enumerate(TEXTS)
    )


class Generations(Mapping[str, str]):
    """What the stand-in answers to each prompt; `now` is readable from every answer."""

    def __init__(self) -> None:
        self.now = 1

    def __getitem__(self, prompt: str) -> str:
        return f"generation-{self.now} answers this question"

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def renew(self, standin: Standin) -> int:
        """From now on `standin`, whose writer knows these answers, gives others; their generation."""
        self.now += 1
        standin.ready.clear()
        return self.now


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer; times by the monotonic clock."""

    question: Question
    replica: int
    started: float
    ended: float
    kind: str
    """exact or semantic for a hit, collapsed, else the reason for which it was forwarded; failed if there was no answer."""
    generation: int | None

    @property
    def is_hit(self) -> bool:
        return self.kind in ("exact", "semantic")


@dataclass(frozen=True, slots=True)
class Flushed:
    """An acknowledged flush of what was answered before `generation`."""

    target: Mapping[str, object]
    generation: int
    sent: float
    acknowledged: float

    @property
    def seconds(self) -> float:
        return self.acknowledged - self.sent

    def forbids(self, heard: Heard) -> bool:
        if heard.started <= self.acknowledged + TOLERATED_SECONDS:
            return False
        return self.has_flushed(heard)

    def has_flushed(self, heard: Heard) -> bool:
        return heard.generation is not None and heard.generation < self.generation and heard.question.is_flushed_by(self.target)


@dataclass
class Traffic:
    """Asks every sidecar at a fixed rate, whether it answers or not."""

    session: aiohttp.ClientSession
    urls: Sequence[str]
    asked: Sequence[Question] = field(default_factory=questions)
    rate: float = RATE
    heard: list[Heard] = field(default_factory=list)
    _asking: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Traffic"]:
        """Ends when every question asked has been answered or has failed."""
        clients = [asyncio.create_task(self._client(replica)) for replica in range(len(self.urls))]
        try:
            yield self
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            await asyncio.gather(*self._asking)

    async def goes_on(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def outlasts(self, flushed: Flushed) -> None:
        """Until most answers are hits again, among those that a flush could spoil."""
        await self.goes_on(max(0.0, flushed.acknowledged + TOLERATED_SECONDS + WINDOW_SECONDS - time.monotonic()))
        await self.warm()

    async def warm(self, *replicas: int, share: float = 0.8) -> None:
        """Until so large a share of what these (else all) have answered lately were hits."""
        began = time.monotonic()
        wanted = replicas or tuple(range(len(self.urls)))
        async with asyncio.timeout(WARM_SECONDS):
            while not all(self.hits(max(began, time.monotonic() - WINDOW_SECONDS), replica=each) >= share for each in wanted):
                await asyncio.sleep(0.05)

    def hits(self, start: float, end: float = float("inf"), replica: int | None = None) -> float:
        """Share of hits among all that was asked within a time, of one replica or of all; 0 if that is too little to tell."""
        asked = [each for each in self.heard if start <= each.started <= end and replica in (None, each.replica)]
        return sum(each.is_hit for each in asked) / len(asked) if len(asked) >= self.rate / 4 else 0.0

    def forbidden(self, flushed: Flushed) -> list[str]:
        """What was answered that must not have been, in words."""
        return [
            f"replica {each.replica} gave generation {each.generation} of {flushed.generation} ({each.kind}, {each.question.text!r}) to a "
            f"request that began {each.started - flushed.acknowledged:.3f} s after the acknowledgement"
            for each in self.heard
            if flushed.forbids(each)
        ]

    def latest(self, flushed: Flushed) -> float:
        """When the last request began that was given something flushed, in seconds after the acknowledgement."""
        return max((each.started for each in self.heard if flushed.has_flushed(each)), default=-float("inf")) - flushed.acknowledged

    async def _client(self, replica: int) -> None:
        order = itertools.cycle(self.asked[replica * 5 :] + self.asked[: replica * 5])
        while True:
            task = asyncio.create_task(self._ask(replica, next(order)))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            await asyncio.sleep(1 / self.rate)

    async def _ask(self, replica: int, question: Question) -> None:
        started = time.monotonic()
        kind, generation = await answer(self.session, self.urls[replica], question)
        self.heard.append(Heard(question, replica, started, time.monotonic(), kind, generation))


def judge(traffic: Traffic, *flushes: Flushed) -> None:
    """Nothing that was flushed was given, although it was in the caches before."""
    for flushed in flushes:
        assert traffic.forbidden(flushed) == []
    assert any(flushes[0].has_flushed(each) and each.is_hit for each in traffic.heard)


async def answer(session: aiohttp.ClientSession, url: str, question: Question) -> tuple[str, int | None]:
    """Kind and generation of one answer."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS), session.post(url + CHAT, json=question.body, headers=question.headers) as response:
            body = await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return "failed", None
    status = response.headers.get("Cache-Status", "")
    found, generation = _HIT.search(status) or _FORWARDED.search(status), _GENERATION.search(body)
    kind = "collapsed" if "collapsed" in status else found[1] if found else "failed"
    return kind, int(generation[1]) if generation else None
