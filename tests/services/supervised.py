"""A supervised sidecar in front of the stand-in, and load on it whose answers are written down one by one."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from inference_cache_sidecar.settings import ADMIN, LISTEN, Address
from inference_cache_sidecar.supervisor.inheritance import INHERITED_VARIABLE, parse_inherited
from inference_cache_sidecar.supervisor.launching import SUPERVISOR_MODULE, bound
from inference_cache_sidecar.supervisor.plan import CONTROL_GROUPS, Front, Plan, plan_text
from inference_cache_sidecar.supervisor.shared_page import WorkerPage
from inference_cache_toolkit.processes import Child, free_port, stop

PROGRAM = Path(sys.executable).with_name("inference-cache")
QUESTIONS = 20
FIRST_ANSWER_SECONDS = 1.0
HITS_BACK_SECONDS = 3.0
SLACK = 5.0
"""Machines under test are shared: deadlines are this many times what is promised, and what was measured is printed."""


@dataclass(frozen=True)
class Supervised:
    child: Child
    url: str
    admin_url: str

    @property
    def pid(self) -> int:
        return self.child.process.pid

    def workers(self) -> list[int]:
        """Live ones, in the order of their start."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sorted(int(pid) for pid in children if alive(int(pid)))

    def page(self, worker: int) -> WorkerPage:
        """The one that this worker and the supervisor share."""
        variables = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        text = next(variable for variable in variables if variable.startswith(INHERITED_VARIABLE.encode() + b"="))
        inherited = parse_inherited(text.partition(b"=")[2].decode())
        assert inherited is not None
        descriptor = os.open(f"/proc/{worker}/fd/{inherited.page}", os.O_RDWR)
        try:
            return WorkerPage(descriptor, inherited.slot)
        finally:
            os.close(descriptor)


def say(text: str) -> None:
    """What was measured, for whoever reads the run."""
    sys.stdout.write(text + "\n")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def supervised(upstream: str, log: Path, control_groups: str = CONTROL_GROUPS, arguments: tuple[str, ...] = ()) -> Iterator[Supervised]:
    """As `inference-cache sidecar --supervise` makes it, with control groups of the test's choice. Not waited for."""
    addresses = {LISTEN: Address("127.0.0.1", free_port()), ADMIN: Address("127.0.0.1", free_port())}
    host, _, port = upstream.removeprefix("http://").partition(":")
    given = [(setting, address, bound(setting, address)) for setting, address in addresses.items()]
    fronts = tuple(Front(setting.flag[2:], sockets, (host, int(port)) if setting is LISTEN else None) for setting, _, sockets in given)
    told = [text for setting, address, _ in given for text in (setting.flag, str(address))]
    plan = Plan(fronts, (*told, "--upstream", upstream, "--semantic-mode", "Off", *arguments), control_groups=control_groups)
    descriptors = [descriptor for front in fronts for descriptor in front.descriptors]
    with log.open("wb") as sink:
        command = [sys.executable, "-P", "-m", SUPERVISOR_MODULE, plan_text(plan)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, pass_fds=descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    child = Child("supervisor", process, log)
    try:
        yield Supervised(child, f"http://{addresses[LISTEN]}", f"http://{addresses[ADMIN]}")
    finally:
        if process.poll() is None:
            stop(child, 60.0)


@dataclass(frozen=True)
class Answer:
    """One request's end. Times are of the monotonic clock."""

    began: float
    ended: float
    fresh: bool
    """On a new connection."""
    hit: bool
    failure: str | None

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Load:
    """Asks the same questions again and again, each second request on a new connection."""

    url: str
    a_second: float = 200.0
    answers: list[Answer] = field(default_factory=list)
    _asked: int = 0

    async def run(self) -> None:
        """Until it is cancelled; what is in flight then is waited for."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        async with aiohttp.ClientSession(connector=connector) as kept, asyncio.TaskGroup() as group:
            began = time.monotonic()
            try:
                while True:
                    due = began + self._asked / self.a_second
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    group.create_task(self._ask(kept if self._asked % 2 else None, self._asked % QUESTIONS))
                    self._asked += 1
            except asyncio.CancelledError:
                return

    async def _ask(self, kept: aiohttp.ClientSession | None, number: int) -> None:
        began, hit, failure = time.monotonic(), False, None
        try:
            if kept is not None:
                hit = await ask(kept, self.url, number)
            else:
                async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as own:
                    hit = await ask(own, self.url, number)
        except (aiohttp.ClientError, OSError) as error:
            failure = f"{type(error).__name__}: {error}"
        self.answers.append(Answer(began, time.monotonic(), kept is None, hit, failure))

    def failed(self, since: float = 0.0) -> list[Answer]:
        """Among those on new connections that began then or later."""
        return [answer for answer in self.answers if answer.failure is not None and answer.fresh and answer.began >= since]

    def first_answer_seconds(self, since: float) -> float:
        """From then on until a request on a new connection, begun after it, was answered."""
        return min(answer.ended for answer in self.answers if answer.fresh and answer.began >= since and answer.failure is None) - since

    def slowest_seconds(self, since: float) -> float:
        return max(answer.seconds for answer in self.answers if answer.fresh and answer.began >= since)

    def hits_back_seconds(self, since: float) -> float:
        return min(answer.ended for answer in self.answers if answer.hit and answer.began >= since) - since

    def percentile(self, share: float) -> float:
        """Seconds of hits."""
        times = sorted(answer.seconds for answer in self.answers if answer.hit)
        return times[int(share * (len(times) - 1))]


async def ask(session: aiohttp.ClientSession, url: str, number: int, **fields: object) -> bool:
    """Whether it was a hit. Raises ClientError for anything but an answer."""
    messages = [{"role": "user", "content": f"What is number {number}?"}]
    timeout = aiohttp.ClientTimeout(total=60)
    asked = {"model": "tiny", "messages": messages, "max_tokens": 4, **fields}
    async with session.post(url + "/v1/chat/completions", json=asked, timeout=timeout) as answer:
        body = await answer.read()
        if answer.status != 200 or (not fields.get("stream") and "choices" not in json.loads(body)):
            raise aiohttp.ClientPayloadError(f"status {answer.status}")
        return "; hit" in answer.headers.get("Cache-Status", "")


async def hits(url: str, seconds: float = 150.0) -> None:
    """Wait until a question is answered from the cache."""

    async def hit() -> bool:
        async with aiohttp.ClientSession() as session:
            with suppress(aiohttp.ClientError, OSError):
                return await ask(session, url, 0)
        return False

    await until(hit, seconds)


async def until(so: Callable[[], object], seconds: float) -> None:
    """Poll; `so` may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            found = so()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.05)
