"""A pod as the protocol knows it, played without the client that pods use: it asks, reads its source for the agent, and may die."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import urllib3

from inference_cache_artifacts.errors import ArtifactError, Transient
from inference_cache_artifacts.handover import protocol
from inference_cache_artifacts.handover.protocol import Ask, Failure, Job, Standing
from inference_cache_artifacts.manifest import Manifest
from inference_cache_artifacts.names import tree_name
from inference_cache_artifacts.source import Source

SOURCE = "s3://bucket/model"
WORKERS = 5
PIECE_BYTES = 64 << 10


class Died(Exception):
    """Amid a body."""


def ask_for(manifest: Manifest | None, version: str = "v1", holder: str = "", sources: tuple[str, ...] = (SOURCE,), **more: Any) -> Ask:
    pin = "" if manifest is None else manifest.digest
    return Ask(sources, tree_name(sources, version, pin), version, manifest, holder=holder, **more)


def _fetch_id(answer: urllib3.BaseHTTPResponse) -> str:
    assert answer.status == 201, answer.data
    return str(json.loads(answer.data)["fetch"])


@dataclass
class PlayedPod:
    url: str
    token: str = "token-a"
    dies_after: int | None = None
    """Bytes of files it has sent."""
    stands_still_after: int | None = None
    """Bytes of files, after which it sends nothing more until it leaves."""
    sent: int = 0
    dead: threading.Event = field(default_factory=threading.Event)
    http: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=WORKERS + 3, retries=False, timeout=60))
    jobs: list[Job] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def request(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {self.token}"} | dict(more.pop("headers", {}))
        return self.http.request(method, self.url + path, headers=headers, **more)

    def ask(self, ask: Ask) -> urllib3.BaseHTTPResponse:
        return self.request("POST", protocol.FETCHES, body=protocol.ask_text(ask).encode())

    def begin(self, ask: Ask) -> str:
        return _fetch_id(self.ask(ask))

    def standing(self, fetch: str) -> Standing:
        answer = self.request("GET", protocol.FETCH.format(fetch=fetch))
        assert answer.status == 200, answer.data
        return protocol.read_standing(answer.data)

    def fetched(self, ask: Ask, *sources: Source, seconds: float = 60.0) -> Standing:
        """How it ended."""
        answer = self.ask(ask)
        if answer.status == 200:
            return Standing("done")
        fetch = _fetch_id(answer)
        with self.at_work(fetch, *sources):
            return self.ended(fetch, seconds)

    def ended(self, fetch: str, seconds: float = 60.0) -> Standing:
        until = time.monotonic() + seconds
        while (standing := self.standing(fetch)).state == "running":
            assert time.monotonic() < until, standing
            time.sleep(0.02)
        return standing

    @contextmanager
    def at_work(self, fetch: str, *sources: Source) -> Iterator[None]:
        """Until the fetch ends, or the pod dies."""
        threads = [threading.Thread(target=self._work, args=(fetch, sources), daemon=True) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.dead.set()
            for thread in threads:
                thread.join(30)
            self.http.clear()

    def _work(self, fetch: str, sources: tuple[Source, ...]) -> None:
        while not self.dead.is_set():
            try:
                answer = self.request("GET", protocol.JOB.format(fetch=fetch))
                if answer.status in {404, 410}:
                    return
                if answer.status == 200:
                    self._carry_out(fetch, protocol.read_job(answer.data), sources)
            except (Died, urllib3.exceptions.HTTPError):
                self.dead.wait(0.05)

    def _carry_out(self, fetch: str, job: Job, sources: tuple[Source, ...]) -> None:
        self.jobs.append(job)
        try:
            self._answer(fetch, job, sources[job.source])
        except (ArtifactError, Transient) as error:
            told = Failure(type(error).__name__, str(error), getattr(error, "file", None))
            headers = {protocol.FAILURE_HEADER: told.reason}
            self.put(fetch, job.number, protocol.failure_text(told).encode(), headers)

    def _answer(self, fetch: str, job: Job, source: Source) -> None:
        if job.what == "listing":
            self.put(fetch, job.number, protocol.remotes_text(source.listing()).encode())
        elif job.what == "head":
            self.put(fetch, job.number, json.dumps(protocol.remote_fields(source.head(job.path))).encode())
        elif job.what == "read":
            self.put(fetch, job.number, source.read(job.path, job.limit))
        else:
            self.put(fetch, job.number, self._pieces(job, source))

    def put(self, fetch: str, number: int, body: object, headers: dict[str, str] | None = None) -> int:
        path = protocol.RESULT.format(fetch=fetch, number=number)
        return self.request("PUT", path, body=body, headers=headers or {}).status

    def _pieces(self, job: Job, source: Source) -> Iterator[bytes]:
        assert job.remote is not None
        buffer = memoryview(bytearray(PIECE_BYTES))
        with source.open(job.remote, job.start, job.end) as body:
            while count := body.readinto(buffer):
                self._count(count)
                yield bytes(buffer[:count])

    def _count(self, count: int) -> None:
        with self._lock:
            self.sent += count
            if self.dies_after is not None and self.sent > self.dies_after:
                self.dead.set()
            is_still = self.stands_still_after is not None and self.sent > self.stands_still_after
        if is_still:
            self.dead.wait()
        if self.dead.is_set():
            raise Died
